//! What can be limited, over which time.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike, Duration, NaiveTime, TimeZone, Utc};
use serde::{Deserialize, Serialize};

use crate::{ErrorCode, Invalid, Money};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    Messages,
    /// Prompt and completion together.
    Tokens,
    /// Nano-dollars.
    Money,
}

/// Over which time it is counted. Days and months are those of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    Minute,
    Day,
    Month,
}

impl Measure {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Tokens => "tokens",
            Self::Money => "money",
        }
    }
}

impl Period {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Start of the window that `now` falls into.
    pub fn start(self, now: DateTime<Utc>) -> DateTime<Utc> {
        let date = now.date_naive();
        match self {
            Self::Minute => {
                now - Duration::nanoseconds(now.timestamp_nanos_opt().unwrap_or(0).rem_euclid(60_000_000_000))
            }
            Self::Day => date.and_time(NaiveTime::MIN).and_utc(),
            Self::Month => Utc
                .with_ymd_and_hms(date.year(), date.month(), 1, 0, 0, 0)
                .single()
                .unwrap_or_else(|| date.and_time(NaiveTime::MIN).and_utc()),
        }
    }

    /// When the window that `now` falls into ends and the count starts again at zero.
    pub fn reset(self, now: DateTime<Utc>) -> DateTime<Utc> {
        let start = self.start(now);
        match self {
            Self::Minute => start + Duration::minutes(1),
            Self::Day => start + Duration::days(1),
            Self::Month => start.checked_add_months(chrono::Months::new(1)).unwrap_or(start),
        }
    }
}

/// The limits a plan can set. A limit that is not set is `None`: no bound; 0 lets nothing through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    MessagesPerMinute,
    MessagesPerDay,
    TokensPerDay,
    MoneyPerMonth,
}

impl LimitKind {
    pub const ALL: [Self; 4] = [
        Self::MessagesPerMinute,
        Self::MessagesPerDay,
        Self::TokensPerDay,
        Self::MoneyPerMonth,
    ];

    /// The name used on the command line and in the audit trail.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MessagesPerMinute => "messages_per_minute",
            Self::MessagesPerDay => "messages_per_day",
            Self::TokensPerDay => "tokens_per_day",
            Self::MoneyPerMonth => "money_per_month",
        }
    }

    pub const fn measure(self) -> Measure {
        match self {
            Self::MessagesPerMinute | Self::MessagesPerDay => Measure::Messages,
            Self::TokensPerDay => Measure::Tokens,
            Self::MoneyPerMonth => Measure::Money,
        }
    }

    pub const fn period(self) -> Period {
        match self {
            Self::MessagesPerMinute => Period::Minute,
            Self::MessagesPerDay | Self::TokensPerDay => Period::Day,
            Self::MoneyPerMonth => Period::Month,
        }
    }

    pub const fn code(self) -> ErrorCode {
        match self {
            Self::MessagesPerMinute => ErrorCode::LimitMinute,
            Self::MessagesPerDay => ErrorCode::LimitDay,
            Self::TokensPerDay => ErrorCode::LimitTokens,
            Self::MoneyPerMonth => ErrorCode::LimitMoney,
        }
    }

    pub fn from_parts(measure: &str, period: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.measure().name() == measure && kind.period().name() == period)
    }

    /// Reads an amount in the unit of this limit: whole numbers, or dollars for money; `none`, `∞` or nothing for no limit.
    pub fn parse_amount(self, text: &str) -> Result<Option<i64>, Invalid> {
        let text = text.trim();
        if text.is_empty() || text == "∞" || text.eq_ignore_ascii_case("none") {
            return Ok(None);
        }
        if self.measure() == Measure::Money {
            return Ok(Some(text.parse::<Money>()?.nanos()));
        }
        let digits: String = text
            .chars()
            .filter(|c| !matches!(c, ' ' | '_' | '\u{a0}' | '\u{202f}'))
            .collect();
        match digits.parse::<i64>() {
            Ok(amount) if (0..=1_000_000_000_000).contains(&amount) => Ok(Some(amount)),
            _ => Err(Invalid("a whole number from 0, or none")),
        }
    }

    /// The inverse of `parse_amount`, for forms and the command line.
    pub fn show_amount(self, amount: Option<i64>) -> String {
        match amount {
            None => String::new(),
            Some(nanos) if self.measure() == Measure::Money => {
                let text = Money::from_nanos(nanos).to_decimal(9);
                let short = text.trim_end_matches('0');
                let decimals = short.split_once('.').map_or(0, |(_, fraction)| fraction.len());
                if decimals < 2 {
                    Money::from_nanos(nanos).to_decimal(2)
                } else {
                    short.to_owned()
                }
            }
            Some(amount) => amount.to_string(),
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LimitKind {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(Invalid(
            "messages_per_minute, messages_per_day, tokens_per_day or money_per_month",
        ))
    }
}

/// A limit in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    pub kind: LimitKind,
    /// In the unit of the kind: messages, tokens or nano-dollars.
    pub amount: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_start_and_reset_on_whole_units() {
        let now = Utc.with_ymd_and_hms(2026, 12, 31, 23, 59, 30).unwrap();
        assert_eq!(
            Period::Minute.start(now),
            Utc.with_ymd_and_hms(2026, 12, 31, 23, 59, 0).unwrap()
        );
        assert_eq!(
            Period::Day.reset(now),
            Utc.with_ymd_and_hms(2027, 1, 1, 0, 0, 0).unwrap()
        );
        assert_eq!(
            Period::Month.start(now),
            Utc.with_ymd_and_hms(2026, 12, 1, 0, 0, 0).unwrap()
        );
        assert_eq!(
            Period::Month.reset(now),
            Utc.with_ymd_and_hms(2027, 1, 1, 0, 0, 0).unwrap()
        );
    }

    #[test]
    fn amounts_are_read_in_their_unit_and_none_is_not_zero() {
        assert_eq!(LimitKind::MessagesPerDay.parse_amount("none"), Ok(None));
        assert_eq!(LimitKind::MessagesPerDay.parse_amount("0"), Ok(Some(0)));
        assert_eq!(LimitKind::TokensPerDay.parse_amount("100 000"), Ok(Some(100_000)));
        assert_eq!(LimitKind::MoneyPerMonth.parse_amount("2.50"), Ok(Some(2_500_000_000)));
        assert_eq!(LimitKind::MoneyPerMonth.show_amount(Some(2_500_000_000)), "2.50");
        assert_eq!(LimitKind::MoneyPerMonth.show_amount(Some(1)), "0.000000001");
        assert!(LimitKind::MessagesPerDay.parse_amount("-1").is_err());
    }
}
