//! Requests of other programs, in OpenAI's words: the same routing and breakers before the first byte, then bytes as they come.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::oneshot;
use tracing::Instrument;

use super::{
    pipe::{Pipe, pipe},
    scan::Scanner,
    *,
};
use crate::{
    AnswerBound, CacheHit, CacheScope, Endpoint, ForwardBody, Outgoing,
    cache::{self, Lead, Stored},
};

/// Once an answer has its end, how long to wait for what it has used when nobody waits for the rest.
const USAGE_WAIT: Duration = Duration::from_secs(1);

const NO_ANSWER: &str = "it answered with success, but the answer is empty, broken off or not JSON";

/// A request of another program.
pub struct Forward {
    pub endpoint: Endpoint,
    pub alias: String,
    pub body: ForwardBody,
    /// What the body says of it.
    pub stream: bool,
    /// Of the answer, where the body says more or nothing.
    pub bound: Option<AnswerBound>,
    /// Tokens before the answer, at most, and pictures: billed where the provider does not tell what was used.
    pub tokens: i64,
    pub images: i64,
    /// Tokens of the sound that an answer in speech is reckoned at; billed in the same way, where sound has a price.
    pub spoken: i64,
    /// Whose answers may be given again, if anybody's; of chat completions and embeddings only.
    pub cache: Option<CacheScope>,
}

impl Forward {
    /// Something of the answer is to come soon, and more of it soon after. What is not streamed comes all at once, at the end, and a
    /// streamed picture hardly sooner.
    fn is_quick(&self) -> bool {
        self.stream && self.endpoint != Endpoint::Images
    }

    /// What it asks of a model.
    fn size(&self, model: &ModelSpec) -> Size {
        let prompt = u32::try_from(self.tokens).unwrap_or(u32::MAX);
        size_of(prompt, self.bound.map_or(u32::MAX, |bound| bound.tokens), model)
    }

    /// What the question has used, where nobody tells.
    fn estimate(&self) -> Usage {
        let is_sound = matches!(self.endpoint, Endpoint::Transcriptions | Endpoint::Translations);
        Usage {
            prompt_tokens: self.tokens,
            audio_input_tokens: if is_sound { self.tokens } else { 0 },
            ..Usage::default()
        }
    }
}

/// An answer on its way.
pub struct Forwarded {
    pub content_type: String,
    /// Dropping it ends the provider's work at once.
    pub body: BoxStream<'static, Result<Bytes, GatewayError>>,
    /// Comes once the body has ended or was dropped.
    pub outcome: oneshot::Receiver<Outcome>,
    /// Nobody was asked: it was given before.
    pub cached: Option<CacheHit>,
}

/// Nobody answered.
#[derive(Debug)]
pub struct NotForwarded {
    pub error: GatewayError,
    /// Even a failure may have to be billed.
    pub outcome: Outcome,
}

/// What came of a request, for the ledger and the request log.
#[derive(Debug)]
pub struct Outcome {
    pub usage: Usage,
    /// False when the provider told no usage, or not all of it: then `usage` is counted here.
    pub reported: bool,
    pub cost: Money,
    pub finish: Finish,
    pub first_token: Option<Duration>,
    pub total: Duration,
    pub tries: Vec<Try>,
    /// Who answered, or was asked last; `none` when nobody was asked.
    pub provider: String,
    /// The model that answered; `None` for those of the settings, and when nobody was asked.
    pub model_id: Option<ModelId>,
    /// At what its usage is billed; nothing when nobody was asked.
    pub price: Price,
    /// Set when nothing or only a part came; not when the program left.
    pub failure: Option<GatewayError>,
    /// Given before: it costs nothing.
    pub cached: Option<CacheHit>,
}

