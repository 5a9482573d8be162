//! What of a request has to be understood here: which model, whether it is streamed, and how much it may use at most. The rest goes
//! to the provider as it came.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use gateway::{ByDetail, Endpoint, Model, Offer, Part};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use super::ApiError;

/// A model's name is no essay.
const LONGEST_NAME: usize = 200;
/// More answers to one question than any provider gives.
const MOST_ANSWERS: u32 = 128;
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
    /// What is there before the answer, at most.
    weight: Weight,
    /// Tokens of sound that a text makes when it is spoken.
    spoken: u32,
    /// The answer may be sound.
    speaks: bool,
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
    /// Of responses; of pictures it is a colour.
    background: Option<Value>,
    stream_format: Option<String>,
    modalities: Option<Vec<String>>,
}

/// What is to be spoken.
#[derive(Deserialize)]
struct Spoken<'a> {
    #[serde(borrow)]
    input: Cow<'a, str>,
}

impl Spoken<'_> {
    /// A second of sound is 20.8 tokens (`gpt-4o-mini-tts`: $12 a million of them and $0.015 a minute,
    /// <https://platform.openai.com/docs/models/gpt-4o-mini-tts>) and 15 characters of text (4,096 made 268 s,
    /// <https://www.s-anand.net/blog/openai-tts-cost/>): seven tokens for five characters.
    fn tokens(&self) -> u32 {
        let characters = u32::try_from(self.input.chars().count()).unwrap_or(u32::MAX);
        characters.saturating_mul(7).div_ceil(5)
    }
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
        if endpoint == Endpoint::Responses && fields.background == Some(Value::Bool(true)) {
            // Its end would come when nobody is there any more who could bill it.
            return Err(ApiError::invalid(
                Some("background"),
                "Background responses are not supported.",
            ));
        }
        let spoken = match endpoint {
            Endpoint::Speech => serde_json::from_slice::<Spoken<'_>>(body).map_or(0, |text| text.tokens()),
            _ => 0,
        };
        let says_sound = fields.modalities.iter().flatten().any(|kind| kind == "audio");
        Ok(Self {
            bound: fields.bound(endpoint),
            n: fields.answers(endpoint)?,
            stream: fields.stream.unwrap_or(false) || fields.stream_format.as_deref() == Some("sse"),
            alias: named(fields.model)?,
            weight: weigh(body).map_err(|error| unparsed(&error))?,
            spoken,
            speaks: says_sound || endpoint == Endpoint::Speech,
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
            weight: Weight::text(i64::try_from(bytes).unwrap_or(i64::MAX) / 100 + 1),
            spoken: 0,
            speaks: false,
        })
    }

    /// Tokens before the answer, at most, whoever of those behind the name is asked.
    pub fn tokens(&self, offer: &Offer) -> i64 {
        self.weight.text.saturating_add(offer.picture.of(self.weight.pictures))
    }

    /// The answer may be sound.
    pub fn speaks(&self) -> bool {
        self.speaks
    }

    /// Tokens of sound that its text makes.
    pub fn spoken(&self) -> i64 {
        self.spoken.into()
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
            Endpoint::Speech => self.spoken,
            // Nobody says more words in a second than the ten tokens that its sound has.
            Endpoint::Transcriptions | Endpoint::Translations => u32::try_from(self.weight.text)
                .map_or(model.max_answer_tokens, |sound| sound.min(model.max_answer_tokens)),
            Endpoint::Embeddings => 0,
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

/// The tokens that a body may make, and hardly ever fewer: one for every three bytes of text and for every number; and its pictures, also
/// where only an address is given. Far cheaper than counting them, and nothing of the body is copied.
fn weigh(body: &[u8]) -> Result<Weight, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(body);
    Weigher::Text.deserialize(&mut json)
}

/// What a part of a body weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    /// In tokens.
    text: i64,
    pictures: ByDetail,
    /// Pictures whose detail stands beside them.
    open: i64,
    detail: Option<Detail>,
    /// What is around it is a picture.
    is_picture: bool,
}

