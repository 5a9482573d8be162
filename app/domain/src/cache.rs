//! Which of its answers a bot gives again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// Whose answers are given again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Nobody's.
    #[default]
    Off,
    /// Those that the same user got.
    User,
    /// Those that anybody got from the same bot.
    Shared,
}

impl Sharing {
    pub const ALL: [Self; 3] = [Self::Off, Self::User, Self::Shared];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::User => "user",
            Self::Shared => "shared",
        }
    }
}

impl FromStr for Sharing {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|sharing| sharing.name() == text)
            .ok_or(Invalid("off, user or shared"))
    }
}

/// For how long an answer is given again, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct KeptFor(i32);

impl KeptFor {
    /// A minute to thirty days.
    pub const RANGE: std::ops::RangeInclusive<i32> = 60..=2_592_000;
    /// Those that pages offer: ten minutes, an hour, a day, a week.
    pub const USUAL: [Self; 4] = [Self(600), Self(3600), Self(86_400), Self(604_800)];

    pub const fn seconds(self) -> i32 {
        self.0
    }
}

impl Default for KeptFor {
    fn default() -> Self {
        Self(3600)
    }
}

impl TryFrom<i32> for KeptFor {
    type Error = Invalid;
    fn try_from(seconds: i32) -> Result<Self, Invalid> {
        if Self::RANGE.contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(Invalid("a time of 60 to 2592000 seconds"))
        }
    }
}

impl From<KeptFor> for i32 {
    fn from(time: KeptFor) -> Self {
        time.0
    }
}

impl FromStr for KeptFor {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.trim().parse().unwrap_or(0).try_into()
    }
}

/// How much alike two questions are: the cosine between them, in thousandths. 1000 is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Likeness(u16);

impl Likeness {
    /// Of a cosine; what points away from each other is not alike at all.
    pub fn of_cosine(cosine: f32) -> Self {
        // Vectors of unit length are so only nearly: the same question is not to fall short of itself.
        let thousandths = (cosine * 1000.0 + 0.01).clamp(0.0, 1000.0);
        Self(thousandths as u16)
    }

    /// As stored.
    pub fn of_thousandths(thousandths: i32) -> Self {
        Self(u16::try_from(thousandths.clamp(0, 1000)).unwrap_or(0))
    }

    pub const fn thousandths(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Display for Likeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Who compares questions with those that were asked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComparedBy {
    /// The database, which has pgvector.
    Database,
    /// Each process, among the vectors that it holds.
    Process,
}

/// From which likeness on a question counts as asked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold(Likeness);

impl Threshold {
    pub fn likeness(self) -> Likeness {
        self.0
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Self(Likeness(950))
    }
}

impl TryFrom<i32> for Threshold {
    type Error = Invalid;
    fn try_from(thousandths: i32) -> Result<Self, Invalid> {
        if (500..=1000).contains(&thousandths) {
            Ok(Self(Likeness::of_thousandths(thousandths)))
        } else {
            Err(EXPECTED)
        }
    }
}

const EXPECTED: Invalid = Invalid("a likeness of 0.5 to 1, such as 0.92");

impl FromStr for Threshold {
    type Err = Invalid;
    /// With a point or a comma, and up to three digits behind it.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim().replace(',', ".");
        let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() && rest.is_empty() || rest.len() > 3 || !digits(whole) || !digits(rest) {
            return Err(EXPECTED);
        }
        let thousandths: i32 = format!("{whole}{rest:0<3}").parse().map_err(|_| EXPECTED)?;
        Self::try_from(thousandths)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of its answers a bot gives again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BotCache {
    pub sharing: Sharing,
    pub kept_for: KeptFor,
    /// The name of an embedding model by which questions are compared; `None`: only equal ones count.
    pub similar_by: Option<String>,
    /// Also where none are compared yet.
    pub similar_from: Threshold,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_people_write_them() {
        for (text, thousandths) in [
            ("0.92", 920),
            ("0,925", 925),
            ("1", 1000),
            (" .5 ", 500),
            ("1.000", 1000),
        ] {
            let threshold: Threshold = text.parse().unwrap();
            assert_eq!(threshold.likeness().thousandths(), thousandths, "{text}");
            assert_eq!(threshold.to_string().parse::<Threshold>().unwrap(), threshold);
        }
        for bad in ["", ".", "0.4", "1.001", "0.9999", "-1", "92", "0.9x", "99999999999"] {
            assert!(bad.parse::<Threshold>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_likeness_never_says_more_than_the_cosine_but_for_its_last_digits() {
        assert_eq!(Likeness::of_cosine(0.949_9).thousandths(), 949);
        assert_eq!(Likeness::of_cosine(0.999_999_9).thousandths(), 1000);
        assert_eq!(Likeness::of_cosine(-1.0).thousandths(), 0);
        assert_eq!(Likeness::of_cosine(f32::NAN).thousandths(), 0);
    }

    #[test]
    fn times_are_bounded() {
        assert!("60".parse::<KeptFor>().is_ok() && "2592000".parse::<KeptFor>().is_ok());
        for bad in ["59", "2592001", "", "day"] {
            assert!(bad.parse::<KeptFor>().is_err(), "{bad} was taken");
        }
    }
}
