//! Values parsed at the boundary: holding one means it is well-formed.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text was not taken: a short phrase that says what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct Invalid(pub &'static str);

/// Trims, refuses control characters and holds the length (in characters) inside `range`.
fn line(text: &str, range: std::ops::RangeInclusive<usize>, expected: &'static str) -> Result<String, Invalid> {
    let text = text.trim();
    let fits = range.contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Invalid(expected))
    }
}

macro_rules! text_value {
    ($($(#[$doc:meta])* $name:ident($range:expr, $expected:literal)),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                line(text, $range, $expected).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

text_value! {
    /// Why staff blocked a user; shown to staff and in the audit trail, never to the user.
    BlockReason(1..=500, "a reason of 1 to 500 characters"),
    /// The name of a plan, unique.
    PlanName(1..=40, "a name of 1 to 40 characters"),
    /// What an API key is for, in words of those who made it.
    KeyName(1..=64, "a name of 1 to 64 characters"),
    /// The name of a bot in the dashboard.
    BotName(1..=64, "a name of 1 to 64 characters"),
    /// What was typed into a search field; may be empty.
    SearchText(0..=200, "at most 200 characters"),
}

/// Who a bot is, told to its model before every conversation. Empty stands for the built-in one. Lines end as on Unix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Persona(String);

impl Persona {
    /// In characters. It is paid for with every message, so more would be dear.
    pub const MAX: usize = 4000;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Persona {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.replace("\r\n", "\n");
        let text = text.trim();
        let strange = |c: char| c.is_control() && c != '\n' && c != '\t';
        if text.chars().count() <= Self::MAX && !text.chars().any(strange) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid("a text of at most 4000 characters"))
        }
    }
}

impl TryFrom<String> for Persona {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Persona> for String {
    fn from(persona: Persona) -> Self {
        persona.0
    }
}

/// An address that staff sign in with; kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Email(String);

impl Email {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        const EXPECTED: &str = "an e-mail address such as ann@example.org";
        let text = line(text, 3..=254, EXPECTED)?.to_lowercase();
        let well_formed = text.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty()
                && !host.is_empty()
                && !host.contains('@')
                && !host.starts_with('.')
                && !host.ends_with('.')
        });
        if well_formed && !text.contains(char::is_whitespace) {
            Ok(Self(text))
        } else {
            Err(Invalid(EXPECTED))
        }
    }
}

impl TryFrom<String> for Email {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A password on its way to be hashed. `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Password(String);

impl Password {
    /// NIST SP 800-63B: length is what counts; 8 is its floor, 10 ours; the ceiling only bounds the work of hashing.
    pub const MIN: usize = 10;
    pub const MAX: usize = 200;

    /// The text itself; only the hasher asks for it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Password {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if (Self::MIN..=Self::MAX).contains(&text.chars().count()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid("a password of 10 to 200 characters"))
        }
    }
}

impl TryFrom<String> for Password {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Password> for String {
    fn from(password: Password) -> Self {
        password.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The colours of the dashboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// As the system has it.
    #[default]
    Auto,
    Light,
    Dark,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn emails() {
        assert_eq!(
            " Ann@Example.ORG ".parse::<Email>().unwrap().as_str(),
            "ann@example.org"
        );
        for bad in ["", "a", "a@", "@b", "a b@c", "a@b@c", "a@.b", "a@b."] {
            assert!(bad.parse::<Email>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_password_never_shows() {
        let password: Password = "correct horse".parse().unwrap();
        assert!(!format!("{password:?}").contains("horse"));
        assert!("short".parse::<Password>().is_err());
    }

    proptest! {
        #[test]
        fn a_parsed_reason_is_trimmed_bounded_and_parses_again(text in ".{0,600}") {
            if let Ok(reason) = text.parse::<BlockReason>() {
                prop_assert!((1..=500).contains(&reason.as_str().chars().count()));
                prop_assert_eq!(reason.as_str().trim(), reason.as_str());
                prop_assert_eq!(reason.as_str().parse::<BlockReason>().unwrap(), reason);
            }
        }

        #[test]
        fn a_parsed_persona_is_bounded_and_parses_to_itself(text in "(?s).{0,300}|[a\\n\\r\\t]{3990,4010}") {
            if let Ok(persona) = text.parse::<Persona>() {
                prop_assert!(persona.as_str().chars().count() <= Persona::MAX);
                prop_assert!(!persona.as_str().contains('\r'));
                prop_assert_eq!(persona.as_str().parse::<Persona>().unwrap(), persona);
            }
        }

        #[test]
        fn a_parsed_email_parses_to_itself(text in ".{0,40}@.{0,40}") {
            if let Ok(email) = text.parse::<Email>() {
                prop_assert_eq!(email.as_str().parse::<Email>().unwrap(), email);
            }
        }
    }
}
