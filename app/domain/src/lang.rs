//! The languages in which Botdeck speaks.

use serde::{Deserialize, Serialize};

/// A language with a complete set of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    #[default]
    En,
    Ru,
}

impl Lang {
    /// Chooses by an IETF tag such as Telegram's `language_code` (`ru`, `ru-RU`, `en-GB`…); anything unknown is English.
    pub fn from_tag(tag: Option<&str>) -> Self {
        match tag
            .map(|tag| tag.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase())
            .as_deref()
        {
            Some("ru") => Self::Ru,
            _ => Self::En,
        }
    }

    /// The tag used in HTML, cookies and translation files.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ru => "ru",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_follows_the_primary_subtag() {
        assert_eq!(Lang::from_tag(Some("ru-RU")), Lang::Ru);
        assert_eq!(Lang::from_tag(Some("RU")), Lang::Ru);
        assert_eq!(Lang::from_tag(Some("de")), Lang::En);
        assert_eq!(Lang::from_tag(Some("uk")), Lang::En);
        assert_eq!(Lang::from_tag(None), Lang::En);
    }
}
