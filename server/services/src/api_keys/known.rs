//! What a replica remembers of keys, and how many it looks up at once: strangers, who can make up as many keys as they like, must not
//! keep the database from those whose keys are good.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::{ApiKeyId, views::api_keys::KeyRow};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::Error;

/// How long a replica goes on believing what it read of a key; so long may one that was revoked elsewhere still be used here.
const BELIEVED: Duration = Duration::from_secs(2);
/// How long a key is no stranger after it was read.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Look-ups of strangers at once, and as many of keys that are remembered.
const LOOK_UPS: usize = 4;
/// A stranger waits this long for a turn: enough for a program that begins with many calls at once, of which one look-up does for all.
const PATIENCE: Duration = Duration::from_millis(500);
/// As long as for a connection.
const PATIENCE_WITH_KNOWN: Duration = Duration::from_secs(5);

/// What was read of keys. Only keys that exist are in it, so nobody can fill it.
pub(crate) struct KnownKeys {
    keys: Mutex<HashMap<[u8; 32], (KeyRow, Instant)>>,
    strangers: Semaphore,
    familiar: Semaphore,
}

impl Default for KnownKeys {
    fn default() -> Self {
        Self {
            keys: Mutex::default(),
            strangers: Semaphore::new(LOOK_UPS),
            familiar: Semaphore::new(LOOK_UPS),
        }
    }
}

impl KnownKeys {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<[u8; 32], (KeyRow, Instant)>) -> T) -> T {
        act(&mut self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was read a moment ago.
    pub(super) fn get(&self, hash: &[u8; 32]) -> Option<KeyRow> {
        self.with(|keys| {
            let believed = keys.get(hash).filter(|(_, at)| at.elapsed() < BELIEVED);
            believed.map(|(key, _)| key.clone())
        })
    }

    pub(super) fn put(&self, hash: [u8; 32], key: KeyRow) {
        self.with(|keys| {
            keys.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
            keys.insert(hash, (key, Instant::now()));
        });
    }

    pub(super) fn forget(&self, id: ApiKeyId) {
        self.with(|keys| keys.retain(|_, (key, _)| key.id != id));
    }

    /// A turn to look a key up. Too many at once are [`Error::Throttled`].
    pub(super) async fn turn(&self, hash: &[u8; 32]) -> Result<SemaphorePermit<'_>, Error> {
        let (turns, patience) = if self.with(|keys| keys.contains_key(hash)) {
            (&self.familiar, PATIENCE_WITH_KNOWN)
        } else {
            (&self.strangers, PATIENCE)
        };
        if let Ok(Ok(turn)) = timeout(patience, turns.acquire()).await {
            return Ok(turn);
        }
        metrics::counter!("botdeck_api_look_ups_refused_total").increment(1);
        Err(Error::Throttled { retry_after_s: 1 })
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn key() -> KeyRow {
        KeyRow {
            id: ApiKeyId(uuid::Uuid::nil()),
            name: "program".to_owned(),
            prefix: String::new(),
            scopes: Vec::new(),
            models: None,
            limits: Vec::new(),
            created: DateTime::UNIX_EPOCH,
            created_by: String::new(),
            expires: None,
            last_used: None,
            revoked: None,
        }
    }

    #[tokio::test]
    async fn strangers_do_not_hinder_a_key_that_was_seen() {
        let known = KnownKeys::default();
        known.put([1; 32], key());
        let mut turns = Vec::new();
        for stranger in 2..6 {
            turns.push(known.turn(&[stranger; 32]).await.unwrap());
        }
        let refused = known.turn(&[7; 32]).await;
        assert!(matches!(refused, Err(Error::Throttled { retry_after_s: 1 })));
        assert!(known.get(&[1; 32]).is_some() && known.turn(&[1; 32]).await.is_ok());
        turns.clear();
        assert!(known.turn(&[7; 32]).await.is_ok());
        known.forget(key().id);
        assert!(known.get(&[1; 32]).is_none());
    }
}