/// Keeps what passes of an answer, as far as it is short enough, for those who ask the same.
pub(super) struct Keeping {
    lead: Arc<Lead>,
    content_type: String,
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Keeping {
    pub(super) fn new(lead: Arc<Lead>) -> Self {
        Self {
            lead,
            content_type: String::new(),
            pieces: Vec::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, bytes: &Bytes) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        if self.bytes > cache::LONGEST {
            self.pieces.clear();
        } else {
            self.pieces.push(bytes.clone());
        }
    }

    /// All of it, and where each piece ends.
    fn text(&self) -> Option<(String, Vec<usize>)> {
        if self.bytes > cache::LONGEST {
            return None;
        }
        let mut ends = Vec::with_capacity(self.pieces.len());
        let mut all = Vec::with_capacity(self.bytes);
        for piece in &self.pieces {
            all.extend_from_slice(piece);
            ends.push(all.len());
        }
        Some((String::from_utf8(all).ok()?, ends))
    }

    fn end(self, outcome: &Outcome, is_whole: bool) {
        let text = if is_whole { self.text() } else { None };
        match (text, &outcome.finish) {
            (Some((text, ends)), Finish::Complete(finish)) => self.lead.keep(Arc::new(Stored {
                text,
                ends,
                content_type: self.content_type,
                finish: finish.clone(),
                provider: outcome.provider.clone(),
                model_id: outcome.model_id,
            })),
            // The program has left: another one that waits asks in its place.
            (_, Finish::Stopped) => {}
            _ => self.lead.tell_nothing(),
        }
    }
}

/// A provider that has begun to answer.
struct Opened {
    content_type: String,
    body: BoxStream<'static, Result<Bytes, GatewayError>>,
    ready: VecDeque<Bytes>,
    scanner: Scanner,
    ended: bool,
}

impl Gateway {
    /// Passes a request on to whoever answers under its alias. Before the first byte others may be asked; after it the answer is
    /// ended honestly. Where the call allows it, an answer that was given before is given again.
    #[instrument(name = "ai.forward", skip_all, fields(ai.model = %call.alias, ai.endpoint = call.endpoint.path()))]
    pub async fn forward(&self, call: Forward, cancel: &CancellationToken) -> Result<Forwarded, Box<NotForwarded>> {
        if call.cache.is_some() {
            self.forward_cached(call, cancel).await
        } else {
            self.send_on(call, None, cancel).await
        }
    }

    /// `keeping`: what passes is kept for others.
    pub(super) async fn send_on(
        &self,
        call: Forward,
        keeping: Option<Keeping>,
        cancel: &CancellationToken,
    ) -> Result<Forwarded, Box<NotForwarded>> {
        let live = self.live();
        let mut run = Run::new();
        let Some(route) = live.route(&call.alias, call.endpoint.kind()) else {
            return Err(self.not_forwarded(None, run, live.not_offered(&call.alias).into()));
        };
        let deadlines = self.inner.deadlines;
        let overall = run.started + deadlines.overall;
        let mut journey = route.journey();
        let sizes = &self.inner.sizes;
        if !route.is_one_target() && !sizes.is_empty() {
            journey.put_last(|model| sizes.is_too_long(model, call.size(model)));
        }
        let mut hop = match journey.next() {
            Ok(hop) => hop,
            Err(error) => return Err(self.not_forwarded(Some(route), run, error.into())),
        };
        let mut place: Option<Place> = None;
        let mut retried = false;
        loop {
            run.target = Some(hop.target.clone());
            let upstream = Arc::clone(&hop.target.upstream);
            if place.as_ref().is_none_or(|place| place.provider() != upstream.spec.id) {
                place = None;
                let patience = Instant::now() + deadlines.first_token;
                match within(cancel, patience, overall, "a free place", upstream.enter()).await {
                    Ok(free) => place = Some(free),
                    Err(Interrupted::Failed(_)) => {
                        if let Ok(next) = journey.next() {
                            hop = next;
                            continue;
                        }
                        return Err(self.not_forwarded(Some(route), run, no_place().into()));
                    }
                    Err(end) => return Err(self.not_forwarded(Some(route), run, end)),
                }
            }
            run.attempts += 1;
            upstream.budget.asked();
            let began = Instant::now();
            let has_next = journey.has_next();
            let patience = if call.is_quick() {
                began + deadlines.first_token
            } else if has_next {
                // Of an answer that comes all at once nothing is seen before its end: whoever is asked next needs as much time.
                began + overall.saturating_duration_since(began) / 2
            } else {
                overall
            };
            let what = "the first token";
            let mut told = None;
            let opened = within(cancel, patience, overall, what, open(&hop, &call, has_next, &mut told)).await;
            let error = match opened {
                Ok(Ok(opened)) => {
                    hop.good();
                    sizes.accepted(&hop.target.model, || call.size(&hop.target.model));
                    run.tries.push(tried(&hop, None, began.elapsed()));
                    let way = Way {
                        run,
                        hop,
                        place,
                        keeping,
                    };
                    return Ok(self.pass(call, route, way, opened, cancel.clone()));
                }
                Ok(Err(error)) | Err(Interrupted::Failed(error)) => error,
                Err(end) => {
                    run.tries.push(tried(&hop, None, began.elapsed()));
                    // Its provider bills the question at least, and paints on when the program has left.
                    run.put_aside(told.or(Some(Usage {
                        images: call.images,
                        ..call.estimate()
                    })));
                    return Err(self.not_forwarded(Some(route), run, end));
                }
            };
            run.put_aside(told);
            hop.failed(&error);
            if let GatewayError::Context { .. } = &error {
                sizes.refused(&hop.target.model, call.size(&hop.target.model));
            }
            let failed = Failure::Error(&error);
            run.tries.push(tried(&hop, Some(&failed), began.elapsed()));
            if Instant::now() < overall
                && let Some(next) = another(&mut journey, &hop, &failed)
            {
                info!(
                    ai.attempt = run.attempts,
                    ai.provider = next.provider(),
                    "The provider failed, asking another one"
                );
                hop = next;
                continue;
            }
            let pause = pause_before_retry(&failed).filter(|pause| {
                let may_be = !retried && Instant::now() + *pause < overall;
                may_be && !upstream.rests_beyond(*pause) && upstream.budget.retry()
            });
            let Some(pause) = pause else {
                return Err(self.not_forwarded(Some(route), run, error.into()));
            };
            retried = true;
            tokio::select! {
                () = sleep(pause) => {}
                () = cancel.cancelled() => {
                    return Err(self.not_forwarded(Some(route), run, Interrupted::Cancelled));
                }
            }
            match journey.again(&hop) {
                Ok(again) => hop = again,
                Err(_) => return Err(self.not_forwarded(Some(route), run, error.into())),
            }
        }
    }

