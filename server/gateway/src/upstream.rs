//! A provider as it lives: its connections, its keys in rotation, who may ask it now.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::{ProviderId, ProviderKeyId};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::{
    BadProvider, BreakerRules, BreakerState, ChatRequest, ChunkStream, Demo, GatewayError, Incoming, LastFailure,
    Outgoing, Provider, ProviderKind, ProviderSpec, anthropic,
    breaker::{Breaker, Events, Pass, SharedBreaker},
    openai,
    places::{Lender, Place, Places},
};

/// How long a key is left alone after a refusal that named no time.
const REST: Duration = Duration::from_secs(5);
/// A key that was refused altogether may be good again when somebody has paid.
const LONG_REST: Duration = Duration::from_secs(60);

/// One provider.
pub(crate) struct Upstream {
    pub(crate) spec: ProviderSpec,
    connection: Arc<Connection>,
    keys: Vec<Arc<Key>>,
    next_key: AtomicUsize,
    breaker: Arc<Breaker>,
    places: Arc<Places>,
    pub(crate) budget: Arc<RetryBudget>,
}

/// One key, or the lack of one, with what speaks for it.
pub(crate) struct Key {
    pub(crate) id: Option<ProviderKeyId>,
    secret: SecretString,
    pub(crate) adapter: Arc<dyn Provider>,
    breaker: Arc<Breaker>,
    rests_until: Mutex<Option<Instant>>,
}

/// What the keys of a provider share.
enum Connection {
    Given(Arc<dyn Provider>),
    OpenAi(openai::Connection),
    Anthropic(anthropic::Connection),
    Demo,
    /// It cannot be set up: whoever asks it learns why.
    Broken(String),
}

impl Connection {
    fn open(spec: &ProviderSpec) -> Self {
        match spec.kind {
            ProviderKind::Demo => Self::Demo,
            ProviderKind::OpenAi => openai::Connection::open(spec).map_or_else(Self::broken, Self::OpenAi),
            ProviderKind::Anthropic => anthropic::Connection::open(spec).map_or_else(Self::broken, Self::Anthropic),
        }
    }

    fn broken(error: BadProvider) -> Self {
        Self::Broken(error.to_string())
    }

    fn adapter(&self, key: &SecretString) -> Arc<dyn Provider> {
        let made: Result<Arc<dyn Provider>, BadProvider> = match self {
            Self::Given(provider) => return Arc::clone(provider),
            Self::Demo => return Arc::new(Demo::new()),
            Self::Broken(why) => return Arc::new(Broken(why.clone())),
            Self::OpenAi(connection) => connection.with_key(key).map(|one| Arc::new(one) as _),
            Self::Anthropic(connection) => connection.with_key(key).map(|one| Arc::new(one) as _),
        };
        made.unwrap_or_else(|error| Arc::new(Broken(error.to_string())))
    }
}

/// In the place of a provider that cannot be set up.
struct Broken(String);

#[async_trait]
impl Provider for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    async fn stream(&self, _: &ChatRequest) -> Result<ChunkStream, GatewayError> {
        Err(GatewayError::down(self.0.clone()))
    }

    async fn forward(&self, _: &Outgoing<'_>) -> Result<Incoming, GatewayError> {
        Err(GatewayError::down(self.0.clone()))
    }

    async fn probe(&self, _: &str) -> Result<(), GatewayError> {
        Err(GatewayError::down(self.0.clone()))
    }

    async fn list_models(&self) -> Result<(), GatewayError> {
        Err(GatewayError::down(self.0.clone()))
    }
}

/// What its keys and providers need in order to be made.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) rules: BreakerRules,
    pub(crate) events: Events,
    pub(crate) lender: Lender,
}

