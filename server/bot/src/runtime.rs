//! One job, from claim to end: which bot, what happened, who is it, and which handler.

use std::{
    cell::RefCell,
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, Once, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{BotId, ErrorCode, Lang, TraceId};
use futures::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use services::{BotRecord, Claimed, Ended, Incoming, MOST_CRASHES, PANIC, Services, Urgency, within_trace};
use teloxide::dptree;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span, warn};

use crate::{
    browser::BrowserOut,
    delivery::{address, deliver, tried_before},
    handlers::{Context, Failure, Handled, schema},
    incoming::{Event, event, gathered},
    telegram::{Address, ChatOut, OutError, Pacer, Sender, TelegramClient},
    texts,
};

/// How long a bot's settings are believed without asking the database again.
const FRESH: Duration = Duration::from_secs(2);

thread_local! {
    /// Where this thread has panicked last. Staff are told the place and not the words, which may hold what somebody wrote.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes the place beside whatever else is done about a panic.
fn note_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED_AT.set(panic.location().map(ToString::to_string));
            before(panic);
        }));
    });
}

/// Runs the jobs of all bots. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    services: Services,
    http: reqwest::Client,
    api_url: String,
    schema: dptree::Handler<'static, Handled>,
    bots: Mutex<HashMap<BotId, Loaded>>,
    drafts: AtomicBool,
    /// In milliseconds; 0 is never.
    late_after: AtomicU64,
}

#[derive(Clone)]
struct Loaded {
    bot: Arc<BotRecord>,
    out: Arc<dyn ChatOut>,
    at: Instant,
}

impl Runtime {
    pub fn new(services: Services, http: reqwest::Client, api_url: &str) -> Self {
        note_panics();
        Self(Arc::new(Inner {
            services,
            http,
            api_url: api_url.to_owned(),
            schema: schema(),
            bots: Mutex::default(),
            drafts: AtomicBool::new(true),
            late_after: AtomicU64::new(0),
        }))
    }

    /// Texts that were sent longer ago than this when their turn comes get one word together instead of an answer each (default:
    /// all are answered).
    pub fn with_late_after(self, age: Option<Duration>) -> Self {
        let millis = age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        self.0.late_after.store(millis, Ordering::Relaxed);
        self
    }

    /// Whether answers in private chats are shown by drafts where Telegram takes them (the default).
    pub fn with_drafts(self, on: bool) -> Self {
        self.0.drafts.store(on, Ordering::Relaxed);
        self
    }

    pub fn services(&self) -> &Services {
        &self.0.services
    }

    /// A client of the Bot API for one token.
    pub fn client(&self, token: &SecretString) -> TelegramClient {
        TelegramClient::new(self.0.http.clone(), &self.0.api_url, token.clone())
    }

    /// Works one job off and says how it ends. Never panics on what users send, and never loses a job: what fails here is
    /// tried again or kept as a dead letter.
    pub async fn handle(&self, job: Claimed, cancel: CancellationToken) -> (Claimed, Ended) {
        let span = info_span!("job", job.id = %job.id, bot.id = %job.bot, job.attempt = job.attempt);
        let job = Arc::new(job);
        if job.crashes >= MOST_CRASHES {
            // Its workers went away in the middle of it, so it may be why.
            self.apologise(&job).instrument(span).await;
            let error = "too many workers that tried went away".to_owned();
            return (Arc::unwrap_or_clone(job), Ended::Dead { error });
        }
        // All that a job does is one trace, also where it has to be done again.
        let trace = TraceId::new(job.id.0);
        let run = within_trace(trace, AssertUnwindSafe(self.run(&job, cancel)).catch_unwind());
        let handled = match run.instrument(span.clone()).await {
            Ok(handled) => handled,
            Err(_) => {
                // Before anything is awaited: another thread would go on, which has not panicked.
                let at = PANICKED_AT.take().unwrap_or_default();
                if job.crashes + PANIC >= MOST_CRASHES {
                    self.apologise(&job).instrument(span.clone()).await;
                }
                let _entered = span.enter();
                error!(location = %at, "A job panicked");
                Ok(Ended::Crashed {
                    error: format!("panic: {at}"),
                })
            }
        };
        let ended = match handled {
            Ok(ended) => ended,
            // Whoever has it now will end it.
            Err(Failure::LeaseLost) => Ended::Returned,
            Err(Failure::Service(cause)) if cause.is_permanent() => {
                let _entered = span.enter();
                error!(error = %chain(&cause), "A job failed, and would fail again");
                Ended::Dead { error: chain(&cause) }
            }
            Err(Failure::Service(cause)) => {
                let _entered = span.enter();
                error!(error = %chain(&cause), "A job failed and will be tried again");
                Ended::Retry {
                    after: None,
                    error: chain(&cause),
                }
            }
        };
        if let Ended::Dead { error } = &ended {
            let _entered = span.enter();
            warn!(error = %error, "A job ended as a dead letter");
        }
        let last = matches!(&ended, Ended::Retry { .. } if job.attempt >= job.max_attempts);
        if last || matches!(&ended, Ended::Dead { .. }) {
            self.apologise(&job).instrument(span).await;
        }
        (Arc::unwrap_or_clone(job), ended)
    }

