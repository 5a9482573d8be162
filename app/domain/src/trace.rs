//! Which requests and jobs belong together.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Invalid;

/// The id of a trace: 16 bytes that are not all zero, written as 32 hexadecimal digits, as
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/#trace-id) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceId(Uuid);

impl TraceId {
    /// `None` of the id that is all zero, which stands for no trace.
    pub const fn new(id: Uuid) -> Option<Self> {
        if id.is_nil() { None } else { Some(Self(id)) }
    }

    /// What the header `traceparent` of a caller says: `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. Of a version that
    /// is not known yet the same places are read.
    pub fn of_traceparent(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, length: usize| {
            text.len() == length
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
        };
        let fits = is_hex(version, 2)
            && version != "ff"
            && is_hex(trace, 32)
            && is_hex(parent, 16)
            && parent.bytes().any(|byte| byte != b'0')
            && is_hex(flags, 2)
            && (version != "00" || parts.next().is_none());
        if fits { trace.parse().ok() } else { None }
    }

    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// Also takes the digits in the groups of a UUID, as the header `x-request-id` shows them.
impl FromStr for TraceId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.trim()
            .parse()
            .ok()
            .and_then(Self::new)
            .ok_or(Invalid("a trace id of 32 hexadecimal digits"))
    }
}

impl TryFrom<String> for TraceId {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<TraceId> for String {
    fn from(id: TraceId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bits in 1_u128..) {
            let id = TraceId::new(Uuid::from_u128(bits)).unwrap();
            prop_assert_eq!(id.to_string(), format!("{bits:032x}"));
            prop_assert_eq!(id.to_string().parse::<TraceId>().unwrap(), id);
            prop_assert_eq!(id.as_uuid().to_string().parse::<TraceId>().unwrap(), id);
            let header = format!("00-{id}-00f067aa0ba902b7-01");
            prop_assert_eq!(TraceId::of_traceparent(&header), Some(id));
        }

        #[test]
        fn nothing_that_is_sent_breaks_it(text in ".*") {
            let _ = (text.parse::<TraceId>(), TraceId::of_traceparent(&text));
        }
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for text in [
            "",
            "4bf9",
            "00000000000000000000000000000000",
            "zbf92f3577b34da6a3ce929d0e0e4736",
        ] {
            assert!(text.parse::<TraceId>().is_err(), "{text}");
        }
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for header in [
            trace.to_owned(),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{trace}-{parent}-01-more"),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{}-{parent}-01", "0".repeat(32)),
        ] {
            assert_eq!(TraceId::of_traceparent(&header), None, "{header}");
        }
        assert!(TraceId::of_traceparent(&format!("01-{trace}-{parent}-01-more")).is_some());
    }
}
