//! How a method is answered: `{"ok":true,"result":…}` or `{"ok":false,"error_code":…,"description":…}`.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};

/// A refusal in Telegram's words; the code is both HTTP status and `error_code`.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) description: String,
    pub(crate) parameters: Option<Value>,
    /// Said as a page instead.
    pub(crate) html: bool,
}

impl Refusal {
    pub(crate) fn new(code: u16, description: impl Into<String>) -> Self {
        Self {
            code,
            description: description.into(),
            parameters: None,
            html: false,
        }
    }

    /// What a proxy says that knows nothing of the Bot API.
    pub(crate) fn html(code: u16) -> Self {
        Self {
            html: true,
            ..Self::new(code, "<html><body><h1>nginx</h1></body></html>")
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

pub(crate) fn respond(answer: Answer) -> Response {
    if let Err(Refusal {
        code,
        description,
        html: true,
        ..
    }) = answer
    {
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
        return (status, Html(description)).into_response();
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
    (status, axum::Json(body)).into_response()
}