/// Of several that are said, the last in this order may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Detail {
    Low,
    High,
    Auto,
}

impl Weight {
    fn text(text: i64) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        self.text = self.text.saturating_add(other.text);
        self.pictures.low += other.pictures.low;
        self.pictures.high += other.pictures.high;
        self.pictures.auto += other.pictures.auto;
        self.open += other.open;
        self.detail = self.detail.max(other.detail);
        self.is_picture |= other.is_picture;
    }

    /// All that stands together has been read.
    fn closed(mut self) -> Self {
        if self.is_picture {
            // Also one of which only the id of its file is said.
            self.open = self.open.max(1);
        }
        match self.detail.unwrap_or(Detail::Auto) {
            Detail::Low => self.pictures.low += self.open,
            Detail::High => self.pictures.high += self.open,
            Detail::Auto => self.pictures.auto += self.open,
        }
        (self.open, self.detail, self.is_picture) = (0, None, false);
        self
    }
}

/// By the name of its field.
#[derive(Clone, Copy)]
enum Weigher {
    Text,
    /// It may be the address of a picture, and no text that a model reads.
    Address,
    Detail,
    Type,
}

impl<'de> DeserializeSeed<'de> for Weigher {
    type Value = Weight;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Weight, D::Error> {
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
        let name = Cow::<str>::deserialize(deserializer)?;
        let weigher = match &*name {
            "url" | "image_url" => Weigher::Address,
            "detail" => Weigher::Detail,
            "type" => Weigher::Type,
            _ => Weigher::Text,
        };
        Ok(Self(words(&name), weigher))
    }
}

