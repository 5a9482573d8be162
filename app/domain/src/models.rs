//! Who can be asked, what for, and for how much.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Invalid, Money};

/// The protocol that a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// OpenAI's, and so that of Ollama, vLLM, OpenRouter, DeepSeek, Grok…
    OpenAi,
    Anthropic,
}

impl ProviderKind {
    pub const ALL: [Self; 2] = [Self::OpenAi, Self::Anthropic];

    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }
}

/// What a model makes of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    Chat,
    Embedding,
    Image,
    /// Text from speech.
    Transcription,
    /// Speech from text.
    Speech,
}

impl ModelKind {
    pub const ALL: [Self; 5] = [
        Self::Chat,
        Self::Embedding,
        Self::Image,
        Self::Transcription,
        Self::Speech,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Image => "image",
            Self::Transcription => "transcription",
            Self::Speech => "speech",
        }
    }
}

macro_rules! shown_by_name {
    ($($kind:ident),+) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    )+};
}

shown_by_name!(ProviderKind, ModelKind);

impl FromStr for ProviderKind {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or(Invalid("openai or anthropic"))
    }
}

impl FromStr for ModelKind {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or(Invalid("chat, embedding, image, transcription or speech"))
    }
}

/// What a model costs: per million tokens, an image each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    pub input: Money,
    /// Input that the provider had at hand from an earlier call.
    pub cached_input: Money,
    pub output: Money,
    /// `None`: as other output.
    pub reasoning: Option<Money>,
    pub image: Money,
    pub audio_input: Money,
    pub audio_output: Money,
}

impl Price {
    /// What a million tokens of reasoning cost.
    pub fn of_reasoning(&self) -> Money {
        self.reasoning.unwrap_or(self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in ModelKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        for kind in ProviderKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("gpt".parse::<ModelKind>().is_err() && "".parse::<ProviderKind>().is_err());
    }
}
