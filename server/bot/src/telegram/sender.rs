//! Sending that obeys the pace, survives short failures and never sends twice.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use domain::views::RichText;
use rand::Rng;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{
    client::TelegramClient,
    error::TelegramError,
    out::{Address, ChatOut, OutError},
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
const TRY_LATER: Duration = Duration::from_secs(5);
/// A revoked token comes back only when staff replace it.
const TRY_MUCH_LATER: Duration = Duration::from_secs(300);
/// Candidates that `find_lost` looks at.
pub const MAX_PROBES: usize = 20;

/// One bot's way out; clones share the pace.
#[derive(Clone, Debug)]
pub struct Sender {
    client: TelegramClient,
    pacer: Arc<Pacer>,
}

impl Sender {
    pub fn new(client: TelegramClient, pacer: Arc<Pacer>) -> Self {
        Self { client, pacer }
    }

    pub fn client(&self) -> &TelegramClient {
        &self.client
    }

    /// Sends a message that has to arrive, once, and returns its id.
    pub async fn send_final(&self, to: &Address, body: &RichText, markup: Option<Value>) -> Result<i64, OutError> {
        let send = |body: RichText| {
            let markup = markup.clone();
            async move {
                self.client
                    .send_message(to.chat_id, &body, to.reply_to, to.thread_id, markup)
                    .await
            }
        };
        let sent = self.insist(to, Repeat::OnlyIfUnsent, || send(body.clone())).await;
        match sent {
            Err(Failure::Telegram(error)) if blames_entities(&error, body) => {
                let plain = without_entities(body);
                self.insist(to, Repeat::OnlyIfUnsent, || send(plain.clone())).await
            }
            other => other,
        }
        .map_err(Failure::into_out)
    }

    /// Changes a message, for sure. That it looks so already is a success.
    pub async fn edit_final(
        &self,
        to: &Address,
        message_id: i64,
        body: &RichText,
        markup: Option<Value>,
    ) -> Result<(), OutError> {
        self.edit(to, message_id, body, markup).await.map_err(Failure::into_out)
    }

    async fn edit(&self, to: &Address, message_id: i64, body: &RichText, markup: Option<Value>) -> Result<(), Failure> {
        let edit = |body: RichText| {
            let markup = markup.clone();
            async move {
                match self
                    .client
                    .edit_message_text(to.chat_id, message_id, &body, markup)
                    .await
                {
                    Err(TelegramError::NotModified) => Ok(()),
                    other => other,
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
        if !self.pacer.take_preview(to.chat_id, to.private, Instant::now()) {
            return Ok(false);
        }
        match self.client.edit_message_text(to.chat_id, message_id, body, None).await {
            Ok(()) | Err(TelegramError::NotModified) => Ok(true),
            Err(error) => self.let_go(to, error).map(|()| false),
        }
    }

    /// Shows "typing…" for five seconds, unless the chat is under a pause.
    pub async fn typing(&self, to: &Address) -> Result<(), OutError> {
        if !self.pacer.take(to.chat_id, to.private, Instant::now()).is_zero() {
            return Ok(());
        }
        match self.client.send_chat_action(to.chat_id, to.thread_id, "typing").await {
            Ok(()) => Ok(()),
            Err(error) => self.let_go(to, error),
        }
    }

    /// Looks for a message that was sent without its id being learnt, by giving the candidates after `after_message_id`
    /// the final text: only a message of the bot takes it. `known_ids` are the bot's other messages, which must keep theirs.
    ///
    /// Counts upwards, so it finds what came soon after; in private chats Telegram numbers the messages of all chats of
    /// the bot in one row, so a busy bot's message can lie further away than `max_probes`.
    pub async fn find_lost(
        &self,
        to: &Address,
        after_message_id: i64,
        known_ids: &HashSet<i64>,
        body: &RichText,
        max_probes: usize,
    ) -> Result<Option<i64>, OutError> {
        let candidates = (1..).map(|step| after_message_id.saturating_add(step));
        for id in candidates.filter(|id| !known_ids.contains(id)).take(max_probes) {
            match self.edit(to, id, body, None).await {
                Ok(()) => return Ok(Some(id)),
                Err(Failure::Telegram(TelegramError::MessageToEditNotFound | TelegramError::CantEdit)) => {}
                Err(failure) => return Err(failure.into_out()),
            }
        }
        Ok(None)
    }

    /// Something that may be skipped has failed: heeds a pause, reports a closed chat, forgets the rest.
    fn let_go(&self, to: &Address, error: TelegramError) -> Result<(), OutError> {
        match error {
            TelegramError::RetryAfter(pause) => {
                self.pacer.limited(to.chat_id, pause, Instant::now());
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
            let wait = self.pacer.take(to.chat_id, to.private, Instant::now());
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
                TelegramError::RetryAfter(pause) => self.pacer.limited(to.chat_id, *pause, Instant::now()),
                error if error.is_passing() => {
                    if error.sent_maybe() && repeat == Repeat::OnlyIfUnsent {
                        debug!(error = %error, "A message may or may not have been sent");
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
                TelegramError::MigrateTo(chat) => OutError::Moved(chat),
                TelegramError::MessageToEditNotFound | TelegramError::CantEdit => OutError::NoMessage,
                TelegramError::RetryAfter(wait) => OutError::Retry(wait),
                TelegramError::Unauthorized => OutError::Retry(TRY_MUCH_LATER),
                error if error.is_passing() => OutError::Retry(TRY_LATER),
                error => OutError::Gone(error.to_string()),
            },
        }
    }
}

/// A quarter more or less, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.75..1.25))
}

/// Better without its looks than not at all, should Telegram refuse an entity.
fn blames_entities(error: &TelegramError, body: &RichText) -> bool {
    matches!(error, TelegramError::BadRequest(why) if why.to_lowercase().contains("entit")) && !body.entities.is_empty()
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

    async fn edit(&self, chat: &Address, message_id: i64, body: &RichText, _complete: bool) -> Result<(), OutError> {
        self.edit_final(chat, message_id, body, None).await
    }

    async fn preview_edit(&self, chat: &Address, message_id: i64, body: &RichText) -> Result<bool, OutError> {
        self.preview(chat, message_id, body).await
    }

    async fn typing(&self, chat: &Address) -> Result<(), OutError> {
        Self::typing(self, chat).await
    }

    async fn find_lost(
        &self,
        chat: &Address,
        after_message_id: i64,
        known_ids: &HashSet<i64>,
        body: &RichText,
    ) -> Result<Option<i64>, OutError> {
        Self::find_lost(self, chat, after_message_id, known_ids, body, MAX_PROBES).await
    }
}