impl<'de> Visitor<'de> for Weigher {
    type Value = Weight;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Weight, E> {
        Ok(Weight::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Weight, E> {
        Ok(Weight::text(1))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Weight, E> {
        Ok(Weight::text(1))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Weight, E> {
        Ok(Weight::text(1))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Weight, E> {
        Ok(Weight::text(1))
    }

    fn visit_str<E>(self, text: &str) -> Result<Weight, E> {
        let mut weight = Weight::default();
        match self {
            Self::Address if text.starts_with("data:image/") => weight.open = 1,
            Self::Address => (weight.text, weight.open) = (words(text), 1),
            Self::Text => weight.text = words(text),
            Self::Type => (weight.text, weight.is_picture) = (words(text), text == "input_image"),
            Self::Detail => {
                weight.text = words(text);
                weight.detail = Some(match text {
                    "low" => Detail::Low,
                    "high" => Detail::High,
                    _ => Detail::Auto,
                });
            }
        }
        Ok(weight)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Weight, A::Error> {
        let mut sum = Weight::default();
        while let Some(weight) = values.next_element_seed(Self::Text)? {
            sum.add(weight);
        }
        Ok(sum)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Weight, A::Error> {
        let mut sum = Weight::default();
        while let Some(FieldName(name, weigher)) = fields.next_key()? {
            sum.add(Weight::text(name));
            sum.add(fields.next_value_seed(weigher)?);
        }
        Ok(sum.closed())
    }
}

#[cfg(test)]
mod tests {
    use gateway::Price;

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
            r#"{"model":"m","n":129}"#,
            r#"{"model":"m","max_tokens":1,"max_tokens":9}"#,
        ] {
            assert_eq!(json(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn only_a_response_that_runs_in_the_background_is_refused() {
        let background = r#"{"model":"m","background":true}"#;
        assert_eq!(
            json_of(Endpoint::Responses, background).unwrap_err().param,
            Some("background")
        );
        for (endpoint, body) in [
            (Endpoint::Images, r#"{"model":"m","background":"transparent"}"#),
            (Endpoint::Images, background),
            (Endpoint::Responses, r#"{"model":"m","background":false}"#),
            (Endpoint::Responses, r#"{"model":"m","background":null}"#),
            (Endpoint::Chat, r#"{"model":"m","background":{"any":[1]}}"#),
        ] {
            assert!(json_of(endpoint, body).is_ok(), "{body}");
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
    fn sound_is_set_aside_by_the_length_of_its_text_and_text_by_the_length_of_its_sound() {
        let model = Model {
            max_answer_tokens: 1000,
            ..Model::named("any")
        };
        let speech = json_of(
            Endpoint::Speech,
            r#"{"model":"m","voice":"alloy","input":"\u041f\u0440\u0438\u0432\u0435\u0442 you"}"#,
        )
        .unwrap();
        // Ten characters are fourteen tokens.
        assert_eq!((speech.answer(Endpoint::Speech, &model), speech.spoken()), (14, 14));
        assert!(speech.speaks());
        let heard = |bytes| {
            let part = |name: &str, data: Vec<u8>| Part {
                name: name.to_owned(),
                file_name: None,
                content_type: None,
                data: Bytes::from(data),
            };
            let asked = Asked::form(&[part("model", b"m".to_vec()), part("file", vec![0; bytes])]).unwrap();
            asked.answer(Endpoint::Transcriptions, &model)
        };
        assert_eq!((heard(10_000), heard(1_000_000)), (101, 1000));
        for (body, speaks) in [
            (r#"{"model":"m"}"#, false),
            (r#"{"model":"m","modalities":["text"]}"#, false),
            (r#"{"model":"m","modalities":["text","audio"]}"#, true),
        ] {
            assert_eq!(json(body).unwrap().speaks(), speaks, "{body}");
        }
    }

    #[test]
    fn a_picture_is_reckoned_as_the_dearest_behind_the_name_counts_it() {
        let asked = json(
            r#"{"model":"m","messages":[{"role":"user","content":[
                {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"high"}},
                {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"low"}}]}]}"#,
        )
        .unwrap();
        let offer = Offer {
            model: Model::named("gpt-4o-mini").into(),
            price: Price::default(),
            picture: ByDetail {
                low: 2833,
                high: 48_169,
                auto: 48_169,
            },
        };
        let tokens = asked.tokens(&offer);
        assert!((51_002..51_102).contains(&tokens), "{tokens}");
    }

    #[test]
    fn a_body_weighs_at_least_what_it_says_and_a_picture_what_a_picture_costs() {
        let weighed = |body: &str| weigh(body.as_bytes()).unwrap();
        let weight = |body: &str| weighed(body).text;
        let russian = "Привет, как дела? ".repeat(20);
        assert!(weight(&format!("[{russian:?}]")) >= i64::from(gateway::count_tokens(&russian)));
        assert_eq!(weight("[1,2,3]"), 3);
        let picture = format!("data:image/png;base64,{}", "A".repeat(1_000_000));
        let one = |low, high, auto| ByDetail { low, high, auto };
        let found = weighed(&format!(r#"{{"url":"{picture}"}}"#));
        assert_eq!((found.text, found.pictures), (2, one(0, 0, 1)));
        for (part, pictures) in [
            (r#"{"image_url":"https://example.org/p.png"}"#, one(0, 0, 1)),
            (
                r#"{"type":"image_url","image_url":{"detail":"low","url":"data:image/png,"}}"#,
                one(1, 0, 0),
            ),
            (
                r#"{"type":"input_image","image_url":"data:image/png,","detail":"high"}"#,
                one(0, 1, 0),
            ),
            (
                r#"{"type":"input_image","file_id":"file-1","detail":"low"}"#,
                one(1, 0, 0),
            ),
            (
                r#"{"type":"input_image","file_id":"file-1","detail":"original"}"#,
                one(0, 0, 1),
            ),
            // Of two that are said the dearer one.
            (
                r#"{"url":"data:image/png,","detail":"high","detail":"low"}"#,
                one(0, 1, 0),
            ),
            (
                r#"{"type":"text","detail":"high","text":"data:image/png,"}"#,
                one(0, 0, 0),
            ),
        ] {
            assert_eq!(weighed(&format!("[{part}]")).pictures, pictures, "{part}");
        }
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
        assert_eq!((asked.alias.as_str(), asked.weight.text), ("whisper-1", 1));
        assert!(Asked::form(&[part("file", b"")]).is_err() && Asked::form(&[part("model", b"\xff")]).is_err());
    }
}