impl Upstream {
    /// `old` is what it was before: whatever did not change goes on, with its connections and all that was learned.
    pub(crate) fn new(
        spec: ProviderSpec,
        given: Option<&Arc<dyn Provider>>,
        old: Option<&Self>,
        around: &Surroundings,
    ) -> Self {
        let old = old.filter(|old| match (&*old.connection, given) {
            (Connection::Given(before), Some(now)) => Arc::ptr_eq(before, now),
            (Connection::Given(_), None) | (_, Some(_)) => false,
            _ => old.spec.same_connection(&spec),
        });
        let connection = match (old, given) {
            (Some(old), _) => Arc::clone(&old.connection),
            (None, Some(provider)) => Arc::new(Connection::Given(Arc::clone(provider))),
            (None, None) => Arc::new(Connection::open(&spec)),
        };
        let breaker = |key| Breaker::new(spec.id, key, around.rules, Arc::clone(&around.events));
        let key = |id: Option<ProviderKeyId>, secret: &SecretString| {
            let same = |key: &&Arc<Key>| key.id == id && key.secret.expose_secret() == secret.expose_secret();
            let before = old.and_then(|old| old.keys.iter().find(same));
            before.cloned().unwrap_or_else(|| {
                Arc::new(Key {
                    id,
                    secret: secret.clone(),
                    adapter: connection.adapter(secret),
                    breaker: breaker(id),
                    rests_until: Mutex::default(),
                })
            })
        };
        let keys = if spec.keys.is_empty() {
            vec![key(None, &SecretString::default())]
        } else {
            spec.keys.iter().map(|one| key(Some(one.id), &one.secret)).collect()
        };
        let places = match old {
            Some(old) => {
                old.places.set_most(spec.max_concurrent);
                Arc::clone(&old.places)
            }
            None => {
                // What has no row is each process' own.
                let is_shared = given.is_none() && spec.kind != ProviderKind::Demo;
                let lender = is_shared.then(|| Arc::clone(&around.lender));
                Places::new(spec.id, spec.max_concurrent, lender)
            }
        };
        Self {
            breaker: old.map_or_else(|| breaker(None), |old| Arc::clone(&old.breaker)),
            budget: old.map_or_else(Arc::default, |old| Arc::clone(&old.budget)),
            next_key: AtomicUsize::new(0),
            keys,
            places,
            connection,
            spec,
        }
    }

