//! Refusals in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`.

use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
    /// Seconds for the `retry-after` header.
    retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            kind,
            param: None,
            code: None,
            retry_after: None,
        }
    }

    pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Self {
        let param = (!param.is_empty()).then(|| param.to_owned());
        Self {
            param,
            ..Self::new(400, "invalid_request_error", message)
        }
    }

    pub(crate) fn unknown_parameter(name: &str) -> Self {
        let refusal = Self::invalid(name, format!("Unknown parameter: '{name}'."));
        Self {
            code: Some("unknown_parameter"),
            ..refusal
        }
    }

    pub(crate) fn missing_key() -> Self {
        Self::new(
            401,
            "invalid_request_error",
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth \
             (i.e. Authorization: Bearer YOUR_KEY).",
        )
    }

    pub(crate) fn invalid_key() -> Self {
        let refusal = Self::new(401, "invalid_request_error", "Incorrect API key provided.");
        Self {
            code: Some("invalid_api_key"),
            ..refusal
        }
    }

    pub(crate) fn unknown_model(model: &str) -> Self {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        Self {
            code: Some("model_not_found"),
            ..Self::new(404, "invalid_request_error", message)
        }
    }

    pub(crate) fn unknown_url(method: &str, path: &str) -> Self {
        Self::new(404, "invalid_request_error", format!("Invalid URL ({method} {path})"))
    }

    pub(crate) fn rate_limited(retry_after: Option<u64>) -> Self {
        let refusal = Self::new(429, "requests", "Rate limit reached for requests.");
        Self {
            code: Some("rate_limit_exceeded"),
            retry_after,
            ..refusal
        }
    }

    /// A failure wished for by its status alone.
    pub(crate) fn status(status: u16, retry_after: Option<u64>) -> Self {
        match status {
            401 => Self::invalid_key(),
            429 => Self::rate_limited(retry_after),
            500.. => {
                let message = "The server had an error while processing your request. Sorry about that!";
                Self {
                    retry_after,
                    ..Self::new(status, "server_error", message)
                }
            }
            _ => Self {
                retry_after,
                ..Self::new(status, "invalid_request_error", "The request was refused on purpose.")
            },
        }
    }

    fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
        }
        response
    }
}
