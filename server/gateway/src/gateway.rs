//! One answer from whichever provider: routing, deadlines, retry, cancellation, and a bill for what was made.

mod cached;
mod forward;
mod pipe;
mod probe;
mod scan;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use domain::{ErrorCode, ModelId, Money, ProviderId};
use futures::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{Span, field::Empty, info, instrument};

use crate::{
    BreakerEvents, BreakerRules, CacheHit, Catalogue, ChatRequest, Chunk, GatewayError, Model, ModelKind, ModelSpec,
    Offer, Price, ProviderKind, ProviderState, Role, SharedPlaces, Usage,
    breaker::{Events, SharedBreaker},
    cache::Cache,
    count_tokens,
    error::bounded,
    estimate_prompt,
    places::{Lender, Place},
    route::{Hop, Journey, Route, Target},
    sizes::{Size, Sizes},
    upstream::{Surroundings, Upstream},
};

/// Once an answer has its end and its usage, how long to wait for the stream to close so that the connection can be used again; and
/// how long for the usage of one that is stopped behind its end.
const LINGER: Duration = Duration::from_millis(250);
/// A provider that asks for a longer pause gets no second attempt: the person would be waiting.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the older half of a conversation is left out for a model that finds it too long.
const MOST_SHORTENINGS: u32 = 4;
/// No model answers this much; a server that does is broken.
const MOST_TEXT: usize = 4 * 1024 * 1024;
/// In the place of a provider where none was asked.
const NOBODY: &str = "none";
const UNFINISHED: &str = "the stream ended without a finish reason";

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

/// Everything that can be asked, and what is known of it. Cheap to clone; clones are the same one.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    live: RwLock<Arc<Live>>,
    deadlines: Deadlines,
    around: Surroundings,
    cache: Arc<Cache>,
    sizes: Sizes,
}

/// A catalogue at work.
struct Live {
    upstreams: Vec<Arc<Upstream>>,
    routes: HashMap<String, Arc<Route>>,
    /// The aliases in their order.
    names: Vec<String>,
    /// Aliases that lead to nobody who can be asked.
    idle: HashSet<String>,
    default: Arc<Model>,
}

impl Live {
    fn new(catalogue: Catalogue, old: Option<&Self>, around: &Surroundings) -> Self {
        let upstreams: Vec<Arc<Upstream>> = catalogue
            .providers
            .into_iter()
            .map(|spec| {
                let before = old.and_then(|old| old.upstreams.iter().find(|one| one.spec.id == spec.id));
                let given = catalogue.given.get(&spec.id);
                Arc::new(Upstream::new(spec, given, before.map(AsRef::as_ref), around))
            })
            .collect();
        let target = |target: &crate::Target| {
            let model = catalogue.models.iter().find(|model| model.id == target.model)?;
            let enabled = |one: &&Arc<Upstream>| one.spec.id == model.provider && one.spec.enabled;
            let upstream = Arc::clone(upstreams.iter().find(enabled)?);
            let model = Arc::clone(model);
            Some((Target { model, upstream }, target.weight))
        };
        let mut names: Vec<String> = Vec::new();
        let mut routes = HashMap::new();
        let mut idle = HashSet::new();
        for alias in catalogue.aliases {
            let tiers = alias.tiers.iter().map(|tier| tier.iter().filter_map(target).collect());
            match Route::new(&alias.name, alias.shown, tiers.collect()) {
                // Somebody has called a model of theirs as the demo is called.
                Some(_) if routes.contains_key(&alias.name) => {}
                Some(route) => {
                    names.push(alias.name.clone());
                    routes.insert(alias.name, Arc::new(route));
                }
                None => {
                    idle.insert(alias.name);
                }
            }
        }
        let default = shown(&names, &routes).next().cloned();
        let nobody = || Arc::new(Model::named(catalogue.fallback.as_deref().unwrap_or("default")));
        Self {
            upstreams,
            default: default.unwrap_or_else(nobody),
            routes,
            names,
            idle,
        }
    }

    /// What is offered under this name for calls of this kind.
    fn route(&self, name: &str, kind: ModelKind) -> Option<&Arc<Route>> {
        self.routes.get(name).filter(|route| route.kind == kind)
    }

