//! What stands between Telegram and the replicas: one address for all of them, and a network that repeats and delays.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use test_support::app::OrFail;
use tokio::task::JoinHandle;

/// A replica that accepts a connection and says nothing is given up after this; Telegram then delivers again.
const SILENCE: Duration = Duration::from_secs(3);

/// One address in front of several.
pub struct Balancer {
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    backends: Vec<String>,
    client: reqwest::Client,
    next: AtomicUsize,
    mischief: Mutex<Option<Mischief>>,
    done: AtomicU64,
}

/// What the network does to deliveries, decided by the seed and the delivery itself, so that a run can be repeated.
struct Mischief {
    seed: u64,
    attempts: HashMap<Bytes, u64>,
}

/// What is done to one delivery.
#[derive(Default)]
struct Fate {
    delay: Duration,
    /// Goes to another replica in the same moment, too.
    twice: bool,
    /// Arrives, but Telegram is told that it did not, and repeats it.
    unheard: bool,
    /// Comes once more, this much later: behind what was written meanwhile.
    again_after: Option<Duration>,
}

#[derive(Clone)]
struct Delivery {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Balancer {
    /// `backends`: `host:port` each.
    pub async fn start(backends: Vec<String>) -> Self {
        // Refused when the fakes have installed one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let tcp = tcp.or_fail("no port for the balancer");
        let url = format!("http://{}", tcp.local_addr().or_fail("no address"));
        let shared = Arc::new(Shared {
            backends,
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(SILENCE)
                .build()
                .or_fail("no HTTP client"),
            next: AtomicUsize::new(0),
            mischief: Mutex::default(),
            done: AtomicU64::new(0),
        });
        let router = Router::new().fallback(receive).with_state(shared.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(tcp, router).await;
        });
        Self { url, shared, task }
    }

    /// From now on deliveries are delayed, doubled, repeated at once and repeated late.
    pub fn misbehave(&self, seed: u64) {
        let attempts = HashMap::new();
        *self.shared.mischief.lock().unwrap_or_else(PoisonError::into_inner) = Some(Mischief { seed, attempts });
    }

    /// How many deliveries something was done to.
    pub fn misdeeds(&self) -> u64 {
        self.shared.done.load(Ordering::Relaxed)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mischief {
    fn fate(&mut self, body: &Bytes) -> Fate {
        let attempt = self.attempts.entry(body.clone()).or_default();
        *attempt += 1;
        // Redeliveries pass, or some would never arrive.
        if *attempt > 2 {
            return Fate::default();
        }
        let mixed = body.iter().fold(self.seed.wrapping_add(*attempt), |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
        });
        let mut random = StdRng::seed_from_u64(mixed);
        let mut fate = Fate::default();
        match random.random_range(0..100) {
            0..20 => fate.delay = Duration::from_millis(random.random_range(10..800)),
            20..35 => fate.unheard = true,
            35..50 => fate.twice = true,
            50..70 => fate.again_after = Some(Duration::from_millis(random.random_range(50..5000))),
            _ => {}
        }
        fate
    }
}

impl Fate {
    fn bad(&self) -> bool {
        self.twice || self.unheard || !self.delay.is_zero() || self.again_after.is_some()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, request: Request) -> StatusCode {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 1024 * 1024).await else {
        return StatusCode::BAD_REQUEST;
    };
    let delivery = Delivery {
        uri: parts.uri,
        headers: parts.headers,
        body,
    };
    let fate = match &mut *shared.mischief.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(mischief) => mischief.fate(&delivery.body),
        None => Fate::default(),
    };
    shared.done.fetch_add(u64::from(fate.bad()), Ordering::Relaxed);
    if !fate.delay.is_zero() {
        tokio::time::sleep(fate.delay).await;
    }
    if let Some(pause) = fate.again_after {
        let (shared, delivery) = (shared.clone(), delivery.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            shared.forward(&delivery).await;
        });
    }
    let status = if fate.twice {
        tokio::join!(shared.forward(&delivery), shared.forward(&delivery)).0
    } else {
        shared.forward(&delivery).await
    };
    if fate.unheard { StatusCode::BAD_GATEWAY } else { status }
}

impl Shared {
    /// To the next replica in turn; where nothing listens, to the one after it.
    async fn forward(&self, delivery: &Delivery) -> StatusCode {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for turn in 0..self.backends.len() {
            let backend = &self.backends[(first + turn) % self.backends.len()];
            let mut request = self.client.post(format!("http://{backend}{}", delivery.uri));
            for name in ["content-type", "x-telegram-bot-api-secret-token"] {
                if let Some(value) = delivery.headers.get(name) {
                    request = request.header(name, value);
                }
            }
            match request.body(delivery.body.clone()).send().await {
                Ok(answer) => return answer.status(),
                Err(error) if error.is_connect() => {}
                // It may have arrived, so it is not for another replica but for Telegram to repeat it.
                Err(_) => return StatusCode::BAD_GATEWAY,
            }
        }
        StatusCode::BAD_GATEWAY
    }
}
