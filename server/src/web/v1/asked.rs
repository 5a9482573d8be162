//! What of a request has to be understood here: which model, whether it is streamed, and how much it may use at most. The rest goes
//! to the provider as it came.

use std::fmt;

use bytes::Bytes;
use gateway::{Endpoint, Model, Part};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
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
    /// Bound of each answer that the request sets.
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
}

impl Asked {
    /// Of a JSON body.
    pub fn json(body: &Bytes) -> Result<Self, ApiError> {
        let fields: Fields = serde_json::from_slice(body).map_err(|error| unparsed(&error))?;
        if fields.background == Some(true) {
            // Its end would come when nobody is there any more who could bill it.
            return Err(ApiError::invalid(
                Some("background"),
                "Background responses are not supported.",
            ));
        }
        let Weight(tokens) = serde_json::from_slice(body).map_err(|error| unparsed(&error))?;
        Ok(Self {
            alias: named(fields.model)?,
            stream: fields.stream.unwrap_or(false),
            bound: fields
                .max_completion_tokens
                .or(fields.max_output_tokens)
                .or(fields.max_tokens),
            n: fields.n.unwrap_or(1).clamp(1, MOST_ANSWERS),
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
struct Weight(i64);

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Weigher)
    }
}

struct Weigher;

impl<'de> Visitor<'de> for Weigher {
    type Value = Weight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Weight, E> {
        Ok(Weight(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Weight, E> {
        Ok(Weight(1))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Weight, E> {
        Ok(Weight(1))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Weight, E> {
        Ok(Weight(1))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Weight, E> {
        Ok(Weight(1))
    }

    fn visit_str<E>(self, text: &str) -> Result<Weight, E> {
        let words = i64::try_from(text.len()).unwrap_or(i64::MAX) / 3 + 1;
        Ok(Weight(if text.starts_with("data:image/") {
            PICTURE_TOKENS
        } else if text.starts_with("https://") || text.starts_with("http://") {
            words.max(PICTURE_TOKENS)
        } else {
            words
        }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Weight, A::Error> {
        let mut sum = 0_i64;
        while let Some(Weight(weight)) = values.next_element()? {
            sum = sum.saturating_add(weight);
        }
        Ok(Weight(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Weight, A::Error> {
        let mut sum = 0_i64;
        while let Some((Weight(name), Weight(value))) = fields.next_entry()? {
            sum = sum.saturating_add(name).saturating_add(value);
        }
        Ok(Weight(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &'static str) -> Result<Asked, ApiError> {
        Asked::json(&Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn only_what_concerns_us_is_read() {
        let asked = json(r#"{"model":"m","stream":true,"n":2,"max_tokens":10,"messages":[{"role":"user","content":[{"x":1}]}],"new":{}}"#).unwrap();
        assert_eq!((asked.alias.as_str(), asked.stream), ("m", true));
        let model = Model::named("gpt-4o");
        assert_eq!(asked.answer(Endpoint::Chat, &model), 20);
        assert_eq!(asked.answer(Endpoint::Embeddings, &model), 0);
        let longest = model.max_answer_tokens;
        let longer = json(r#"{"model":"m","max_output_tokens":4000000000}"#).unwrap();
        assert_eq!(longer.answer(Endpoint::Responses, &model), longest);
        assert_eq!(json(r#"{"model":"m","n":1000000}"#).unwrap().n, MOST_ANSWERS);
        let painted = json(r#"{"model":"m","n":3}"#).unwrap();
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
        ] {
            assert_eq!(json(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn a_body_weighs_at_least_what_it_says_and_a_picture_what_a_picture_costs() {
        let weight = |body: &str| {
            let Weight(weight) = serde_json::from_str(body).unwrap();
            weight
        };
        let russian = "Привет, как дела? ".repeat(20);
        assert!(weight(&format!("[{russian:?}]")) >= i64::from(gateway::count_tokens(&russian)));
        assert_eq!(weight("[1,2,3]"), 3);
        let picture = format!(r#"["data:image/png;base64,{}"]"#, "A".repeat(1_000_000));
        assert_eq!(weight(&picture), PICTURE_TOKENS);
        assert_eq!(weight(r#"["https://example.org/p.png"]"#), PICTURE_TOKENS);
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
