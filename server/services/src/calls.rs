//! The way of another program's call into the ledger. Nothing of it is waited for: one task writes what has begun and what has ended,
//! whatever has come together since it wrote last in one transaction, and tries again for as long as the database is away.
//!
//! A call is noted when it begins and written when it ends. Of a replica that dies the scheduler finds the notes and charges them by
//! their estimates; only a call that began in the last moments before may have left none.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{ApiKeyId, ErrorCode, Money, ReservationId, views::requests::TryRow};
use gateway::{CacheHit, Finish, Offer, Outcome, Try};
pub use repositories::api_calls::{Intent, Line};
use repositories::{api_calls, api_keys};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

use crate::{Error, Refusal, Reserved, Services, Subject, Use, Wanted};

/// Calls that may be under way or not yet written in this process; beyond them, programs are asked to come back.
const MOST: usize = 10_000;
/// Rows of one transaction.
const BATCH: usize = 1000;
const BEAT_EVERY: Duration = Duration::from_secs(10);
/// Of a replica that has been silent for so long nobody waits for more.
const SILENT: Duration = Duration::from_secs(90);
/// Between two attempts while the database is away.
const PAUSE: Duration = Duration::from_millis(500);
const NOTE_USE_EVERY: TimeDelta = TimeDelta::minutes(1);
/// What a call has set aside is given back so long after the last moment at which it may still run. A replica that went away has been
/// noticed by then, and its calls stand in the ledger.
const HELD_LONGER: TimeDelta = TimeDelta::minutes(5);
/// A budget that leaves less than this for an answer is used up.
const SHORTEST_ANSWER: u32 = 64;

enum Entry {
    Begun(Intent),
    Ended {
        line: Box<Line>,
        /// Free when the line is written.
        _place: OwnedSemaphorePermit,
    },
}

/// What is to be written.
pub(crate) struct CallLog {
    replica: Uuid,
    places: Arc<Semaphore>,
    // Bounded by the places: each holds two entries at most.
    sender: mpsc::UnboundedSender<Entry>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Entry>>>,
}

impl Default for CallLog {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self {
            replica: Uuid::now_v7(),
            places: Arc::new(Semaphore::new(MOST)),
            sender,
            receiver: Mutex::new(Some(receiver)),
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
    pub images: i64,
}

impl CallWish {
    fn wanted(&self) -> Wanted {
        let price = self.offer.price;
        let input = if self.sound { price.audio_input } else { price.input };
        let images = Money::from_nanos(price.image.nanos().saturating_mul(self.images));
        Wanted {
            tokens: self.tokens,
            cost: input.per_million(self.tokens) + images,
            answer: self.answer,
            least_answer: self.answer.min(SHORTEST_ANSWER),
            answer_per_million: self.offer.model.output_per_million,
            images: self.images,
        }
    }
}

/// A call under way. One that is dropped before it was ended is charged by its estimate.
pub struct Call {
    intent: Intent,
    sender: mpsc::UnboundedSender<Entry>,
    place: Option<OwnedSemaphorePermit>,
    began: Instant,
    /// Something was set aside for it.
    held: bool,
}

impl Call {
    pub fn id(&self) -> Uuid {
        self.intent.id
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
            images: 0,
            reported: true,
            cost: 0,
            input_price: None,
            cached_price: None,
            output_price: None,
            finish: "failed".to_owned(),
            first_token_ms: None,
            total_ms: i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX),
            tries: Vec::new(),
            cache: "",
            error_code: None,
            http_status: 0,
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
            images: outcome.usage.images,
            reported: outcome.reported,
            cost: outcome.cost.nanos(),
            input_price: Some(price.input.nanos()),
            cached_price: Some(price.cached_input.nanos()),
            output_price: Some(price.output.nanos()),
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
        self.send(line);
    }

