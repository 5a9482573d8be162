//! What an API key opens, and for how long.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// A kind of call that a key may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiScope {
    /// Chat completions and responses.
    Chat,
    Embeddings,
    Images,
    /// Transcription, translation and speech.
    Audio,
    /// The list of models.
    Models,
}

impl ApiScope {
    pub const ALL: [Self; 5] = [Self::Chat, Self::Embeddings, Self::Images, Self::Audio, Self::Models];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
            Self::Images => "images",
            Self::Audio => "audio",
            Self::Models => "models",
        }
    }
}

impl fmt::Display for ApiScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ApiScope {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.name() == text)
            .ok_or(Invalid("chat, embeddings, images, audio or models"))
    }
}

/// For how long a new key is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lifetime {
    Month,
    #[default]
    Quarter,
    Year,
    Forever,
}

impl Lifetime {
    pub const ALL: [Self; 4] = [Self::Month, Self::Quarter, Self::Year, Self::Forever];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
            Self::Forever => "forever",
        }
    }

    /// `None` has no end.
    pub const fn days(self) -> Option<i64> {
        match self {
            Self::Month => Some(30),
            Self::Quarter => Some(90),
            Self::Year => Some(365),
            Self::Forever => None,
        }
    }
}

impl FromStr for Lifetime {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|lifetime| lifetime.name() == text)
            .ok_or(Invalid("month, quarter, year or forever"))
    }
}
