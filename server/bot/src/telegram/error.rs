//! What can come back from the Bot API instead of a result.

use std::time::Duration;

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
            401 | 404 => Self::Unauthorized,
            403 => Self::Blocked(description),
            409 => Self::Conflict(description),
            // A gateway that lost patience does not know what became of the request; the others say that it failed.
            500.. => Self::Server {
                status,
                sent_maybe: status == 504,
            },
            _ if says("message is not modified") => Self::NotModified,
            _ if says("message to edit not found") || says("message_id_invalid") => Self::MessageToEditNotFound,
            _ if says("message can't be edited") || says("no text in the message to edit") => Self::CantEdit,
            _ if says("chat not found") || says("peer_id_invalid") => Self::ChatNotFound,
            _ => Self::BadRequest(description),
        }
    }
}
