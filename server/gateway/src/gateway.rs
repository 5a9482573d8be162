//! One answer from a provider: deadlines, one retry, cancellation, and a bill for what was made.

use std::{sync::Arc, time::Duration};

use domain::Money;
use futures::StreamExt;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{Span, field::Empty, info, instrument};

use crate::{
    ChatRequest, Chunk, GatewayError, Model, Provider, Role, Usage, count_tokens, error::bounded, estimate_prompt,
    models_from, price,
};

/// Once an answer has its end and its usage, how long to wait for the stream to close so that the connection can be used again.
const LINGER: Duration = Duration::from_millis(250);
/// A provider that asks for a longer pause gets no second attempt: the person would be waiting.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const MOST_ATTEMPTS: u32 = 2;
/// How often the older half of a conversation is left out for a model that finds it too long.
const MOST_SHORTENINGS: u32 = 4;
/// No model answers this much; a server that does is broken.
const MOST_TEXT: usize = 4 * 1024 * 1024;

/// How long a person is made to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From sending an attempt to the first token.
    pub first_token: Duration,
    /// From one token to the next, and from the last one to the usage.
    pub between_tokens: Duration,
    /// For everything, retry included.
    pub overall: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            first_token: Duration::from_secs(20),
            between_tokens: Duration::from_secs(20),
            overall: Duration::from_secs(120),
        }
    }
}

/// A provider with its models, prices and deadlines. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    provider: Arc<dyn Provider>,
    models: Arc<Models>,
    deadlines: Deadlines,
    /// Requests at once; those beyond wait.
    places: Arc<Semaphore>,
}

/// A list that cannot be empty.
struct Models {
    all: Vec<Model>,
    default: Model,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// To its end, with the provider's word for why: `stop`, `length`…
    Complete(String),
    /// By the person who asked.
    Stopped,
    /// In the middle; `text` holds what came.
    Cut,
    /// Before anything came.
    Failed,
}

/// What came of a question. Always an answer, never an error: even a failure may have to be billed.
#[derive(Debug)]
pub struct Answer {
    pub text: String,
    pub finish: Finish,
    pub usage: Usage,
    /// False when the provider told no usage, or not all of it: then `usage` is counted here.
    pub usage_reported: bool,
    pub cost: Money,
    /// From the start of the first attempt.
    pub first_token: Option<Duration>,
    pub total: Duration,
    pub attempts: u32,
    /// Set when nothing or only a part came; not when the person stopped it.
    pub failure: Option<GatewayError>,
}

/// What one attempt has made so far.
#[derive(Default)]
struct Made {
    opened: bool,
    text: String,
    first_token: Option<Instant>,
    finish: Option<String>,
    usage: Option<Usage>,
    /// What attempts before this one reported: the provider bills those as well.
    before: Option<Usage>,
}

impl Made {
    /// For an attempt after one that made nothing to be seen.
    fn after(before: &Self) -> Self {
        Self {
            before: match (before.before, before.usage) {
                (Some(one), Some(other)) => Some(one + other),
                (one, other) => one.or(other),
            },
            ..Self::default()
        }
    }

    /// Nothing that could be shown to anybody.
    fn blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// Why reading ended before the stream did.
enum Interrupted {
    Cancelled,
    Failed(GatewayError),
}

impl From<GatewayError> for Interrupted {
    fn from(error: GatewayError) -> Self {
        Self::Failed(error)
    }
}

impl Gateway {
    /// `models` are what users may choose from, the first being the default; an empty list means the built-in one.
    pub fn new(provider: Arc<dyn Provider>, models: Vec<Model>, deadlines: Deadlines) -> Self {
        let all = if models.is_empty() { models_from(None) } else { models };
        let default = all.first().cloned().unwrap_or_else(|| Model::named("default"));
        Self {
            provider,
            models: Arc::new(Models { all, default }),
            deadlines,
            places: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// No more requests at once than this (default: any number). Whoever finds no place waits for one, as long as for a first token.
    pub fn with_concurrency(self, most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most)),
            ..self
        }
    }

