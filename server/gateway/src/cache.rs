//! Answers that were given before to exactly the same question, by whoever may share them.
//!
//! Off unless the caller passes a [`CacheScope`]: what is in a conversation is mostly personal. An entry ends with its time; another
//! persona, model, provider or lifetime makes another key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use domain::ModelId;
use moka::policy::EvictionPolicy;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::{
    ChatRequest, Endpoint, Forward, ForwardBody, ModelSpec, ProviderSpec, Role, Turn,
    route::{Route, Target},
};

/// All answers together, in this process.
const MOST_BYTES: u64 = 32 * 1024 * 1024;
/// A longer answer is asked for anew each time: it would push out too many others, and hold up what else goes to Redis.
pub(crate) const LONGEST: usize = 256 * 1024;
/// Longer than this nobody waits for the shared cache, should it have no bound of its own.
const PATIENCE: Duration = Duration::from_millis(150);
/// Part of every key: rises when answers are kept in another way.
const VERSION: &[u8] = b"botdeck answers 1";

/// Who may be given each other's answers, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheScope {
    tenant: String,
    lifetime: Duration,
}

impl CacheScope {
    /// `tenant` names whoever shares: a user of a bot, a bot that is set to share, an API key.
    pub fn new(tenant: impl Into<String>, lifetime: Duration) -> Self {
        Self {
            tenant: tenant.into(),
            lifetime,
        }
    }
}

/// A BLAKE3 hash.
pub type CacheKey = [u8; 32];

/// Which cache an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheHit {
    /// To the very same question.
    Exact,
    /// To one that means much the same.
    Semantic,
}

impl CacheHit {
    /// As the ledger, the metrics and the header of `/v1` say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Semantic => "semantic",
        }
    }
}

/// An answer that was given to another question, and does for this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Similar {
    pub text: String,
    pub provider: String,
    pub model_id: Option<ModelId>,
}

/// A cache that replicas share. Whatever goes wrong with it is a miss.
#[async_trait]
pub trait SharedCache: Send + Sync {
    /// The value, and for how long it holds yet.
    async fn get(&self, key: &CacheKey) -> Option<(Vec<u8>, Duration)>;
    async fn put(&self, key: &CacheKey, value: Vec<u8>, lifetime: Duration);
}

/// An answer that is complete.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// What a model said, or the body that a program got.
    pub(crate) text: String,
    /// Where the text ended each time there was more of it, so that a stream is replayed as a stream.
    pub(crate) ends: Vec<usize>,
    /// Of a body.
    pub(crate) content_type: String,
    pub(crate) finish: String,
    pub(crate) provider: String,
    pub(crate) model_id: Option<ModelId>,
}

impl Stored {
    fn bytes(&self) -> usize {
        self.text.len() + self.ends.len() * size_of::<usize>() + 300
    }

    /// Whatever was read from elsewhere may be broken.
    fn is_sound(&self) -> bool {
        self.ends.is_sorted() && self.ends.last().is_none_or(|end| *end <= self.text.len())
    }
}

impl From<Similar> for Stored {
    fn from(similar: Similar) -> Self {
        Self {
            ends: vec![similar.text.len()],
            text: similar.text,
            content_type: String::new(),
            finish: "stop".to_owned(),
            provider: similar.provider,
            model_id: similar.model_id,
        }
    }
}

/// Hashes fields so that none can be taken for a part of its neighbour.
struct Fields(blake3::Hasher);

