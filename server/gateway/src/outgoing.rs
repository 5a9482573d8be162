//! A request of another program on its way to a provider: everything passes as it came, but the model's name.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::{Map, Value, value::RawValue};

use crate::{GatewayError, ModelKind};

/// What can be asked of an OpenAI-compatible server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Chat,
    Responses,
    Embeddings,
    Images,
    Transcriptions,
    Translations,
    Speech,
}

impl Endpoint {
    /// Behind the base URL.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Responses => "/responses",
            Self::Embeddings => "/embeddings",
            Self::Images => "/images/generations",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Translations => "/audio/translations",
            Self::Speech => "/audio/speech",
        }
    }

    /// The fields in which a program bounds the answer.
    pub const fn bounds(self) -> &'static [&'static str] {
        match self {
            Self::Chat => &["max_completion_tokens", "max_tokens"],
            Self::Responses => &["max_output_tokens"],
            _ => &[],
        }
    }

    /// An answer is a JSON document, or events of JSON; others may be text or sound.
    pub(crate) const fn answers_json(self) -> bool {
        matches!(self, Self::Chat | Self::Responses | Self::Embeddings | Self::Images)
    }

    /// What a model must be for.
    pub const fn kind(self) -> ModelKind {
        match self {
            Self::Chat | Self::Responses => ModelKind::Chat,
            Self::Embeddings => ModelKind::Embedding,
            Self::Images => ModelKind::Image,
            Self::Transcriptions | Self::Translations => ModelKind::Transcription,
            Self::Speech => ModelKind::Speech,
        }
    }
}

/// What another program sent.
#[derive(Clone)]
pub enum ForwardBody {
    Json(Bytes),
    /// The parts of a form, for audio files.
    Form(Vec<Part>),
}

/// One part of a form.
#[derive(Clone)]
pub struct Part {
    pub name: String,
    pub file_name: Option<String>,
    pub content_type: Option<String>,
    pub data: Bytes,
}

/// A request for one target.
pub struct Outgoing<'a> {
    pub endpoint: Endpoint,
    /// As the provider calls it.
    pub model: &'a str,
    pub body: &'a ForwardBody,
    pub stream: bool,
    /// For protocols that want to be told a limit.
    pub max_answer_tokens: u32,
    /// A limit that the body does not say, or says too large.
    pub bound: Option<AnswerBound>,
}

/// A bound of the answer that we set, where the program has set none or a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerBound {
    pub tokens: u32,
    /// A budget pays for no more. Else it is only the longest answer that the model is said to give, and is left out where the
    /// provider does not take it.
    pub is_budget: bool,
}

/// What a provider began to answer.
pub struct Incoming {
    pub content_type: String,
    /// The usage at the stream's end was asked for by us alone: the program must not see it.
    pub hide_usage: bool,
    pub body: BoxStream<'static, Result<Bytes, GatewayError>>,
}

/// The fields of a body, as they are written in it.
pub(crate) type Fields<'a> = BTreeMap<String, &'a RawValue>;

pub(crate) fn fields(body: &Bytes) -> Result<Fields<'_>, GatewayError> {
    serde_json::from_slice(body).map_err(|_| GatewayError::refused("the body is not a JSON object"))
}

/// Whether the program itself asked for the usage at the end of its stream.
pub(crate) fn asks_for_usage(fields: &Fields<'_>) -> bool {
    let options = fields.get("stream_options");
    let options = options.and_then(|options| serde_json::from_str::<Value>(options.get()).ok());
    options.is_some_and(|options| options["include_usage"] == true)
}

/// Another bound of the answer.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'a> {
    /// Fields in which the program may have said one.
    pub(crate) names: &'a [&'a str],
    /// The field for it where the program said none.
    pub(crate) usual: &'a str,
    pub(crate) tokens: u32,
}

/// Which of these fields is set.
pub(crate) fn said<'n>(names: &[&'n str], fields: &Fields<'_>) -> Option<&'n str> {
    let is_said = |name: &&&str| fields.get(**name).is_some_and(|value| value.get() != "null");
    names.iter().find(is_said).copied()
}

/// Values from this length on (pictures, documents) are passed on out of the body itself.
const LARGE: usize = 32 * 1024;