    pub fn models(&self) -> &[Model] {
        &self.models.all
    }

    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.all.iter().find(|model| model.name == name)
    }

    pub fn default_model(&self) -> &Model {
        &self.models.default
    }

    pub fn provider_name(&self) -> &str {
        self.provider.name()
    }

    /// Whether the built-in demo answers, because no key was given.
    pub fn is_demo(&self) -> bool {
        self.provider.name() == crate::demo::NAME
    }

    /// Asks the provider for one token of `model`, within the deadline to a first token.
    pub async fn probe(&self, model: &str) -> Result<(), GatewayError> {
        let what = "the first token";
        tokio::time::timeout(self.deadlines.first_token, self.provider.probe(model))
            .await
            .unwrap_or(Err(GatewayError::Timeout { what }))
    }

    /// Asks, and hands `on_text` the whole text so far whenever there is more. `cancel` ends the request at once.
    #[instrument(name = "ai.answer", skip_all, fields(ai.provider = self.provider.name(), ai.model = %request.model, ai.attempts = Empty, ai.outcome = Empty))]
    pub async fn answer(
        &self,
        request: &ChatRequest,
        cancel: &CancellationToken,
        mut on_text: impl FnMut(&str) + Send,
    ) -> Answer {
        let started = Instant::now();
        let Some(model) = self.model(&request.model) else {
            let name = bounded(&request.model, 80);
            let failure = GatewayError::refused(format!("the model {name} is not on the list"));
            return self.settled(None, request, Made::default(), Err(failure.into()), started, 0);
        };
        let overall = started + self.deadlines.overall;
        let place = within(
            cancel,
            started + self.deadlines.first_token,
            overall,
            "a free place",
            self.places.acquire(),
        );
        let _place = match place.await {
            Ok(place) => place,
            Err(end) => return self.settled(Some(model), request, Made::default(), Err(end), started, 0),
        };
        let mut attempts = 0;
        let mut shorter = None;
        let mut made = Made::default();
        loop {
            attempts += 1;
            made = Made::after(&made);
            let request = shorter.as_ref().unwrap_or(request);
            let end = self.read(request, cancel, overall, &mut made, &mut on_text).await;
            // Nobody knows the context of every model: one that says it is too much gets less, and nothing has been billed yet.
            if let Err(Interrupted::Failed(GatewayError::Context { .. })) = &end
                && made.blank()
                && attempts <= MOST_SHORTENINGS
                && let Some(less) = without_older_half(request)
            {
                info!(
                    ai.attempt = attempts,
                    ai.messages = less.messages.len(),
                    "The conversation is too long for the model, asking with its newer half"
                );
                shorter = Some(less);
                continue;
            }
            let pause = match failure(&made, &end) {
                Some(failure) if attempts < MOST_ATTEMPTS && made.text.is_empty() => pause_before_retry(failure),
                _ => None,
            };
            if let Some(pause) = pause.filter(|pause| Instant::now() + *pause < overall) {
                info!(
                    ai.attempt = attempts,
                    ai.pause_ms = pause.as_millis() as u64,
                    "The provider failed, asking once more"
                );
                tokio::select! {
                    () = sleep(pause) => continue,
                    () = cancel.cancelled() => {}
                }
                let end = Err(Interrupted::Cancelled);
                return self.settled(Some(model), request, Made::after(&made), end, started, attempts);
            }
            return self.settled(Some(model), request, made, end, started, attempts);
        }
    }

    /// One attempt; `made` keeps what came, however it ends.
    async fn read(
        &self,
        request: &ChatRequest,
        cancel: &CancellationToken,
        overall: Instant,
        made: &mut Made,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Interrupted> {
        let mut what = "the first token";
        let mut deadline = Instant::now() + self.deadlines.first_token;
        let mut stream = within(cancel, deadline, overall, what, self.provider.stream(request)).await??;
        made.opened = true;
        while let Some(chunk) = within(cancel, deadline, overall, what, stream.next()).await? {
            match chunk? {
                Chunk::Text(text) => {
                    (what, deadline) = ("the next token", Instant::now() + self.deadlines.between_tokens);
                    if text.is_empty() {
                        continue;
                    }
                    made.first_token.get_or_insert_with(Instant::now);
                    made.text.push_str(&text);
                    on_text(&made.text);
                    if made.text.len() > MOST_TEXT {
                        return Err(GatewayError::refused("the answer has no end").into());
                    }
                }
                Chunk::Finish(word) => {
                    deadline = Instant::now() + self.deadlines.between_tokens;
                    made.finish = Some(word);
                }
                Chunk::Usage(usage) => made.usage = Some(usage),
            }
            if made.finish.is_some() && made.usage.is_some() {
                deadline = deadline.min(Instant::now() + LINGER);
            }
        }
        Ok(())
    }

    /// Turns what was made into an answer: how it ended, what it used, what that costs.
    fn settled(
        &self,
        model: Option<&Model>,
        request: &ChatRequest,
        made: Made,
        end: Result<(), Interrupted>,
        started: Instant,
        attempts: u32,
    ) -> Answer {
        let failed = failure(&made, &end).is_some();
        let stopped = matches!(end, Err(Interrupted::Cancelled));
        let (mut usage, mut usage_reported) = bill(request, &made, failed, stopped);
        if let Some(before) = made.before {
            usage_reported |= usage == Usage::default();
            usage = usage + before;
        }
        let first_token = made.first_token.map(|at| at - started);
        let failure = failed.then(|| into_failure(&made, end));
        let blank = made.blank();
        let finish = match made.finish {
            _ if failed && blank => Finish::Failed,
            Some(word) if !failed && !blank => Finish::Complete(word),
            _ if !failed => Finish::Stopped,
            _ => Finish::Cut,
        };
        let answer = Answer {
            text: made.text,
            finish,
            usage,
            usage_reported,
            cost: model.map_or(Money::ZERO, |model| price(model, usage)),
            first_token,
            total: started.elapsed(),
            attempts,
            failure,
        };
        self.count(model, &answer);
        answer
    }

    fn count(&self, model: Option<&Model>, answer: &Answer) {
        let outcome = match (&answer.failure, &answer.finish) {
            (Some(failure), _) => failure.code().as_str(),
            (None, Finish::Stopped) => "stopped",
            (None, _) => "ok",
        };
        Span::current()
            .record("ai.attempts", answer.attempts)
            .record("ai.outcome", outcome);
        let provider = self.provider.name().to_owned();
        // Only names on the list become labels, so that nobody can grow the metrics without end.
        let model = model.map_or_else(|| "other".to_owned(), |model| model.name.clone());
        let both = [("provider", provider), ("model", model)];
        let mut labels = both.to_vec();
        labels.push(("outcome", outcome.to_owned()));
        metrics::counter!("botdeck_ai_requests_total", &labels).increment(1);
        if let Some(first) = answer.first_token {
            metrics::histogram!("botdeck_ai_first_token_seconds", &both).record(first.as_secs_f64());
        }
        metrics::histogram!("botdeck_ai_seconds", &both).record(answer.total.as_secs_f64());
        let usage = answer.usage;
        for (kind, tokens) in [
            ("prompt", usage.prompt_tokens),
            ("completion", usage.completion_tokens),
            ("cached", usage.cached_tokens),
        ] {
            metrics::counter!("botdeck_ai_tokens_total", "kind" => kind).increment(u64::try_from(tokens).unwrap_or(0));
        }
    }
}