    fn send(&mut self, line: Line) {
        if let Some(place) = self.place.take() {
            let _ = self.sender.send(Entry::Ended {
                line: Box::new(line),
                _place: place,
            });
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.place.is_none() {
            return;
        }
        let mut line = self.line(self.intent.began_at);
        line.prompt_tokens = self.intent.estimated_tokens;
        line.cost = self.intent.estimated_cost;
        line.reported = false;
        line.error_code = Some(ErrorCode::Internal.as_str());
        self.send(line);
    }
}

/// Calls of other programs.
pub struct Calls(pub(crate) Services);

impl Calls {
    /// Notes that a call begins; `None` while too many are under way.
    pub fn begin(&self, wish: &CallWish) -> Option<Call> {
        let wanted = wish.wanted();
        let cost = wanted.cost + wanted.answer_per_million.per_million(wish.answer.into());
        let log = &self.0.call_log;
        let place = log.places.clone().try_acquire_owned().ok()?;
        let intent = Intent {
            id: Uuid::now_v7(),
            api_key_id: wish.key,
            alias: wish.alias.clone(),
            began_at: self.0.now(),
            estimated_tokens: wish.tokens + i64::from(wish.answer),
            estimated_cost: cost.nanos(),
        };
        let _ = log.sender.send(Entry::Begun(intent.clone()));
        Some(Call {
            intent,
            sender: log.sender.clone(),
            place: Some(place),
            began: Instant::now(),
            held: false,
        })
    }

    /// Sets aside what the call may use at most.
    pub async fn admit(&self, call: &mut Call, wish: &CallWish) -> Result<Result<Reserved, Refusal>, Error> {
        let longest = self.0.gateway.deadlines().overall;
        let longest = TimeDelta::from_std(longest).unwrap_or(TimeDelta::hours(1));
        let subject = Subject {
            key: Some(wish.key),
            model: Some(&wish.alias),
            ..Subject::default()
        };
        let expires_at = self.0.now() + longest + HELD_LONGER;
        let id = ReservationId(call.id());
        let admitted = self
            .0
            .limits()
            .reserve(id, &subject, &wish.wanted(), expires_at)
            .await?;
        call.held = admitted.as_ref().is_ok_and(|reserved| reserved.held);
        Ok(admitted)
    }

    /// Ends a call that was never sent on: nothing was used.
    pub fn refuse(&self, call: Call, code: ErrorCode, http_status: u16) {
        let mut line = call.line(self.0.now());
        (line.error_code, line.http_status) = (Some(code.as_str()), http_status.into());
        call.end(line);
    }

    /// Counts what a call has used on the limits and hands its line over. `code`: what the program was told went wrong.
    pub async fn finish(&self, call: Call, outcome: Outcome, code: Option<ErrorCode>, http_status: u16) {
        let tokens = outcome.usage.prompt_tokens + outcome.usage.completion_tokens;
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
        let (id, held) = (ReservationId(call.id()), call.held);
        let (key, alias) = (call.intent.api_key_id, call.intent.alias.clone());
        let line = call.told(outcome, code, http_status, self.0.now());
        call.end(line);
        if !held {
            return;
        }
        let subject = Subject {
            key: Some(key),
            model: Some(&alias),
            ..Subject::default()
        };
        let limits = self.0.limits();
        let settled = match limits.settle(id, used).await {
            // It has run for longer than anything is set aside for.
            Ok(false) => limits.count_late(id, &subject, used).await,
            settled => settled.map(|_| ()),
        };
        if let Err(error) = settled {
            // Its line is settled by housekeeping when it expires.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "A call could not be settled yet"
            );
        }
    }

