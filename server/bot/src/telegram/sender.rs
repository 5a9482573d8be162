//! Sending that obeys the pace, survives short failures and never sends twice.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use domain::views::RichText;
use rand::Rng;
use serde_json::Value;
use services::{KnownIds, Urgency};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::{
    client::TelegramClient,
    error::TelegramError,
    lost::candidates,
    out::{Address, ChatOut, Drawn, Found, OutError},
    pacer::Pacer,
};

/// How long one call waits for Telegram's pauses in all; after that the job is put off, so that it holds no worker.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pauses between attempts after a failure, before the random part.
const BACKOFF: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// What is known of other messages' ids is read anew after this long.
const KNOWN_FOR: Duration = Duration::from_secs(1);
const TRY_LATER: Duration = Duration::from_secs(5);
/// An API server that does not know a method learns it only when it is replaced.
const TRY_MUCH_LATER: Duration = Duration::from_secs(300);
/// After a refusal drafts are not tried again for this long: servers and bots do not change every minute.
const DRAFTS_AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// What nobody waits for waits for a pause no longer than this.
const MENTION_PATIENCE: Duration = Duration::from_secs(5);

/// One bot's way out; clones share the pace and what was learnt about drafts.
#[derive(Clone, Debug)]
pub struct Sender {
    client: TelegramClient,
    pacer: Arc<Pacer>,
    drafts: bool,
    /// When, by which chat; `None`: by the server, for all.
    drafts_refused: Arc<Mutex<HashMap<Option<i64>, Instant>>>,
}

impl Sender {
    pub fn new(client: TelegramClient, pacer: Arc<Pacer>) -> Self {
        // So that they can be seen before the first one happens.
        for (name, label) in [
            ("botdeck_sends_undecided_total", None),
            ("botdeck_lost_sends_total", Some("yes")),
            ("botdeck_lost_sends_total", Some("no")),
            ("botdeck_lost_sends_total", Some("overwrote")),
        ] {
            match label {
                None => metrics::counter!(name).increment(0),
                Some(found) => metrics::counter!(name, "found" => found).increment(0),
            }
        }
        Self {
            client,
            pacer,
            drafts: true,
            drafts_refused: Arc::default(),
        }
    }

    /// Whether answers in private chats are shown by drafts where Telegram takes them (the default), or only by messages that
    /// are sent and edited.
    pub fn with_drafts(mut self, on: bool) -> Self {
        self.drafts = on;
        self
    }

    pub fn client(&self) -> &TelegramClient {
        &self.client
    }

    /// Sends a message that has to arrive, once, and returns its id. Without its looks, its reply or its topic, should these be
    /// what Telegram refuses.
    pub async fn send_final(&self, to: &Address, body: &RichText, markup: Option<Value>) -> Result<i64, OutError> {
        let (mut to, mut body) = (*to, body.clone());
        loop {
            let sent = self
                .insist(&to, Repeat::OnlyIfUnsent, || self.send_once(&to, &body, markup.clone()))
                .await;
            match sent {
                Ok(id) => return Ok(id),
                Err(Failure::Telegram(error)) if lighten(&error, &mut to, &mut body) => {}
                Err(failure) => return Err(failure.into_out()),
            }
        }
    }

    async fn send_once(&self, to: &Address, body: &RichText, markup: Option<Value>) -> Result<i64, TelegramError> {
        // As late as possible: whatever came before this may have taken long.
        if to.is_stale() {
            return Err(TelegramError::Stale);
        }
        self.client
            .send_message(to.chat_id, body, to.reply_to, to.thread_id, markup, to.ours_until)
            .await
    }

    /// Sends a message if the pace allows it within five seconds, with a single call: for what nobody has asked for.
    pub async fn mention(&self, to: &Address, body: &RichText) -> Result<i64, OutError> {
        let wait = self.pacer.take(to.chat_id, to.private, to.urgency).await;
        if !wait.is_zero() {
            if wait > MENTION_PATIENCE {
                return Err(OutError::Retry(wait));
            }
            sleep(wait).await;
            let wait = self.pacer.take(to.chat_id, to.private, to.urgency).await;
            if !wait.is_zero() {
                return Err(OutError::Retry(wait));
            }
        }
        match self.send_once(to, body, None).await {
            Ok(id) => Ok(id),
            Err(error) => {
                if let TelegramError::RetryAfter(pause) = error {
                    self.pacer.limited(to.chat_id, pause).await;
                }
                Err(Failure::Telegram(error).into_out())
            }
        }
    }