/// The body with another model's name, with the wish for usage, and with another bound of the answer, in pieces. All else stays as it
/// was written, and what is large is not copied.
pub(crate) fn rewritten(
    body: &Bytes,
    fields: &Fields<'_>,
    model: &str,
    add_usage: bool,
    bound: Option<Bound<'_>>,
) -> Result<Vec<Bytes>, GatewayError> {
    let (large, small): (Vec<usize>, Vec<usize>) = fields
        .values()
        .map(|value| value.get().len())
        .partition(|length| *length >= LARGE);
    let mut pieces = Vec::with_capacity(large.len() * 2 + 1);
    let mut out = Vec::with_capacity(small.iter().sum::<usize>() + fields.len() * 24 + 128);
    out.extend_from_slice(b"{\"model\":");
    write(&mut out, &model)?;
    if add_usage {
        let given = fields.get("stream_options").map(|options| options.get());
        let mut options: Map<String, Value> = given
            .and_then(|options| serde_json::from_str(options).ok())
            .unwrap_or_default();
        options.insert("include_usage".to_owned(), Value::Bool(true));
        out.extend_from_slice(b",\"stream_options\":");
        write(&mut out, &options)?;
    }
    if let Some(Bound { names, usual, tokens }) = bound {
        let name = said(names, fields).unwrap_or(usual);
        out.extend_from_slice(format!(",\"{name}\":{tokens}").as_bytes());
    }
    for (name, value) in fields {
        let is_bound = bound.is_some_and(|bound| bound.names.contains(&name.as_str()));
        if name == "model" || is_bound || (add_usage && name == "stream_options") {
            continue;
        }
        out.push(b',');
        write(&mut out, name)?;
        out.push(b':');
        let value = value.get().as_bytes();
        if value.len() >= LARGE {
            pieces.push(Bytes::from(std::mem::take(&mut out)));
            pieces.push(body.slice_ref(value));
        } else {
            out.extend_from_slice(value);
        }
    }
    out.push(b'}');
    pieces.push(Bytes::from(out));
    Ok(pieces)
}

fn write(out: &mut Vec<u8>, value: &impl serde::Serialize) -> Result<(), GatewayError> {
    serde_json::to_writer(out, value).map_err(|_| GatewayError::refused("the body cannot be written"))
}

