//! The way of another program's call into the ledger. Nothing of it is waited for: one task writes what has begun and what has ended,
//! whatever has come together since it wrote last in one transaction, and tries again for as long as the database is away.
//!
//! Lines come first, then the limits: what a call has used is counted on them once its line is written, so that a crash between the two
//! loses nothing (what it has set aside is settled by its line when it expires).
//!
//! A call is noted when it begins and written when it ends. Of a replica that dies the scheduler finds the notes and charges them by
//! their estimates; only a call that began in the last moments before may have left none.
//!
//! A call begins when it is admitted. One that is refused is no use of its key, and leaves a line at most.

mod refusals;
mod writer;

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{ApiKeyId, ErrorCode, Money, ReservationId, views::requests::TryRow};
use gateway::{CacheHit, Finish, Offer, Outcome, Try};
use repositories::api_calls;
pub use repositories::api_calls::{Intent, Line};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{refusals::Refusals, writer::Writer};
use crate::{Error, Refused, Reserved, Services, Subject, Use, Wanted, current_trace};

/// Calls that may be under way or not yet written in this process; beyond them, programs are asked to come back.
const MOST: u32 = 10_000;
/// Rows of one transaction.
const BATCH: usize = 1000;
const BEAT_EVERY: Duration = Duration::from_secs(10);
/// Of a replica that has been silent for so long nobody waits for more.
pub(crate) const SILENT: Duration = Duration::from_secs(90);
/// What comes within so long is written together: the calls that begin just then go before the writing of those that end, and the
/// database has less to do. A call that was noted by nobody when its process died is one of the last moments.
const GATHER: Duration = Duration::from_millis(20);
/// A call that is told to end says within this what it has used.
const CUT: Duration = Duration::from_secs(2);
/// What a call has set aside is given back so long after the last moment at which it may still run. A replica that went away has been
/// noticed by then, and its calls stand in the ledger.
const HELD_LONGER: TimeDelta = TimeDelta::minutes(5);
/// A budget that leaves less than this for an answer is used up.
const SHORTEST_ANSWER: u32 = 64;

enum Entry {
    Begun(Intent),
    Ended {
        line: Box<Line>,
        /// What it has set aside becomes this.
        used: Option<Use>,
        /// Free when the line is written.
        _place: OwnedSemaphorePermit,
    },
    /// What was set aside for calls that did not come.
    Unused(Vec<ReservationId>),
}

/// What is to be written.
pub(crate) struct CallLog {
    replica: Uuid,
    places: Arc<Semaphore>,
    // Bounded by the places, each of which holds two entries at most, and by what is leased.
    sender: mpsc::UnboundedSender<Entry>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Entry>>>,
    refusals: Refusals,
    /// The process stops, and waits for calls no longer.
    cut: CancellationToken,
}

impl Default for CallLog {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            replica: Uuid::now_v7(),
            places: Arc::new(Semaphore::new(MOST as usize)),
            sender,
            receiver: Mutex::new(Some(receiver)),
            refusals: Refusals::default(),
            cut: CancellationToken::new(),
        }
    }
}

impl CallLog {
    /// This process.
    pub(crate) fn replica(&self) -> Uuid {
        self.replica
    }

    /// Gives back what was set aside for calls that did not come. Never waits.
    pub(crate) fn give_back(&self, unused: Vec<ReservationId>) {
        if !unused.is_empty() {
            let _ = self.sender.send(Entry::Unused(unused));
        }
    }
}

/// What a call asks for, and the most that it may use.
#[derive(Clone, Debug)]
pub struct CallWish {
    pub key: ApiKeyId,
    /// The name that is asked for.
    pub alias: String,
    pub offer: Offer,
    /// Before the answer.
    pub tokens: i64,
    /// These tokens are sound.
    pub sound: bool,
    /// Of the answer.
    pub answer: u32,
    /// The answer can be bounded, and made shorter where a budget does not pay for all of it.
    pub shortens: bool,
    /// The answer is sound, or may be.
    pub speaks: bool,
    pub images: i64,
}

