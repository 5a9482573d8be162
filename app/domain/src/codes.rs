//! Failures as people meet them: a stable code to quote, and words chosen by the reader's language.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal),+ $(,)?) => {
        /// The stable, short name of a kind of failure. Never renamed: users quote it, staff search for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $code)] $name,)+
        }

        impl ErrorCode {
            pub const ALL: &[Self] = &[$(Self::$name),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// The HTTP status under which this failure leaves a web edge.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),+ }
            }
        }
    };
}

codes! {
    /// Messages per minute are used up.
    LimitMinute = "BD-LIMIT-MINUTE", 429,
    /// Messages of the day are used up.
    LimitDay = "BD-LIMIT-DAY", 429,
    /// Messages of the month are used up.
    LimitMonth = "BD-LIMIT-MONTH", 429,
    /// Tokens of a minute, day or month are used up.
    LimitTokens = "BD-LIMIT-TOKENS", 429,
    /// Money of a minute, day or month is used up.
    LimitMoney = "BD-LIMIT-MONEY", 429,
    /// Images of a minute, day or month are used up.
    LimitImages = "BD-LIMIT-IMAGES", 429,
    /// What somebody may use in all is used up; it does not start again by itself.
    LimitTotal = "BD-LIMIT-TOTAL", 429,
    /// A limit of the API key is used up.
    LimitKey = "BD-LIMIT-KEY", 429,
    /// A limit of the bot, whoever writes to it, is used up.
    LimitBot = "BD-LIMIT-BOT", 429,
    /// A limit of the model, whoever asks it, is used up.
    LimitModel = "BD-LIMIT-MODEL", 429,
    /// A limit of the whole deployment is used up.
    LimitDeck = "BD-LIMIT-DECK", 429,
    /// The provider gave no first token, or no end, in time.
    AiTimeout = "BD-AI-TIMEOUT", 504,
    /// The provider itself is over its limit (429).
    AiBusy = "BD-AI-BUSY", 503,
    /// The provider refused our key or our account.
    AiAuth = "BD-AI-AUTH", 502,
    /// The provider refused the request (4xx): model unknown, content filter.
    AiRefused = "BD-AI-REFUSED", 502,
    /// The conversation is longer than the provider's context, although its older part was left out.
    AiContext = "BD-AI-CONTEXT", 502,
    /// The provider answered in good order, but with nothing.
    AiEmpty = "BD-AI-EMPTY", 502,
    /// The provider failed (5xx, connection, broken answer).
    AiDown = "BD-AI-DOWN", 502,
    /// The stream broke after text had been shown; what came is kept.
    AiCut = "BD-AI-CUT", 502,
    /// The message is longer than the model's context.
    TooLong = "BD-INPUT-TOO-LONG", 400,
    /// The user is blocked by staff.
    Blocked = "BD-BLOCKED", 403,
    /// No such model on the list.
    NoModel = "BD-NO-MODEL", 400,
    /// An input did not parse.
    Invalid = "BD-INPUT", 400,
    /// Nobody is signed in.
    SignedOut = "BD-SIGNED-OUT", 401,
    /// Unknown name or wrong password; deliberately not told apart.
    BadLogin = "BD-LOGIN", 401,
    /// Too many attempts; try later.
    Throttled = "BD-THROTTLED", 429,
    /// Signed in, but the scope is missing.
    Forbidden = "BD-FORBIDDEN", 403,
    NotFound = "BD-NOT-FOUND", 404,
    /// Somebody else changed it first, or it exists already.
    Conflict = "BD-CONFLICT", 409,
    /// Telegram refused or did not answer.
    Telegram = "BD-TELEGRAM", 502,
    /// The request did not come from our own page.
    Origin = "BD-ORIGIN", 403,
    /// Our own fault; the cause is in the log under the trace id.
    Internal = "BD-INTERNAL", 500,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a page or an API client is told about a failure: the code, and at most one harmless detail (what was expected).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}{}", detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default())]
pub struct AppError {
    pub code: ErrorCode,
    pub detail: Option<String>,
}

impl AppError {
    pub fn new(code: ErrorCode) -> Self {
        Self { code, detail: None }
    }

    pub fn with(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: Some(detail.into()),
        }
    }
}

impl From<ErrorCode> for AppError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

impl From<crate::Invalid> for AppError {
    fn from(invalid: crate::Invalid) -> Self {
        Self::with(ErrorCode::Invalid, invalid.0)
    }
}
