//! What can come back from the Bot API instead of a result.

use std::time::Duration;

// Words of Telegram's servers, in lower case. Sources: the server's own `Client.cpp` (github.com/tdlib/telegram-bot-api) and the
// lists of errors that come from behind it (core.telegram.org/api/errors).
const REPLY_GONE: [&str; 3] = [
    "message to be replied not found",
    "replied message not found",
    "reply_message_id_invalid",
];
const THREAD_GONE: [&str; 3] = ["message thread not found", "topic_deleted", "thread_id_invalid"];
/// Told as 400, though it means the same as a 403: the bot may not write there any more.
const CLOSED: [&str; 6] = [
    "have no rights to send a message",
    "not enough rights to send text messages",
    "need administrator rights in the channel chat",
    "chat_write_forbidden",
    "chat_restricted",
    "group chat was deactivated",
];

/// A call that failed, told apart by what is to be done about it. Never holds the bot's token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TelegramError {
    #[error("Telegram does not know the bot's token")]
    Unauthorized,
    /// Somebody else polls with the same token, or a webhook is set.
    #[error("Telegram reports a conflict: {0}")]
    Conflict(String),
    #[error("Telegram asks to wait for {} s", .0.as_secs())]
    RetryAfter(Duration),
    /// The bot was blocked or thrown out, or the person's account is gone.
    #[error("the chat is closed to the bot: {0}")]
    Blocked(String),
    #[error("no such chat")]
    ChatNotFound,
    /// The message that is answered was deleted.
    #[error("the message to reply to is gone")]
    ReplyGone,
    /// The topic of the forum was deleted.
    #[error("the topic is gone")]
    ThreadGone,
    /// Not Telegram's words: the call was not made, see `Address::ours_until`.
    #[error("somebody else may be sending this")]
    Stale,
    /// This server does not know the method: it is older than we are. Also what a text that is no token is answered.
    #[error("the Bot API server does not know the method")]
    NoMethod,
    /// The message already looks like that: as good as a success.
    #[error("the message is not modified")]
    NotModified,
    #[error("no such message")]
    MessageToEditNotFound,
    #[error("the message cannot be edited by the bot")]
    CantEdit,
    #[error("Telegram refuses the request: {0}")]
    BadRequest(String),
    #[error("the group has become the supergroup {0}")]
    MigrateTo(i64),
    /// A 5xx, or an answer that is not the Bot API's.
    #[error("the Bot API answers with status {status}")]
    Server { status: u16, sent_maybe: bool },
    #[error("the Bot API does not answer in time")]
    Timeout { sent_maybe: bool },
    #[error("no connection to the Bot API: {cause}")]
    Network { sent_maybe: bool, cause: String },
}

impl TelegramError {
    /// The request may have been carried out although no good answer came.
    pub fn sent_maybe(&self) -> bool {
        match self {
            Self::Server { sent_maybe, .. } | Self::Timeout { sent_maybe } | Self::Network { sent_maybe, .. } => {
                *sent_maybe
            }
            _ => false,
        }
    }

    /// It is neither the request's fault nor the chat's: the same call may well succeed soon.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::Timeout { .. } | Self::Network { .. })
    }

    /// Telegram has something against this very request; the chat is as good as before.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::MessageToEditNotFound | Self::CantEdit | Self::BadRequest(_) | Self::ReplyGone | Self::ThreadGone
        )
    }

    /// Reads a refusal in Telegram's words.
    pub(super) fn refusal(status: u16, description: String, wait: Option<u64>, moved_to: Option<i64>) -> Self {
        if let Some(chat) = moved_to {
            return Self::MigrateTo(chat);
        }
        let words = description.to_lowercase();
        let says = |part: &str| words.contains(part);
        match status {
            429 => Self::RetryAfter(Duration::from_secs(
                wait.or_else(|| words.rsplit(' ').next()?.parse().ok())
                    .unwrap_or(1)
                    .max(1),
            )),
            401 => Self::Unauthorized,
            404 => Self::NoMethod,
            403 => Self::Blocked(description),
            409 => Self::Conflict(description),
            // A server that fails, or loses another one, may have done its work before. Only one that is not in service has not.
            500.. => Self::Server {
                status,
                sent_maybe: status != 503,
            },
            // Before the message to edit: some of the words are the same.
            _ if REPLY_GONE.iter().any(|part| says(part)) => Self::ReplyGone,
            _ if THREAD_GONE.iter().any(|part| says(part)) => Self::ThreadGone,
            _ if says("message is not modified") => Self::NotModified,
            _ if says("message to edit not found") || says("message_id_invalid") => Self::MessageToEditNotFound,
            _ if says("message can't be edited") || says("no text in the message to edit") => Self::CantEdit,
            _ if says("chat not found") || says("peer_id_invalid") => Self::ChatNotFound,
            _ if CLOSED.iter().any(|part| says(part)) => Self::Blocked(description),
            _ => Self::BadRequest(description),
        }
    }
}