impl CallWish {
    fn wanted(&self) -> Wanted {
        let price = self.offer.price;
        let input = if self.sound { price.audio_input } else { price.input };
        let output = self.offer.model.output_per_million;
        let images = Money::from_nanos(price.image.nanos().saturating_mul(self.images));
        Wanted {
            tokens: self.tokens,
            cost: input.per_million(self.tokens) + images,
            answer: self.answer,
            least_answer: if self.shortens {
                self.answer.min(SHORTEST_ANSWER)
            } else {
                self.answer
            },
            answer_per_million: if self.speaks {
                output.max(price.audio_output)
            } else {
                output
            },
            images: self.images,
        }
    }
}

/// A call under way. One that was admitted and is dropped before it was ended is charged by its estimate.
pub struct Call {
    intent: Intent,
    sender: mpsc::UnboundedSender<Entry>,
    place: Option<OwnedSemaphorePermit>,
    began: Instant,
    /// It was admitted, and is noted.
    begun: bool,
    /// Something was set aside for it.
    held: bool,
}

impl Call {
    pub fn id(&self) -> Uuid {
        self.intent.id
    }

    fn note(&mut self) {
        self.begun = true;
        let _ = self.sender.send(Entry::Begun(self.intent.clone()));
    }

    /// A line with what is known of the call so far: nothing used, and an answer of our own making.
    pub fn line(&self, now: DateTime<Utc>) -> Line {
        Line {
            id: self.intent.id,
            intended: false,
            at: now,
            api_key_id: self.intent.api_key_id,
            alias: self.intent.alias.clone(),
            provider: String::new(),
            provider_id: None,
            model: self.intent.alias.clone(),
            model_id: None,
            prompt_tokens: 0,
            completion_tokens: 0,
            cached_tokens: 0,
            reasoning_tokens: 0,
            audio_input_tokens: 0,
            audio_output_tokens: 0,
            images: 0,
            reported: true,
            cost: 0,
            input_price: None,
            cached_price: None,
            output_price: None,
            reasoning_price: None,
            image_price: None,
            audio_input_price: None,
            audio_output_price: None,
            finish: "failed".to_owned(),
            first_token_ms: None,
            total_ms: i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX),
            tries: Vec::new(),
            cache: "",
            error_code: None,
            http_status: 0,
            trace_id: self.intent.trace_id,
        }
    }

    fn told(&self, outcome: Outcome, code: Option<ErrorCode>, http_status: u16, now: DateTime<Utc>) -> Line {
        let price = outcome.price;
        let tries = try_rows(&outcome.tries);
        let model = tries.last().map(|last| last.model.clone());
        Line {
            model: model.unwrap_or_else(|| self.intent.alias.clone()),
            model_id: outcome.model_id.map(|id| id.0),
            provider: outcome.provider,
            prompt_tokens: outcome.usage.prompt_tokens,
            completion_tokens: outcome.usage.completion_tokens,
            cached_tokens: outcome.usage.cached_tokens,
            reasoning_tokens: outcome.usage.reasoning_tokens,
            audio_input_tokens: outcome.usage.audio_input_tokens,
            audio_output_tokens: outcome.usage.audio_output_tokens,
            images: outcome.usage.images,
            reported: outcome.reported,
            cost: outcome.cost.nanos(),
            input_price: Some(price.input.nanos()),
            cached_price: Some(price.cached_input.nanos()),
            output_price: Some(price.output.nanos()),
            reasoning_price: Some(price.of_reasoning().nanos()),
            image_price: Some(price.image.nanos()),
            audio_input_price: Some(price.audio_input.nanos()),
            audio_output_price: Some(price.audio_output.nanos()),
            finish: finish_name(&outcome.finish),
            first_token_ms: outcome.first_token.map(millis),
            total_ms: millis(outcome.total),
            tries,
            cache: outcome.cached.map_or("", CacheHit::name),
            error_code: code.map(ErrorCode::as_str),
            http_status: i32::from(http_status),
            ..self.line(now)
        }
    }

    /// Hands the line over to be written. Never waits.
    pub fn end(mut self, line: Line) {
        self.send(line, None);
    }

    fn send(&mut self, line: Line, used: Option<Use>) {
        if let Some(place) = self.place.take() {
            let _ = self.sender.send(Entry::Ended {
                line: Box::new(line),
                used,
                _place: place,
            });
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.place.is_none() || !self.begun {
            return;
        }
        let mut line = self.line(self.intent.began_at);
        line.prompt_tokens = self.intent.estimated_tokens;
        line.cost = self.intent.estimated_cost;
        line.reported = false;
        line.error_code = Some(ErrorCode::Internal.as_str());
        self.send(line, None);
    }
}