    /// Why nothing is offered under this name.
    fn not_offered(&self, name: &str) -> GatewayError {
        if self.idle.contains(name) {
            nobody_behind(name)
        } else {
            off_the_list(name)
        }
    }
}

/// What people may choose from.
fn shown<'a>(
    names: &'a [String],
    routes: &'a HashMap<String, Arc<Route>>,
) -> impl Iterator<Item = &'a Arc<Model>> + use<'a> {
    let routes = names.iter().filter_map(|name| routes.get(name));
    let chats = routes.filter(|route| route.shown && route.kind == ModelKind::Chat);
    chats.map(|route| &route.model)
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
    /// Who was asked, in order.
    pub tries: Vec<Try>,
    /// Who answered, or was asked last; `none` when nobody was asked.
    pub provider: String,
    /// The model that answered; `None` for those of the settings, and when nobody was asked.
    pub model_id: Option<ModelId>,
    /// At what its usage is billed; nothing when nobody was asked.
    pub price: Price,
    /// Given before, to somebody who asked the same or much the same: it costs nothing.
    pub cached: Option<CacheHit>,
}

impl Answer {
    /// Neither cut short nor held back: it may be given again.
    pub fn is_whole(&self) -> bool {
        self.failure.is_none() && matches!(&self.finish, Finish::Complete(word) if word == "stop")
    }
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    pub provider: String,
    /// As the provider calls it.
    pub model: String,
    /// What went wrong, if something did.
    pub code: Option<ErrorCode>,
    /// The status of a refusal.
    pub status: Option<u16>,
    pub took: Duration,
}

/// What one attempt has made so far.
#[derive(Default)]
struct Made {
    opened: bool,
    text: String,
    first_token: Option<Instant>,
    finish: Option<String>,
    usage: Option<Usage>,
}

impl Made {
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

/// One question on its way to an answer.
struct Run {
    started: Instant,
    attempts: u32,
    tries: Vec<Try>,
    /// What attempts before the last one reported and cost: their providers bill those as well.
    before: Option<(Usage, Money)>,
    /// Whoever is asked now.
    target: Option<Target>,
}

impl Run {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            attempts: 0,
            tries: Vec::new(),
            before: None,
            target: None,
        }
    }

    /// Who answered, or was asked last.
    fn provider(&self) -> String {
        let name = |target: &Target| target.upstream.spec.name.clone();
        self.target.as_ref().map_or_else(|| NOBODY.to_owned(), name)
    }

    fn model_id(&self) -> Option<ModelId> {
        let target = self.target.as_ref().filter(|target| !target.upstream.is_given());
        target.map(|target| target.model.id)
    }

    fn price(&self) -> Price {
        self.target
            .as_ref()
            .map_or_else(Price::default, |target| target.model.price)
    }

    /// What an attempt has used of which nothing is shown. One that gave no sign of itself is not billed, though its provider may have
    /// read the question: it stands among the tries.
    fn put_aside(&mut self, used: Option<Usage>) {
        if let (Some(usage), Some(target)) = (used, &self.target) {
            let cost = usage.cost(&target.model.price);
            let (sum, spent) = self.before.unwrap_or_default();
            self.before = Some((
                sum + usage,
                Money::from_nanos(spent.nanos().saturating_add(cost.nanos())),
            ));
        }
    }
}

impl Gateway {
    pub fn new(catalogue: Catalogue, deadlines: Deadlines) -> Self {
        Self::with_rules(catalogue, deadlines, BreakerRules::default())
    }

    /// With other rules for its breakers.
    pub fn with_rules(catalogue: Catalogue, deadlines: Deadlines, rules: BreakerRules) -> Self {
        let around = Surroundings {
            rules,
            events: Events::default(),
            lender: Lender::default(),
        };
        let live = RwLock::new(Arc::new(Live::new(catalogue, None, &around)));
        let inner = Arc::new(Inner {
            live,
            deadlines,
            around,
            cache: Arc::default(),
            sizes: Sizes::default(),
        });
        Self { inner }
    }

    /// Takes another catalogue. What is under way goes on as it began; of providers and keys that did not change, connections
    /// and everything that is known of them are kept.
    pub fn replace(&self, catalogue: Catalogue) {
        let mut live = self.inner.live.write().unwrap_or_else(PoisonError::into_inner);
        *live = Arc::new(Live::new(catalogue, Some(&live), &self.inner.around));
    }