    /// The job will not be run again: whoever waits for its answer is told so, once. If that fails as well, it is left at that.
    async fn apologise(&self, job: &Claimed) {
        let Ok(Some(Loaded { bot, out, .. })) = self.bot(job.bot).await else {
            return;
        };
        let (Event::Text(incoming) | Event::Unsupported(incoming)) = event(&bot, &job.update, job.received_at) else {
            return;
        };
        // Where the chat was found closed there is nobody to tell.
        let chats = self.0.services.chats();
        let open = chats.reopen(bot.id, incoming.chat_external_id, incoming.received_at);
        if !open.await.unwrap_or(false) {
            return;
        }
        let lang = Lang::from_tag(incoming.language.as_deref());
        let body = texts::rich(texts::failed(lang, ErrorCode::Internal));
        let address = Address {
            urgency: Urgency::Command,
            ..address(&incoming)
        };
        match out.mention(&address, &body).await {
            Ok(id) => {
                // If that cannot be noted, it may at worst be taken for something that is looked for there.
                let _ = chats.apologised(job.id, &incoming.chat_key(), id).await;
            }
            Err(error) => warn!(error = %error, "It could not be said that a message will not be answered"),
        }
    }

    async fn run(&self, job: &Arc<Claimed>, cancel: CancellationToken) -> Handled {
        let Some(Loaded { bot, out, .. }) = self.bot(job.bot).await? else {
            return Ok(Ended::Dead {
                error: "the bot is gone".to_owned(),
            });
        };
        if let Some((lane, draft)) = stop_pressed(job) {
            // The answer says itself that it was stopped.
            self.0.services.queue().cancel_draft(&lane, draft).await?;
            return Ok(Ended::Done);
        }
        let query = &job.update["callback_query"];
        if let Some(id) = query["id"].as_str() {
            // Nothing has buttons yet that do something, but who presses one of an old message must not see it wait for ever.
            let chat = query["message"]["chat"]["id"].as_i64();
            out.acknowledge(chat.or(query["from"]["id"].as_i64()).unwrap_or(0), id)
                .await;
            return Ok(Ended::Done);
        }
        if let Some(checkout) = job
            .update
            .get("pre_checkout_query")
            .filter(|checkout| !checkout.is_null())
        {
            return Ok(refuse_payment(out.as_ref(), checkout).await);
        }
        if let Some(payment) = job.update["message"]
            .get("successful_payment")
            .filter(|payment| !payment.is_null())
        {
            // Nothing is sold yet, so nothing can be given for it. Kept where staff sees it, since it is somebody's money.
            let error = format!(
                "a payment came that nobody handles: {} {}, charge {}",
                payment["total_amount"], payment["currency"], payment["telegram_payment_charge_id"]
            );
            return Ok(Ended::Dead { error });
        }
        let others = if job.parts > 1 {
            self.0.services.chats().other_parts(job.id).await?
        } else {
            Vec::new()
        };
        let updates: Vec<_> = std::iter::once(&job.update).chain(&others).collect();
        let event = gathered(&bot, &updates, job.received_at);
        let incoming = match &event {
            Event::Ignored => return Ok(Ended::Done),
            Event::Membership { chat_id, closed } => {
                self.0.services.chats().set_closed(bot.id, *chat_id, *closed).await?;
                return Ok(Ended::Done);
            }
            Event::Moved { from, to } => {
                self.0.services.chats().moved(bot.id, *from, *to).await?;
                return Ok(Ended::Done);
            }
            Event::Text(incoming) | Event::Unsupported(incoming) | Event::Edited(incoming) => incoming,
        };
        let known = Arc::new(self.0.services.chats().meet(incoming).await?);
        let incoming = Arc::new(Incoming {
            chat_external_id: known.chat_external_id,
            ..incoming.clone()
        });
        if known.chat_closed {
            let chats = self.0.services.chats();
            if !chats
                .reopen(bot.id, incoming.chat_external_id, incoming.received_at)
                .await?
            {
                // Written before the bot was blocked: nobody wants the answer any more, and nobody shall pay for it.
                return Ok(Ended::Done);
            }
        }
        let lang = Lang::from_tag(incoming.language.as_deref());
        let services = self.0.services.clone();
        let before = if tried_before(job) {
            services.chats().resume(job.id).await?
        } else {
            Vec::new()
        };
        let context = Context {
            services,
            out,
            bot,
            job: job.clone(),
            incoming,
            known,
            lang,
            late_after: match self.0.late_after.load(Ordering::Relaxed) {
                0 => None,
                millis => Some(Duration::from_millis(millis)),
            },
            cancel,
            before: Arc::new(before),
        };
        // An earlier attempt got as far as storing its answer: what is left is to send it.
        if context.before.iter().any(|part| part.body.is_some()) {
            return deliver(&context, context.before.to_vec(), None).await;
        }
        match self.0.schema.dispatch(dptree::deps![context, event]).await {
            std::ops::ControlFlow::Break(handled) => handled,
            std::ops::ControlFlow::Continue(_) => Ok(Ended::Done),
        }
    }

