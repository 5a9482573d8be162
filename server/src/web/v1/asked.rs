//! What of a request has to be understood here: which model, whether it is streamed, and how much it may use at most. The rest goes
//! to the provider as it came.

use std::fmt;

use bytes::Bytes;
use gateway::{Endpoint, Model, Part};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};

use super::ApiError;

/// A model's name is no essay.
const LONGEST_NAME: usize = 200;
/// More answers to one question than any provider gives.
const MOST_ANSWERS: u32 = 128;
/// A large picture in a question.
/// <https://platform.openai.com/docs/guides/images-vision#calculating-costs>
const PICTURE_TOKENS: i64 = 1600;
/// The dearest picture that a model paints by tokens.
/// <https://platform.openai.com/docs/guides/image-generation#cost-and-latency>
const PAINTED_TOKENS: u32 = 6240;

/// A request as far as it concerns us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub alias: String,
    pub stream: bool,
    /// Bound of each answer that the request sets; of several the largest, since nobody knows which of them holds.
    bound: Option<u32>,
    /// How many answers, or pictures, are asked for.
    pub n: u32,
    /// Tokens before the answer, at most.
    pub tokens: i64,
}

/// Fields of all endpoints together; each has some of them. Unknown ones are skipped without being kept.
#[derive(Deserialize)]
struct Fields {
    model: Option<String>,
    stream: Option<bool>,
    n: Option<u32>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
    background: Option<bool>,
    stream_format: Option<String>,
}

impl Fields {
    fn bound(&self, endpoint: Endpoint) -> Option<u32> {
        let said = |name: &&str| match *name {
            "max_tokens" => self.max_tokens,
            "max_completion_tokens" => self.max_completion_tokens,
            "max_output_tokens" => self.max_output_tokens,
            _ => None,
        };
        endpoint.bounds().iter().filter_map(said).max()
    }

    /// Responses and all that is not made word by word know no `n`.
    fn answers(&self, endpoint: Endpoint) -> Result<u32, ApiError> {
        match self.n.unwrap_or(1) {
            n if n > MOST_ANSWERS => Err(ApiError::invalid(
                Some("n"),
                format!("You can ask for {MOST_ANSWERS} answers at most."),
            )),
            n if matches!(endpoint, Endpoint::Chat | Endpoint::Images) => Ok(n.max(1)),
            _ => Ok(1),
        }
    }
}

impl Asked {
    /// Of a JSON body.
    pub fn json(body: &Bytes, endpoint: Endpoint) -> Result<Self, ApiError> {
        let fields: Fields = serde_json::from_slice(body).map_err(|error| unparsed(&error))?;
        if fields.background == Some(true) {
            // Its end would come when nobody is there any more who could bill it.
            return Err(ApiError::invalid(
                Some("background"),
                "Background responses are not supported.",
            ));
        }
        let tokens = weigh(body).map_err(|error| unparsed(&error))?;
        Ok(Self {
            bound: fields.bound(endpoint),
            n: fields.answers(endpoint)?,
            stream: fields.stream.unwrap_or(false) || fields.stream_format.as_deref() == Some("sse"),
            alias: named(fields.model)?,
            tokens,
        })
    }

    /// Of a form with a recording in it: a second of it is a kilobyte at least, and ten tokens.
    pub fn form(parts: &[Part]) -> Result<Self, ApiError> {
        let text = |name: &str| {
            let part = parts.iter().find(|part| part.name == name)?;
            String::from_utf8(part.data.to_vec()).ok()
        };
        let bytes: usize = parts.iter().map(|part| part.data.len()).sum();
        Ok(Self {
            alias: named(text("model"))?,
            stream: text("stream").as_deref() == Some("true"),
            bound: None,
            n: 1,
            tokens: i64::try_from(bytes).unwrap_or(i64::MAX) / 100 + 1,
        })
    }

    pub fn images(&self, endpoint: Endpoint) -> i64 {
        if endpoint == Endpoint::Images { self.n.into() } else { 0 }
    }

    /// The bound to send on, of each answer: what was set aside for it (`reserved` is for all of them), unless the program itself
    /// asks for no more.
    pub fn bound(&self, reserved: u32) -> Option<u32> {
        let share = (reserved / self.n).max(1);
        self.bound.is_none_or(|bound| bound > share).then_some(share)
    }

