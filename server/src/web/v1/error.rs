//! Failures as OpenAI words them, so that its clients raise the exceptions that their users expect.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::ErrorCode;
use serde_json::json;

/// What a program is told. Never a provider's words, and never a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    /// `invalid_request_error`, `server_error`…
    pub kind: &'static str,
    /// For programs: `invalid_api_key`, `rate_limit_exceeded`…
    pub code: Option<&'static str>,
    pub message: String,
    pub param: Option<&'static str>,
    pub retry_after: Option<u64>,
    /// The code under which staff find it.
    pub ours: Option<ErrorCode>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code,
            message: message.into(),
            param: None,
            retry_after: None,
            ours: None,
        }
    }

    pub fn no_key() -> Self {
        let message = "You didn't provide an API key. Send it as: Authorization: Bearer bd-…";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", None, message)
    }

    pub fn bad_key() -> Self {
        let message = "Incorrect API key provided: it is unknown, expired or revoked.";
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_request_error",
            Some("invalid_api_key"),
            message,
        )
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "invalid_request_error",
            Some("insufficient_permissions"),
            message,
        )
    }

    /// A model that is not offered, or not to this key: which of them is nobody's business.
    pub fn no_model(model: &str) -> Self {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        let error = Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            Some("model_not_found"),
            message,
        );
        Self {
            param: Some("model"),
            ours: Some(ErrorCode::NoModel),
            ..error
        }
    }

    pub fn no_url(method: &str, path: &str) -> Self {
        let message = format!("Unknown request URL: {method} {path}.");
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            Some("unknown_url"),
            message,
        )
    }

    pub fn internal() -> Self {
        let error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            None,
            "Something failed on our side.",
        );
        Self {
            ours: Some(ErrorCode::Internal),
            ..error
        }
    }
}

impl From<services::Error> for ApiError {
    fn from(error: services::Error) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "A call of another program failed"
        );
        Self::internal()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = json!({ "message": self.message, "type": self.kind, "param": self.param, "code": self.code });
        let mut response = (self.status, Json(json!({ "error": error }))).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