/// Calls of other programs.
pub struct Calls(pub(crate) Services);

impl Calls {
    /// Takes a place for a call, which is part of the present trace; `None` while too many are under way, or the process stops.
    pub fn begin(&self, wish: &CallWish) -> Option<Call> {
        let wanted = wish.wanted();
        let cost = wanted.cost + wanted.answer_per_million.per_million(wish.answer.into());
        let mut call = self.take_place(wish.key, wish.alias.clone())?;
        call.intent.estimated_tokens = wish.tokens.saturating_add(wish.answer.into());
        call.intent.estimated_cost = cost.nanos();
        Some(call)
    }

    fn take_place(&self, key: ApiKeyId, alias: String) -> Option<Call> {
        let log = &self.0.call_log;
        let place = log.places.clone().try_acquire_owned().ok()?;
        Some(Call {
            intent: Intent {
                id: Uuid::now_v7(),
                api_key_id: key,
                alias,
                began_at: self.0.now(),
                estimated_tokens: 0,
                estimated_cost: 0,
                trace_id: current_trace(),
            },
            sender: log.sender.clone(),
            place: Some(place),
            began: Instant::now(),
            begun: false,
            held: false,
        })
    }

    /// Sets aside what the call may use at most, and notes that it begins.
    pub async fn admit(&self, call: &mut Call, wish: &CallWish) -> Result<Result<Reserved, Refused>, Error> {
        let longest = self.0.gateway.deadlines().overall;
        let longest = TimeDelta::from_std(longest).unwrap_or(TimeDelta::hours(1));
        let expires_at = self.0.now() + longest + HELD_LONGER;
        let id = ReservationId(call.id());
        let admitted = self
            .0
            .limits()
            .reserve(id, &subject(wish.key, &wish.alias), &wish.wanted(), expires_at)
            .await?;
        match admitted {
            Ok(reserved) => {
                call.intent.id = reserved.call.0;
                call.held = reserved.held;
                call.note();
                Ok(Ok(reserved))
            }
            Err(refusal) => {
                let refused = self
                    .0
                    .limits()
                    .explain(&subject(wish.key, &wish.alias), &wish.wanted(), refusal)
                    .await?;
                Ok(Err(refused))
            }
        }
    }

    /// Ends a call that was not admitted. Of a key that is refused again and again only some lines are written.
    pub fn refuse(&self, call: Call, code: ErrorCode, http_status: u16) {
        let now = self.0.now();
        if !self.0.call_log.refusals.take(call.intent.api_key_id, code, now) {
            return;
        }
        let mut line = call.line(now);
        (line.error_code, line.http_status) = (Some(code.as_str()), http_status.into());
        call.end(line);
    }

    /// The same of a call that was turned away before anything was known of what it wants. `alias`: the name that was asked for, as far as
    /// it could be read; there may be no such model.
    pub fn turn_away(&self, key: ApiKeyId, alias: &str, code: ErrorCode, http_status: u16) {
        let now = self.0.now();
        let alias = alias.chars().filter(|letter| !letter.is_control()).collect();
        let Some(call) = self.take_place(key, alias) else {
            return;
        };
        if !self.0.call_log.refusals.take(key, code, now) {
            return;
        }
        let mut line = call.line(now);
        (line.error_code, line.http_status) = (Some(code.as_str()), http_status.into());
        // Sums go by models that there are.
        line.model.clear();
        call.end(line);
    }

    /// Hands the line of a call over, and what it has used to be counted on the limits. Never waits. `code`: what the program was told
    /// went wrong.
    pub fn finish(&self, mut call: Call, outcome: Outcome, code: Option<ErrorCode>, http_status: u16) {
        let tokens = outcome
            .usage
            .prompt_tokens
            .saturating_add(outcome.usage.completion_tokens);
        let came = match outcome.finish {
            // A provider that was asked and given up bills the question; the program may have left before anybody was asked.
            Finish::Failed | Finish::Stopped => tokens > 0,
            Finish::Complete(_) | Finish::Cut => true,
        };
        let used = Use {
            messages: i64::from(came),
            tokens,
            money: outcome.cost.nanos(),
            images: outcome.usage.images,
        };
        let line = call.told(outcome, code, http_status, self.0.now());
        let used = call.held.then_some(used);
        call.send(line, used);
    }

