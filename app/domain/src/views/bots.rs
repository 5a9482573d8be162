//! Bots as the page of bots shows them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{BotRow, LimitBar};
use crate::BotCache;

/// All bots, and what they can be set to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BotBoard {
    pub now: DateTime<Utc>,
    pub bots: Vec<BotCard>,
    /// Names of the models on offer, the default one first.
    pub models: Vec<String>,
    /// Names of the models by which questions can be compared.
    pub embedders: Vec<String>,
    /// Telegram can reach us, so there may be webhooks.
    pub webhooks: bool,
}

/// A bot with its health and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BotCard {
    pub row: BotRow,
    /// The replica that runs its intake.
    pub lease_holder: Option<String>,
    /// Age of its oldest job that waits; `None` when none does.
    pub lag_ms: Option<i64>,
    /// Updates that Telegram still holds back, and when it said so.
    pub pending: Option<(i64, DateTime<Utc>)>,
    /// How often Telegram asked it to wait (429) in the last hour.
    pub flood_waits: i64,
    /// Empty for the built-in one.
    pub persona: String,
    /// `None` for the default one.
    pub model: Option<String>,
    pub cache: BotCache,
    /// Its own limits with their use; empty without `limits:read`.
    pub limits: Vec<LimitBar>,
}