    /// Sends a message that will grow, once; the pace was asked by `may_preview`. `None`: not now, and nothing was sent.
    pub async fn begin(&self, to: &Address, body: &RichText) -> Result<Option<i64>, OutError> {
        let (mut to, mut body) = (*to, body.clone());
        loop {
            // The database was asked since then.
            if self.pacer.pauses(to.chat_id) {
                return Ok(None);
            }
            match self.send_once(&to, &body, None).await {
                Ok(id) => return Ok(Some(id)),
                Err(error) if error.sent_maybe() => {
                    undecided(&error);
                    return Err(OutError::Undecided);
                }
                Err(error) if lighten(&error, &mut to, &mut body) => {}
                Err(TelegramError::Stale) => return Ok(None),
                Err(error) => return self.let_go(&to, error).await.map(|()| None),
            }
        }
    }

    /// Changes a message, for sure. That it looks so already is a success.
    pub async fn edit_final(
        &self,
        to: &Address,
        message_id: i64,
        body: &RichText,
        markup: Option<Value>,
    ) -> Result<(), OutError> {
        match self.edit(to, message_id, body, markup).await {
            Ok(_) => Ok(()),
            // Whatever it has against this message, it may well take a new one.
            Err(Failure::Telegram(error)) if error.is_refusal() => Err(OutError::NoMessage),
            Err(failure) => Err(failure.into_out()),
        }
    }

    /// True when the message was another one before.
    async fn edit(
        &self,
        to: &Address,
        message_id: i64,
        body: &RichText,
        markup: Option<Value>,
    ) -> Result<bool, Failure> {
        let edit = |body: RichText| {
            let markup = markup.clone();
            async move {
                // As late as possible, as with what is sent anew.
                if to.is_stale() {
                    return Err(TelegramError::Stale);
                }
                match self
                    .client
                    .edit_message_text(to.chat_id, message_id, &body, markup)
                    .await
                {
                    Ok(()) => Ok(true),
                    Err(TelegramError::NotModified) => Ok(false),
                    Err(error) => Err(error),
                }
            }
        };
        match self.insist(to, Repeat::Freely, || edit(body.clone())).await {
            Err(Failure::Telegram(error)) if blames_entities(&error, body) => {
                let plain = without_entities(body);
                self.insist(to, Repeat::Freely, || edit(plain.clone())).await
            }
            other => other,
        }
    }

    /// Changes a message if that is possible right now; `false` when it was skipped or did not get through.
    pub async fn preview(&self, to: &Address, message_id: i64, body: &RichText) -> Result<bool, OutError> {
        if !self.pacer.take_preview(to.chat_id, to.private).await || to.is_stale() {
            return Ok(false);
        }
        match self.client.edit_preview(to.chat_id, message_id, body).await {
            Ok(()) | Err(TelegramError::NotModified) => Ok(true),
            // The next state may have other entities; the last one goes without, if need be.
            Err(error) if blames_entities(&error, body) => Ok(false),
            Err(error) => self.let_go(to, error).await.map(|()| false),
        }
    }

    /// Whether a draft is worth trying in this chat.
    pub fn drafts(&self, to: &Address) -> bool {
        let refused = self.drafts_refused.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = [None, Some(to.chat_id)]
            .iter()
            .any(|by| refused.get(by).is_some_and(|at| at.elapsed() < DRAFTS_AGAIN_AFTER));
        self.drafts && to.private && !refused
    }

    /// Shows a draft, as far as that is possible right now; the pace was asked by `may_preview`. What is refused is not tried again
    /// soon.
    pub async fn draft(&self, to: &Address, id: i64, body: &RichText) -> Result<Drawn, OutError> {
        let shown = self.client.send_message_draft(to.chat_id, to.thread_id, id, body).await;
        let error = match shown {
            Ok(()) | Err(TelegramError::NotModified) => return Ok(Drawn::Shown),
            Err(error) => error,
        };
        match error {
            error if error.is_passing() && !is_no_such_route(&error) => {
                debug!(error = %error, "A draft did not get through");
                Ok(Drawn::Missed)
            }
            // The next state of the text may have others.
            error if is_about_entities(&error) => Ok(Drawn::Shown),
            TelegramError::RetryAfter(_) | TelegramError::ChatNotFound | TelegramError::Unauthorized => {
                self.let_go(to, error).await.map(|()| Drawn::Shown)
            }
            TelegramError::Blocked(ref why) if is_about_the_chat(why) => Err(Failure::Telegram(error).into_out()),
            error => {
                let everywhere = error == TelegramError::NoMethod || is_no_such_route(&error);
                let by = if everywhere { None } else { Some(to.chat_id) };
                info!(error = %error, everywhere, "Drafts are refused; for an hour answers are shown as messages that are edited");
                metrics::counter!("botdeck_drafts_refused_total").increment(1);
                let mut refused = self.drafts_refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.retain(|_, at| at.elapsed() < DRAFTS_AGAIN_AFTER);
                refused.insert(by, Instant::now());
                Ok(Drawn::Refused)
            }
        }
    }