/// Waits for `future`, but no longer than the nearer deadline, and not at all once cancelled.
async fn within<T>(
    cancel: &CancellationToken,
    deadline: Instant,
    overall: Instant,
    what: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, Interrupted> {
    let what = if overall < deadline {
        "the end of the answer"
    } else {
        what
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Interrupted::Cancelled),
        result = timeout_at(deadline.min(overall), future) => result.map_err(|_| GatewayError::Timeout { what }.into()),
    }
}

/// What went wrong, seen from the outside.
enum Failure<'a> {
    /// The provider ended in good order and had said nothing.
    Empty,
    /// The stream ended without saying that this was the end.
    Unfinished,
    Error(&'a GatewayError),
}

fn failure<'a>(made: &Made, end: &'a Result<(), Interrupted>) -> Option<Failure<'a>> {
    match (end, &made.finish) {
        // Whatever happens after the provider's own end, only the usage can be missing.
        (_, Some(_)) if !made.blank() => None,
        (Err(Interrupted::Cancelled), _) => None,
        (_, Some(_)) => Some(Failure::Empty),
        (Err(Interrupted::Failed(error)), None) => Some(Failure::Error(error)),
        (Ok(()), None) => Some(Failure::Unfinished),
    }
}

fn into_failure(made: &Made, end: Result<(), Interrupted>) -> GatewayError {
    if let (Some(word), true) = (&made.finish, made.blank()) {
        return GatewayError::Empty {
            finish: bounded(word, 40),
        };
    }
    let unfinished = "the stream ended without a finish reason";
    match end {
        Err(Interrupted::Failed(error)) if made.blank() || matches!(error, GatewayError::Timeout { .. }) => error,
        Err(Interrupted::Failed(error)) => GatewayError::Cut {
            detail: "after text had been given".into(),
            source: Some(Box::new(error)),
        },
        _ if made.blank() => GatewayError::down(unfinished),
        _ => GatewayError::Cut {
            detail: unfinished.into(),
            source: None,
        },
    }
}

