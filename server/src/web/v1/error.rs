//! Failures as OpenAI words them, so that its clients raise the exceptions that their users expect.

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use domain::{ErrorCode, Measure, Period, Scope};
use gateway::GatewayError;
use serde_json::{Value, json};
use services::{Reached, Refused};

use super::headers;

/// Whoever would have to wait longer, in seconds, is told not to try again by itself.
const LONGEST_RETRY: u64 = 60;

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
    /// What is left of limits, in OpenAI's headers.
    pub room: Option<Box<HeaderMap>>,
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
            room: None,
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
        let error = Self::new(
            StatusCode::FORBIDDEN,
            "invalid_request_error",
            Some("insufficient_permissions"),
            message,
        );
        Self {
            ours: Some(ErrorCode::Forbidden),
            ..error
        }
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

    pub fn invalid(param: Option<&'static str>, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message);
        Self {
            param,
            ours: Some(ErrorCode::Invalid),
            ..error
        }
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("The request is larger than {} MiB.", limit / (1024 * 1024));
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            Some("request_too_large"),
            message,
        )
    }

    /// Too many calls are under way in this process.
    pub fn overloaded() -> Self {
        let error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            Some("overloaded"),
            "Too many requests are under way. Try again in a moment.",
        );
        Self {
            retry_after: Some(1),
            ..error
        }
    }

    /// What we keep our books in is away for a moment.
    pub fn unavailable() -> Self {
        let error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            Some("unavailable"),
            "The gateway is not available just now. Try again in a moment.",
        );
        Self {
            retry_after: Some(1),
            ..error
        }
    }

    /// The body came too slowly.
    pub fn too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            Some("request_timeout"),
            "The body of the request did not arrive in time.",
        )
    }

    /// A limit is used up. Of a minute, or where only requests under way stand in the way, it is a rate; of more a quota, as OpenAI
    /// tells them apart.
    pub fn limited(refused: &Refused, now: DateTime<Utc>) -> Self {
        let refusal = &refused.refusal;
        let Some(reached) = refusal.limit else {
            let error = Self::invalid(None, "The request is larger than any limit allows.");
            return Self {
                ours: Some(refusal.code),
                ..error
            };
        };
        let resets_in = |at: DateTime<Utc>| ((at - now).num_milliseconds().max(0) + 999) / 1000;
        let wait = if refused.is_passing {
            Some(1)
        } else {
            reached.resets_at.map(resets_in)
        };
        let whose = match reached.scope {
            Scope::Model => "this model",
            Scope::Deployment => "this deck",
            Scope::ApiKey | Scope::User | Scope::Bot => "this API key",
        };
        let again = wait.map_or_else(
            || "It does not start again by itself.".to_owned(),
            |wait| format!("Please try again in {wait}s."),
        );
        let held = if refused.is_passing {
            " The rest of it is set aside for requests under way."
        } else {
            ""
        };
        let message = format!("Limit reached for {whose}: {}.{held} {again}", words(&reached));
        let is_rate = refused.is_passing || reached.kind.period() == Period::Minute;
        let (kind, code) = match reached.kind.measure() {
            _ if !is_rate => ("insufficient_quota", "insufficient_quota"),
            Measure::Tokens => ("tokens", "rate_limit_exceeded"),
            _ => ("requests", "rate_limit_exceeded"),
        };
        let mut room = HeaderMap::new();
        headers::add_room(&mut room, &refused.room, now);
        Self {
            retry_after: wait.and_then(|wait| u64::try_from(wait.max(1)).ok()),
            room: Some(Box::new(room)),
            ours: Some(refusal.code),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, kind, Some(code), message)
        }
    }

    /// Without a word of the provider's, and never 401: the key that was refused is ours, not the program's.
    pub fn of_gateway(error: &GatewayError) -> Self {
        let failed = |status, code, message: &str| Self::new(status, "server_error", Some(code), message);
        let refused = |code, message: &str| Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        let words = match error {
            GatewayError::Timeout { .. } => failed(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "The model did not answer in time.",
            ),
            GatewayError::Busy { retry_after, .. } => Self {
                retry_after: Some(retry_after.map_or(1, |pause| pause.as_secs().max(1))),
                ..failed(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "overloaded",
                    "The model is busy. Try again in a moment.",
                )
            },
            GatewayError::Resting { .. } => Self {
                retry_after: Some(1),
                ..failed(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "overloaded",
                    "The providers of this model have failed and are left alone for a moment. Try again soon.",
                )
            },
            GatewayError::Auth { .. } => failed(
                StatusCode::BAD_GATEWAY,
                "provider_refused",
                "The provider of this model does not take our key. Whoever runs this deck can see why.",
            ),
            GatewayError::Context { .. } => refused(
                Some("context_length_exceeded"),
                "The request is longer than the context of this model.",
            ),
            GatewayError::Unable { .. } => refused(
                Some("provider_refused"),
                "No provider of this model can serve such a request.",
            ),
            GatewayError::Refused {
                status: Some(404),
                detail,
            } => {
                let is_model = detail.to_lowercase().contains("model");
                Self {
                    status: StatusCode::NOT_FOUND,
                    param: is_model.then_some("model"),
                    ..if is_model {
                        refused(Some("model_not_found"), "The provider of this model does not know it.")
                    } else {
                        refused(
                            Some("provider_refused"),
                            "The provider of this model did not find what the request asks for.",
                        )
                    }
                }
            }
            GatewayError::Refused { .. } => refused(
                Some("provider_refused"),
                "The provider of this model refused the request.",
            ),
            GatewayError::Empty { .. } => failed(
                StatusCode::BAD_GATEWAY,
                "empty_answer",
                "The model gave an empty answer.",
            ),
            GatewayError::Down { .. } => failed(
                StatusCode::BAD_GATEWAY,
                "provider_failed",
                "The provider of this model failed.",
            ),
            GatewayError::Cut { .. } => failed(StatusCode::BAD_GATEWAY, "answer_cut", "The answer broke off."),
        };
        Self {
            ours: Some(error.code()),
            ..words
        }
    }

    /// As it stands in an answer, and in the middle of a stream.
    pub fn body(&self) -> Value {
        json!({ "error": { "message": self.message, "type": self.kind, "param": self.param, "code": self.code } })
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

/// `10 requests per minute`, `$5.00 per month`.
fn words(reached: &Reached) -> String {
    let amount = reached.kind.show_amount(Some(reached.amount));
    let amount = match reached.kind.measure() {
        Measure::Messages => format!("{amount} requests"),
        Measure::Tokens => format!("{amount} tokens"),
        Measure::Money => format!("${amount}"),
        Measure::Images => format!("{amount} images"),
    };
    match reached.kind.period() {
        Period::Total => format!("{amount} in total"),
        period => format!("{amount} per {}", period.name()),
    }
}

impl From<services::Error> for ApiError {
    fn from(error: services::Error) -> Self {
        if let services::Error::Throttled { retry_after_s } = error {
            return Self {
                retry_after: Some(retry_after_s),
                ..Self::overloaded()
            };
        }
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "A call of another program failed"
        );
        if error.is_outage() {
            return Self::unavailable();
        }
        Self::internal()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        response
            .headers_mut()
            .extend(self.room.map(|room| *room).unwrap_or_default());
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // OpenAI's clients try again by themselves where this does not tell them not to.
        if self.status == StatusCode::TOO_MANY_REQUESTS && self.retry_after.is_none_or(|wait| wait > LONGEST_RETRY) {
            let headers = response.headers_mut();
            headers.insert(
                HeaderName::from_static("x-should-retry"),
                HeaderValue::from_static("false"),
            );
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_gone_is_not_found_and_what_nobody_can_serve_is_refused() {
        let missing = |detail: &str| GatewayError::Refused {
            status: Some(404),
            detail: detail.to_owned(),
        };
        let unable = GatewayError::Unable {
            detail: "this provider has no /responses".to_owned(),
        };
        for (error, status, code) in [
            (missing("The model `x` does not exist"), 404, "model_not_found"),
            (missing("Item with id 'rs_1' not found."), 404, "provider_refused"),
            (unable, 400, "provider_refused"),
        ] {
            let told = ApiError::of_gateway(&error);
            assert_eq!((told.status.as_u16(), told.code), (status, Some(code)), "{error}");
            assert_eq!(
                (told.kind, told.ours),
                ("invalid_request_error", Some(ErrorCode::AiRefused))
            );
        }
    }

    #[test]
    fn whoever_comes_with_too_many_others_is_told_to_come_again() {
        let refused = ApiError::from(services::Error::Throttled { retry_after_s: 3 });
        assert_eq!(refused.body()["error"]["code"], "overloaded");
        let response = refused.into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
    }
}
