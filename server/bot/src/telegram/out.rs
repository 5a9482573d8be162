//! The edge over which everything leaves for a chat.

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use domain::views::RichText;
use services::{KnownIds, Urgency};
use tokio::time::Instant;

/// Where something is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub chat_id: i64,
    /// The topic of a forum.
    pub thread_id: Option<i64>,
    /// The message that is answered; may be gone by now.
    pub reply_to: Option<i64>,
    /// One person's chat with the bot: faster previews.
    pub private: bool,
    /// Of messages and their last edits.
    pub urgency: Urgency,
    /// Until then it is certain that no other worker sends the same; after it nothing new is sent before that has been proven
    /// anew. `None`: nobody else could.
    pub ours_until: Option<Instant>,
}

impl Address {
    /// The process may have been stopped for so long that somebody else has taken over.
    pub fn is_stale(&self) -> bool {
        self.ours_until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Why something did not arrive, by what is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutError {
    /// The person or group does not want to hear the bot: stop sending there.
    #[error("the chat is closed to the bot")]
    Blocked,
    /// There is no such chat, or this bot was never in it: nothing can be sent there.
    #[error("no such chat")]
    NoChat,
    /// Refused for good; trying again changes nothing.
    #[error("refused: {0}")]
    Gone(String),
    /// The chat has another id now: keep that one and send there.
    #[error("the chat has become {0}")]
    Moved(i64),
    /// The message to edit was deleted or is not ours: send a new one.
    #[error("the message to edit is gone")]
    NoMessage,
    /// Nothing was sent; try the job again after this time.
    #[error("not possible now, again in {} s", .0.as_secs())]
    Retry(Duration),
    /// Nothing was sent, since the address is stale.
    #[error("somebody else may be sending this")]
    Stale,
    /// The message may or may not have been sent: look with `find_lost` before sending again.
    #[error("unknown whether it was sent")]
    Undecided,
}

/// What became of a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    Shown,
    /// It did not get through; the next one may.
    Missed,
    /// Not possible in this chat.
    Refused,
}

/// A message that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub id: i64,
    /// It looked like that already. What did not was a preview, or is none of ours: then something else was overwritten.
    pub as_it_was: bool,
}

/// How the bot speaks in chats. Implemented for Telegram by [`super::Sender`], for the playground by the browser's transport.
#[async_trait]
pub trait ChatOut: Send + Sync {
    /// Sends a message and returns its id.
    async fn send(&self, chat: &Address, body: &RichText) -> Result<i64, OutError>;

    /// Sends a message if that is possible soon, without insisting, and returns its id.
    async fn mention(&self, chat: &Address, body: &RichText) -> Result<i64, OutError> {
        self.send(chat, body).await
    }

    /// Takes the right to one `begin` or `draft` now; `false`: skip it, the next one will say more.
    async fn may_preview(&self, _chat: &Address) -> bool {
        true
    }

    /// Sends the beginning of a message that will grow, after `may_preview`. `None`: not sent, and it may be tried again.
    async fn begin(&self, chat: &Address, body: &RichText) -> Result<Option<i64>, OutError> {
        self.send(chat, body).await.map(Some)
    }

    /// Changes a message for sure; `complete` when it is the last change.
    async fn edit(&self, chat: &Address, message_id: i64, body: &RichText, complete: bool) -> Result<(), OutError>;

    /// Takes a message away. That it is gone already, or cannot be taken away any more, is a success.
    async fn delete(&self, _chat: &Address, _message_id: i64) -> Result<(), OutError> {
        Ok(())
    }

    /// Changes a message if the pace allows it just now; `false` when it was skipped.
    async fn preview_edit(&self, chat: &Address, message_id: i64, body: &RichText) -> Result<bool, OutError>;

    /// Whether an answer may be shown by `draft` there while it is made.
    fn drafts(&self, _chat: &Address) -> bool {
        false
    }

    /// After `may_preview`: shows an answer that is being made, beside the messages of the chat. It vanishes by itself, at the
    /// latest with the next message. Calls with the same id (not zero) change the same draft.
    async fn draft(&self, _chat: &Address, _id: i64, _body: &RichText) -> Result<Drawn, OutError> {
        Ok(Drawn::Refused)
    }

    /// Shows that an answer is being made; may be skipped.
    async fn typing(&self, chat: &Address) -> Result<(), OutError>;

    /// Ends the waiting that a pressed button shows. Nothing is lost when that fails: it ends by itself.
    async fn acknowledge(&self, _chat_id: i64, _callback_query: &str) {}

    /// Refuses a payment that somebody is about to make, and says why.
    async fn refuse_payment(&self, _pre_checkout_query: &str, _why: &str) -> Result<(), OutError> {
        Ok(())
    }

    /// The few ids to be looked at next by `find_lost`; none where it looks without changing anything.
    fn next_to_try(&self, _known: &KnownIds, _tried: &HashSet<i64>) -> Vec<i64> {
        Vec::new()
    }

    /// After an `Undecided` or a crash between sending and keeping the id: the message with this body that is none of the known ones,
    /// if it can be found. Looks at those of `next_to_try`, which are `tried` from then
    /// on; when nothing was added to them, there is nothing left to look at.
    async fn find_lost(
        &self,
        chat: &Address,
        known: &KnownIds,
        next: &[i64],
        tried: &mut HashSet<i64>,
        body: &RichText,
    ) -> Result<Option<Found>, OutError>;
}
