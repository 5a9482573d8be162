//! Providers, models and names as the page of models shows them. No key is ever among it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::LimitBar;
use crate::{ModelId, ModelKind, Price, ProviderId, ProviderKeyId, ProviderKind};

/// Whether a provider, or one of its keys, is asked at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// In use.
    Closed,
    /// Left alone, until then where that is known.
    Open { until: Option<DateTime<Utc>> },
    /// One request at a time, to see whether it has recovered.
    HalfOpen,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelBoard {
    pub now: DateTime<Utc>,
    pub providers: Vec<ProviderCard>,
    /// In the order in which people are offered them; the first shown one is the default.
    pub aliases: Vec<AliasRow>,
    /// Nothing was set up for chat: the built-in demo model answers.
    pub is_demo: bool,
    /// What was set up for chat cannot be asked.
    pub is_away: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderCard {
    pub id: ProviderId,
    pub name: String,
    pub kind: ProviderKind,
    pub base_url: String,
    pub organisation: Option<String>,
    /// Whether requests go through a proxy; its address may hold a password.
    pub has_proxy: bool,
    /// Names of the headers that are added; their values are secrets.
    pub headers: Vec<String>,
    pub max_concurrent: Option<i32>,
    pub enabled: bool,
    /// Comes from `OPENAI_*` and follows them at each start.
    pub from_settings: bool,
    /// What it is asked with cannot be opened by this process.
    pub is_sealed: bool,
    pub state: BreakerState,
    /// Requests under way in this process.
    pub running: u32,
    pub last_failure: Option<FailureRow>,
    pub keys: Vec<KeyRow>,
    pub models: Vec<ModelRow>,
}

/// What a provider failed with last, in this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureRow {
    pub at: DateTime<Utc>,
    pub code: String,
    /// In words for staff.
    pub cause: String,
    /// It has answered since.
    pub is_over: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyRow {
    pub id: ProviderKeyId,
    /// `sk-…wxyz`
    pub hint: String,
    pub state: BreakerState,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRow {
    pub id: ModelId,
    pub name: String,
    pub kind: ModelKind,
    pub context_tokens: i32,
    pub max_answer_tokens: i32,
    pub enabled: bool,
    pub price: Price,
    /// Newest first, the one in force included.
    pub prices: Vec<PriceRow>,
}

/// A name under which people and programs ask, and where it leads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AliasRow {
    pub name: String,
    pub shown: bool,
    /// Tried in order; within a tier shared out by weight.
    pub tiers: Vec<Vec<TargetRow>>,
    /// The limits of the name with their use; empty without `limits:read`.
    pub limits: Vec<LimitBar>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetRow {
    pub model: ModelId,
    /// As the provider calls it.
    pub name: String,
    pub provider: String,
    pub weight: i32,
}

/// What a save has changed, as the trail has it: only fields that are different, and neither side where none is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Of the provider, the model or the name.
    pub name: String,
    /// `None` of what is new.
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// What a provider was asked for, to see whether it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestedBy {
    /// One token of this model.
    Token(String),
    /// One embedding by this model.
    Embedding(String),
    /// The list of its models.
    Models,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tested {
    pub provider: ProviderId,
    /// The one that was to be tested; `None`: the provider as such.
    pub model: Option<ModelId>,
    pub by: TestedBy,
    /// One by one; a single one without a hint where it is asked without a key.
    pub keys: Vec<KeyTested>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTested {
    pub hint: Option<String>,
    pub ms: i64,
    /// In words for staff; `None`: it answers.
    pub failure: Option<String>,
}

/// A price with its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PriceRow {
    pub since: DateTime<Utc>,
    pub price: Price,
    pub set_by: String,
}
