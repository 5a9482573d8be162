//! What a server's refusal means: by HTTP status, or by the words of an error inside a stream.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::{
    GatewayError,
    error::{bounded, redacted},
};

const DETAIL_CHARS: usize = 400;

/// Takes the key and other secrets out of whatever a server says, and bounds it.
#[derive(Clone)]
pub(crate) struct Cleaner(Arc<[SecretString]>);

impl Cleaner {
    pub(crate) fn new(key: SecretString) -> Self {
        Self([key].into())
    }

    /// These are taken out as well.
    pub(crate) fn besides(self, others: Vec<SecretString>) -> Self {
        Self(self.0.iter().cloned().chain(others).collect())
    }

    pub(super) fn clean(&self, text: &str) -> String {
        let clean = self.0.iter().fold(text.to_owned(), |text, secret| {
            redacted(&text, Some(secret.expose_secret()))
        });
        bounded(&clean, DETAIL_CHARS)
    }
}

/// An answer that is no success.
pub(super) fn from_response(status: StatusCode, headers: &HeaderMap, body: &[u8], cleaner: &Cleaner) -> GatewayError {
    let text = String::from_utf8_lossy(body);
    let said = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|body| Said::find(&body));
    let said = said.unwrap_or_else(|| Said {
        kind: String::new(),
        message: text.into_owned(),
        status: None,
    });
    said.into_error(Some(status.as_u16()), retry_after(headers, SystemTime::now()), cleaner)
}

/// An error in the place of a chunk, if this is one.
pub(super) fn from_chunk(chunk: &Value, cleaner: &Cleaner) -> Option<GatewayError> {
    let said = Said::find(chunk)?;
    let status = said.status;
    Some(said.into_error(status, None, cleaner))
}

/// An error that was found in a body.
pub(crate) fn from_value(error: &Value, cleaner: &Cleaner) -> GatewayError {
    let chunk = serde_json::json!({ "error": error });
    from_chunk(&chunk, cleaner).unwrap_or_else(|| GatewayError::down(cleaner.clean(&error.to_string())))
}

/// A request that got no answer, or broke.
pub(crate) fn from_transport(error: reqwest::Error, cleaner: &Cleaner) -> GatewayError {
    // The address may hold a password.
    let error = error.without_url();
    let what = if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    GatewayError::Down {
        status: None,
        detail: cleaner.clean(what),
        source: Some(Box::new(error)),
    }
}

/// Seconds, OpenAI's milliseconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
    let number = |name: &str| text(name)?.parse::<f64>().ok();
    let seconds = number("retry-after-ms")
        .map(|ms| ms / 1000.0)
        .or_else(|| number("retry-after"));
    if let Some(seconds) = seconds {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = |name: &str| httpdate::parse_http_date(text(name)?).ok();
    let until = date("retry-after")?;
    // Counted from the server's own time where it tells it: clocks differ.
    let from = date("date").unwrap_or(now);
    Some(until.duration_since(from).unwrap_or_default())
}

/// An error as servers word it.
struct Said {
    /// `type` and `code` together, in lower case.
    kind: String,
    message: String,
    /// Some put a status into `code`.
    status: Option<u16>,
}