    /// By which a call is told to end: by its program when that leaves, or by the process when it stops.
    pub fn cancel(&self) -> CancellationToken {
        self.0.call_log.cut.child_token()
    }

    /// Takes no more calls, and waits until those that run have ended and are written; [`Self::write`] must go on meanwhile. What still
    /// runs after `grace` is told to end. False when not all of it did.
    pub async fn drain(&self, grace: Duration) -> bool {
        let log = &self.0.call_log;
        // Whoever waits for all places gets each that becomes free.
        let mut all = std::pin::pin!(log.places.acquire_many(MOST));
        let mut drained = timeout(grace, &mut all).await;
        if drained.is_err() {
            log.cut.cancel();
            drained = timeout(CUT, &mut all).await;
        }
        match drained {
            Ok(Ok(all)) => {
                all.forget();
                true
            }
            _ => false,
        }
    }

    /// Writes until `stop`, and then what is left, and says meanwhile that this process lives. Only the first call in a process does
    /// anything. `asks`: it asks models, and has a share of what is limited.
    pub async fn write(&self, asks: bool, stop: impl Future<Output = ()>) {
        let taken = self
            .0
            .call_log
            .receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut entries) = taken else { return };
        let mut writer = Writer::new(self.0.clone(), asks);
        let mut beat = tokio::time::interval(BEAT_EVERY);
        tokio::pin!(stop);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = entries.recv_many(&mut batch, BATCH) => {
                    tokio::time::sleep(GATHER).await;
                    while batch.len() < BATCH && let Ok(entry) = entries.try_recv() {
                        batch.push(entry);
                    }
                    writer.write(&mut batch).await;
                }
                _ = beat.tick() => writer.beat().await,
            }
        }
        self.0.call_log.give_back(self.0.leases.recall_all());
        entries.close();
        while entries.recv_many(&mut batch, BATCH).await > 0 {
            writer.write(&mut batch).await;
        }
        writer.settle_rest().await;
    }

    /// Charges what replicas that went away have left behind; each call once, whoever does it.
    pub async fn charge_lost(&self) -> Result<u64, Error> {
        let mut tx = self.0.db.begin().await?;
        let charged = api_calls::charge_lost(&mut tx, SILENT.as_secs_f64(), self.0.now()).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        // Those that had set something aside are settled when it expires. Of others it may be that a crash of the database took it back.
        let mut late: HashMap<(ApiKeyId, &str), Use> = HashMap::new();
        for call in charged.iter().filter(|call| !call.held) {
            let sum = late.entry((call.api_key_id, &call.alias)).or_default();
            sum.messages += 1;
            sum.tokens = sum.tokens.saturating_add(call.tokens);
            sum.money = sum.money.saturating_add(call.cost);
        }
        for ((key, alias), used) in late {
            self.0.limits().count_late(&subject(key, alias), used).await?;
        }
        if !charged.is_empty() {
            tracing::warn!(
                calls = charged.len(),
                "{} calls of replicas that went away were charged by their estimates",
                charged.len()
            );
        }
        Ok(charged.len() as u64)
    }
}

/// On what the call of a program counts.
fn subject(key: ApiKeyId, alias: &str) -> Subject<'_> {
    Subject {
        key: Some(key),
        model: Some(alias),
        ..Subject::default()
    }
}

/// The provider's word, or ours.
pub(crate) fn finish_name(finish: &Finish) -> String {
    match finish {
        Finish::Complete(word) => word.chars().take(40).collect(),
        Finish::Stopped => "gone".to_owned(),
        Finish::Cut => "cut".to_owned(),
        Finish::Failed => "failed".to_owned(),
    }
}

pub(crate) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// As the ledger keeps them.
pub(crate) fn try_rows(tries: &[Try]) -> Vec<TryRow> {
    tries
        .iter()
        .map(|one| TryRow {
            provider: one.provider.clone(),
            model: one.model.clone(),
            code: one.code.map(|code| code.as_str().to_owned()),
            status: one.status,
            ms: millis(one.took),
        })
        .collect()
}
