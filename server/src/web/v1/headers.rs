//! What is left of limits, in the headers of OpenAI: <https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers>; and
//! whether an answer may be one that was given before.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, TimeDelta, Utc};
use domain::{ApiKeyId, Measure};
use gateway::CacheScope;
use services::Headroom;

use super::ApiError;

/// With a request, for how many seconds its answer may be given again to the same key; with an answer, that it was.
pub const CACHE: HeaderName = HeaderName::from_static("x-botdeck-cache");
/// A day, in seconds.
const KEPT_LONGEST: u64 = 86_400;

/// Whether the program takes an answer that its key got before. Without the header it never does.
pub fn cache(headers: &HeaderMap, key: ApiKeyId) -> Result<Option<CacheScope>, ApiError> {
    let Some(value) = headers.get(CACHE) else {
        return Ok(None);
    };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
    match seconds.filter(|seconds| *seconds <= KEPT_LONGEST) {
        Some(0) => Ok(None),
        Some(seconds) => Ok(Some(CacheScope::new(
            format!("key {key}"),
            Duration::from_secs(seconds),
        ))),
        None => Err(ApiError::invalid(
            None,
            format!("The header {CACHE} has to be a number of seconds from 0 to {KEPT_LONGEST}."),
        )),
    }
}

/// Of several limits on requests, or on tokens, the one that has least left.
pub fn add_room(headers: &mut HeaderMap, room: &[Headroom], now: DateTime<Utc>) {
    for (measure, word) in [(Measure::Messages, "requests"), (Measure::Tokens, "tokens")] {
        let of_measure = room.iter().filter(|room| room.kind.measure() == measure);
        let Some(room) = of_measure.min_by_key(|room| room.left) else {
            continue;
        };
        let mut add = |what: &str, value: HeaderValue| {
            if let Ok(name) = HeaderName::try_from(format!("x-ratelimit-{what}-{word}")) {
                headers.insert(name, value);
            }
        };
        add("limit", HeaderValue::from(room.limit));
        add("remaining", HeaderValue::from(room.left));
        let reset = room.resets_at.map(|at| duration(at - now));
        if let Some(reset) = reset.and_then(|reset| HeaderValue::try_from(reset).ok()) {
            add("reset", reset);
        }
    }
}

/// As OpenAI writes it: `12ms`, `1.5s`, `6m0s`, `3h2m1s`.
fn duration(time: TimeDelta) -> String {
    let millis = time.num_milliseconds().max(0);
    let (seconds, rest) = (millis / 1000, millis % 1000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => format!("{rest}ms"),
        (0, 0, seconds) if rest > 0 => format!("{}s", format!("{seconds}.{rest:03}").trim_end_matches('0')),
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use domain::LimitKind;

    use super::*;

    #[test]
    fn times_are_written_as_openai_writes_them() {
        for (millis, text) in [
            (-5, "0ms"),
            (12, "12ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (1050, "1.05s"),
            (10_001, "10.001s"),
            (360_000, "6m0s"),
            (10_921_500, "3h2m1s"),
        ] {
            assert_eq!(duration(TimeDelta::milliseconds(millis)), text);
        }
    }

    #[test]
    fn a_program_says_for_how_long_an_answer_may_be_given_again() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE, value.parse().unwrap());
            cache(&headers, ApiKeyId(uuid::Uuid::nil()))
        };
        let key = ApiKeyId(uuid::Uuid::nil());
        assert_eq!(cache(&HeaderMap::new(), key).unwrap(), None);
        assert_eq!(of("0").unwrap(), None);
        let hour = CacheScope::new(format!("key {key}"), Duration::from_secs(3600));
        assert_eq!(of("3600").unwrap(), Some(hour));
        for bad in ["", "-1", "86401", "an hour"] {
            assert_eq!(of(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn the_narrowest_limit_is_told() {
        let now = DateTime::UNIX_EPOCH;
        let room = |kind, left, resets_at| Headroom {
            kind,
            limit: 100,
            left,
            resets_at,
        };
        let mut headers = HeaderMap::new();
        let soon = Some(now + TimeDelta::seconds(90));
        let rooms = [
            room(LimitKind::MessagesPerDay, 50, None),
            room(LimitKind::MessagesPerMinute, 3, soon),
            room(LimitKind::TokensTotal, 7, None),
        ];
        add_room(&mut headers, &rooms, now);
        let mut told: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                "x-ratelimit-limit-requests: 100",
                "x-ratelimit-limit-tokens: 100",
                "x-ratelimit-remaining-requests: 3",
                "x-ratelimit-remaining-tokens: 7",
                "x-ratelimit-reset-requests: 1m30s",
            ]
        );
    }
}
