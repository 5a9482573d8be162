use domain::ErrorCode;
use gateway::{Role, count_tokens, estimate_prompt};
use services::{Change, Ended, Reply};

use crate::app::{App, model, rich};

/// What the model would see with the next message.
async fn seen(app: &App, user: i64, persona: &str) -> Vec<(Role, String)> {
    let (job, incoming) = app.job(user, user, "and now?").await;
    let known = app.chats().meet(&incoming).await.unwrap();
    let begun = app.chats().begin(&job, &incoming, &known, persona, None).await.unwrap();
    let services::Begin::Ask(question) = begun else {
        panic!("{begun:?}")
    };
    assert!(
        app.queue()
            .end(
                &job,
                Ended::Dead {
                    error: "only looked".to_owned()
                }
            )
            .await
            .unwrap()
    );
    question
        .request
        .messages
        .into_iter()
        .map(|turn| (turn.role, turn.text))
        .collect()
}

async fn reply(app: &App, user: i64, text: &str, code: Option<ErrorCode>, change: Change) {
    let (job, incoming) = app.job(user, user, text).await;
    let known = app.chats().meet(&incoming).await.unwrap();
    let parts = [rich("done")];
    let reply = Reply {
        text: "done",
        parts: &parts,
        code,
        change,
    };
    assert!(app.chats().reply(&job, &incoming, &known, reply).await.unwrap());
    assert!(app.queue().end(&job, Ended::Done).await.unwrap());
    app.clock.advance(chrono::TimeDelta::seconds(1));
}

#[tokio::test]
async fn the_model_sees_persona_and_talk_in_order_but_no_commands_and_refusals() {
    let app = App::new().await;
    app.talk(7, "my name is Anna", "hello Anna").await;
    reply(&app, 7, "/usage", None, Change::None).await;
    reply(&app, 7, "too much", Some(ErrorCode::LimitDay), Change::None).await;
    app.talk(7, "what is my name?", "Anna").await;
    app.talk(8, "a secret of somebody else", "noted").await;
    let expected = [
        (Role::System, "Be kind."),
        (Role::User, "my name is Anna"),
        (Role::Assistant, "hello Anna"),
        (Role::User, "what is my name?"),
        (Role::Assistant, "Anna"),
        (Role::User, "and now?"),
    ];
    assert_eq!(
        seen(&app, 7, "Be kind.").await,
        expected.map(|(role, text)| (role, text.to_owned()))
    );
}

#[tokio::test]
async fn new_empties_the_context_and_keeps_the_model() {
    let mut other = model();
    other.name = "other".to_owned();
    let app = App::with_models(vec![model(), other]).await;
    app.talk(7, "my name is Anna", "hello Anna").await;
    reply(&app, 7, "/model other", None, Change::Model("other".to_owned())).await;
    let before = app.user(7).await;
    reply(&app, 7, "/new", None, Change::Renew).await;
    let after = app.user(7).await;
    assert_ne!(after.conversation, before.conversation);
    assert_eq!(app.chats().model(&after, None).unwrap().name, "other");
    assert_eq!(seen(&app, 7, "").await.len(), 2, "only persona and question");
    // Support still reads what was said before.
    let actor = app.owner().await;
    let old = app
        .conversations()
        .transcript(&actor, before.conversation, None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(old.messages[0].text, "my name is Anna");
    assert!(!old.conversation.current);
}

#[tokio::test]
async fn a_model_that_is_no_longer_offered_counts_as_unset() {
    let app = App::new().await;
    app.talk(7, "hi", "hello").await;
    reply(&app, 7, "/model retired", None, Change::Model("retired".to_owned())).await;
    let known = app.user(7).await;
    assert_eq!(known.model.as_deref(), Some("retired"));
    assert_eq!(
        app.chats().model(&known, Some("gone as well")).unwrap().name,
        crate::app::MODEL
    );
}

#[tokio::test]
async fn prompt_and_answer_always_fit_the_context_of_the_model() {
    let mut small = model();
    small.context_tokens = 4000;
    let app = App::with_models(vec![small.clone()]).await;
    let known = app.user(7).await;
    // Many short messages: what the provider wraps around each of them counts as well.
    app.test
        .run(&format!(
            "INSERT INTO messages (id, created_at, conversation_id, author, text, tokens, in_context, job_id)
             SELECT gen_random_uuid(), now() - n * interval '1 millisecond', '{}', 'user', 'one two three four five six seven eight nine ten', 10, true,
                    gen_random_uuid() FROM generate_series(1, 500) AS n",
            known.conversation
        ))
        .await;
    assert_eq!(count_tokens("one two three four five six seven eight nine ten"), 10);
    for persona in ["short".to_owned(), "a persona of many words ".repeat(200)] {
        let (job, incoming) = app.job(7, 7, "and now?").await;
        let known = app.chats().meet(&incoming).await.unwrap();
        let begun = app
            .chats()
            .begin(&job, &incoming, &known, &persona, None)
            .await
            .unwrap();
        let services::Begin::Ask(question) = begun else {
            panic!("{begun:?}")
        };
        let all = estimate_prompt(&question.request.messages) + question.request.max_tokens;
        assert!(
            all <= small.context_tokens,
            "{all} tokens for a context of {}",
            small.context_tokens
        );
        assert!(question.request.messages.len() > 50, "hardly any history was shown");
        assert!(app.queue().end(&job, Ended::Done).await.unwrap());
    }
}
