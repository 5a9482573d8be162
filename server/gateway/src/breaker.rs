//! Leaves a provider or a key alone that keeps failing, and lets one request at a time find out whether it is well again.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use domain::{ErrorCode, ProviderId, ProviderKeyId};
use tokio::time::Instant;

use crate::GatewayError;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// This many failures in a row open it.
    pub in_a_row: u32,
    /// As does this share of failures (percent) among at least `of_requests` within a window.
    pub percent: u32,
    pub of_requests: u32,
    pub window: Duration,
    /// How long it stays open at first; doubled with each probe that fails, up to `longest`.
    pub first: Duration,
    pub longest: Duration,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            in_a_row: 10,
            percent: 50,
            of_requests: 40,
            window: Duration::from_secs(30),
            first: Duration::from_secs(2),
            longest: Duration::from_secs(60),
        }
    }
}

/// Whether requests pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    /// One request is finding out.
    HalfOpen,
}

/// A breaker has changed by what this process saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub provider: ProviderId,
    /// Of this key; of the provider as a whole when `None`.
    pub key: Option<ProviderKeyId>,
    pub state: BreakerState,
    /// For how long, if open.
    pub open_for: Option<Duration>,
    /// What happened last.
    pub code: Option<ErrorCode>,
}

/// A breaker that is not closed, as another replica saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedBreaker {
    pub provider: ProviderId,
    /// Of this key; of the provider as a whole when `None`.
    pub key: Option<ProviderKeyId>,
    /// For how long it is open yet; zero when somebody is to find out.
    pub open_for: Duration,
    /// What had happened.
    pub code: ErrorCode,
}

/// Hears of every transition, so that other replicas can be told ([`crate::Gateway::share_breakers`]). Called on the way of
/// an answer: it must not block.
pub trait BreakerEvents: Send + Sync {
    fn changed(&self, transition: &Transition);
}

/// Set once, after the gateway was made.
pub(crate) type Events = Arc<OnceLock<Arc<dyn BreakerEvents>>>;

/// The last thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    pub code: ErrorCode,
    /// For staff, without keys.
    pub cause: String,
    pub ago: Duration,
    /// It has answered since.
    pub is_over: bool,
}

/// How a breaker is.
pub(crate) struct Seen {
    pub(crate) state: BreakerState,
    /// How long it has been so.
    pub(crate) since: Duration,
    /// How long nobody passes yet, if it is open; nothing when the next one is to find out.
    pub(crate) open_for: Option<Duration>,
    pub(crate) last_failure: Option<LastFailure>,
}

pub(crate) struct Breaker {
    provider: ProviderId,
    key: Option<ProviderKeyId>,
    rules: BreakerRules,
    events: Events,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    since: Instant,
    in_a_row: u32,
    window: Instant,
    good: u32,
    bad: u32,
    /// How often it opened without having closed between.
    opened: u32,
    last: Option<(ErrorCode, String, Instant)>,
    /// It has answered since `last`.
    is_over: bool,
    /// It is open because another replica saw this.
    told: Option<ErrorCode>,
}

#[derive(Clone, Copy)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

impl Phase {
    fn state(self) -> BreakerState {
        match self {
            Self::Closed => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen => BreakerState::HalfOpen,
        }
    }
}

/// Leave to ask once. A probe that is dropped without a verdict (the person left) lets another one in.
pub(crate) struct Pass {
    breaker: Arc<Breaker>,
    probe: bool,
    /// Let in although it is open: a success closes it all the same.
    hope: bool,
}