impl Fields {
    fn new(what: &str, scope: &CacheScope) -> Self {
        let CacheScope { tenant, lifetime } = scope;
        let mut fields = Self(blake3::Hasher::new());
        fields.add(VERSION);
        fields.add(what.as_bytes());
        fields.add(tenant.as_bytes());
        // Whoever shortens it means what is kept already as well.
        fields.add(&lifetime.as_millis().to_le_bytes());
        fields
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Whoever may answer.
    fn route(&mut self, route: &Route) {
        let targets: Vec<&Target> = route.targets().collect();
        self.add(&(targets.len() as u64).to_le_bytes());
        for target in targets {
            let ProviderSpec {
                id,
                kind,
                base_url,
                headers,
                organisation,
                // What it is called here, who pays, and how it is reached change no answer.
                name: _,
                keys: _,
                proxy: _,
                max_concurrent: _,
                enabled: _,
            } = &target.upstream.spec;
            self.add(id.0.as_bytes());
            self.add(&[*kind as u8]);
            self.add(base_url.as_bytes());
            self.add(organisation.as_deref().unwrap_or_default().as_bytes());
            self.add(&(headers.len() as u64).to_le_bytes());
            for (name, value) in headers {
                self.add(name.as_bytes());
                self.add(value.expose_secret().as_bytes());
            }
            let ModelSpec {
                id,
                name,
                context_tokens,
                max_answer_tokens,
                // Those of the route and of the spec above.
                kind: _,
                provider: _,
                price: _,
            } = &*target.model;
            self.add(id.0.as_bytes());
            self.add(name.as_bytes());
            self.add(&context_tokens.to_le_bytes());
            self.add(&max_answer_tokens.to_le_bytes());
        }
    }

    fn turns(&mut self, turns: &[Turn]) {
        self.add(&(turns.len() as u64).to_le_bytes());
        for Turn { role, text } in turns {
            self.add(role.as_str().as_bytes());
            self.add(text.as_bytes());
        }
    }

    fn key(&self) -> CacheKey {
        *self.0.finalize().as_bytes()
    }
}

/// What is asked, by every field that can change the answer. A field that is added to the request does not compile until it
/// is thought of here.
pub(crate) fn key(scope: &CacheScope, request: &ChatRequest, route: &Route) -> CacheKey {
    let ChatRequest {
        model,
        messages,
        max_tokens,
        // Says who asks, which is the scope's to decide.
        user: _,
    } = request;
    let mut fields = Fields::new("answer", scope);
    fields.add(model.as_bytes());
    fields.add(&max_tokens.to_le_bytes());
    fields.route(route);
    fields.turns(messages);
    fields.key()
}

/// The same of a request of another program, whose body says everything; `None` of what is not kept: forms and pictures are large,
/// sound is hardly ever asked for twice, and a response is a part of a conversation that its provider keeps.
pub(crate) fn forward_key(scope: &CacheScope, call: &Forward, route: &Route) -> Option<CacheKey> {
    let Forward {
        endpoint,
        alias,
        body,
        bound,
        // In the body.
        stream: _,
        // For the bill.
        tokens: _,
        images: _,
        spoken: _,
        cache: _,
    } = call;
    let (Endpoint::Chat | Endpoint::Embeddings, ForwardBody::Json(body)) = (endpoint, body) else {
        return None;
    };
    let mut fields = Fields::new(endpoint.path(), scope);
    fields.add(alias.as_bytes());
    fields.add(&bound.map_or(0, |bound| u64::from(bound.tokens) + 1).to_le_bytes());
    fields.route(route);
    fields.add(body);
    Some(fields.key())
}

/// All that makes a first question's answer but the question: whoever has the same may be given an answer to a similar one. `None`
/// where more was said before. `embedder`: what is meant by similar.
pub(crate) fn space(
    scope: &CacheScope,
    request: &ChatRequest,
    route: &Route,
    embedder: (&str, &Route),
) -> Option<CacheKey> {
    let ChatRequest {
        model,
        messages,
        max_tokens,
        user: _,
    } = request;
    let (question, before) = messages.split_last()?;
    if question.role != Role::User || before.iter().any(|turn| turn.role != Role::System) {
        return None;
    }
    let mut fields = Fields::new("similar", scope);
    fields.add(model.as_bytes());
    fields.add(&max_tokens.to_le_bytes());
    fields.route(route);
    fields.turns(before);
    fields.add(embedder.0.as_bytes());
    fields.route(embedder.1);
    Some(fields.key())
}

/// What became of a question that somebody asks for all.
#[derive(Clone)]
enum Told {
    Known(Arc<Stored>, CacheHit),
    /// Nothing that could be given to others.
    Nothing,
}

type Flight = watch::Receiver<Option<Told>>;

#[derive(Clone)]
struct Kept {
    stored: Arc<Stored>,
    until: Instant,
}

pub(crate) struct Cache {
    local: moka::sync::Cache<CacheKey, Kept>,
    shared: OnceLock<Arc<dyn SharedCache>>,
    /// Questions that are being answered just now.
    flights: Mutex<HashMap<CacheKey, Flight>>,
}

/// What is known of a question.
pub(crate) enum Turnout {
    Known(Arc<Stored>, CacheHit),
    /// Nobody has asked it: whoever holds this asks for all.
    Lead(Lead),
    /// Nobody can help.
    Alone,
}

enum Look {
    Hit(Arc<Stored>),
    /// Somebody has asked the same just now.
    Wait(Flight),
    Lead(Lead),
}

/// Others wait for what becomes of this. Dropped without a word, it lets another one take its place.
pub(crate) struct Lead {
    cache: Arc<Cache>,
    key: CacheKey,
    lifetime: Duration,
    told: watch::Sender<Option<Told>>,
}

impl Default for Cache {
    fn default() -> Self {
        let weight = |_: &CacheKey, kept: &Kept| u32::try_from(kept.stored.bytes()).unwrap_or(u32::MAX);
        let local = moka::sync::Cache::builder().max_capacity(MOST_BYTES).weigher(weight);
        Self {
            local: local.eviction_policy(EvictionPolicy::lru()).build(),
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

    fn look(self: &Arc<Self>, key: CacheKey, lifetime: Duration) -> Look {
        let mut flights = self.flights();
        // Looked up under the lock: a leader stores its answer before it leaves the list.
        if let Some(kept) = self.local.get(&key) {
            if kept.until > Instant::now() {
                return Look::Hit(kept.stored);
            }
            self.local.invalidate(&key);
        }
        if let Some(flight) = flights.get(&key) {
            return Look::Wait(flight.clone());
        }
        let (told, flight) = watch::channel(None);
        flights.insert(key, flight);
        Look::Lead(Lead {
            cache: Arc::clone(self),
            key,
            lifetime,
            told,
        })
    }

    /// What is known of a question, here, at whoever asks it just now, or at another replica. Waits for the one who asks; where he
    /// leaves, another one of those who wait takes his place.
    pub(crate) async fn turn_out(self: &Arc<Self>, key: CacheKey, scope: &CacheScope) -> Turnout {
        loop {
            match self.look(key, scope.lifetime) {
                Look::Hit(stored) => return Turnout::Known(stored, CacheHit::Exact),
                Look::Lead(lead) => {
                    return match lead.shared().await {
                        Some(stored) => Turnout::Known(stored, CacheHit::Exact),
                        None => Turnout::Lead(lead),
                    };
                }
                Look::Wait(mut flight) => {
                    let told = flight.wait_for(Option::is_some).await;
                    match told.as_deref() {
                        Ok(Some(Told::Known(stored, hit))) => return Turnout::Known(Arc::clone(stored), *hit),
                        Ok(_) => return Turnout::Alone,
                        Err(_) => {}
                    }
                }
            }
        }
    }
}

impl Lead {
    /// What another replica has stored; kept here as well, for as long as it holds there.
    async fn shared(&self) -> Option<Arc<Stored>> {
        let shared = self.cache.shared.get()?;
        let (value, left) = tokio::time::timeout(PATIENCE, shared.get(&self.key)).await.ok()??;
        let stored: Stored = serde_json::from_slice(&value).ok()?;
        if left.is_zero() || !stored.is_sound() {
            return None;
        }
        let stored = Arc::new(stored);
        self.keep_here(&stored, left.min(self.lifetime));
        Some(stored)
    }

    fn keep_here(&self, stored: &Arc<Stored>, left: Duration) {
        let kept = Kept {
            stored: Arc::clone(stored),
            until: Instant::now() + left,
        };
        self.cache.local.insert(self.key, kept);
        self.tell(Arc::clone(stored), CacheHit::Exact);
    }

    /// Keeps an answer here and at the other replicas, and gives it to whoever waits.
    pub(crate) fn keep(&self, stored: Arc<Stored>) {
        if stored.bytes() > LONGEST {
            return self.tell(stored, CacheHit::Exact);
        }
        self.keep_here(&stored, self.lifetime);
        if let Some(shared) = self.cache.shared.get().map(Arc::clone) {
            let (key, lifetime) = (self.key, self.lifetime);
            // Nobody's answer waits for it.
            tokio::spawn(async move {
                if let Ok(value) = serde_json::to_vec(&*stored) {
                    let _ = tokio::time::timeout(PATIENCE, shared.put(&key, value, lifetime)).await;
                }
            });
        }
    }

    /// Gives an answer to whoever waits, and to nobody after them.
    pub(crate) fn tell(&self, stored: Arc<Stored>, hit: CacheHit) {
        self.told.send_replace(Some(Told::Known(stored, hit)));
    }

    /// There is nothing to give: those who wait ask for themselves.
    pub(crate) fn tell_nothing(&self) {
        self.told.send_replace(Some(Told::Nothing));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.cache.flights().remove(&self.key);
    }
}
