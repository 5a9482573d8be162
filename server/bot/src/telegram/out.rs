//! The edge over which everything leaves for a chat.

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use domain::views::RichText;

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
}

/// Why something did not arrive, by what is to be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutError {
    /// The person or group does not want to hear the bot: stop sending there.
    #[error("the chat is closed to the bot")]
    Blocked,
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
    /// The message may or may not have been sent: look with `find_lost` before sending again.
    #[error("unknown whether it was sent")]
    Undecided,
}

/// How the bot speaks in chats. Implemented for Telegram by [`super::Sender`], for the playground by the browser's transport.
#[async_trait]
pub trait ChatOut: Send + Sync {
    /// Sends a message and returns its id.
    async fn send(&self, chat: &Address, body: &RichText) -> Result<i64, OutError>;

    /// Sends the beginning of a message that will grow.
    async fn begin(&self, chat: &Address, body: &RichText) -> Result<i64, OutError> {
        self.send(chat, body).await
    }

    /// Changes a message for sure; `complete` when it is the last change.
    async fn edit(&self, chat: &Address, message_id: i64, body: &RichText, complete: bool) -> Result<(), OutError>;

    /// Changes a message if the pace allows it just now; `false` when it was skipped.
    async fn preview_edit(&self, chat: &Address, message_id: i64, body: &RichText) -> Result<bool, OutError>;

    /// Shows that an answer is being made; may be skipped.
    async fn typing(&self, chat: &Address) -> Result<(), OutError>;

    /// After an `Undecided` or a crash between sending and keeping the id: the message with this body that came after
    /// `after_message_id` and is none of `known_ids`, if it can be found.
    async fn find_lost(
        &self,
        chat: &Address,
        after_message_id: i64,
        known_ids: &HashSet<i64>,
        body: &RichText,
    ) -> Result<Option<i64>, OutError>;
}
