//! The Redis that all replicas share, as one process sees it: asked with little patience, and left alone while it is away.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use redis::{
    Client, FromRedisValue, RedisError, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::{Instant, sleep, timeout};

/// Nobody waits longer than this for Redis; it is speed, not truth.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often Redis is asked whether it is back while it is away.
const PROBE: Duration = Duration::from_millis(250);
/// It is said to be back once it has answered everybody for so long: on a busy machine single answers come late, again and again.
const STEADY: Duration = Duration::from_secs(10);

/// What all replicas have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(super) connection: ConnectionManager,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// As of the last call.
    up: AtomicBool,
    /// Somebody has waited for it in vain: nobody else does, until one probe finds it back.
    away: AtomicBool,
    /// It was said to be away, and a task looks for it until it can be said to be back.
    watched: AtomicBool,
    /// Somebody has waited in vain since that task looked last.
    missed: AtomicBool,
    /// It was said to be there, once in a process.
    was_reached: AtomicBool,
}

impl Shared {
    /// Needs no Redis to be there: it is connected to when first used, and again whenever it comes back.
    pub(super) fn new(url: &str) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_millis(500)))
            .set_response_timeout(Some(PATIENCE))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(500));
        let connection = ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?;
        Ok(Self {
            connection,
            state: Arc::default(),
        })
    }

    /// Nobody waits for it now.
    pub(crate) fn is_away(&self) -> bool {
        self.state.away.load(SeqCst)
    }

    /// As of the last call.
    pub(super) fn is_up(&self) -> bool {
        self.state.up.load(SeqCst)
    }

    /// Asks for others; `None` when there is no answer.
    pub(crate) async fn ask<T: FromRedisValue>(&self, what: &redis::Pipeline) -> Option<T> {
        if self.is_away() {
            return None;
        }
        let mut connection = self.connection.clone();
        self.patiently(what.query_async(&mut connection)).await
    }

    /// As [`ask`](Self::ask), by a script.
    pub(crate) async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Option<T> {
        if self.is_away() {
            return None;
        }
        let mut connection = self.connection.clone();
        self.patiently(script.invoke_async(&mut connection)).await
    }

    /// Waits for an answer as long as anybody may; `None` when there is none.
    pub(super) async fn patiently<T>(&self, call: impl Future<Output = Result<T, RedisError>>) -> Option<T> {
        let answer = timeout(PATIENCE, call).await.ok().and_then(Result::ok);
        self.note(answer.is_some());
        answer
    }

    pub(super) fn note(&self, up: bool) {
        if up {
            self.state.answered();
        } else if self.state.missed() {
            let connection = self.connection.clone();
            let ping = move || ping(connection.clone());
            tokio::spawn(watch(ping, Arc::downgrade(&self.state)));
        }
    }
}

impl State {
    fn set_up(&self, up: bool) {
        self.up.store(up, SeqCst);
        self.away.store(!up, SeqCst);
        metrics::gauge!("botdeck_redis_up").set(if up { 1.0 } else { 0.0 });
    }

    fn answered(&self) {
        self.set_up(true);
        if !self.was_reached.swap(true, SeqCst) && !self.watched.load(SeqCst) {
            tracing::info!("Redis is reached; what is limited is counted for all replicas together");
        }
    }

    /// True: it is to be watched from now on.
    fn missed(&self) -> bool {
        metrics::counter!("botdeck_redis_misses_total").increment(1);
        self.set_up(false);
        self.missed.store(true, SeqCst);
        let is_first = !self.watched.swap(true, SeqCst);
        if is_first {
            tracing::warn!(
                "Redis is not reached; limits per minute, the pace of bots and the places of providers fall back to stricter local counts"
            );
        }
        is_first
    }

    /// It has answered for long enough. False: somebody has just waited in vain, and it is to be watched on.
    fn is_back(&self) -> bool {
        self.was_reached.store(true, SeqCst);
        self.watched.store(false, SeqCst);
        // Whoever missed it before this line has left the watching to us, unless somebody watches already.
        if self.missed.swap(false, SeqCst) && !self.watched.swap(true, SeqCst) {
            return false;
        }
        tracing::info!("Redis has answered for a while; what is limited is counted for all replicas together again");
        true
    }
}

async fn ping(mut connection: ConnectionManager) -> bool {
    let ping = redis::cmd("PING");
    let answer = timeout(Duration::from_secs(1), ping.query_async::<String>(&mut connection));
    matches!(answer.await, Ok(Ok(_)))
}

/// Asks until Redis has answered for a while, so that nobody who wants something has to find out, and staff hear of each outage once.
async fn watch<F: Future<Output = bool>>(ping: impl Fn() -> F, state: Weak<State>) {
    let mut since = None;
    loop {
        sleep(PROBE).await;
        let answers = ping().await;
        let Some(state) = state.upgrade() else { return };
        if state.missed.swap(false, SeqCst) || !answers {
            since = None;
        }
        state.set_up(answers);
        if answers && since.get_or_insert_with(Instant::now).elapsed() >= STEADY && state.is_back() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use super::*;

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        /// How often it was said to be away, and to be back.
        fn said(&self) -> (usize, usize) {
            let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let log = String::from_utf8_lossy(&log);
            (
                log.matches("Redis is not reached").count(),
                log.matches("Redis has answered for a while").count(),
            )
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_outage_is_told_of_once_and_its_end_when_it_has_lasted() {
        let log = Log::default();
        let writer = log.clone();
        let logging = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(logging);
        let (state, answers) = (Arc::<State>::default(), Arc::new(AtomicBool::new(true)));
        let miss = || {
            if state.missed() {
                let answers = answers.clone();
                let ping = move || std::future::ready(answers.load(SeqCst));
                tokio::spawn(watch(ping, Arc::downgrade(&state)));
            }
        };
        let after = async |seconds: u64| {
            sleep(Duration::from_secs(seconds)).await;
            log.said()
        };
        state.answered();
        assert_eq!(log.said(), (0, 0));
        // Single answers come late, on and on.
        for _ in 0..10 {
            miss();
            assert!(state.away.load(SeqCst));
            assert_eq!(after(5).await, (1, 0));
            assert!(!state.away.load(SeqCst), "whoever comes next waits for it again");
            state.answered();
        }
        assert_eq!(after(4).await, (1, 0));
        assert_eq!(after(2).await, (1, 1));
        assert_eq!(after(60).await, (1, 1));
        // Another outage, a long one.
        answers.store(false, SeqCst);
        miss();
        miss();
        assert_eq!(after(60).await, (2, 1));
        assert!(state.away.load(SeqCst));
        answers.store(true, SeqCst);
        assert_eq!(after(9).await, (2, 1));
        assert_eq!(after(2).await, (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_in_vain_as_the_watch_ends_is_not_left_alone() {
        let state = Arc::<State>::default();
        assert!(state.missed());
        state.missed.store(false, SeqCst);
        assert!(!state.missed(), "it is watched already");
        assert!(!state.is_back(), "so it is watched on");
        state.missed.store(false, SeqCst);
        assert!(state.is_back());
        assert!(state.missed(), "and from the next time on again");
    }
}
