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
    Images,
}

/// Over which time it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    Minute,
    Day,
    Month,
    /// Since the limit was set; it never starts again by itself.
    Total,
}

/// Whose use is counted. Several may apply to one call, and all must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One person: by their plan, by a limit of their own, or by both.
    User,
    ApiKey,
    Bot,
    Model,
    /// Everything that runs on this deck.
    Deployment,
}

impl Scope {
    /// In the order in which their counters are locked: what is shared by most comes last and is held shortest.
    pub const ALL: [Self; 5] = [Self::User, Self::ApiKey, Self::Bot, Self::Model, Self::Deployment];

    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ApiKey => "api_key",
            Self::Bot => "bot",
            Self::Model => "model",
            Self::Deployment => "deployment",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

impl Measure {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Tokens => "tokens",
            Self::Money => "money",
            Self::Images => "images",
        }
    }
}

impl Period {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Day => "day",
            Self::Month => "month",
            Self::Total => "total",
        }
    }

    /// Start of the window that `now` falls into, by UTC.
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
            Self::Total => DateTime::UNIX_EPOCH,
        }
    }

    /// When the window that `now` falls into ends and the count starts again at zero, by UTC; never for a total.
    pub fn reset(self, now: DateTime<Utc>) -> DateTime<Utc> {
        let start = self.start(now);
        match self {
            Self::Minute => start + Duration::minutes(1),
            Self::Day => start + Duration::days(1),
            Self::Month => start.checked_add_months(chrono::Months::new(1)).unwrap_or(start),
            Self::Total => DateTime::<Utc>::MAX_UTC,
        }
    }
}

macro_rules! kinds {
    ($($name:ident = $text:literal, $measure:ident, $period:ident;)+) => {
        /// Every limit there can be: a measure over a period. One that is not set is `None`: no bound; 0 lets nothing through.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum LimitKind {
            $(#[serde(rename = $text)] $name,)+
        }

        impl LimitKind {
            /// The four that every plan is asked for come first.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name used on the command line and in the audit trail.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            pub const fn measure(self) -> Measure {
                match self { $(Self::$name => Measure::$measure),+ }
            }

            pub const fn period(self) -> Period {
                match self { $(Self::$name => Period::$period),+ }
            }
        }
    };
}

kinds! {
    MessagesPerMinute = "messages_per_minute", Messages, Minute;
    MessagesPerDay = "messages_per_day", Messages, Day;
    TokensPerDay = "tokens_per_day", Tokens, Day;
    MoneyPerMonth = "money_per_month", Money, Month;
    MessagesPerMonth = "messages_per_month", Messages, Month;
    MessagesTotal = "messages_total", Messages, Total;
    TokensPerMinute = "tokens_per_minute", Tokens, Minute;
    TokensPerMonth = "tokens_per_month", Tokens, Month;
    TokensTotal = "tokens_total", Tokens, Total;
    MoneyPerMinute = "money_per_minute", Money, Minute;
    MoneyPerDay = "money_per_day", Money, Day;
    MoneyTotal = "money_total", Money, Total;
    ImagesPerMinute = "images_per_minute", Images, Minute;
    ImagesPerDay = "images_per_day", Images, Day;
    ImagesPerMonth = "images_per_month", Images, Month;
    ImagesTotal = "images_total", Images, Total;
}

impl LimitKind {
    /// Those that every plan is asked for.
    pub const USUAL: [Self; 4] = [
        Self::MessagesPerMinute,
        Self::MessagesPerDay,
        Self::TokensPerDay,
        Self::MoneyPerMonth,
    ];

    /// Counted as a rate, in Redis; all others are budgets, set aside and settled in the database.
    pub const fn is_rate(self) -> bool {
        matches!(self, Self::MessagesPerMinute)
    }

    /// What a person is told when this limit of their own is used up.
    pub const fn code(self) -> ErrorCode {
        match (self.measure(), self.period()) {
            (_, Period::Total) => ErrorCode::LimitTotal,
            (Measure::Messages, Period::Minute) => ErrorCode::LimitMinute,
            (Measure::Messages, Period::Day) => ErrorCode::LimitDay,
            (Measure::Messages, Period::Month) => ErrorCode::LimitMonth,
            (Measure::Tokens, _) => ErrorCode::LimitTokens,
            (Measure::Money, _) => ErrorCode::LimitMoney,
            (Measure::Images, _) => ErrorCode::LimitImages,
        }
    }

    /// The same when it is a limit of `scope`.
    pub const fn code_of(self, scope: Scope) -> ErrorCode {
        match scope {
            Scope::User => self.code(),
            Scope::ApiKey => ErrorCode::LimitKey,
            Scope::Bot => ErrorCode::LimitBot,
            Scope::Model => ErrorCode::LimitModel,
            Scope::Deployment => ErrorCode::LimitDeck,
        }
    }

    pub fn from_parts(measure: &str, period: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
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
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == text)
            .ok_or(Invalid(
                "messages, tokens, money or images, with _per_minute, _per_day, _per_month or _total",
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

    #[test]
    fn every_kind_is_found_by_its_name_and_by_its_parts() {
        assert_eq!(LimitKind::ALL.len(), 16);
        assert_eq!(LimitKind::ALL[..4], LimitKind::USUAL);
        for kind in LimitKind::ALL {
            assert_eq!(kind.name().parse(), Ok(*kind));
            assert_eq!(
                LimitKind::from_parts(kind.measure().name(), kind.period().name()),
                Some(*kind)
            );
            let joined = if kind.period() == Period::Total { "_" } else { "_per_" };
            assert_eq!(
                kind.name(),
                format!("{}{joined}{}", kind.measure().name(), kind.period().name())
            );
        }
        for scope in Scope::ALL {
            assert_eq!(Scope::from_name(scope.name()), Some(scope));
        }
    }
}
