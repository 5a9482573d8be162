//! Answers that were given before to exactly the same question, by whoever may share them.
//!
//! Off unless the caller passes a [`CacheScope`]: what is in a conversation is mostly personal. An entry ends with its time; another
//! persona, model or target makes another key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use domain::ModelId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{ChatRequest, Turn};

const LIFETIME: Duration = Duration::from_secs(3600);
/// All texts together.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// Longer than this nobody waits for the shared cache.
const PATIENCE: Duration = Duration::from_millis(50);

/// Who may be given each other's answers: a user, a bot that is set to share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheScope(String);

impl CacheScope {
    pub fn new(tenant: impl Into<String>) -> Self {
        Self(tenant.into())
    }
}

/// A BLAKE3 hash.
pub type CacheKey = [u8; 32];

/// A cache that replicas share. Whatever goes wrong with it is a miss.
#[async_trait]
pub trait SharedCache: Send + Sync {
    async fn get(&self, key: &CacheKey) -> Option<Vec<u8>>;
    async fn put(&self, key: &CacheKey, value: Vec<u8>, lifetime: Duration);
}

/// An answer that is complete.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) text: String,
    /// Where the text ended each time there was more of it, so that a stream is replayed as a stream.
    pub(crate) ends: Vec<usize>,
    pub(crate) finish: String,
    pub(crate) provider: String,
    pub(crate) model_id: Option<ModelId>,
}

/// What is asked, by every field that can change the answer. A field that is added to the request does not compile until it
/// is thought of here.
pub(crate) fn key(scope: &CacheScope, request: &ChatRequest, targets: &[ModelId]) -> CacheKey {
    let ChatRequest {
        model,
        messages,
        max_tokens,
        // Says who asks, which is the scope's to decide.
        user: _,
    } = request;
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(scope.0.as_bytes());
    field(model.as_bytes());
    field(&max_tokens.to_le_bytes());
    field(&(targets.len() as u64).to_le_bytes());
    for target in targets {
        field(target.0.as_bytes());
    }
    for Turn { role, text } in messages {
        field(role.as_str().as_bytes());
        field(text.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

type Flight = watch::Receiver<Option<Arc<Stored>>>;

pub(crate) struct Cache {
    local: moka::sync::Cache<CacheKey, Arc<Stored>>,
    shared: OnceLock<Arc<dyn SharedCache>>,
    /// Questions that are being answered just now.
    flights: Mutex<HashMap<CacheKey, Flight>>,
}

/// What is known of a question.
pub(crate) enum Look<'a> {
    Hit(Arc<Stored>),
    /// Somebody has asked the same just now.
    Wait(Flight),
    /// Nobody has: whoever holds this asks for all.
    Lead(Lead<'a>),
}

/// Others wait for what becomes of this; dropping it lets them go on by themselves.
pub(crate) struct Lead<'a> {
    cache: &'a Cache,
    key: CacheKey,
    told: watch::Sender<Option<Arc<Stored>>>,
}

impl Default for Cache {
    fn default() -> Self {
        let weight = |_: &CacheKey, stored: &Arc<Stored>| {
            let bytes = stored.text.len() + stored.ends.len() * size_of::<usize>() + 200;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let local = moka::sync::Cache::builder().max_capacity(MOST_BYTES).weigher(weight);
        Self {
            local: local.time_to_live(LIFETIME).build(),
            shared: OnceLock::new(),
            flights: Mutex::default(),
        }
    }
}

impl Cache {
    /// Only the first one given is taken.
    pub(crate) fn share(&self, shared: Arc<dyn SharedCache>) {
        let _ = self.shared.set(shared);
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<CacheKey, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn look(&self, key: CacheKey) -> Look<'_> {
        let mut flights = self.flights();
        // Looked up under the lock: a leader stores its answer before it leaves the list.
        if let Some(stored) = self.local.get(&key) {
            return Look::Hit(stored);
        }
        if let Some(flight) = flights.get(&key) {
            return Look::Wait(flight.clone());
        }
        let (told, flight) = watch::channel(None);
        flights.insert(key, flight);
        Look::Lead(Lead { cache: self, key, told })
    }
}

impl Lead<'_> {
    /// What another replica has stored.
    pub(crate) async fn shared(&self) -> Option<Arc<Stored>> {
        let shared = self.cache.shared.get()?;
        let value = tokio::time::timeout(PATIENCE, shared.get(&self.key)).await.ok()??;
        let stored: Stored = serde_json::from_slice(&value).ok()?;
        let fits = |end: &usize| stored.text.is_char_boundary(*end);
        stored.ends.iter().all(fits).then(|| Arc::new(stored))
    }

    /// Keeps an answer here, and gives it to whoever waits.
    pub(crate) fn keep(&self, stored: Arc<Stored>) {
        self.cache.local.insert(self.key, Arc::clone(&stored));
        self.told.send_replace(Some(stored));
    }

    /// Gives it to the other replicas as well.
    pub(crate) async fn spread(&self, stored: &Stored) {
        if let Some(shared) = self.cache.shared.get()
            && let Ok(value) = serde_json::to_vec(stored)
        {
            let _ = tokio::time::timeout(PATIENCE, shared.put(&self.key, value, LIFETIME)).await;
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.cache.flights().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::Role;

    #[test]
    fn whatever_can_change_the_answer_changes_the_key() {
        let request = |text: &str| ChatRequest {
            model: "m".into(),
            messages: vec![Turn {
                role: Role::User,
                text: text.into(),
            }],
            max_tokens: 10,
            user: "anna".into(),
        };
        let scope = CacheScope::new("bot");
        let target = [ModelId(Uuid::from_u128(1))];
        let first = key(&scope, &request("hi"), &target);
        let same = ChatRequest {
            user: "bob".into(),
            ..request("hi")
        };
        assert_eq!(first, key(&scope, &same, &target));
        let mut system = request("hi");
        system.messages[0].role = Role::System;
        let mut two = request("h");
        two.messages.push(Turn {
            role: Role::User,
            text: "i".into(),
        });
        for other in [
            request("hi "),
            system,
            two,
            ChatRequest {
                model: "n".into(),
                ..request("hi")
            },
            ChatRequest {
                max_tokens: 11,
                ..request("hi")
            },
        ] {
            assert_ne!(first, key(&scope, &other, &target));
        }
        assert_ne!(first, key(&CacheScope::new("other"), &request("hi"), &target));
        assert_ne!(first, key(&scope, &request("hi"), &[ModelId(Uuid::from_u128(2))]));
    }
}
