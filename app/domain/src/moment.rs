//! Points and ranges of time as an address holds them.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Utc};
use serde::{Deserialize, Serialize};

use crate::Invalid;

/// A point in time to the second: `2026-11-24T10:30Z`. Always of UTC, so that an address that is sent means the same everywhere; a
/// field for a date and a time leaves out the `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub DateTime<Utc>);

const EXPECTED: &str = "a time such as 2026-11-24T10:30";

impl FromStr for Moment {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let text = text.strip_suffix('Z').unwrap_or(text);
        let parsed = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        parsed
            .and_then(|time| time.with_nanosecond(0))
            // Others are no dates of a calendar that anybody picks from, and would overflow further on.
            .filter(|time| (1970..=9999).contains(&time.year()))
            .map(|time| Self(time.and_utc()))
            .ok_or(Invalid(EXPECTED))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.0;
        let (year, month, day) = (time.year(), time.month(), time.day());
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}",
            time.hour(),
            time.minute()
        )?;
        match time.second() {
            0 => f.write_str("Z"),
            second => write!(f, ":{second:02}Z"),
        }
    }
}

/// How far back a list goes, counted from now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Past {
    #[default]
    All,
    Hour,
    Day,
    Week,
    Month,
}

impl Past {
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::All];

    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// Where it begins; `None` is as far back as there is anything.
    pub fn since(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let hours = match self {
            Self::All => return None,
            Self::Hour => 1,
            Self::Day => 24,
            Self::Week => 24 * 7,
            Self::Month => 24 * 30,
        };
        Some(now - TimeDelta::hours(hours))
    }
}

impl FromStr for Past {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|past| past.name() == text)
            .ok_or(Invalid("hour, day, week, month or all"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seconds in 0_i64..253_402_300_800) {
            let moment = Moment(DateTime::from_timestamp(seconds, 0).unwrap());
            prop_assert_eq!(moment.to_string().parse::<Moment>().unwrap(), moment);
        }

        #[test]
        fn nothing_that_is_typed_breaks_it(text in ".*") {
            let _ = text.parse::<Moment>();
        }
    }

    #[test]
    fn fields_leave_out_the_zone_and_some_write_seconds() {
        let read = |text: &str| text.parse::<Moment>().map(|moment| moment.to_string());
        for (text, written) in [
            ("2026-11-24T10:30", "2026-11-24T10:30Z"),
            (" 2026-11-24T10:30Z ", "2026-11-24T10:30Z"),
            ("2026-11-24T10:30:00.000Z", "2026-11-24T10:30Z"),
            ("2026-11-24T10:30:07.250", "2026-11-24T10:30:07Z"),
        ] {
            assert_eq!(read(text).unwrap(), written, "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-11-24",
            "2026-13-01T00:00",
            "2026-11-24T25:00",
            "1969-12-31T23:59",
            "+10000-01-01T00:00",
            "2026-11-24T10:30+03:00",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_is_named_as_it_is_read() {
        let now = DateTime::from_timestamp(1_000_000_000, 0).unwrap();
        for past in Past::ALL {
            assert_eq!(past.name().parse::<Past>().unwrap(), past);
        }
        assert_eq!(Past::Day.since(now), Some(now - TimeDelta::days(1)));
        assert_eq!(Past::All.since(now), None);
        assert!("year".parse::<Past>().is_err());
    }
}