    /// Whom to tell of breakers that open and close; only the first one given is taken.
    pub fn on_breaker(&self, events: Arc<dyn BreakerEvents>) {
        let _ = self.inner.around.events.set(events);
    }

    /// Who lends the places of providers, so that replicas share them; only the first one given is taken. Without one each process has
    /// all of them.
    pub fn share_places(&self, lender: Arc<dyn SharedPlaces>) {
        let _ = self.inner.around.lender.set(lender);
    }

    /// All breakers that replicas have told of and that are not closed. One that was opened here by being told closes when it is no
    /// longer among them.
    pub fn share_breakers(&self, open: &[SharedBreaker]) {
        for upstream in &self.live().upstreams {
            upstream.shared(open);
        }
    }

    /// How the providers are, in the order of the catalogue.
    pub fn states(&self) -> Vec<ProviderState> {
        self.live().upstreams.iter().map(|upstream| upstream.seen()).collect()
    }

    fn live(&self) -> Arc<Live> {
        Arc::clone(&self.inner.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The chat models people may choose from, the default one first.
    pub fn models(&self) -> Vec<Arc<Model>> {
        let live = self.live();
        shown(&live.names, &live.routes).cloned().collect()
    }

    /// All names that programs are told of, in their order: of chat models those that are shown; all of other kinds, which nobody offers
    /// to people anyway.
    pub fn names(&self) -> Vec<String> {
        let live = self.live();
        let told = |name: &&String| {
            let route = live.routes.get(*name);
            route.is_some_and(|route| route.shown || route.kind != ModelKind::Chat)
        };
        live.names.iter().filter(told).cloned().collect()
    }

    /// The names of all chat models, shown or not, the default one first.
    pub fn chat_names(&self) -> Vec<String> {
        let live = self.live();
        let chats = |name: &&String| live.route(name, ModelKind::Chat).is_some();
        live.names.iter().filter(chats).cloned().collect()
    }

    /// The names of embedding models by which texts can be compared, shown or not, in their order.
    pub fn embedders(&self) -> Vec<String> {
        let live = self.live();
        let embeds = |name: &&String| {
            let route = live.route(name, ModelKind::Embedding);
            route.is_some_and(|route| route.is_one_model())
        };
        live.names.iter().filter(embeds).cloned().collect()
    }

    /// What is offered under this name for calls of this kind, shown or not.
    pub fn offer(&self, name: &str, kind: ModelKind) -> Option<Offer> {
        let live = self.live();
        let route = live.route(name, kind)?;
        Some(Offer {
            model: Arc::clone(&route.model),
            price: route.price,
            picture: route.picture(),
        })
    }

    /// How long anybody is made to wait.
    pub fn deadlines(&self) -> Deadlines {
        self.inner.deadlines
    }

    /// The chat model of this name, shown or not.
    pub fn model(&self, name: &str) -> Option<Arc<Model>> {
        let live = self.live();
        Some(Arc::clone(&live.route(name, ModelKind::Chat)?.model))
    }

    pub fn default_model(&self) -> Arc<Model> {
        Arc::clone(&self.live().default)
    }

    /// Who is asked first for the default model.
    pub fn provider_name(&self) -> String {
        let live = self.live();
        let target = live.routes.get(&live.default.name).and_then(|route| route.first());
        target.map_or_else(|| NOBODY.to_owned(), |target| target.upstream.spec.name.clone())
    }

    /// Whether the built-in demo answers, because nothing else was set up for chat.
    pub fn is_demo(&self) -> bool {
        let live = self.live();
        let target = live.routes.get(&live.default.name).and_then(|route| route.first());
        target.is_some_and(|target| target.upstream.spec.kind == ProviderKind::Demo)
    }

    /// Asks, and hands `on_text` the whole text so far whenever there is more. `cancel` ends the request at once.
    #[instrument(name = "ai.answer", skip_all, fields(ai.provider = Empty, ai.model = %request.model, ai.attempts = Empty, ai.outcome = Empty))]
    pub async fn answer(
        &self,
        request: &ChatRequest,
        cancel: &CancellationToken,
        mut on_text: impl FnMut(&str) + Send,
    ) -> Answer {
        let mut run = Run::new();
        let live = self.live();
        let Some(route) = live.route(&request.model, ModelKind::Chat) else {
            let end = Err(live.not_offered(&request.model).into());
            return self.settled(None, request, run, Made::default(), end);
        };
        let deadlines = &self.inner.deadlines;
        let overall = run.started + deadlines.overall;
        let mut journey = route.journey();
        let sizes = &self.inner.sizes;
        if !route.is_one_target() && !sizes.is_empty() {
            let prompt = estimate_prompt(&request.messages);
            journey.put_last(|model| sizes.is_too_long(model, size_of(prompt, request.max_tokens, model)));
        }
        let mut hop = match journey.next() {
            Ok(hop) => hop,
            Err(error) => return self.settled(Some(route), request, run, Made::default(), Err(error.into())),
        };
        let mut place: Option<Place> = None;
        let (mut retried, mut shortenings) = (false, 0);
        let mut shorter = None;
        loop {
            let request = shorter.as_ref().unwrap_or(request);
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
                        return self.settled(Some(route), request, run, Made::default(), Err(no_place().into()));
                    }
                    Err(end) => return self.settled(Some(route), request, run, Made::default(), Err(end)),
                }
            }
            run.attempts += 1;
            upstream.budget.asked();
            let mut made = Made::default();
            let began = Instant::now();
            let end = self
                .read(&mut hop, request, cancel, overall, &mut made, &mut on_text)
                .await;
            let failed = failure(&made, &end);
            note(&mut hop, failed.as_ref());
            let model = &hop.target.model;
            let size = || size_of(estimate_prompt(&request.messages), request.max_tokens, model);
            match &failed {
                Some(Failure::Error(GatewayError::Context { .. })) => sizes.refused(model, size()),
                _ if !made.text.is_empty() => sizes.accepted(model, size),
                _ => {}
            }
            run.tries.push(tried(&hop, failed.as_ref(), began.elapsed()));
            let Some(failed) = failed.filter(|_| made.text.is_empty() || made.blank()) else {
                return self.settled(Some(route), request, run, made, end);
            };
            let next = another(&mut journey, &hop, &failed);
            // Nobody knows the context of every model: one that says it is too much gets less.
            if let Failure::Error(GatewayError::Context { .. }) = &failed
                && next.is_none()
                && shortenings < MOST_SHORTENINGS
                && let Some(less) = without_older_half(request)
            {
                info!(
                    ai.attempt = run.attempts,
                    ai.messages = less.messages.len(),
                    "The conversation is too long for the model, asking with its newer half"
                );
                shortenings += 1;
                run.put_aside(made.usage);
                shorter = Some(less);
                continue;
            }
            if let Some(next) = next.filter(|_| made.text.is_empty() && Instant::now() < overall) {
                info!(
                    ai.attempt = run.attempts,
                    ai.provider = next.provider(),
                    "The provider failed, asking another one"
                );
                run.put_aside(made.usage);
                hop = next;
                continue;
            }
            let pause = pause_before_retry(&failed).filter(|pause| {
                let may_be = !retried && made.text.is_empty() && Instant::now() + *pause < overall;
                may_be && !upstream.rests_beyond(*pause) && upstream.budget.retry()
            });
            let Some(pause) = pause else {
                return self.settled(Some(route), request, run, made, end);
            };
            info!(
                ai.attempt = run.attempts,
                ai.pause_ms = pause.as_millis() as u64,
                "The provider failed, asking once more"
            );
            retried = true;
            tokio::select! {
                () = sleep(pause) => {}
                () = cancel.cancelled() => {
                    run.put_aside(made.usage);
                    let end = Err(Interrupted::Cancelled);
                    return self.settled(Some(route), request, run, Made::default(), end);
                }
            }
            match journey.again(&hop) {
                Ok(again) => hop = again,
                // Others have found out meanwhile that it is of no use.
                Err(_) => return self.settled(Some(route), request, run, made, end),
            }
            run.put_aside(made.usage);
        }
    }

    /// One attempt; `made` keeps what came, however it ends.
    async fn read(
        &self,
        hop: &mut Hop,
        request: &ChatRequest,
        cancel: &CancellationToken,
        overall: Instant,
        made: &mut Made,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), Interrupted> {
        let deadlines = &self.inner.deadlines;
        let mut what = "the first token";
        let mut deadline = Instant::now() + deadlines.first_token;
        let (adapter, request) = (Arc::clone(&hop.key.adapter), hop.request(request));
        let mut stream = within(cancel, deadline, overall, what, adapter.stream(&request)).await??;
        made.opened = true;
        let mut stopped_at = None;
        loop {
            let next = match within(cancel, deadline, overall, what, stream.next()).await {
                // Behind its end an answer is whole, and what it has used is told in a moment.
                Err(Interrupted::Cancelled) if made.finish.is_some() && made.usage.is_none() => {
                    let until = *stopped_at.get_or_insert_with(Instant::now) + LINGER;
                    timeout_at(until, stream.next())
                        .await
                        .map_err(|_| Interrupted::Cancelled)
                }
                next => next,
            };
            let Some(chunk) = next? else { return Ok(()) };
            match chunk? {
                Chunk::Text(text) => {
                    (what, deadline) = ("the next token", Instant::now() + deadlines.between_tokens);
                    if text.is_empty() {
                        continue;
                    }
                    if made.first_token.is_none() {
                        made.first_token = Some(Instant::now());
                        // Now and not at the end, so that whoever waits for a probe need not wait for the whole answer.
                        hop.good();
                    }
                    made.text.push_str(&text);
                    on_text(&made.text);
                    if made.text.len() > MOST_TEXT {
                        return Err(GatewayError::refused("the answer has no end").into());
                    }
                }
                Chunk::Finish(word) => {
                    deadline = Instant::now() + deadlines.between_tokens;
                    made.finish = Some(word);
                }
                Chunk::Usage(usage) => made.usage = Some(usage),
            }
            if made.finish.is_some() && made.usage.is_some() {
                deadline = deadline.min(Instant::now() + LINGER);
            }
        }
    }

    /// Turns what was made into an answer: how it ended, what it used, what that costs.
    fn settled(
        &self,
        route: Option<&Arc<Route>>,
        request: &ChatRequest,
        run: Run,
        made: Made,
        end: Result<(), Interrupted>,
    ) -> Answer {
        let failed = failure(&made, &end).is_some();
        let stopped = matches!(end, Err(Interrupted::Cancelled));
        let (mut usage, mut usage_reported) = bill(request, &made, failed, stopped);
        let mut cost = usage.cost(&run.price());
        if let Some((before, spent)) = run.before {
            usage_reported |= usage == Usage::default();
            usage = usage + before;
            cost = Money::from_nanos(cost.nanos().saturating_add(spent.nanos()));
        }
        let first_token = made.first_token.map(|at| at - run.started);
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
            cost,
            first_token,
            total: run.started.elapsed(),
            attempts: run.attempts,
            failure,
            provider: run.provider(),
            model_id: run.model_id(),
            price: run.price(),
            tries: run.tries,
            cached: None,
        };
        let outcome = match (&answer.failure, &answer.finish) {
            (Some(failure), _) => failure.code().as_str(),
            (None, Finish::Stopped) => "stopped",
            (None, _) => "ok",
        };
        Span::current()
            .record("ai.provider", answer.provider.as_str())
            .record("ai.attempts", answer.attempts)
            .record("ai.outcome", outcome);
        let model = route.map(|route| route.model.as_ref());
        count(
            model,
            &answer.provider,
            outcome,
            answer.first_token,
            answer.total,
            answer.usage,
        );
        answer
    }
}

