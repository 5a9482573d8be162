//! API keys as staff see them; the keys themselves are shown once and kept nowhere.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, ApiScope, Invalid, LimitKind};

/// A key that ends within so long is said to end soon.
pub const SOON: TimeDelta = TimeDelta::days(7);

/// Which keys a list shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStates {
    #[default]
    Any,
    /// Those that open something.
    Active,
    /// Of these, the ones that end within [`SOON`].
    Expiring,
    Expired,
    Revoked,
}

impl KeyStates {
    pub const ALL: [Self; 5] = [Self::Any, Self::Active, Self::Expiring, Self::Expired, Self::Revoked];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Active => "active",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl FromStr for KeyStates {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|states| states.name() == text)
            .ok_or(Invalid("any, active, expiring, expired or revoked"))
    }
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyOrder {
    /// The newest.
    #[default]
    Created,
    /// By the alphabet.
    Name,
    /// What was used last; what never was comes after all others.
    Used,
}

impl KeyOrder {
    pub const ALL: [Self; 3] = [Self::Created, Self::Name, Self::Used];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Name => "name",
            Self::Used => "used",
        }
    }
}

impl FromStr for KeyOrder {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|order| order.name() == text)
            .ok_or(Invalid("created, name or used"))
    }
}

/// The state of the page; lives in its address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyQuery {
    /// A part of the name, or how the key begins.
    pub search: String,
    pub states: KeyStates,
    pub order: KeyOrder,
    /// `KeyBoard::next` of the page before.
    pub after: Option<String>,
}

/// The page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyBoard {
    pub now: DateTime<Utc>,
    /// One page of them.
    pub keys: Vec<KeyRow>,
    /// The key of the page after it.
    pub next: Option<String>,
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

    /// It opens something, but not for long.
    pub fn ends_soon(&self, now: DateTime<Utc>) -> bool {
        self.state(now) == KeyState::Good && self.expires.is_some_and(|at| at <= now + SOON)
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