    fn not_forwarded(&self, route: Option<&Arc<Route>>, run: Run, end: Interrupted) -> Box<NotForwarded> {
        let (usage, cost) = run.before.unwrap_or_default();
        let (finish, error) = match end {
            Interrupted::Failed(error) => (Finish::Failed, error),
            Interrupted::Cancelled => (
                Finish::Stopped,
                GatewayError::Timeout {
                    what: "the program that asked: it has left",
                },
            ),
        };
        let outcome = Outcome {
            usage,
            // Of one that was left at work it is estimated.
            reported: finish == Finish::Failed && run.before.is_some(),
            cost,
            finish,
            first_token: None,
            total: run.started.elapsed(),
            provider: run.provider(),
            model_id: run.model_id(),
            price: run.price(),
            tries: run.tries,
            failure: None,
            cached: None,
        };
        let code = match outcome.finish {
            Finish::Stopped => "stopped",
            _ => error.code().as_str(),
        };
        count(
            route.map(|route| route.model.as_ref()),
            &outcome.provider,
            code,
            None,
            outcome.total,
            outcome.usage,
        );
        Box::new(NotForwarded { error, outcome })
    }

    fn pass(
        &self,
        call: Forward,
        route: &Arc<Route>,
        way: Way,
        opened: Opened,
        cancel: CancellationToken,
    ) -> Forwarded {
        let (sender, outcome) = oneshot::channel();
        let deadlines = self.inner.deadlines;
        let Way {
            run,
            hop,
            place,
            keeping,
        } = way;
        let overall = run.started + deadlines.overall;
        let between = if call.is_quick() {
            deadlines.between_tokens
        } else {
            deadlines.overall
        };
        let keeping = keeping.map(|keeping| Keeping {
            content_type: opened.content_type.clone(),
            ..keeping
        });
        let (pipe, body) = pipe(deadlines.between_tokens);
        let passage = Passage {
            body: opened.body,
            ready: opened.ready,
            ended: opened.ended,
            pipe,
            cancel,
            between,
            overall,
            meter: Meter {
                scanner: opened.scanner,
                sender: Some(sender),
                route: Arc::clone(route),
                first_token: Some(Instant::now()),
                end: None,
                call,
                run,
                hop,
                place,
                keeping,
            },
        };
        // In a task of its own, so that a program that reads slowly does not keep the provider's place for longer than it may.
        tokio::spawn(passage.run().in_current_span());
        Forwarded {
            content_type: opened.content_type,
            body,
            outcome,
            cached: None,
        }
    }
}

/// The way that a request took until somebody began to answer.
struct Way {
    run: Run,
    hop: Hop,
    place: Option<Place>,
    keeping: Option<Keeping>,
}

/// An answer on its way from a provider to a program.
struct Passage {
    body: BoxStream<'static, Result<Bytes, GatewayError>>,
    /// What may go on.
    ready: VecDeque<Bytes>,
    ended: bool,
    pipe: Pipe,
    cancel: CancellationToken,
    between: Duration,
    overall: Instant,
    meter: Meter,
}

impl Passage {
    async fn run(mut self) {
        let end = self.pass().await;
        let told = match &end {
            // Only an error in its middle tells the program that a stream is not whole: its body has ended in good order.
            Ok(()) if self.meter.scanner.broke_off() => Some(GatewayError::Cut {
                detail: UNFINISHED.to_owned(),
                source: None,
            }),
            Ok(()) => None,
            Err(Interrupted::Failed(error)) => Some(GatewayError::Cut {
                detail: error.cause(),
                source: None,
            }),
            Err(Interrupted::Cancelled) => {
                self.linger().await;
                Some(GatewayError::down("stopped"))
            }
        };
        if let Some(error) = told {
            self.pipe.fail(error);
        }
        self.meter.end = Some(end);
    }