/// The request without the older half of the conversation: what the model is told of itself, and the question, stay.
pub(crate) fn without_older_half(request: &ChatRequest) -> Option<ChatRequest> {
    let first = request
        .messages
        .iter()
        .take_while(|turn| turn.role == Role::System)
        .count();
    let past = request.messages.len().checked_sub(first + 1).filter(|past| *past > 0)?;
    let mut less = request.clone();
    less.messages.drain(first..first + past.div_ceil(2));
    // Some models take no conversation that begins with their own words, and without the question these say little.
    while less.messages.len() > first + 1 && less.messages[first].role == Role::Assistant {
        less.messages.remove(first);
    }
    Some(less)
}

/// How long to wait before asking again, or `None` when that would not help.
fn pause_before_retry(failure: Failure<'_>) -> Option<Duration> {
    let asked = match failure {
        Failure::Empty => return None,
        Failure::Unfinished => Duration::ZERO,
        Failure::Error(error) if !error.retryable() => return None,
        Failure::Error(GatewayError::Busy { retry_after, .. }) => retry_after.unwrap_or_default(),
        Failure::Error(_) => Duration::ZERO,
    };
    // Jitter, so that all who met the same failure do not come back in the same moment.
    let jitter = Duration::from_millis(rand::random_range(100..=300));
    (asked <= LONGEST_PAUSE).then(|| asked + jitter)
}

/// What was used, and whether the provider said so itself.
fn bill(request: &ChatRequest, made: &Made, failed: bool, stopped: bool) -> (Usage, bool) {
    match made.usage {
        Some(usage) if made.finish.is_some() => (usage, true),
        // Nobody pays for an answer that never began.
        _ if made.blank() && (failed || !(stopped && made.opened)) => {
            (made.usage.unwrap_or_default(), made.usage.is_some())
        }
        reported => {
            let counted = i64::from(count_tokens(&made.text));
            match reported {
                // Told while the answer was still growing: the larger figure is the later one.
                Some(usage) => {
                    let completion_tokens = usage.completion_tokens.max(counted);
                    (
                        Usage {
                            completion_tokens,
                            ..usage
                        },
                        completion_tokens == usage.completion_tokens,
                    )
                }
                None => {
                    let usage = Usage {
                        prompt_tokens: i64::from(estimate_prompt(&request.messages)),
                        completion_tokens: counted,
                        cached_tokens: 0,
                    };
                    (usage, false)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
