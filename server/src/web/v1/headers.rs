//! What is left of limits, in the headers of OpenAI: <https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers>.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, TimeDelta, Utc};
use domain::Measure;
use services::Headroom;

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