    /// Shows "typing…" for five seconds, unless something stands in the way.
    pub async fn typing(&self, to: &Address) -> Result<(), OutError> {
        let wait = self.pacer.take(to.chat_id, to.private, Urgency::Preview).await;
        if !wait.is_zero() {
            return Ok(());
        }
        match self.client.send_chat_action(to.chat_id, to.thread_id, "typing").await {
            Ok(()) | Err(TelegramError::ThreadGone) => Ok(()),
            Err(error) => self.let_go(to, error).await,
        }
    }

    /// Something that may be skipped has failed: heeds a pause, reports a closed chat, forgets the rest.
    async fn let_go(&self, to: &Address, error: TelegramError) -> Result<(), OutError> {
        match error {
            TelegramError::RetryAfter(pause) => {
                self.pacer.limited(to.chat_id, pause).await;
                Ok(())
            }
            error if error.is_passing() => {
                debug!(error = %error, "A preview did not get through");
                Ok(())
            }
            error => Err(Failure::Telegram(error).into_out()),
        }
    }

    /// Calls until it works, as long as that is safe and worth the while.
    async fn insist<T, F>(&self, to: &Address, repeat: Repeat, mut call: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, TelegramError>>,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut pauses = BACKOFF.iter();
        loop {
            let wait = self.pacer.take(to.chat_id, to.private, to.urgency).await;
            if !wait.is_zero() {
                if Instant::now() + wait > deadline {
                    return Err(Failure::Later(wait));
                }
                sleep(wait).await;
                continue;
            }
            let error = match call().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match &error {
                // After failures it is the job that tries again, with pauses that grow.
                TelegramError::Stale if pauses.len() < BACKOFF.len() => return Err(Failure::Later(TRY_LATER)),
                TelegramError::RetryAfter(pause) => self.pacer.limited(to.chat_id, *pause).await,
                error if error.is_passing() => {
                    if error.sent_maybe() && repeat == Repeat::OnlyIfUnsent {
                        undecided(error);
                        return Err(Failure::Undecided);
                    }
                    let Some(pause) = pauses.next() else {
                        return Err(Failure::Later(TRY_LATER));
                    };
                    debug!(error = %error, "A call to Telegram failed, trying again");
                    sleep(jittered(*pause)).await;
                }
                _ => return Err(Failure::Telegram(error)),
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Repeat {
    /// Doing it twice is the same as once.
    Freely,
    OnlyIfUnsent,
}

enum Failure {
    Telegram(TelegramError),
    Later(Duration),
    Undecided,
}

impl Failure {
    fn into_out(self) -> OutError {
        match self {
            Self::Later(wait) => OutError::Retry(wait),
            Self::Undecided => OutError::Undecided,
            Self::Telegram(error) => match error {
                TelegramError::Blocked(_) => OutError::Blocked,
                TelegramError::ChatNotFound => OutError::NoChat,
                TelegramError::Stale => OutError::Stale,
                TelegramError::MigrateTo(chat) => OutError::Moved(chat),
                TelegramError::MessageToEditNotFound | TelegramError::CantEdit => OutError::NoMessage,
                TelegramError::RetryAfter(wait) => OutError::Retry(wait),
                // Soon, since it may have been replaced just now. While Telegram refuses it, no job of the bot is taken.
                TelegramError::Unauthorized => OutError::Retry(TRY_LATER),
                TelegramError::NoMethod => OutError::Retry(TRY_MUCH_LATER),
                error if error.is_passing() => OutError::Retry(TRY_LATER),
                error => OutError::Gone(error.to_string()),
            },
        }
    }
}

/// Somebody will have to look for the message.
fn undecided(error: &TelegramError) {
    debug!(error = %error, "A message may or may not have been sent");
    metrics::counter!("botdeck_sends_undecided_total").increment(1);
}

/// A quarter more or less, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.75..1.25))
}

/// How servers that only resemble the Bot API answer to a method they have not heard of.
fn is_no_such_route(error: &TelegramError) -> bool {
    matches!(
        error,
        TelegramError::Server {
            status: 404 | 405 | 501,
            ..
        }
    )
}

/// Better without its looks than not at all, should Telegram refuse an entity.
fn blames_entities(error: &TelegramError, body: &RichText) -> bool {
    is_about_entities(error) && !body.entities.is_empty()
}

fn is_about_entities(error: &TelegramError) -> bool {
    matches!(error, TelegramError::BadRequest(why) if why.to_lowercase().contains("entit"))
}

/// Takes away what Telegram does not like about a message; `false` when that is nothing one could do without.
fn lighten(error: &TelegramError, to: &mut Address, body: &mut RichText) -> bool {
    match error {
        TelegramError::ReplyGone => to.reply_to.take().is_some(),
        TelegramError::ThreadGone => to.thread_id.take().is_some(),
        error if blames_entities(error, body) => {
            body.entities.clear();
            true
        }
        _ => false,
    }
}

/// A 403 that says that the person or the group is gone, not that the bot may not do this one thing.
fn is_about_the_chat(why: &str) -> bool {
    let why = why.to_lowercase();
    ["blocked", "deactivated", "kicked", "initiate", "not a member"]
        .iter()
        .any(|part| why.contains(part))
}

fn without_entities(body: &RichText) -> RichText {
    RichText {
        text: body.text.clone(),
        entities: Vec::new(),
    }
}

#[async_trait]
impl ChatOut for Sender {
    async fn send(&self, chat: &Address, body: &RichText) -> Result<i64, OutError> {
        self.send_final(chat, body, None).await
    }

    async fn mention(&self, chat: &Address, body: &RichText) -> Result<i64, OutError> {
        Self::mention(self, chat, body).await
    }

    async fn may_preview(&self, chat: &Address) -> bool {
        self.pacer.take_preview(chat.chat_id, chat.private).await
    }

    async fn begin(&self, chat: &Address, body: &RichText) -> Result<Option<i64>, OutError> {
        Self::begin(self, chat, body).await
    }

    fn drafts(&self, chat: &Address) -> bool {
        Self::drafts(self, chat)
    }

    async fn draft(&self, chat: &Address, id: i64, body: &RichText) -> Result<Drawn, OutError> {
        Self::draft(self, chat, id, body).await
    }

    async fn edit(&self, chat: &Address, message_id: i64, body: &RichText, _complete: bool) -> Result<(), OutError> {
        self.edit_final(chat, message_id, body, None).await
    }

    async fn delete(&self, chat: &Address, message_id: i64) -> Result<(), OutError> {
        let delete = || self.client.delete_message(chat.chat_id, message_id);
        match self.insist(chat, Repeat::Freely, delete).await {
            // Deleted by somebody else, or two days old: there is nothing more to be done.
            Ok(())
            | Err(Failure::Telegram(
                TelegramError::BadRequest(_) | TelegramError::MessageToEditNotFound | TelegramError::CantEdit,
            )) => Ok(()),
            Err(failure) => Err(failure.into_out()),
        }
    }

    async fn preview_edit(&self, chat: &Address, message_id: i64, body: &RichText) -> Result<bool, OutError> {
        self.preview(chat, message_id, body).await
    }

    async fn typing(&self, chat: &Address) -> Result<(), OutError> {
        Self::typing(self, chat).await
    }

    async fn acknowledge(&self, chat_id: i64, callback_query: &str) {
        let wait = self.pacer.take(chat_id, chat_id > 0, Urgency::Command).await;
        if wait > MENTION_PATIENCE {
            return;
        }
        sleep(wait).await;
        let Err(error) = self.client.answer_callback_query(callback_query, None, false).await else {
            return;
        };
        debug!(error = %error, "A pressed button could not be answered");
        if let TelegramError::RetryAfter(pause) = error {
            self.pacer.limited(chat_id, pause).await;
        }
    }

    async fn refuse_payment(&self, pre_checkout_query: &str, why: &str) -> Result<(), OutError> {
        let refused = self.client.refuse_pre_checkout_query(pre_checkout_query, why).await;
        refused.map_err(|error| Failure::Telegram(error).into_out())
    }

    fn next_to_try(&self, known: &KnownIds, tried: &HashSet<i64>) -> Vec<i64> {
        candidates(known, tried)
    }

    /// By giving the candidates the final text: only a message of the bot takes it.
    async fn find_lost(
        &self,
        chat: &Address,
        _known: &KnownIds,
        next: &[i64],
        tried: &mut HashSet<i64>,
        body: &RichText,
    ) -> Result<Option<Found>, OutError> {
        let begun = Instant::now();
        for &id in next {
            match self.edit(chat, id, body, None).await {
                Ok(changed) => {
                    return Ok(Some(Found {
                        id,
                        as_it_was: !changed,
                    }));
                }
                // In whatever words: this one is not ours.
                Err(Failure::Telegram(error)) if error.is_refusal() => {
                    tried.insert(id);
                }
                Err(failure) => return Err(failure.into_out()),
            }
            // Meanwhile somebody else may have sent what now has one of these ids.
            if begun.elapsed() > KNOWN_FOR {
                break;
            }
        }
        Ok(None)
    }
}
