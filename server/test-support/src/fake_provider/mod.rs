//! An OpenAI-compatible server that refuses what OpenAI refuses, answers what it is told to, and counts what it reports.
//!
//! By default it echoes the last message of the user. Directives in that message (`[[delay=500]]`, `[[status=429]]`,
//! `[[cut]]`, see `reply.rs`; `[[vector=1,0]]` in a text that is embedded) steer it from outside; [`FakeProvider::fail_next`],
//! [`FakeProvider::reply_next`] and [`FakeProvider::reply_with`] from within a test. Its tokens are words, see [`count_tokens`].
//! Facts: OpenAI's API reference, “Create chat completion” and its streaming events.

mod error;
mod others;
mod reply;
mod serve;
mod state;
mod validate;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State as Shares};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;
use tokio::sync::watch;

pub use reply::{ProviderFault, Reply, count_tokens};
pub(crate) use reply::{pieces, to_question};
pub use state::{Request, Totals, Usage};

use crate::net::{Server, lock};
use crate::wait::{NotSeen, until};
use state::{Shared, State};

/// The key that is accepted unless others are set.
pub const DEFAULT_KEY: &str = "sk-fake";
/// The first of the models offered unless others are set.
pub const DEFAULT_MODEL: &str = "fake-model";

/// Room for a conversation with images in it.
const MAX_BODY: usize = 32 * 1024 * 1024;

/// A running fake; clones are the same one, and with the last of them it ends.
#[derive(Clone)]
pub struct FakeProvider {
    shared: Arc<Shared>,
    server: Arc<Server>,
    addr: SocketAddr,
}

impl FakeProvider {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn start_on(addr: SocketAddr) -> io::Result<Self> {
        let tcp = tokio::net::TcpListener::bind(addr).await?;
        let addr = tcp.local_addr()?;
        let state = State {
            keys: [DEFAULT_KEY.to_owned()].into(),
            models: [DEFAULT_MODEL, "gpt-4o-mini", "gpt-4o"].map(str::to_owned).into(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            lenient: false.into(),
            record: true.into(),
            next_id: 0.into(),
            changed: watch::Sender::new(()),
        });
        let router = Router::new()
            .route("/v1/chat/completions", post(serve::chat_completions))
            .route("/v1/embeddings", post(others::embeddings))
            .route("/v1/responses", post(others::responses))
            .route("/v1/images/generations", post(others::images))
            .route("/v1/audio/transcriptions", post(others::transcriptions))
            .route("/v1/audio/translations", post(others::transcriptions))
            .route("/v1/audio/speech", post(others::speech))
            .route("/v1/models", get(serve::models))
            .route("/v1/models/{id}", get(serve::model))
            // Not of OpenAI: for scripts that compare a ledger with what was reported.
            .route("/control/totals", get(control_totals))
            .route("/control/requests", get(control_requests))
            .fallback(serve::unknown)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(Arc::clone(&shared));
        let server = Arc::new(Server::start(tcp, router));
        Ok(Self { shared, server, addr })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What `OPENAI_BASE_URL` is to be: `http://127.0.0.1:PORT/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Closes the port and cuts all connections, as an outage would; what was recorded can still be read.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// The only keys that are accepted from now on.
    pub fn accept_keys(&self, keys: &[&str]) {
        lock(&self.shared.state).keys = keys.iter().map(|key| (*key).to_owned()).collect();
    }

    /// The only models that exist from now on.
    pub fn offer_models(&self, models: &[&str]) {
        lock(&self.shared.state).models = models.iter().map(|model| (*model).to_owned()).collect();
    }

    /// How long comparing texts takes from now on.
    pub fn delay_embeddings(&self, delay: Duration) {
        lock(&self.shared.state).embeddings_delay = delay;
    }

    /// Whether unknown fields are let pass, as many compatible servers do.
    pub fn lenient(&self, lenient: bool) {
        self.shared.lenient.store(lenient, Ordering::Relaxed);
    }

    /// Whether requests are kept (the default). Off for benchmarks: totals go on.
    pub fn record(&self, on: bool) {
        self.shared.record.store(on, Ordering::Relaxed);
    }

    /// The next `times` valid chat completions meet this fault, before any queued reply.
    pub fn fail_next(&self, times: u32, fault: ProviderFault) {
        lock(&self.shared.state).faults.plan(times, fault);
    }

    /// As [`Self::fail_next`], for embeddings, responses and pictures: with a status, in silence, or by other bytes in the place of
    /// an answer.
    pub fn fail_others(&self, times: u32, fault: ProviderFault) {
        lock(&self.shared.state).other_faults.plan(times, fault);
    }

    /// Answers one of the next requests, in the order of calls to this.
    pub fn reply_next(&self, reply: Reply) {
        lock(&self.shared.state).queued.push_back(reply);
    }

    /// Answers every request for which nothing is queued, from its body.
    pub fn reply_with(&self, answer: impl Fn(&Value) -> Reply + Send + Sync + 'static) {
        lock(&self.shared.state).answer = Some(Arc::new(answer));
    }

    /// All that was asked for, refused requests included, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.state).requests.clone()
    }

    /// The greatest number of chat completions that were under way at once.
    pub fn most_at_once(&self) -> usize {
        lock(&self.shared.state).most_at_once
    }

    pub fn totals(&self) -> Totals {
        lock(&self.shared.state).totals
    }

    /// Waits until `look` finds what it looks for; it is asked again after every change.
    pub async fn wait_for<T>(&self, timeout: Duration, mut look: impl FnMut(&Self) -> Option<T>) -> Result<T, NotSeen> {
        until(&self.shared.changed, timeout, || look(self), || self.summary()).await
    }

    /// The last requests, for a person who wonders why a test fails.
    pub fn summary(&self) -> String {
        let requests = self.requests();
        let line = |request: &Request| {
            let Request {
                id,
                status,
                chunks_written,
                finished,
                disconnected,
                ..
            } = request;
            let body: String = request.body.to_string().chars().take(200).collect();
            format!(
                "request {id} -> {status:?}, {chunks_written} chunks, finished {finished}, disconnected {disconnected}: {body}"
            )
        };
        let lines: Vec<String> = requests.iter().rev().take(20).rev().map(line).collect();
        if lines.is_empty() {
            "nothing at all".to_owned()
        } else {
            lines.join("\n")
        }
    }
}

async fn control_totals(Shares(shared): Shares<Arc<Shared>>) -> Json<Totals> {
    Json(lock(&shared.state).totals)
}

async fn control_requests(Shares(shared): Shares<Arc<Shared>>) -> Json<Vec<Request>> {
    Json(lock(&shared.state).requests.clone())
}