impl Breaker {
    pub(crate) fn new(
        provider: ProviderId,
        key: Option<ProviderKeyId>,
        rules: BreakerRules,
        events: Events,
    ) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            phase: Phase::Closed,
            since: now,
            in_a_row: 0,
            window: now,
            good: 0,
            bad: 0,
            opened: 0,
            last: None,
            is_over: false,
            told: None,
        };
        Arc::new(Self {
            provider,
            key,
            rules,
            events,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to ask, or why there is none.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Pass, GatewayError> {
        let now = Instant::now();
        let state = self.state();
        let probe = match state.phase {
            Phase::Closed => false,
            Phase::Open { until } if now >= until => {
                self.change(state, Phase::HalfOpen, None);
                true
            }
            _ => {
                let (code, detail) = match (state.told, &state.last) {
                    (None, Some((code, cause, _))) => (*code, cause.clone()),
                    (told, _) => (told.unwrap_or(ErrorCode::AiDown), "as another replica saw".to_owned()),
                };
                return Err(GatewayError::Resting { code, detail });
            }
        };
        Ok(Pass {
            breaker: Arc::clone(self),
            probe,
            hope: false,
        })
    }

    /// For somebody who has nobody else to ask: leave also while it is open, since trying costs less than giving up. Not where
    /// requests hang: there each would take a person's patience and a worker's hand for nothing.
    pub(crate) fn admit_anyway(self: &Arc<Self>) -> Result<Pass, GatewayError> {
        self.admit().or_else(|why| {
            let hangs = matches!(
                why,
                GatewayError::Resting {
                    code: ErrorCode::AiTimeout,
                    ..
                }
            );
            let pass = Pass {
                breaker: Arc::clone(self),
                probe: false,
                hope: true,
            };
            if hangs { Err(why) } else { Ok(pass) }
        })
    }

    /// What another replica saw: open for this long yet, and why, or closed. One that this process has opened itself is closed by
    /// what it sees itself.
    pub(crate) fn shared(&self, open: Option<(Duration, ErrorCode)>) {
        let now = Instant::now();
        let mut state = self.state();
        let phase = match (open, state.phase) {
            // It is found out here as well whether it is over.
            (Some((open_for, _)), _) if open_for.is_zero() => return,
            (Some((open_for, _)), Phase::Open { until }) => {
                let until = until.max(now + open_for);
                state.phase = Phase::Open { until };
                return;
            }
            (Some((open_for, code)), _) => {
                state.told = Some(code);
                Phase::Open { until: now + open_for }
            }
            (None, _) if state.told.is_none() => return,
            (None, _) => {
                (state.told, state.opened) = (None, 0);
                Phase::Closed
            }
        };
        state.is_over = open.is_none();
        state.phase = phase;
        state.since = now;
        (state.in_a_row, state.good, state.bad) = (0, 0, 0);
    }

    pub(crate) fn seen(&self) -> Seen {
        let state = self.state();
        let last_failure = state.last.as_ref().map(|(code, cause, at)| LastFailure {
            code: *code,
            cause: cause.clone(),
            ago: at.elapsed(),
            is_over: state.is_over,
        });
        let open_for = match state.phase {
            Phase::Open { until } => Some(until.saturating_duration_since(Instant::now())),
            Phase::Closed | Phase::HalfOpen => None,
        };
        Seen {
            state: state.phase.state(),
            since: state.since.elapsed(),
            open_for,
            last_failure,
        }
    }

    fn good(&self, probe: bool) {
        let mut state = self.state();
        match state.phase {
            Phase::Closed => {
                state.in_a_row = 0;
                state.is_over = true;
                self.roll(&mut state);
                state.good += 1;
            }
            // Whoever was let in before it opened says nothing about now.
            _ if !probe => {}
            _ => {
                (state.opened, state.told) = (0, None);
                state.is_over = true;
                self.change(state, Phase::Closed, None);
            }
        }
    }

    fn bad(&self, probe: bool, error: &GatewayError) {
        let now = Instant::now();
        let mut state = self.state();
        state.last = Some((error.code(), error.cause(), now));
        state.is_over = false;
        let opens = match state.phase {
            Phase::Closed => {
                self.roll(&mut state);
                state.in_a_row += 1;
                state.bad += 1;
                let of = state.good + state.bad;
                state.in_a_row >= self.rules.in_a_row
                    || (of >= self.rules.of_requests && state.bad * 100 >= self.rules.percent * of)
            }
            _ => probe,
        };
        if opens {
            let doubled = self.rules.first.saturating_mul(1 << state.opened.min(16));
            let open_for = doubled.min(self.rules.longest);
            state.opened += 1;
            state.told = None;
            self.change(state, Phase::Open { until: now + open_for }, Some(open_for));
        }
    }

    /// Begins another window when the last one is over.
    fn roll(&self, state: &mut State) {
        if state.window.elapsed() > self.rules.window {
            state.window = Instant::now();
            (state.good, state.bad) = (0, 0);
        }
    }

    fn change(&self, mut state: MutexGuard<'_, State>, phase: Phase, open_for: Option<Duration>) {
        state.phase = phase;
        state.since = Instant::now();
        (state.in_a_row, state.good, state.bad) = (0, 0, 0);
        let transition = Transition {
            provider: self.provider,
            key: self.key,
            state: phase.state(),
            open_for,
            code: state.last.as_ref().map(|(code, ..)| *code),
        };
        drop(state);
        tracing::info!(
            ai.provider = %transition.provider,
            ai.key = transition.key.map(tracing::field::display),
            ai.state = ?transition.state,
            ai.code = transition.code.map(ErrorCode::as_str),
            "A breaker of a provider has changed"
        );
        if let Some(events) = self.events.get() {
            events.changed(&transition);
        }
    }
}

impl Pass {
    pub(crate) fn good(&mut self) {
        let hope = std::mem::take(&mut self.hope);
        self.breaker.good(std::mem::take(&mut self.probe) || hope);
    }

    pub(crate) fn bad(&mut self, error: &GatewayError) {
        self.breaker.bad(std::mem::take(&mut self.probe), error);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probe {
            let mut state = self.breaker.state();
            if let Phase::HalfOpen = state.phase {
                state.phase = Phase::Open { until: Instant::now() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(BreakerState, Option<Duration>)>>);

    impl BreakerEvents for Heard {
        fn changed(&self, transition: &Transition) {
            self.0.lock().unwrap().push((transition.state, transition.open_for));
        }
    }

    fn breaker() -> (Arc<Breaker>, Arc<Heard>) {
        let heard = Arc::<Heard>::default();
        let events = Events::default();
        let _ = events.set(heard.clone());
        let rules = BreakerRules {
            in_a_row: 3,
            of_requests: 10,
            ..BreakerRules::default()
        };
        (Breaker::new(ProviderId(Uuid::nil()), None, rules, events), heard)
    }

    fn fail(breaker: &Arc<Breaker>) {
        breaker.admit().ok().unwrap().bad(&GatewayError::down("broken"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_probes_one_at_a_time() {
        let (breaker, heard) = breaker();
        fail(&breaker);
        fail(&breaker);
        breaker.admit().ok().unwrap().good();
        fail(&breaker);
        fail(&breaker);
        assert_eq!(breaker.seen().state, BreakerState::Closed);
        fail(&breaker);
        let error = breaker.admit().err().unwrap();
        assert_eq!(error.code(), ErrorCode::AiDown);
        assert!(error.cause().contains("broken"));
        tokio::time::advance(Duration::from_secs(2)).await;
        let probe = breaker.admit().ok().unwrap();
        assert!(breaker.admit().is_err(), "one at a time");
        // Its person left: the next one finds out.
        drop(probe);
        fail(&breaker);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(breaker.admit().is_err(), "twice as long");
        tokio::time::advance(Duration::from_secs(1)).await;
        breaker.admit().ok().unwrap().good();
        assert!(breaker.admit().is_ok());
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(
            *heard.0.lock().unwrap(),
            [
                (BreakerState::Open, seconds(2)),
                (BreakerState::HalfOpen, None),
                (BreakerState::HalfOpen, None),
                (BreakerState::Open, seconds(4)),
                (BreakerState::HalfOpen, None),
                (BreakerState::Closed, None)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_by_the_share_of_failures_within_a_window() {
        let (breaker, _) = breaker();
        for _ in 0..4 {
            breaker.admit().ok().unwrap().good();
            fail(&breaker);
        }
        tokio::time::advance(Duration::from_secs(31)).await;
        for _ in 0..4 {
            breaker.admit().ok().unwrap().good();
            fail(&breaker);
        }
        assert_eq!(
            breaker.seen().state,
            BreakerState::Closed,
            "the first four are forgotten"
        );
        breaker.admit().ok().unwrap().good();
        fail(&breaker);
        assert_eq!(breaker.seen().state, BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_until_when_it_is_open_and_whether_it_has_answered_since() {
        let (breaker, _) = breaker();
        let last = |breaker: &Breaker| {
            let failure = breaker.seen().last_failure?;
            Some((failure.ago.as_secs(), failure.is_over))
        };
        assert_eq!((breaker.seen().open_for, last(&breaker)), (None, None));
        (0..3).for_each(|_| fail(&breaker));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(breaker.seen().open_for, Some(Duration::from_secs(1)));
        assert_eq!(last(&breaker), Some((1, false)));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(breaker.seen().open_for, Some(Duration::ZERO), "the next one finds out");
        breaker.admit().ok().unwrap().good();
        assert_eq!((breaker.seen().open_for, last(&breaker)), (None, Some((5, true))));
        fail(&breaker);
        assert_eq!(last(&breaker), Some((0, false)));
        breaker.admit().ok().unwrap().good();
        assert_eq!(last(&breaker), Some((0, true)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_another_replica_saw_counts_and_is_not_told_again() {
        let (breaker, heard) = breaker();
        let open = |seconds| Some((Duration::from_secs(seconds), ErrorCode::AiTimeout));
        breaker.shared(open(0));
        assert!(breaker.admit().is_ok(), "it is over already");
        breaker.shared(open(5));
        assert!(breaker.admit().is_err());
        let why = breaker.admit_anyway().err().unwrap();
        assert_eq!(why.code(), ErrorCode::AiTimeout, "there requests hang");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(breaker.admit().is_ok());
        breaker.shared(None);
        assert_eq!(breaker.seen().state, BreakerState::Closed);
        assert_eq!(*heard.0.lock().unwrap(), [(BreakerState::HalfOpen, None)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_this_process_saw_itself_is_not_undone_by_another() {
        let (breaker, _) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        breaker.shared(Some((Duration::from_secs(1), ErrorCode::AiTimeout)));
        assert_eq!(
            breaker.admit().err().unwrap().code(),
            ErrorCode::AiDown,
            "as it saw itself"
        );
        breaker.shared(None);
        assert_eq!(breaker.seen().state, BreakerState::Open);
        // Nor what it found out after it had been told.
        tokio::time::advance(Duration::from_secs(2)).await;
        breaker.admit().ok().unwrap().good();
        breaker.shared(Some((Duration::from_secs(1), ErrorCode::AiTimeout)));
        tokio::time::advance(Duration::from_secs(1)).await;
        fail(&breaker);
        breaker.shared(None);
        assert_eq!(breaker.seen().state, BreakerState::Open);
    }
}