/// Counts what came of one question.
fn count(
    model: Option<&Model>,
    provider: &str,
    outcome: &str,
    first_token: Option<Duration>,
    total: Duration,
    usage: Usage,
) {
    // Only names on the list become labels, so that nobody can grow the metrics without end.
    let model = model.map_or_else(|| "other".to_owned(), |model| model.name.clone());
    let both = [("provider", provider.to_owned()), ("model", model)];
    let mut labels = both.to_vec();
    labels.push(("outcome", outcome.to_owned()));
    metrics::counter!("botdeck_ai_requests_total", &labels).increment(1);
    if let Some(first) = first_token {
        metrics::histogram!("botdeck_ai_first_token_seconds", &both).record(first.as_secs_f64());
    }
    metrics::histogram!("botdeck_ai_seconds", &both).record(total.as_secs_f64());
    for (kind, tokens) in [
        ("prompt", usage.prompt_tokens),
        ("completion", usage.completion_tokens),
        ("cached", usage.cached_tokens),
    ] {
        metrics::counter!("botdeck_ai_tokens_total", "kind" => kind).increment(u64::try_from(tokens).unwrap_or(0));
    }
}

fn no_place() -> GatewayError {
    GatewayError::Busy {
        retry_after: None,
        detail: "too many requests at once; none of them has ended in time".to_owned(),
    }
}

