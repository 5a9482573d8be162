//! Money as whole nano-dollars: a price of $0.15 per million tokens is 150 nano-dollars a token, exactly.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Sub},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::Invalid;

const NANOS_PER_DOLLAR: i64 = 1_000_000_000;

/// An amount in nano-dollars (10⁻⁹ USD); sums saturate rather than wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(i64);

impl Money {
    pub const ZERO: Self = Self(0);

    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Price of `tokens` at `self` per million tokens, rounded up to a whole nano-dollar so that nothing is free by rounding.
    pub fn per_million(self, tokens: i64) -> Self {
        let product = i128::from(self.0) * i128::from(tokens);
        let nanos = (product + 999_999).div_euclid(1_000_000);
        Self(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// `12.34`, with as many decimals as `decimals`, rounded half up; no currency sign.
    pub fn to_decimal(self, decimals: u32) -> String {
        let unit = 10_i128.pow(9 - decimals.min(9));
        let rounded = (i128::from(self.0).abs() + unit / 2) / unit;
        let scale = 10_i128.pow(decimals.min(9));
        let sign = if self.0 < 0 && rounded > 0 { "-" } else { "" };
        if decimals == 0 {
            return format!("{sign}{rounded}");
        }
        format!(
            "{sign}{}.{:0width$}",
            rounded / scale,
            rounded % scale,
            width = decimals as usize
        )
    }
}

/// Shows cents, and more digits only where cents would say nothing: `$3.20`, `$0.0042`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = if self.0 == 0 || self.0.abs() >= NANOS_PER_DOLLAR / 10 {
            2
        } else {
            4
        };
        let digits = self.to_decimal(decimals);
        match digits.strip_prefix('-') {
            Some(positive) => write!(f, "-${positive}"),
            None => write!(f, "${digits}"),
        }
    }
}

/// Reads dollars with up to nine decimals: `5`, `0.15`, `$12.50`.
impl FromStr for Money {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let expected = Invalid("an amount in dollars such as 12.50");
        let digits = text.trim().trim_start_matches('$');
        let (whole, fraction) = digits.split_once(['.', ',']).unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || fraction.len() > 9 || !all_digits(whole) || !all_digits(fraction) {
            return Err(expected);
        }
        let whole: i64 = whole.parse().map_err(|_| expected.clone())?;
        let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| expected.clone())?;
        whole
            .checked_mul(NANOS_PER_DOLLAR)
            .and_then(|nanos| nanos.checked_add(fraction))
            .map(Self)
            .ok_or(expected)
    }
}

impl Add for Money {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Money {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_priced_exactly_and_rounded_up() {
        let price: Money = "0.15".parse().unwrap();
        assert_eq!(price.per_million(1_000_000), price);
        assert_eq!(price.per_million(1).nanos(), 150);
        assert_eq!(Money::from_nanos(1).per_million(1).nanos(), 1);
        assert_eq!(price.per_million(0), Money::ZERO);
    }

    #[test]
    fn dollars_are_read_and_shown() {
        for (text, nanos, shown) in [
            ("5", 5_000_000_000, "$5.00"),
            ("$12.5", 12_500_000_000, "$12.50"),
            ("0.0042", 4_200_000, "$0.0042"),
        ] {
            let money: Money = text.parse().unwrap();
            assert_eq!(money.nanos(), nanos);
            assert_eq!(money.to_string(), shown);
        }
        for bad in ["", "x", "-1", "1.2.3", "1e9", "99999999999", "0.0000000001"] {
            assert!(bad.parse::<Money>().is_err(), "{bad} was taken");
        }
    }
}
