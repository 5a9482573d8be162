//! The model of a deck without a key: says that it is a demo, so that everything else can be tried for real.

use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};

use crate::{
    ChatRequest, Chunk, ChunkStream, GatewayError, Model, Provider, Role, Usage, count_tokens, error::bounded,
    estimate_prompt,
};

pub(crate) const NAME: &str = "demo";
const BETWEEN_WORDS: Duration = Duration::from_millis(25);
const QUOTED_CHARS: usize = 200;
const LONG_WORDS: usize = 600;

/// The built-in provider. Costs nothing, needs no network, and says so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demo;

impl Demo {
    pub fn new() -> Self {
        Self
    }

    /// Its one model, free of charge.
    pub fn models() -> Vec<Model> {
        vec![Model {
            context_tokens: 8_192,
            max_answer_tokens: 2_048,
            ..Model::named(NAME)
        }]
    }
}

#[async_trait]
impl Provider for Demo {
    fn name(&self) -> &str {
        NAME
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChunkStream, GatewayError> {
        let said = request.messages.iter().rev().find(|turn| turn.role == Role::User);
        let text = answer_to(said.map_or("", |turn| turn.text.as_str()));
        let usage = Usage {
            prompt_tokens: i64::from(estimate_prompt(&request.messages)),
            completion_tokens: i64::from(count_tokens(&text)),
            ..Usage::default()
        };
        let words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        let words = stream::iter(words).then(|word| async move {
            tokio::time::sleep(BETWEEN_WORDS).await;
            Ok(Chunk::Text(word))
        });
        let end = stream::iter([Ok(Chunk::Finish("stop".into())), Ok(Chunk::Usage(usage))]);
        Ok(words.chain(end).boxed())
    }

    async fn probe(&self, _model: &str) -> Result<(), GatewayError> {
        Ok(())
    }

    async fn list_models(&self) -> Result<(), GatewayError> {
        Ok(())
    }
}

/// The answer, in Russian to whoever writes in Cyrillic.
fn answer_to(said: &str) -> String {
    let russian = said.chars().any(|c| ('\u{0400}'..='\u{04ff}').contains(&c));
    let lower = said.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric());
    let long = words
        .any(|word| word == "long" || word == "longer" || word.starts_with("длинн") || word.starts_with("подробн"));
    let quote = bounded(said, QUOTED_CHARS);
    let mut text = if russian {
        format!(
            "**Это демонстрационная модель Botdeck.** Ключ провайдера не задан, поэтому отвечает не настоящая нейросеть, \
             а встроенная заглушка. Вы написали:\n\n> {quote}\n\n\
             Чтобы отвечала настоящая модель, задайте ключ и перезапустите:\n\n\
             ```bash\nexport OPENAI_API_KEY=sk-...\nbin/run\n```\n\n\
             Всё остальное здесь настоящее: очередь, лимиты, учёт и журнал."
        )
    } else {
        format!(
            "**This is Botdeck's demo model.** No provider key is set, so no real AI is answering, only a built-in \
             stand-in. You wrote:\n\n> {quote}\n\n\
             To get a real model, set a key and start again:\n\n\
             ```bash\nexport OPENAI_API_KEY=sk-...\nbin/run\n```\n\n\
             Everything else here is real: the queue, the limits, the accounting and the audit."
        )
    };
    if long {
        lengthen(&mut text, russian);
    }
    text
}

/// Goes on to some 600 words, long enough to try `/stop` on.
fn lengthen(text: &mut String, russian: bool) {
    let mut words = text.split_whitespace().count();
    for number in 1.. {
        if words >= LONG_WORDS {
            return;
        }
        let paragraph = if russian {
            format!(
                "\n\n{number}. Вы просили длинный ответ, и он продолжается. Пока слова приходят одно за другим, отправьте /stop: \
                 генерация прервётся, а учтено будет только то, что уже написано."
            )
        } else {
            format!(
                "\n\n{number}. You asked for a long answer, so it goes on. While the words arrive one by one, send /stop: \
                 the answer ends there, and only what has been written is counted."
            )
        };
        words += paragraph.split_whitespace().count();
        text.push_str(&paragraph);
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{Catalogue, Deadlines, Finish, Gateway, Turn};

    fn request(text: &str) -> ChatRequest {
        let turn = Turn {
            role: Role::User,
            text: text.into(),
        };
        ChatRequest {
            model: NAME.into(),
            messages: vec![turn],
            max_tokens: 100,
            user: "u".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_that_it_is_a_demo_and_costs_nothing() {
        let gateway = Gateway::new(
            Catalogue::from_settings(std::sync::Arc::new(Demo::new()), Demo::models()),
            Deadlines::default(),
        );
        let mut updates = 0;
        let answer = gateway
            .answer(&request("hello there"), &CancellationToken::new(), |_| updates += 1)
            .await;
        assert!(gateway.is_demo() && answer.text.contains("demo model") && answer.text.contains("> hello there"));
        assert!(answer.text.contains("```bash\n") && updates > 30);
        assert_eq!(answer.finish, Finish::Complete("stop".into()));
        assert_eq!(answer.usage.completion_tokens, i64::from(count_tokens(&answer.text)));
        assert!(answer.usage_reported && answer.cost == domain::Money::ZERO);
    }

    #[test]
    fn it_answers_in_the_language_of_the_question_and_at_the_length_asked_for() {
        assert!(answer_to("привет").contains("демонстрационная"));
        assert!(answer_to("").contains("demo model"));
        for question in ["tell me a long story", "Расскажи длинную историю"] {
            let words = answer_to(question).split_whitespace().count();
            assert!((600..650).contains(&words), "{words} words");
        }
        assert!(answer_to("belong").split_whitespace().count() < 100);
        assert!(answer_to(&"x\n".repeat(5000)).len() < 1000);
    }
}