/// Who may be asked instead, by the reason of the failure. What a provider has understood and will not answer, another one is not
/// asked to; where it has no words for the request or does not know the model, another one may.
fn another(journey: &mut Journey, hop: &Hop, failed: &Failure<'_>) -> Option<Hop> {
    match failed {
        Failure::Error(GatewayError::Unable { .. } | GatewayError::Refused { status: Some(404), .. }) => {
            journey.next().ok()
        }
        Failure::Empty | Failure::Error(GatewayError::Refused { .. }) => None,
        Failure::Error(GatewayError::Context { .. }) => journey.larger(hop),
        Failure::Error(GatewayError::Busy { .. } | GatewayError::Auth { .. }) => {
            journey.with_another_key(hop).or_else(|| journey.next().ok())
        }
        Failure::Error(_) | Failure::Unfinished => journey.next().ok(),
    }
}

/// There is such a name, and staff can mend what is behind it.
fn nobody_behind(model: &str) -> GatewayError {
    let name = bounded(model, 80);
    GatewayError::down(format!(
        "nobody can be asked for {name}: its models or providers are switched off, or their secrets cannot be opened"
    ))
}

fn off_the_list(model: &str) -> GatewayError {
    let name = bounded(model, 80);
    GatewayError::refused(format!("the model {name} is not on the list"))
}

