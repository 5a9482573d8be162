//! What the fake provider remembers of its requests.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::reply::{ProviderFault, Reply, count_tokens};
use crate::net::lock;

/// Tokens as reported to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// One chat completion, as far as it went.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// Counts up from 1.
    pub id: u64,
    pub body: Value,
    /// The bearer key that came with it.
    pub key: String,
    pub at: SystemTime,
    /// `None` while, or because, nothing was answered.
    pub status: Option<u16>,
    /// Chunks of content given to the socket.
    pub chunks_written: usize,
    /// Their text.
    pub text_written: String,
    /// What was reported, if it was.
    pub usage: Option<Usage>,
    /// Answered to the end.
    pub finished: bool,
    /// The client went away before the end.
    pub disconnected: bool,
}

/// Sums that are kept even while recording is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub requests: u64,
    /// Answered to the end.
    pub finished: u64,
    /// Answered with an error.
    pub refused: u64,
    /// Left by the client before the end.
    pub disconnected: u64,
    /// Reported prompt tokens: what a ledger must show.
    pub prompt_tokens: u64,
    /// Reported completion tokens.
    pub completion_tokens: u64,
    /// Tokens of all content written, also where no usage was reported because the stream was cut.
    pub written_tokens: u64,
}

pub(crate) type ReplyFn = Arc<dyn Fn(&Value) -> Reply + Send + Sync>;

/// Failures to come, each so many times.
#[derive(Default)]
pub(crate) struct Faults(VecDeque<(u32, ProviderFault)>);

impl Faults {
    pub(crate) fn plan(&mut self, times: u32, fault: ProviderFault) {
        if times > 0 {
            self.0.push_back((times, fault));
        }
    }

    pub(crate) fn next(&mut self) -> Option<ProviderFault> {
        let (times, fault) = self.0.front_mut()?;
        *times -= 1;
        if *times == 0 {
            self.0.pop_front().map(|(_, fault)| fault)
        } else {
            Some(fault.clone())
        }
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) keys: HashSet<String>,
    pub(crate) models: Vec<String>,
    pub(crate) faults: Faults,
    /// Of the endpoints beside chat completions.
    pub(crate) other_faults: Faults,
    pub(crate) queued: VecDeque<Reply>,
    pub(crate) answer: Option<ReplyFn>,
    pub(crate) questions: HashSet<String>,
    pub(crate) requests: Vec<Request>,
    pub(crate) totals: Totals,
    /// Neither answered to the end nor left yet.
    pub(crate) running: usize,
    pub(crate) most_at_once: usize,
    pub(crate) embeddings_delay: std::time::Duration,
}

pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) lenient: AtomicBool,
    pub(crate) record: AtomicBool,
    pub(crate) next_id: AtomicU64,
    pub(crate) changed: watch::Sender<()>,
}

/// Follows one request; dropped before its end means the client has left.
pub(crate) struct Trace {
    shared: Arc<Shared>,
    id: u64,
    closed: bool,
    /// The content so far ends within a word, which the next piece may go on with.
    in_word: bool,
}

impl Trace {
    pub(crate) fn begin(shared: &Arc<Shared>, request: Request, record: bool) -> Self {
        let id = request.id;
        let mut state = lock(&shared.state);
        state.totals.requests += 1;
        state.running += 1;
        state.most_at_once = state.most_at_once.max(state.running);
        if record {
            // In the order of ids, by which it is found again: two that come at once may get here the other way round.
            let place = state.requests.partition_point(|other| other.id < id);
            state.requests.insert(place, request);
        }
        drop(state);
        shared.changed.send_replace(());
        Self {
            shared: Arc::clone(shared),
            id,
            closed: false,
            in_word: false,
        }
    }

    fn note(&self, totals: impl FnOnce(&mut Totals), request: impl FnOnce(&mut Request)) {
        let mut state = lock(&self.shared.state);
        totals(&mut state.totals);
        // Ids count up, so the list is sorted by them.
        if let Ok(at) = state.requests.binary_search_by_key(&self.id, |request| request.id)
            && let Some(found) = state.requests.get_mut(at)
        {
            request(found);
        }
        drop(state);
        self.shared.changed.send_replace(());
    }

    pub(crate) fn status(&self, status: u16) {
        self.note(|_| {}, |request| request.status = Some(status));
    }

    pub(crate) fn content(&mut self, text: &str) {
        let goes_on = self.in_word && text.starts_with(|c: char| !c.is_whitespace());
        self.in_word = text.ends_with(|c: char| !c.is_whitespace());
        let tokens = count_tokens(text) - u64::from(goes_on);
        self.note(
            |totals| totals.written_tokens += tokens,
            |request| {
                request.chunks_written += 1;
                request.text_written.push_str(text);
            },
        );
    }

    pub(crate) fn usage(&self, usage: Usage) {
        self.note(
            |totals| {
                totals.prompt_tokens += usage.prompt_tokens;
                totals.completion_tokens += usage.completion_tokens;
            },
            |request| request.usage = Some(usage),
        );
    }

    fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            lock(&self.shared.state).running -= 1;
        }
    }

    pub(crate) fn finished(&mut self) {
        self.close();
        self.note(|totals| totals.finished += 1, |request| request.finished = true);
    }

    pub(crate) fn refused(&mut self, status: u16) {
        self.close();
        self.note(|totals| totals.refused += 1, |request| request.status = Some(status));
    }

    /// Cut by the fake itself, which is no leaving of the client.
    pub(crate) fn cut(&mut self) {
        self.close();
        self.note(|_| {}, |_| {});
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if !self.closed {
            self.close();
            self.note(|totals| totals.disconnected += 1, |request| request.disconnected = true);
        }
    }
}