    async fn pass(&mut self) -> Result<(), Interrupted> {
        loop {
            while let Some(bytes) = self.ready.pop_front() {
                if let Some(keeping) = &mut self.meter.keeping {
                    keeping.add(&bytes);
                }
                let sent = tokio::select! {
                    () = self.cancel.cancelled() => false,
                    sent = self.pipe.send(bytes) => sent,
                };
                if !sent {
                    return Err(Interrupted::Cancelled);
                }
            }
            if let Some(error) = &self.meter.scanner.seen().error {
                return Err(self.meter.hop.key.adapter.fault(error).into());
            }
            if self.meter.scanner.is_broken() {
                return Err(GatewayError::down(NO_ANSWER).into());
            }
            if self.ended {
                return Ok(());
            }
            // A provider that always has something more is never waited for.
            if Instant::now() >= self.overall {
                let what = "the end of the answer";
                return Err(GatewayError::Timeout { what }.into());
            }
            let deadline = Instant::now() + self.between;
            let what = "the next token";
            let next = tokio::select! {
                () = self.pipe.closed() => return Err(Interrupted::Cancelled),
                next = within(&self.cancel, deadline, self.overall, what, self.body.next()) => next?,
            };
            match next {
                Some(bytes) => self.meter.scanner.feed(bytes?, &mut self.ready),
                None => {
                    self.meter.scanner.end(&mut self.ready);
                    self.ended = true;
                }
            }
        }
    }