/// What is asked of a model: no more of an answer than it gives.
fn size_of(prompt: u32, answer: u32, model: &ModelSpec) -> Size {
    Size {
        prompt,
        answer: answer.min(model.max_answer_tokens),
    }
}

/// Tells the breakers how it went.
fn note(hop: &mut Hop, failed: Option<&Failure<'_>>) {
    match failed {
        Some(Failure::Error(error)) => hop.failed(error),
        Some(Failure::Unfinished) => hop.failed(&GatewayError::down(UNFINISHED)),
        Some(Failure::Empty) => hop.good(),
        // Whatever came has been noted with its first token; of one who left before nothing is known.
        None => {}
    }
}

fn tried(hop: &Hop, failed: Option<&Failure<'_>>, took: Duration) -> Try {
    let (code, status) = match failed {
        None => (None, None),
        Some(Failure::Error(error)) => (Some(error.code()), error.status()),
        Some(Failure::Empty) => (Some(ErrorCode::AiEmpty), None),
        Some(Failure::Unfinished) => (Some(ErrorCode::AiDown), None),
    };
    Try {
        provider: hop.provider().to_owned(),
        model: hop.target.model.name.clone(),
        code,
        status,
        took,
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
    match end {
        Err(Interrupted::Failed(error)) if made.blank() || matches!(error, GatewayError::Timeout { .. }) => error,
        Err(Interrupted::Failed(error)) => GatewayError::Cut {
            detail: "after text had been given".into(),
            source: Some(Box::new(error)),
        },
        _ if made.blank() => GatewayError::down(UNFINISHED),
        _ => GatewayError::Cut {
            detail: UNFINISHED.into(),
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
fn pause_before_retry(failure: &Failure<'_>) -> Option<Duration> {
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
                        ..Usage::default()
                    };
                    (usage, false)
                }
            }
        }
    }
}

pub use forward::{Forward, Forwarded, NotForwarded, Outcome};
pub use probe::{Probe, Probed};

#[cfg(test)]
mod cached_tests;
#[cfg(test)]
mod routing_tests;
#[cfg(test)]
mod tests;