    /// Leave to ask with one of the keys: those that rest are taken last, those of `but` not at all. `anyway`: there is nobody else.
    pub(crate) fn admit(&self, but: &[Arc<Key>], anyway: bool) -> Result<(Arc<Key>, Leave), GatewayError> {
        let admit = if anyway { Breaker::admit_anyway } else { Breaker::admit };
        let provider = admit(&self.breaker)?;
        let from = self.next_key.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut keys: Vec<&Arc<Key>> = (0..self.keys.len())
            .filter_map(|at| self.keys.get((from + at) % self.keys.len()))
            .filter(|key| !but.iter().any(|other| Arc::ptr_eq(key, other)))
            .collect();
        keys.sort_by_key(|key| key.rest(now));
        let mut why = GatewayError::down("the provider has no other key");
        for key in keys {
            match admit(&key.breaker) {
                Ok(pass) => return Ok((Arc::clone(key), Leave { provider, key: pass })),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Whether there is a key besides these that does not rest.
    pub(crate) fn has_key_but(&self, but: &[Arc<Key>]) -> bool {
        let now = Instant::now();
        let fresh = |key: &&Arc<Key>| key.rest(now).is_zero() && !but.iter().any(|other| Arc::ptr_eq(key, other));
        self.keys.iter().any(|key| fresh(&key))
    }

    /// Made elsewhere than from a row.
    pub(crate) fn is_given(&self) -> bool {
        matches!(&*self.connection, Connection::Given(_))
    }

    /// All its keys, whatever is known of them: for staff who test. One without an id where it is asked without.
    pub(crate) fn keys(&self) -> &[Arc<Key>] {
        &self.keys
    }

    /// Waits for one of the places.
    pub(crate) async fn enter(&self) -> Place {
        self.places.enter().await
    }

    /// Nobody is asked a second time after `pause`: it is known to be of no use for longer.
    pub(crate) fn rests_beyond(&self, pause: Duration) -> bool {
        self.breaker.seen().open_for.is_some_and(|open_for| open_for > pause)
    }

    /// All breakers that are not closed on other replicas.
    pub(crate) fn shared(&self, open: &[SharedBreaker]) {
        let of = |key: Option<ProviderKeyId>| {
            let mut own = open.iter().filter(|one| one.provider == self.spec.id);
            own.find(|one| one.key == key).map(|one| (one.open_for, one.code))
        };
        self.breaker.shared(of(None));
        for key in self.keys.iter().filter(|key| key.id.is_some()) {
            key.breaker.shared(of(key.id));
        }
    }

    pub(crate) fn seen(&self) -> ProviderState {
        let seen = self.breaker.seen();
        let now = Instant::now();
        let keys = self.keys.iter().map(|key| {
            let seen = key.breaker.seen();
            let rest = key.rest(now);
            KeyState {
                id: key.id,
                state: seen.state,
                since: seen.since,
                open_for: seen.open_for,
                rests_for: (!rest.is_zero()).then_some(rest),
                last_failure: seen.last_failure,
            }
        });
        ProviderState {
            id: self.spec.id,
            name: self.spec.name.clone(),
            enabled: self.spec.enabled,
            state: seen.state,
            since: seen.since,
            open_for: seen.open_for,
            running: self.places.taken(),
            last_failure: seen.last_failure,
            keys: keys.collect(),
        }
    }
}

impl Key {
    /// For how long it rests yet.
    fn rest(&self, now: Instant) -> Duration {
        let until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    fn send_to_rest(&self, rest: Duration) {
        let until = Instant::now() + rest.min(LONG_REST);
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

/// Leave of a provider and of one of its keys to ask once, and what is made of it.
pub(crate) struct Leave {
    provider: Pass,
    key: Pass,
}

impl Leave {
    /// The provider answers as it should, be it by a refusal.
    pub(crate) fn good(&mut self) {
        self.provider.good();
        self.key.good();
    }

    pub(crate) fn failed(&mut self, key: &Key, error: &GatewayError) {
        match error {
            GatewayError::Busy { retry_after, .. } => {
                self.provider.good();
                self.key.bad(error);
                key.send_to_rest(retry_after.unwrap_or(REST));
            }
            GatewayError::Auth { .. } => {
                self.provider.good();
                self.key.bad(error);
                key.send_to_rest(LONG_REST);
            }
            GatewayError::Timeout { .. } | GatewayError::Down { .. } => self.provider.bad(error),
            // It was not asked, which says nothing of it.
            GatewayError::Unable { .. } => {}
            _ => self.good(),
        }
    }
}

/// A provider as pages show it.
#[derive(Clone, Debug)]
pub struct ProviderState {
    pub id: ProviderId,
    pub name: String,
    pub enabled: bool,
    pub state: BreakerState,
    /// How long it has been so.
    pub since: Duration,
    /// How long it is left alone yet, if it is open; nothing when the next request is to find out.
    pub open_for: Option<Duration>,
    /// Requests under way in this process.
    pub running: usize,
    pub last_failure: Option<LastFailure>,
    pub keys: Vec<KeyState>,
}

/// A key as pages show it.
#[derive(Clone, Debug)]
pub struct KeyState {
    /// `None` where the provider is asked without, or with that of the settings.
    pub id: Option<ProviderKeyId>,
    pub state: BreakerState,
    pub since: Duration,
    pub open_for: Option<Duration>,
    /// It was refused, or is over its limit: others are taken first.
    pub rests_for: Option<Duration>,
    pub last_failure: Option<LastFailure>,
}

/// Keeps a sick provider from being asked twice as often as a healthy one: second attempts are a share of the first ones.
/// Going on to another provider is free.
#[derive(Default)]
pub(crate) struct RetryBudget(Mutex<Halves>);

/// The last minute, in two halves.
#[derive(Default)]
struct Halves {
    began: Option<Instant>,
    now: Counted,
    before: Counted,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    requests: u32,
    retries: u32,
}

const HALF: Duration = Duration::from_secs(30);
/// Of the requests of the last minute.
const RETRY_PERCENT: u32 = 20;
/// Always allowed, in a minute.
const FEW_RETRIES: u32 = 30;

impl RetryBudget {
    fn halves(&self) -> MutexGuard<'_, Halves> {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let age = now - *halves.began.get_or_insert(now);
        if age >= HALF {
            halves.before = if age < HALF * 2 { halves.now } else { Counted::default() };
            halves.now = Counted::default();
            halves.began = Some(now);
        }
        halves
    }

    pub(crate) fn asked(&self) {
        self.halves().now.requests += 1;
    }

    /// Counts a second attempt if there may be one.
    pub(crate) fn retry(&self) -> bool {
        let mut halves = self.halves();
        let requests = halves.now.requests + halves.before.requests;
        let allowed = halves.now.retries + halves.before.retries < FEW_RETRIES + requests * RETRY_PERCENT / 100;
        halves.now.retries += u32::from(allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn second_attempts_are_a_share_of_the_first() {
        let budget = RetryBudget::default();
        let granted = |tries: u32| (0..tries).filter(|_| budget.retry()).count() as u32;
        assert_eq!(granted(1000), FEW_RETRIES);
        (0..1000).for_each(|_| budget.asked());
        assert_eq!(granted(1000), 200);
        (0..99).for_each(|_| budget.asked());
        assert_eq!(granted(1000), 19, "counted by ones, not by hundreds");
        tokio::time::advance(HALF).await;
        assert_eq!(granted(1000), 0);
        tokio::time::advance(HALF).await;
        assert_eq!(granted(1000), FEW_RETRIES, "a minute later all is forgotten");
    }
}
