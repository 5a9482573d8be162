//! One job, from claim to end: which bot, what happened, who is it, and which handler.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::{BotId, Lang};
use secrecy::{ExposeSecret, SecretString};
use services::{BotRecord, Claimed, Ended, Services};
use teloxide::dptree;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info_span, warn};

use crate::{
    browser::BrowserOut,
    delivery::{deliver, tried_before},
    handlers::{Context, Failure, Handled, schema},
    incoming::{Event, event},
    telegram::{ChatOut, Pacer, Sender, TelegramClient},
};

/// How long a bot's settings are believed without asking the database again.
const FRESH: Duration = Duration::from_secs(2);

/// Runs the jobs of all bots. Cheap to clone.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    services: Services,
    http: reqwest::Client,
    api_url: String,
    schema: dptree::Handler<'static, Handled>,
    bots: Mutex<HashMap<BotId, Loaded>>,
}

#[derive(Clone)]
struct Loaded {
    bot: Arc<BotRecord>,
    out: Arc<dyn ChatOut>,
    at: Instant,
}

impl Runtime {
    pub fn new(services: Services, http: reqwest::Client, api_url: &str) -> Self {
        Self(Arc::new(Inner {
            services,
            http,
            api_url: api_url.to_owned(),
            schema: schema(),
            bots: Mutex::default(),
        }))
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
        let ended = match self.run(&job, cancel).instrument(span.clone()).await {
            Ok(ended) => ended,
            // Whoever has it now will end it.
            Err(Failure::LeaseLost) => Ended::Returned,
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
        (Arc::unwrap_or_clone(job), ended)
    }

    async fn run(&self, job: &Arc<Claimed>, cancel: CancellationToken) -> Handled {
        let Some(Loaded { bot, out, .. }) = self.bot(job.bot).await? else {
            return Ok(Ended::Dead {
                error: "the bot is gone".to_owned(),
            });
        };
        let event = event(&bot, &job.update, job.received_at);
        let incoming = match &event {
            Event::Ignored => return Ok(Ended::Done),
            Event::Membership { chat_id, closed } => {
                self.0.services.chats().set_closed(bot.id, *chat_id, *closed).await?;
                return Ok(Ended::Done);
            }
            Event::Text(incoming) | Event::Unsupported(incoming) => Arc::new(incoming.clone()),
        };
        let known = Arc::new(self.0.services.chats().meet(&incoming).await?);
        if known.chat_closed {
            self.0
                .services
                .chats()
                .set_closed(bot.id, incoming.chat_external_id, false)
                .await?;
        }
        let lang = Lang::from_tag(incoming.language.as_deref());
        let services = self.0.services.clone();
        let context = Context {
            services,
            out,
            bot,
            job: job.clone(),
            incoming,
            known,
            lang,
            cancel,
        };
        if tried_before(job) {
            // An earlier attempt got as far as storing its answer: what is left is to send it.
            let parts = context.services.chats().parts(job.id).await?;
            if parts.iter().any(|part| part.body.is_some()) {
                return deliver(&context, parts, true).await;
            }
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
            (_, Some(token)) => Arc::new(Sender::new(self.client(token), Arc::new(Pacer::default()))),
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
