//! Failures of use cases, and their one translation for people.

use domain::{AppError, ErrorCode};

/// What can go wrong in a use case. The cause stays inside; edges show the code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no one is signed in")]
    SignedOut,
    #[error("unknown name or wrong password")]
    BadLogin,
    #[error("too many attempts, next one in {retry_after_s} s")]
    Throttled { retry_after_s: u64 },
    #[error("the scope {0} is missing")]
    Forbidden(domain::Permission),
    #[error("{0} was not found")]
    NotFound(&'static str),
    #[error("{0}")]
    Conflict(&'static str),
    #[error("expected {0}")]
    Invalid(&'static str),
    #[error("Telegram: {0}")]
    Telegram(String),
    #[error("database")]
    Database(#[from] repositories::Error),
    #[error("stored secret cannot be opened: {0}")]
    Secret(&'static str),
    #[error("{0}")]
    Internal(&'static str),
}

impl Error {
    /// Trying the same again changes nothing.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Database(error) => error.is_permanent(),
            Self::Invalid(_) | Self::NotFound(_) => true,
            _ => false,
        }
    }

    /// The database is away: soon the same may succeed.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_outage())
    }

    pub fn code(&self) -> ErrorCode {
        match self {
            Self::SignedOut => ErrorCode::SignedOut,
            Self::BadLogin => ErrorCode::BadLogin,
            Self::Throttled { .. } => ErrorCode::Throttled,
            Self::Forbidden(_) => ErrorCode::Forbidden,
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::Conflict(_) => ErrorCode::Conflict,
            Self::Invalid(_) => ErrorCode::Invalid,
            Self::Telegram(_) => ErrorCode::Telegram,
            Self::Database(_) | Self::Secret(_) | Self::Internal(_) => ErrorCode::Internal,
        }
    }
}

impl From<domain::Invalid> for Error {
    fn from(invalid: domain::Invalid) -> Self {
        Self::Invalid(invalid.0)
    }
}

/// What staff may read of it: the code, and a detail only where it is ours and harmless.
impl From<Error> for AppError {
    fn from(error: Error) -> Self {
        let code = error.code();
        match error {
            Error::Throttled { retry_after_s } => Self::with(code, format!("{retry_after_s} s")),
            Error::Forbidden(permission) => Self::with(code, permission.scope()),
            Error::Conflict(text) | Error::Invalid(text) | Error::NotFound(text) => Self::with(code, text),
            // Telegram's own description of a refusal, such as `Unauthorized`; it never holds the token.
            Error::Telegram(text) => Self::with(code, text),
            other => {
                if code == ErrorCode::Internal {
                    tracing::error!(error = &other as &dyn std::error::Error, "A use case failed");
                }
                Self::new(code)
            }
        }
    }
}
