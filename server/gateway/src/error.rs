//! Why a provider gave no answer, or only a part of one.

use std::{error::Error, time::Duration};

use domain::ErrorCode;

type Source = Box<dyn Error + Send + Sync>;

/// A provider's failure. What it displays is for staff; users see [`GatewayError::code`] and words that go with it.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Nothing, or no end, came in time.
    #[error("timed out waiting for {what}")]
    Timeout { what: &'static str },
    /// The provider is over its own limit.
    #[error("the provider is busy (429): {detail}")]
    Busy {
        retry_after: Option<Duration>,
        detail: String,
    },
    /// Our key or our account was refused.
    #[error("the provider refused the key or the account{}: {detail}", in_brackets(*.status))]
    Auth { status: Option<u16>, detail: String },
    /// This request was refused, and would be again.
    #[error("the provider refused the request{}: {detail}", in_brackets(*.status))]
    Refused { status: Option<u16>, detail: String },
    /// Nobody was asked: this provider's protocol has no words for the request. Another one's may.
    #[error("the provider cannot serve the request: {detail}")]
    Unable { detail: String },
    /// More was sent than the model reads at once.
    #[error("the conversation is too long for the model{}: {detail}", in_brackets(*.status))]
    Context { status: Option<u16>, detail: String },
    /// It ended in good order and had said nothing.
    #[error("empty answer (finish reason: {finish})")]
    Empty { finish: String },
    /// The provider failed or could not be reached.
    #[error("the provider failed{}: {detail}", in_brackets(*.status))]
    Down {
        status: Option<u16>,
        detail: String,
        #[source]
        source: Option<Source>,
    },
    /// It failed so often that it is left alone for a while.
    #[error("the provider is left alone after failures: {detail}")]
    Resting { code: ErrorCode, detail: String },
    /// The stream broke after text had been given.
    #[error("the answer broke off: {detail}")]
    Cut {
        detail: String,
        #[source]
        source: Option<Box<GatewayError>>,
    },
}

fn in_brackets(status: Option<u16>) -> String {
    status.map(|status| format!(" ({status})")).unwrap_or_default()
}

/// How much of a cause staff get to see.
const CAUSE_CHARS: usize = 500;

impl GatewayError {
    pub(crate) fn refused(detail: impl Into<String>) -> Self {
        Self::Refused {
            status: None,
            detail: detail.into(),
        }
    }

    pub(crate) fn unable(detail: impl Into<String>) -> Self {
        Self::Unable { detail: detail.into() }
    }

    pub(crate) fn down(detail: impl Into<String>) -> Self {
        Self::Down {
            status: None,
            detail: detail.into(),
            source: None,
        }
    }

    /// The stable code under which users and staff speak of it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Timeout { .. } => ErrorCode::AiTimeout,
            Self::Busy { .. } => ErrorCode::AiBusy,
            Self::Auth { .. } => ErrorCode::AiAuth,
            Self::Refused { .. } | Self::Unable { .. } => ErrorCode::AiRefused,
            Self::Context { .. } => ErrorCode::AiContext,
            Self::Empty { .. } => ErrorCode::AiEmpty,
            Self::Down { .. } => ErrorCode::AiDown,
            Self::Resting { code, .. } => *code,
            Self::Cut { .. } => ErrorCode::AiCut,
        }
    }

    /// The status the provider answered with, if it did.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Busy { .. } => Some(429),
            Self::Auth { status, .. }
            | Self::Refused { status, .. }
            | Self::Context { status, .. }
            | Self::Down { status, .. } => *status,
            Self::Cut { source, .. } => source.as_ref().and_then(|source| source.status()),
            Self::Timeout { .. } | Self::Unable { .. } | Self::Empty { .. } | Self::Resting { .. } => None,
        }
    }

    /// Whether asking again may help. A deadline that has passed is not retried: the person has waited long enough, and
    /// the provider may be billing the first attempt still.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Down { .. })
    }

    /// The whole chain of causes for staff, without keys, in at most 500 characters. Never shown to users.
    pub fn cause(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(error) = next {
            let words = error.to_string();
            if !text.contains(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            next = error.source();
        }
        bounded(&redacted(&text, None), CAUSE_CHARS)
    }
}

/// `text` on one line, cut to `chars` characters.
pub(crate) fn bounded(text: &str, chars: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= chars {
        return line;
    }
    let mut cut: String = line.chars().take(chars.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// `text` without `key`, and without anything that looks like one: providers quote keys in their refusals.
pub(crate) fn redacted(text: &str, key: Option<&str>) -> String {
    let known = match key {
        Some(key) if !key.is_empty() => text.replace(key, "[key]"),
        _ => text.to_owned(),
    };
    let mut after_bearer = false;
    known
        .split_inclusive(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '(' | ')' | '`' | '='))
        .map(|piece| {
            let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '*');
            let secret = word.starts_with("sk-") || (after_bearer && !word.is_empty());
            after_bearer = word.eq_ignore_ascii_case("bearer");
            if secret {
                piece.replacen(word, "[key]", 1)
            } else {
                piece.to_owned()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_names_status_and_message_but_no_key() {
        let error = GatewayError::Auth {
            status: Some(401),
            detail: "Incorrect API key provided: sk-proj-ab***yz. See Bearer gsk_12345, 'sk-other'".into(),
        };
        let cause = error.cause();
        assert!(cause.contains("401") && cause.contains("Incorrect API key provided: [key]."));
        for part in ["sk-proj", "gsk_12345", "sk-other", "yz"] {
            assert!(!cause.contains(part), "{part} is in {cause}");
        }
        assert_eq!(
            redacted("no vendor-key-17 here", Some("vendor-key-17")),
            "no [key] here"
        );
    }

    #[test]
    fn a_cause_is_one_bounded_line_with_its_sources() {
        let error = GatewayError::Cut {
            detail: "in the middle".into(),
            source: Some(Box::new(GatewayError::down("x\n".repeat(2000)))),
        };
        let cause = error.cause();
        assert_eq!(cause.chars().count(), CAUSE_CHARS);
        assert!(cause.starts_with("the answer broke off: in the middle: the provider failed: x x"));
        assert_eq!(error.code(), ErrorCode::AiCut);
    }
}