    /// Writes until `stop`, and then what is left. Only the first call in a process does anything.
    pub async fn write(&self, stop: impl Future<Output = ()>) {
        let taken = self
            .0
            .call_log
            .receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut entries) = taken else { return };
        let mut writer = Writer::new(self.0.clone());
        let mut beat = tokio::time::interval(BEAT_EVERY);
        tokio::pin!(stop);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = entries.recv_many(&mut batch, BATCH) => writer.write(&mut batch).await,
                _ = beat.tick() => writer.beat().await,
            }
        }
        entries.close();
        while entries.recv_many(&mut batch, BATCH).await > 0 {
            writer.write(&mut batch).await;
        }
    }

    /// Charges what replicas that went away have left behind; each call once, whoever does it.
    pub async fn charge_lost(&self) -> Result<u64, Error> {
        let mut tx = self.0.db.begin().await?;
        let charged = api_calls::charge_lost(&mut tx, SILENT.as_secs_f64(), self.0.now()).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
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

struct Writer {
    services: Services,
    /// Calls that were noted in a transaction before this one.
    noted: HashSet<Uuid>,
    /// When the use of each key was noted last.
    used: HashMap<ApiKeyId, DateTime<Utc>>,
    beaten: Option<Instant>,
}

impl Writer {
    fn new(services: Services) -> Self {
        Self {
            services,
            noted: HashSet::new(),
            used: HashMap::new(),
            beaten: None,
        }
    }

    async fn beat(&mut self) {
        if let Err(error) = self.try_beat().await {
            tracing::warn!(error = %error, "The calls of this replica could not be kept alive, trying again");
        }
    }

    async fn try_beat(&mut self) -> Result<(), Error> {
        api_calls::beat(&mut *self.services.db.acquire().await?, self.services.call_log.replica).await?;
        self.beaten = Some(Instant::now());
        Ok(())
    }

    /// Until it is written. A row that the database refuses for itself is left out and told of; it would hold up all others.
    async fn write(&mut self, batch: &mut Vec<Entry>) {
        while let Err(error) = self.try_write(batch).await {
            if matches!(&error, Error::Database(error) if !error.is_outage()) {
                if batch.len() > 1 {
                    self.write_one_by_one(batch).await;
                } else {
                    tracing::error!(error = &error as &dyn std::error::Error, "A call could not be written");
                }
                break;
            }
            tracing::warn!(error = %error, calls = batch.len(), "Calls could not be written, trying again");
            tokio::time::sleep(PAUSE).await;
        }
        batch.clear();
    }

    async fn write_one_by_one(&mut self, batch: &mut Vec<Entry>) {
        for entry in std::mem::take(batch) {
            Box::pin(self.write(&mut vec![entry])).await;
        }
    }

    async fn try_write(&mut self, batch: &mut [Entry]) -> Result<(), Error> {
        if self.beaten.is_none_or(|at| at.elapsed() > BEAT_EVERY) {
            self.try_beat().await?;
        }
        let ended: HashSet<Uuid> = batch
            .iter()
            .filter_map(|entry| match entry {
                Entry::Ended { line, .. } => Some(line.id),
                Entry::Begun(_) => None,
            })
            .collect();
        for entry in &mut *batch {
            if let Entry::Ended { line, .. } = entry {
                line.intended = self.noted.contains(&line.id);
            }
        }
        let (mut begun, mut lines) = (Vec::new(), Vec::new());
        for entry in &*batch {
            match entry {
                // Of one that has ended meanwhile nothing needs to be noted.
                Entry::Begun(intent) if ended.contains(&intent.id) => {}
                Entry::Begun(intent) => begun.push(intent),
                Entry::Ended { line, .. } => lines.push(&**line),
            }
        }
        let now = self.services.now();
        let used: HashSet<ApiKeyId> = batch
            .iter()
            .filter_map(|entry| match entry {
                Entry::Begun(intent) => Some(intent.api_key_id),
                Entry::Ended { .. } => None,
            })
            .filter(|key| self.used.get(key).is_none_or(|at| now - *at >= NOTE_USE_EVERY))
            .collect();
        let mut tx = self.services.db.begin().await?;
        if !begun.is_empty() {
            api_calls::begin(&mut tx, self.services.call_log.replica, &begun).await?;
        }
        if !lines.is_empty() {
            api_calls::end(&mut tx, &lines).await?;
        }
        if !used.is_empty() {
            api_keys::used(&mut tx, &used.iter().copied().collect::<Vec<_>>(), now).await?;
        }
        tx.commit().await.map_err(repositories::Error::from)?;
        self.noted.extend(begun.iter().map(|intent| intent.id));
        for id in &ended {
            self.noted.remove(id);
        }
        self.used.extend(used.into_iter().map(|key| (key, now)));
        Ok(())
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
