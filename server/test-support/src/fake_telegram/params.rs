//! A call's parameters, whatever way they came: query, JSON, form or multipart.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::answer::Refusal;
use super::state::FileInfo;

/// Telegram takes files up to 50 MB; the rest is for the other fields.
pub(crate) const MAX_BODY: usize = 51 * 1024 * 1024;

/// Parameters that are JSON text in forms and queries.
const JSON_PARAMS: [&str; 10] = [
    "allowed_updates",
    "caption_entities",
    "commands",
    "entities",
    "link_preview_options",
    "message_ids",
    "reply_markup",
    "reply_parameters",
    "scope",
    "update",
];

#[derive(Clone, Default, Debug)]
pub(crate) struct Params {
    pub(crate) values: Map<String, Value>,
    pub(crate) files: Vec<FileInfo>,
}

impl Params {
    pub(crate) async fn read(request: Request) -> Result<Self, Refusal> {
        let mut params = Self::default();
        params.read_form(request.uri().query().unwrap_or_default().as_bytes());
        let kind = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "multipart/form-data" => params.read_multipart(request).await?,
            "application/json" => params.read_json(&bytes_of(request.into_body()).await?)?,
            "application/x-www-form-urlencoded" => params.read_form(&bytes_of(request.into_body()).await?),
            _ => {}
        }
        for name in JSON_PARAMS {
            if let Some(Value::String(text)) = params.values.get(name)
                && let Ok(parsed) = serde_json::from_str::<Value>(text)
            {
                params.values.insert(name.to_owned(), parsed);
            }
        }
        Ok(params)
    }

    fn read_json(&mut self, body: &[u8]) -> Result<(), Refusal> {
        if body.is_empty() {
            return Ok(());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => {
                // Null means absent, as an unset option of a client library is often written.
                self.values
                    .extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
                Ok(())
            }
            _ => Err(Refusal::bad("can't parse JSON object")),
        }
    }

    fn read_form(&mut self, body: &[u8]) {
        for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            self.values
                .insert(percent_decode(name), Value::String(percent_decode(value)));
        }
    }

    async fn read_multipart(&mut self, request: Request) -> Result<(), Refusal> {
        let malformed = |_| Refusal::bad("failed to parse multipart body");
        let mut form = Multipart::from_request(request, &())
            .await
            .map_err(|_| Refusal::bad("no boundary"))?;
        while let Some(field) = form.next_field().await.map_err(malformed)? {
            let name = field.name().unwrap_or_default().to_owned();
            let file_name = field.file_name().map(str::to_owned);
            let mime = field.content_type().map(str::to_owned);
            let bytes = field.bytes().await.map_err(malformed)?;
            if file_name.is_some() {
                self.files.push(FileInfo {
                    field: name,
                    file_name,
                    mime,
                    bytes: bytes.len(),
                });
            } else {
                self.values
                    .insert(name, Value::String(String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// A text; numbers and booleans are taken as their text, as Telegram does.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        match self.values.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        }
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        int_of(self.values.get(name)?)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        match self.values.get(name) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "1"),
            Some(Value::Number(number)) => number.as_i64() == Some(1),
            _ => false,
        }
    }

    /// The chat a call is about, 0 when it is about none.
    pub(crate) fn chat(&self) -> i64 {
        self.int("chat_id").unwrap_or(0)
    }
}

pub(crate) fn int_of(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

async fn bytes_of(body: Body) -> Result<bytes::Bytes, Refusal> {
    to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| Refusal::new(413, "Request Entity Too Large"))
}

/// `application/x-www-form-urlencoded` back to text.
fn percent_decode(text: &[u8]) -> String {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let pair = (
            text.get(at + 1).copied().and_then(hex),
            text.get(at + 2).copied().and_then(hex),
        );
        match (text[at], pair) {
            (b'%', (Some(high), Some(low))) => {
                out.push(high * 16 + low);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