    /// The most tokens that all answers together may have. A request that sets no bound of its own may get the longest answer that the
    /// model gives.
    pub fn answer(&self, endpoint: Endpoint, model: &Model) -> u32 {
        match endpoint {
            Endpoint::Chat | Endpoint::Responses => {
                let longest = model.max_answer_tokens.max(1);
                self.bound
                    .map_or(longest, |bound| bound.min(longest))
                    .saturating_mul(self.n)
            }
            Endpoint::Images => PAINTED_TOKENS.min(model.max_answer_tokens).saturating_mul(self.n),
            Endpoint::Embeddings | Endpoint::Transcriptions | Endpoint::Translations | Endpoint::Speech => 0,
        }
    }
}

fn unparsed(error: &serde_json::Error) -> ApiError {
    let what = if error.is_data() {
        "a field has a type that it cannot have"
    } else {
        "it is not valid JSON"
    };
    ApiError::invalid(None, format!("We could not parse the body of your request: {what}."))
}

fn named(model: Option<String>) -> Result<String, ApiError> {
    match model {
        Some(name) if !name.is_empty() && name.len() <= LONGEST_NAME => Ok(name),
        _ => Err(ApiError::invalid(Some("model"), "You must provide a model parameter.")),
    }
}

/// The tokens that a body may make, and hardly ever fewer: one for every three bytes of text and for every number, and a picture's, also
/// where only its address is given. Far cheaper than counting them, and nothing of the body is copied.
fn weigh(body: &[u8]) -> Result<i64, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(body);
    Weigher { may_be_picture: false }.deserialize(&mut json)
}

#[derive(Clone, Copy)]
struct Weigher {
    /// The field holds an address, and no text that a model reads.
    may_be_picture: bool,
}

impl<'de> DeserializeSeed<'de> for Weigher {
    type Value = i64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<i64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn words(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX) / 3 + 1
}

/// The name of a field: its weight, and how its value is weighed.
struct FieldName(i64, Weigher);

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let may_be_picture = matches!(&*name, "url" | "image_url");
        Ok(Self(words(&name), Weigher { may_be_picture }))
    }
}

impl<'de> Visitor<'de> for Weigher {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<i64, E> {
        Ok(0)
    }

    fn visit_bool<E>(self, _: bool) -> Result<i64, E> {
        Ok(1)
    }

    fn visit_i64<E>(self, _: i64) -> Result<i64, E> {
        Ok(1)
    }

    fn visit_u64<E>(self, _: u64) -> Result<i64, E> {
        Ok(1)
    }

    fn visit_f64<E>(self, _: f64) -> Result<i64, E> {
        Ok(1)
    }

