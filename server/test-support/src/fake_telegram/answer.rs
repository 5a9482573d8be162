//! How a method is answered: `{"ok":true,"result":…}` or `{"ok":false,"error_code":…,"description":…}`.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::manners::{self, Absent};

/// A refusal in Telegram's words; the code is both HTTP status and `error_code`.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) description: String,
    pub(crate) parameters: Option<Value>,
    /// The description is the whole body, of this type.
    pub(crate) foreign: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(code: u16, description: impl Into<String>) -> Self {
        Self {
            code,
            description: description.into(),
            parameters: None,
            foreign: None,
        }
    }

    /// What a proxy says that knows nothing of the Bot API.
    pub(crate) fn html(code: u16) -> Self {
        Self::foreign(code, "text/html", "<html><body><h1>nginx</h1></body></html>")
    }

    /// What is not the Bot API's at all.
    pub(crate) fn foreign(code: u16, content_type: &'static str, body: &str) -> Self {
        Self {
            foreign: Some(content_type),
            ..Self::new(code, body)
        }
    }

    /// 400, with Telegram's usual beginning.
    pub(crate) fn bad(why: impl std::fmt::Display) -> Self {
        Self::new(400, format!("Bad Request: {why}"))
    }

    pub(crate) fn conflict(why: &str) -> Self {
        Self::new(409, format!("Conflict: {why}"))
    }

    pub(crate) fn retry_after(seconds: u64) -> Self {
        Self {
            parameters: Some(json!({"retry_after": seconds})),
            ..Self::new(429, format!("Too Many Requests: retry after {seconds}"))
        }
    }
}

/// The result of a method, with the remark that some results carry.
pub(crate) struct Success {
    pub(crate) result: Value,
    pub(crate) description: Option<&'static str>,
}

impl From<Value> for Success {
    fn from(result: Value) -> Self {
        Self {
            result,
            description: None,
        }
    }
}

pub(crate) type Answer = Result<Success, Refusal>;

pub(crate) fn respond(answer: Answer, absent: Absent) -> Response {
    if let Err(Refusal {
        code,
        description,
        foreign: Some(content_type),
        ..
    }) = answer
    {
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
        return (status, [(CONTENT_TYPE, content_type)], description).into_response();
    }
    let (code, body) = match answer {
        Ok(Success {
            result,
            description: None,
        }) => (200, json!({"ok": true, "result": result})),
        Ok(Success { result, description }) => (200, json!({"ok": true, "result": result, "description": description})),
        Err(refusal) => {
            let mut body = json!({"ok": false, "error_code": refusal.code, "description": refusal.description});
            if let Some(parameters) = refusal.parameters {
                body["parameters"] = parameters;
            }
            (refusal.code, body)
        }
    };
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(manners::write(absent, body))).into_response()
}
