//! How a failure travels from a server function to the page.

use std::fmt;

use domain::{AppError, ErrorCode, Invalid};
use leptos::server_fn::{
    codec::JsonEncoding,
    error::{FromServerFnError, ServerFnErrorErr},
};
use serde::{Deserialize, Serialize};

/// `domain::AppError` in the clothes that Leptos asks for; `domain` itself knows nothing of Leptos.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppFailure(pub AppError);

impl fmt::Display for AppFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for AppFailure {}

impl From<AppError> for AppFailure {
    fn from(error: AppError) -> Self {
        Self(error)
    }
}

impl From<ErrorCode> for AppFailure {
    fn from(code: ErrorCode) -> Self {
        Self(code.into())
    }
}

impl From<Invalid> for AppFailure {
    fn from(invalid: Invalid) -> Self {
        Self(invalid.into())
    }
}

#[cfg(feature = "ssr")]
impl From<services::Error> for AppFailure {
    fn from(error: services::Error) -> Self {
        Self(error.into())
    }
}

impl FromServerFnError for AppFailure {
    type Encoder = JsonEncoding;

    fn from_server_fn_error(error: ServerFnErrorErr) -> Self {
        match error {
            // On the server: the request could not be read. Its text names fields and types, which helps nobody but a prober.
            ServerFnErrorErr::Args(_) | ServerFnErrorErr::MissingArg(_) => ErrorCode::Invalid.into(),
            _ => ErrorCode::Internal.into(),
        }
    }

    /// Every failure leaves through here, also one of reading the arguments; so this is where the answer gets its status.
    fn ser(&self) -> leptos::server_fn::Bytes {
        #[cfg(feature = "ssr")]
        crate::ssr::set_answer_status(self.0.code);
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}
