//! API keys as staff see them; the keys themselves are shown once and kept nowhere.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, ApiScope, LimitKind};

/// The page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyBoard {
    pub now: DateTime<Utc>,
    /// Those that open something first, then the newest first.
    pub keys: Vec<KeyRow>,
    /// What a key can be narrowed to.
    pub models: Vec<String>,
    /// One to try a key with.
    pub example: String,
    /// Where programs call, such as `https://deck.example.org/v1`.
    pub base_url: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyRow {
    pub id: ApiKeyId,
    pub name: String,
    /// How the key begins.
    pub prefix: String,
    pub scopes: Vec<ApiScope>,
    /// `None` is every model.
    pub models: Option<Vec<String>>,
    /// Only those that are set.
    pub limits: Vec<(LimitKind, i64)>,
    pub created: DateTime<Utc>,
    pub created_by: String,
    pub expires: Option<DateTime<Utc>>,
    /// To the minute.
    pub last_used: Option<DateTime<Utc>>,
    pub revoked: Option<Revoked>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revoked {
    pub at: DateTime<Utc>,
    pub by: String,
}

impl KeyRow {
    pub fn state(&self, now: DateTime<Utc>) -> KeyState {
        if self.revoked.is_some() {
            KeyState::Revoked
        } else if self.expires.is_some_and(|at| at <= now) {
            KeyState::Expired
        } else {
            KeyState::Good
        }
    }
}

/// Whether a key opens anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    Good,
    Expired,
    Revoked,
}

/// A key that was just made: the only time that anybody sees it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct FreshKey {
    pub id: ApiKeyId,
    pub name: String,
    pub secret: String,
}

impl std::fmt::Debug for FreshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FreshKey({})", self.id)
    }
}