/// A form's content type, and its pieces in order; files are not copied. What goes between the parts is made anew for each form:
/// a file that held it could say another model.
pub(crate) fn form(parts: &[Part], model: &str) -> (String, Vec<Bytes>) {
    let boundary = format!("botdeck-{:032x}", rand::random::<u128>());
    let quoted = |text: &str| text.replace(['"', '\r', '\n'], "_");
    let mut pieces = Vec::with_capacity(parts.len() * 2 + 1);
    for part in parts {
        let mut head = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"{}\"",
            quoted(&part.name)
        );
        if let Some(file_name) = &part.file_name {
            head.push_str(&format!("; filename=\"{}\"", quoted(file_name)));
        }
        if let Some(content_type) = &part.content_type {
            head.push_str(&format!("\r\ncontent-type: {}", quoted(content_type)));
        }
        head.push_str("\r\n\r\n");
        pieces.push(Bytes::from(head));
        pieces.push(if part.name == "model" {
            Bytes::from(model.to_owned())
        } else {
            part.data.clone()
        });
        pieces.push(Bytes::from_static(b"\r\n"));
    }
    pieces.push(Bytes::from(format!("--{boundary}--\r\n")));
    (format!("multipart/form-data; boundary={boundary}"), pieces)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn through(body: &Bytes, model: &str, add_usage: bool, bound: Option<Bound<'_>>) -> Result<Vec<u8>, GatewayError> {
        Ok(rewritten(body, &fields(body)?, model, add_usage, bound)?.concat())
    }

    #[test]
    fn what_is_large_is_passed_on_without_being_copied() {
        let picture = "A".repeat(LARGE);
        let body = json!({"model": "alias", "a": 1, "messages": [picture], "z": "end"});
        let body = Bytes::from(body.to_string());
        let pieces = rewritten(&body, &fields(&body).unwrap(), "m", false, None).unwrap();
        assert!(
            pieces
                .iter()
                .any(|piece| body.as_ptr_range().contains(&piece.as_ptr()) && piece.len() >= LARGE)
        );
        let out: Value = serde_json::from_slice(&pieces.concat()).unwrap();
        assert_eq!(out, json!({"model": "m", "a": 1, "messages": [picture], "z": "end"}));
    }

    #[test]
    fn only_the_model_is_rewritten() {
        let body = Bytes::from_static(
            br#"{"model":"alias","temperature":0.30000000000000004,"messages":[{"role":"user","content":"\u044f"}],"new_one":{"b":1,"a":18446744073709551615}}"#,
        );
        let out = String::from_utf8(through(&body, "up\"stream", false, None).unwrap()).unwrap();
        assert!(out.contains(r#""temperature":0.30000000000000004"#), "{out}");
        assert!(out.contains(r#""new_one":{"b":1,"a":18446744073709551615}"#), "{out}");
        assert!(
            out.contains(r#""content":"\u044f""#) && out.starts_with(r#"{"model":"up\"stream","#),
            "{out}"
        );
        assert!(!out.contains("alias") && !asks_for_usage(&fields(&body).unwrap()));
        for bad in ["[]", "", "{", "17"] {
            assert!(
                through(&Bytes::from_static(bad.as_bytes()), "m", false, None).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn usage_is_asked_for_beside_the_options_given() {
        let body = Bytes::from_static(br#"{"model":"a","stream":true,"stream_options":{"include_obfuscation":false}}"#);
        let out: Value = serde_json::from_slice(&through(&body, "m", true, None).unwrap()).unwrap();
        assert_eq!(
            out["stream_options"],
            json!({"include_obfuscation": false, "include_usage": true})
        );
        assert!(!asks_for_usage(&fields(&body).unwrap()));
        let asks = Bytes::from_static(br#"{"stream_options":{"include_usage":true}}"#);
        assert!(asks_for_usage(&fields(&asks).unwrap()));
    }

    #[test]
    fn a_bound_is_written_where_the_program_had_one() {
        let bounded = |body: &'static str| {
            let body = Bytes::from_static(body.as_bytes());
            let bound = Bound {
                names: Endpoint::Chat.bounds(),
                usual: "max_completion_tokens",
                tokens: 7,
            };
            let out = through(&body, "m", false, Some(bound)).unwrap();
            serde_json::from_slice::<Value>(&out).unwrap()
        };
        assert_eq!(
            bounded(r#"{"model":"a","max_tokens":90}"#),
            json!({"model": "m", "max_tokens": 7})
        );
        assert_eq!(
            bounded(r#"{"model":"a"}"#),
            json!({"model": "m", "max_completion_tokens": 7})
        );
        assert_eq!(
            bounded(r#"{"model":"a","max_completion_tokens":null,"max_tokens":90,"max_output_tokens":1}"#),
            json!({"model": "m", "max_tokens": 7, "max_output_tokens": 1})
        );
    }

    #[test]
    fn a_form_is_written_with_another_model() {
        let part = |name: &str, file: Option<&str>, data: &'static [u8]| Part {
            name: name.into(),
            file_name: file.map(str::to_owned),
            content_type: file.map(|_| "audio/ogg".to_owned()),
            data: Bytes::from_static(data),
        };
        let (content_type, pieces) = form(
            &[
                part("model", None, b"alias"),
                part("file", Some("a\"\r\n.ogg"), b"\x00\xff"),
            ],
            "whisper-1",
        );
        let body = pieces.concat();
        let text = String::from_utf8_lossy(&body);
        let (_, boundary) = content_type.split_once("boundary=").unwrap();
        assert!(text.ends_with(&format!("--{boundary}--\r\n")));
        assert_ne!(form(&[], "whisper-1").0, content_type, "nobody can know it before");
        assert!(
            text.contains("name=\"model\"\r\n\r\nwhisper-1\r\n") && !text.contains("alias"),
            "{text}"
        );
        assert!(
            text.contains("filename=\"a___.ogg\"\r\ncontent-type: audio/ogg\r\n\r\n"),
            "{text}"
        );
        assert!(body.windows(2).any(|two| two == b"\x00\xff"));
    }
}