    /// A bot with its way out; a changed token makes a new one.
    async fn bot(&self, id: BotId) -> Result<Option<Loaded>, services::Error> {
        let held = self
            .0
            .bots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned();
        if let Some(held) = &held
            && held.at.elapsed() < FRESH
        {
            return Ok(Some(held.clone()));
        }
        let Some(bot) = self.0.services.bots().get(id).await? else {
            return Ok(None);
        };
        let same_token = |old: &BotRecord| {
            old.token.as_ref().map(ExposeSecret::expose_secret) == bot.token.as_ref().map(ExposeSecret::expose_secret)
        };
        let out: Arc<dyn ChatOut> = match (&held, &bot.token) {
            (Some(held), _) if same_token(&held.bot) => held.out.clone(),
            (_, Some(token)) => {
                let services = self.0.services.clone();
                let pacer = Pacer::shared(services.pace().clone(), id).on_pause(move || services.bots().flood_wait(id));
                let sender = Sender::new(self.client(token), Arc::new(pacer));
                Arc::new(sender.with_drafts(self.0.drafts.load(Ordering::Relaxed)))
            }
            (_, None) => Arc::new(BrowserOut::new(self.0.services.clone(), id)),
        };
        let loaded = Loaded {
            bot: Arc::new(bot),
            out,
            at: Instant::now(),
        };
        self.0
            .bots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, loaded.clone());
        Ok(Some(loaded))
    }
}

/// Telegram takes the answer for ten seconds; after that it has told the person itself that the bot did not answer.
async fn refuse_payment(out: &dyn ChatOut, checkout: &serde_json::Value) -> Ended {
    let lang = Lang::from_tag(checkout["from"]["language_code"].as_str());
    let query = checkout["id"].as_str().unwrap_or_default();
    match out.refuse_payment(query, &texts::no_payments(lang)).await {
        Ok(()) => Ended::Done,
        // The ten seconds are over.
        Err(error @ OutError::Gone(_)) => {
            warn!(error = %error, "A payment could not be refused in time");
            Ended::Done
        }
        Err(error) => Ended::Retry {
            after: Some(Duration::from_secs(1)),
            error: error.to_string(),
        },
    }
}

/// The conversation and the draft under which somebody has pressed the stop button (`MessageGenerationStopped` of the Bot API).
fn stop_pressed(job: &Claimed) -> Option<(String, i64)> {
    let stopped = job.update.get("stopped_message_generation")?;
    let thread = stopped["message_thread_id"].as_i64().unwrap_or(0);
    let lane = services::lane(job.bot, stopped["chat"]["id"].as_i64()?, thread);
    Some((lane, stopped["draft_id"].as_i64()?))
}

/// An error with everything behind it, for staff.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