    /// Behind its end an answer is whole, and what it has used is told in a moment.
    async fn linger(&mut self) {
        let until = Instant::now() + USAGE_WAIT;
        while self.meter.scanner.lacks_usage() {
            let Ok(Some(Ok(bytes))) = timeout_at(until, self.body.next()).await else {
                return;
            };
            self.meter.scanner.feed(bytes, &mut VecDeque::new());
        }
    }
}

/// Asks one target, up to the first sign of an answer; where there is another to ask, up to the first part of it. `told`: what it says
/// it has used although no answer comes.
async fn open(hop: &Hop, call: &Forward, has_next: bool, told: &mut Option<Usage>) -> Result<Opened, GatewayError> {
    let longest = hop.target.model.max_answer_tokens;
    let bound = call.bound.map(|bound| AnswerBound {
        tokens: bound.tokens.min(longest),
        ..bound
    });
    let outgoing = Outgoing {
        endpoint: call.endpoint,
        model: &hop.target.model.name,
        body: &call.body,
        stream: call.stream,
        max_answer_tokens: bound.map_or(longest, |bound| bound.tokens),
        bound,
    };
    let incoming = hop.key.adapter.forward(&outgoing).await?;
    let mut opened = Opened {
        scanner: Scanner::new(&incoming.content_type, incoming.hide_usage)
            .of(call.endpoint)
            .patient(has_next),
        content_type: incoming.content_type,
        body: incoming.body,
        ready: VecDeque::new(),
        ended: false,
    };
    while !opened.scanner.decided() && !opened.ended {
        match opened.body.next().await {
            Some(bytes) => opened.scanner.feed(bytes?, &mut opened.ready),
            None => {
                opened.scanner.end(&mut opened.ready);
                opened.ended = true;
            }
        }
        *told = opened.scanner.seen().usage;
    }
    let seen = opened.scanner.seen();
    let stirs = seen.stirred && !seen.done && !opened.ended;
    match opened.scanner.refusal() {
        Some(error) => Err(hop.key.adapter.fault(error)),
        _ if opened.scanner.is_broken() => Err(GatewayError::down(NO_ANSWER)),
        _ if !seen.begun && !stirs && (opened.scanner.is_stream() || !seen.done && opened.ended) => {
            Err(GatewayError::down(UNFINISHED))
        }
        _ => Ok(opened),
    }
}

/// Goes along with an answer; when it goes, however that happens, the outcome is told.
struct Meter {
    scanner: Scanner,
    sender: Option<oneshot::Sender<Outcome>>,
    route: Arc<Route>,
    first_token: Option<Instant>,
    /// How reading ended; `None` while it has not, which means that the program has left.
    end: Option<Result<(), Interrupted>>,
    call: Forward,
    run: Run,
    hop: Hop,
    place: Option<Place>,
    keeping: Option<Keeping>,
}

impl Drop for Meter {
    fn drop(&mut self) {
        // Neither what was cut short nor what was held back is worth keeping.
        let seen = self.scanner.seen();
        let is_answer = match self.call.endpoint {
            Endpoint::Chat => seen.finish.is_some() && !seen.cut_short,
            Endpoint::Embeddings => seen.images > 0,
            _ => false,
        };
        let is_whole = is_answer && seen.error.is_none() && matches!(self.end, Some(Ok(())));
        let outcome = self.outcome();
        if let Some(keeping) = self.keeping.take() {
            keeping.end(&outcome, is_whole);
        }
        let code = match (&outcome.failure, &outcome.finish) {
            (Some(failure), _) => failure.code().as_str(),
            (None, Finish::Stopped) => "stopped",
            (None, _) => "ok",
        };
        let model = Some(self.route.model.as_ref());
        count(
            model,
            &outcome.provider,
            code,
            outcome.first_token,
            outcome.total,
            outcome.usage,
        );
        // Whoever waits for the outcome finds the place free.
        self.place = None;
        if let Some(sender) = self.sender.take() {
            // Nobody may be listening any more.
            let _ = sender.send(outcome);
        }
    }
}

impl Meter {
    fn outcome(&mut self) -> Outcome {
        if matches!(self.end, None | Some(Err(Interrupted::Cancelled))) {
            // The last event may have come without the blank line that ends it.
            self.scanner.end(&mut VecDeque::new());
        }
        let seen = self.scanner.take();
        let complete = seen.finish.is_some() || (seen.done && matches!(self.end, Some(Ok(()))));
        let failure = match self.end.take() {
            _ if complete => None,
            _ if seen.error.is_some() => seen.error.as_ref().map(|error| self.hop.key.adapter.fault(error)),
            Some(Err(Interrupted::Failed(error))) => Some(error),
            Some(Ok(())) => Some(GatewayError::down(UNFINISHED)),
            Some(Err(Interrupted::Cancelled)) | None => None,
        };
        if let Some(error) = &failure {
            self.hop.failed(error);
        }
        let finish = match (&failure, complete) {
            (_, true) => Finish::Complete(seen.finish.unwrap_or_else(|| "stop".to_owned())),
            (Some(_), _) => Finish::Cut,
            (None, _) => Finish::Stopped,
        };
        let price = self.run.price();
        let is_spoken = self.call.endpoint == Endpoint::Speech && price.audio_output > Money::ZERO;
        let (mut usage, reported) = match seen.usage {
            Some(usage) if complete => (usage, true),
            usage => {
                let usage = usage.unwrap_or_else(|| self.call.estimate());
                // Nobody can count the tokens of sound.
                let counted = if is_spoken {
                    self.call.spoken
                } else {
                    i64::from(count_tokens(&seen.text))
                };
                let completion_tokens = usage.completion_tokens.max(counted);
                (
                    Usage {
                        completion_tokens,
                        ..usage
                    },
                    false,
                )
            }
        };
        if is_spoken {
            // All of it, which providers do not say.
            usage.audio_output_tokens = usage.completion_tokens;
        }
        if self.call.endpoint == Endpoint::Images {
            // An answer too long to be read holds what was asked for, and so would one that broke off.
            usage.images = if complete && seen.images > 0 {
                seen.images
            } else {
                self.call.images
            };
        }
        let (before, spent) = self.run.before.unwrap_or_default();
        Outcome {
            cost: Money::from_nanos(usage.cost(&price).nanos().saturating_add(spent.nanos())),
            price,
            usage: usage + before,
            reported,
            finish,
            first_token: self.first_token.map(|at| at - self.run.started),
            total: self.run.started.elapsed(),
            provider: self.run.provider(),
            model_id: self.run.model_id(),
            tries: std::mem::take(&mut self.run.tries),
            failure: failure.map(|error| GatewayError::Cut {
                detail: "after the first byte".to_owned(),
                source: Some(Box::new(error)),
            }),
            cached: None,
        }
    }
}