impl Said {
    /// `{"error": {…}}`, `{"error": "…"}` or vLLM's older `{"object": "error", "message": …}`.
    fn find(value: &Value) -> Option<Self> {
        let error = match value.get("error") {
            Some(Value::String(message)) => {
                return Some(Self {
                    kind: String::new(),
                    message: message.clone(),
                    status: None,
                });
            }
            Some(error @ Value::Object(_)) => error,
            _ if value["object"] == "error" => value,
            _ => return None,
        };
        let word = |name: &str| error[name].as_str().unwrap_or_default();
        let number = |name: &str| match &error[name] {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let status = number("code")
            .or_else(|| number("status"))
            .and_then(|code| u16::try_from(code).ok());
        let kind = format!("{} {}", word("type"), word("code")).trim().to_lowercase();
        let mut message = match word("message") {
            "" => error.to_string(),
            message => message.to_owned(),
        };
        for (name, value) in [("type", word("type")), ("code", word("code")), ("param", word("param"))] {
            if !value.is_empty() && !message.contains(value) {
                message.push_str(&format!(" ({name}: {value})"));
            }
        }
        Some(Self {
            kind,
            message,
            status: status.filter(|status| (400..600).contains(status)),
        })
    }

    /// OpenAI and most others say `context_length_exceeded`; vLLM, llama.cpp and Ollama only say it in words.
    fn is_too_long(&self) -> bool {
        let words = self.message.to_lowercase();
        let says = |all: &[&str]| all.iter().all(|word| words.contains(word));
        self.kind.contains("context_length")
            || says(&["maximum context length"])
            || says(&["context", "exceed"])
            || says(&["prompt is too long"])
            || says(&["too many tokens"])
    }

    fn into_error(self, status: Option<u16>, retry_after: Option<Duration>, cleaner: &Cleaner) -> GatewayError {
        let detail = match cleaner.clean(&self.message) {
            said if said.is_empty() => "without a word why".to_owned(),
            said => said,
        };
        let has = |words: &[&str]| words.iter().any(|word| self.kind.contains(word));
        match status {
            // An account without money answers 429 too, but waiting does not help.
            _ if has(&["insufficient_quota", "billing"]) => GatewayError::Auth { status, detail },
            Some(401..=403) => GatewayError::Auth { status, detail },
            Some(400 | 413 | 422) if self.is_too_long() => GatewayError::Context { status, detail },
            None if self.is_too_long() => GatewayError::Context { status, detail },
            Some(429) => GatewayError::Busy { retry_after, detail },
            Some(408 | 409 | 425 | 500..) => GatewayError::Down {
                status,
                detail,
                source: None,
            },
            Some(_) => GatewayError::Refused { status, detail },
            None if has(&["rate_limit", "overloaded", "too_many"]) => GatewayError::Busy { retry_after, detail },
            None if has(&["authentication", "permission", "api_key"]) => GatewayError::Auth { status, detail },
            None if has(&["invalid", "content_filter", "not_found", "badrequest"]) => {
                GatewayError::Refused { status, detail }
            }
            None => GatewayError::Down {
                status,
                detail,
                source: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::ErrorCode;
    use http::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn cleaner() -> Cleaner {
        Cleaner::new(SecretString::from("key-0815"))
    }

    #[test]
    fn statuses_have_their_meaning() {
        use ErrorCode::{AiAuth, AiBusy, AiContext, AiDown, AiRefused};
        for (status, body, code) in [
            (401, r#"{"error":{"message":"Incorrect key key-0815"}}"#, AiAuth),
            (402, "{}", AiAuth),
            (
                404,
                r#"{"error":{"message":"no such model","code":"model_not_found"}}"#,
                AiRefused,
            ),
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 4096 tokens.","code":"context_length_exceeded"}}"#,
                AiContext,
            ),
            (
                400,
                r#"{"error":"the request exceeds the available context size"}"#,
                AiContext,
            ),
            (429, r#"{"error":{"message":"slow down","type":"tokens"}}"#, AiBusy),
            (
                429,
                r#"{"error":{"message":"pay","code":"insufficient_quota"}}"#,
                AiAuth,
            ),
            (302, "", AiRefused),
            (500, "<html>oops</html>", AiDown),
            (529, "", AiDown),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = from_response(status, &HeaderMap::new(), body.as_bytes(), &cleaner());
            assert_eq!(error.code(), code, "{status} {body}");
            assert!(
                !error.cause().contains("0815") && error.cause().contains(status.as_str()),
                "{}",
                error.cause()
            );
        }
    }

    #[test]
    fn pauses_are_read() {
        for (name, value, pause) in [
            ("retry-after", "2", Some(Duration::from_secs(2))),
            ("retry-after", "0.5", Some(Duration::from_millis(500))),
            ("retry-after-ms", "120", Some(Duration::from_millis(120))),
            (
                "retry-after",
                "Wed, 21 Oct 2026 07:28:00 GMT",
                Some(Duration::from_secs(90)),
            ),
            ("retry-after", "Wed, 21 Oct 2026 07:00:00 GMT", Some(Duration::ZERO)),
            ("retry-after", "in a while", None),
            ("retry-after", "-1", None),
            ("retry-after", "nan", None),
        ] {
            let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:26:30 GMT").unwrap();
            let headers = HeaderMap::from_iter([(name.parse::<HeaderName>().unwrap(), value.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), pause, "{name}: {value}");
        }
        // By the server's own clock.
        let header =
            |name: &'static str, value: &str| (HeaderName::from_static(name), value.parse::<HeaderValue>().unwrap());
        let headers = HeaderMap::from_iter([
            header("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),
            header("date", "Wed, 21 Oct 2026 07:27:57 GMT"),
        ]);
        let pause = retry_after(&headers, SystemTime::UNIX_EPOCH);
        assert_eq!(pause, Some(Duration::from_secs(3)));
    }

    #[test]
    fn errors_in_a_stream_are_found() {
        use ErrorCode::{AiAuth, AiBusy, AiDown, AiRefused};
        for (chunk, code) in [
            (
                json!({"error": {"message": "slow down", "type": "rate_limit_error"}}),
                AiBusy,
            ),
            (
                json!({"error": {"message": "slow down", "code": 429}, "choices": []}),
                AiBusy,
            ),
            (json!({"error": {"code": "502", "message": "bad gateway"}}), AiDown),
            (json!({"error": "out of memory"}), AiDown),
            (
                json!({"error": {"type": "invalid_request_error", "message": "too long"}}),
                AiRefused,
            ),
            (json!({"object": "error", "message": "bad key", "code": 401}), AiAuth),
            (json!({"error": {}}), AiDown),
        ] {
            assert_eq!(from_chunk(&chunk, &cleaner()).unwrap().code(), code, "{chunk}");
        }
        for fine in [
            json!({"choices": [], "error": null}),
            json!({}),
            json!([1]),
            json!({"error": false}),
        ] {
            assert!(from_chunk(&fine, &cleaner()).is_none(), "{fine}");
        }
    }
}
