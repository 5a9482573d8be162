//! The log of calls to models. No texts of people are in it.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, BotId, ConversationId, Invalid, Money, Past, TraceId, UserId};

/// Which calls a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    #[default]
    Any,
    Good,
    /// With an error code, also where a part of the answer came.
    Failed,
}

impl Outcome {
    pub const ALL: [Self; 3] = [Self::Any, Self::Good, Self::Failed];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Good => "good",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for Outcome {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.name() == text)
            .ok_or(Invalid("any, good or failed"))
    }
}

/// The state of the page; lives in its address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestQuery {
    pub outcome: Outcome,
    /// An error code, such as `BD-AI-DOWN`; or the id of a trace, or of a call.
    pub code: Option<String>,
    /// As it was asked for, or the provider's name for it.
    pub model: Option<String>,
    pub bot: Option<BotId>,
    pub user: Option<UserId>,
    pub key: Option<ApiKeyId>,
    pub conversation: Option<ConversationId>,
    /// Counts only where neither `from` nor `to` is given.
    #[serde(default)]
    pub past: Past,
    /// The first moment, as [`Moment`](crate::Moment) reads it.
    pub from: Option<String>,
    /// The first moment that is not shown any more.
    pub to: Option<String>,
    /// `Page::next` of the page before.
    pub after: Option<String>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestRow {
    /// The job's or the call's.
    pub id: uuid::Uuid,
    pub at: DateTime<Utc>,
    pub user: Option<Named<UserId>>,
    pub key: Option<Named<ApiKeyId>>,
    pub bot: Option<Named<BotId>>,
    pub conversation: Option<ConversationId>,
    /// As it was asked for.
    pub alias: String,
    pub provider: String,
    pub model: String,
    pub tries: Vec<TryRow>,
    pub prompt_tokens: i64,
    pub cached_tokens: i64,
    pub completion_tokens: i64,
    pub reasoning_tokens: Option<i64>,
    pub audio_input_tokens: Option<i64>,
    pub audio_output_tokens: Option<i64>,
    pub images: Option<i64>,
    /// False: counted here, since the provider did not say.
    pub reported: bool,
    pub cost: Money,
    pub billed_at: BilledAt,
    pub first_token_ms: Option<i64>,
    pub total_ms: i64,
    pub felt_ms: i64,
    /// Empty, `exact` or `semantic`.
    pub cache: String,
    pub finish: String,
    pub code: Option<String>,
    /// What another program was answered with.
    pub status: Option<i32>,
    /// What it was part of. `None` where a release before has not kept it.
    pub trace: Option<TraceId>,
}

/// At what a call was billed: per million tokens, and per picture. `None` where a release before has not kept it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BilledAt {
    pub input: Option<Money>,
    pub cached_input: Option<Money>,
    pub output: Option<Money>,
    pub reasoning: Option<Money>,
    pub image: Option<Money>,
    pub audio_input: Option<Money>,
    pub audio_output: Option<Money>,
}

/// An id with the name that goes with it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Named<T> {
    pub id: T,
    pub name: String,
}

/// Who was asked, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TryRow {
    pub provider: String,
    pub model: String,
    /// `None` when it answered.
    pub code: Option<String>,
    /// What the provider answered with, if it did.
    pub status: Option<u16>,
    pub ms: i64,
}
