//! A program that goes on asking although it is refused must not fill the log of requests.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use domain::{ApiKeyId, ErrorCode};

/// So many refusals of a key are written down in a minute by each replica.
const A_MINUTE: u32 = 30;

/// How many refusals of each key were written in the minute that runs.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Written>);

#[derive(Default)]
struct Written {
    minute: i64,
    // Of keys that exist, so this stays small.
    by_key: HashMap<ApiKeyId, u32>,
}

impl Refusals {
    /// Whether one more is to be written; one that is not is counted.
    pub(super) fn take(&self, key: ApiKeyId, code: ErrorCode, now: DateTime<Utc>) -> bool {
        let minute = now.timestamp().div_euclid(60);
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if written.minute != minute {
            *written = Written {
                minute,
                ..Written::default()
            };
        }
        let count = written.by_key.entry(key).or_default();
        if *count < A_MINUTE {
            *count += 1;
            return true;
        }
        metrics::counter!("botdeck_api_refusals_not_logged_total", "code" => code.as_str()).increment(1);
        false
    }
}