    fn visit_str<E>(self, text: &str) -> Result<i64, E> {
        let words = words(text);
        Ok(if !self.may_be_picture {
            words
        } else if text.starts_with("data:image/") {
            PICTURE_TOKENS
        } else {
            words.max(PICTURE_TOKENS)
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<i64, A::Error> {
        let mut sum = 0_i64;
        while let Some(weight) = values.next_element_seed(Self { may_be_picture: false })? {
            sum = sum.saturating_add(weight);
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<i64, A::Error> {
        let mut sum = 0_i64;
        while let Some(FieldName(name, weigher)) = fields.next_key()? {
            let value = fields.next_value_seed(weigher)?;
            sum = sum.saturating_add(name).saturating_add(value);
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(endpoint: Endpoint, body: &'static str) -> Result<Asked, ApiError> {
        Asked::json(&Bytes::from_static(body.as_bytes()), endpoint)
    }

    fn json(body: &'static str) -> Result<Asked, ApiError> {
        json_of(Endpoint::Chat, body)
    }

    #[test]
    fn only_what_concerns_us_is_read() {
        let asked = json(r#"{"model":"m","stream":true,"n":2,"max_tokens":10,"messages":[{"role":"user","content":[{"x":1}]}],"new":{}}"#).unwrap();
        assert_eq!((asked.alias.as_str(), asked.stream), ("m", true));
        let model = Model::named("gpt-4o");
        assert_eq!(asked.answer(Endpoint::Chat, &model), 20);
        assert_eq!(asked.answer(Endpoint::Embeddings, &model), 0);
        let longest = model.max_answer_tokens;
        let longer = json_of(
            Endpoint::Responses,
            r#"{"model":"m","max_output_tokens":4000000000,"n":2}"#,
        )
        .unwrap();
        assert_eq!(longer.answer(Endpoint::Responses, &model), longest);
        let painted = json_of(Endpoint::Images, r#"{"model":"m","n":3}"#).unwrap();
        assert_eq!(
            (painted.images(Endpoint::Images), painted.images(Endpoint::Chat)),
            (3, 0)
        );
        for bad in [
            "",
            "{",
            "[]",
            r#"{"model":7}"#,
            "{}",
            r#"{"model":""}"#,
            r#"{"model":"m","background":true}"#,
            r#"{"model":"m","n":129}"#,
            r#"{"model":"m","max_tokens":1,"max_tokens":9}"#,
        ] {
            assert_eq!(json(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn what_is_set_aside_is_what_is_sent_on() {
        let model = Model::named("gpt-4o");
        let longest = model.max_answer_tokens;
        for (endpoint, body, reserved, sent) in [
            (Endpoint::Chat, r#"{"model":"m"}"#, longest, Some(longest)),
            (
                Endpoint::Chat,
                r#"{"model":"m","max_tokens":100000}"#,
                longest,
                Some(longest),
            ),
            (Endpoint::Chat, r#"{"model":"m","max_tokens":10}"#, 10, None),
            (Endpoint::Chat, r#"{"model":"m","max_tokens":10,"n":3}"#, 30, None),
            (
                Endpoint::Chat,
                r#"{"model":"m","max_tokens":90,"max_completion_tokens":5}"#,
                90,
                None,
            ),
            (
                Endpoint::Chat,
                r#"{"model":"m","max_output_tokens":1}"#,
                longest,
                Some(longest),
            ),
            (
                Endpoint::Responses,
                r#"{"model":"m","max_tokens":1}"#,
                longest,
                Some(longest),
            ),
            (Endpoint::Responses, r#"{"model":"m","max_output_tokens":7}"#, 7, None),
        ] {
            let asked = json_of(endpoint, body).unwrap();
            let answer = asked.answer(endpoint, &model);
            assert_eq!((answer, asked.bound(answer)), (reserved, sent), "{body}");
        }
        // A budget that pays for less is shared by the answers.
        let asked = json(r#"{"model":"m","max_tokens":10,"n":3}"#).unwrap();
        assert_eq!(asked.bound(15), Some(5));
    }

    #[test]
    fn a_body_weighs_at_least_what_it_says_and_a_picture_what_a_picture_costs() {
        let weight = |body: &str| weigh(body.as_bytes()).unwrap();
        let russian = "Привет, как дела? ".repeat(20);
        assert!(weight(&format!("[{russian:?}]")) >= i64::from(gateway::count_tokens(&russian)));
        assert_eq!(weight("[1,2,3]"), 3);
        let picture = format!("data:image/png;base64,{}", "A".repeat(1_000_000));
        assert_eq!(weight(&format!(r#"{{"url":"{picture}"}}"#)), 2 + PICTURE_TOKENS);
        assert_eq!(
            weight(r#"{"image_url":"https://example.org/p.png"}"#),
            4 + PICTURE_TOKENS
        );
        // In the place of text it is text.
        assert!(weight(&format!(r#"{{"content":"{picture}"}}"#)) > 300_000);
        assert_eq!(weight(r#"{"abc":null}"#), 2);
    }

    #[test]
    fn the_model_of_a_form_stands_beside_its_file() {
        let part = |name: &str, data: &'static [u8]| Part {
            name: name.to_owned(),
            file_name: None,
            content_type: None,
            data: Bytes::from_static(data),
        };
        let asked = Asked::form(&[part("file", b"\xff\x00"), part("model", b"whisper-1")]).unwrap();
        assert_eq!((asked.alias.as_str(), asked.tokens), ("whisper-1", 1));
        assert!(Asked::form(&[part("file", b"")]).is_err() && Asked::form(&[part("model", b"\xff")]).is_err());
    }
}
