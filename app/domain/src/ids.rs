//! Identifiers: ours are UUIDv7, so they sort by time; Telegram's are numbers and keep types of their own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Self(text.parse()?))
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )+};
}

uuid_id! {
    /// A person who talks to a bot, on Telegram or in the playground.
    UserId,
    /// A bot that this deployment runs.
    BotId,
    /// A place where a bot and people talk: a private chat, a group, a playground.
    ChatId,
    /// What one model sees as its history: (chat, topic) since the last `/new`.
    ConversationId,
    /// A stored message of a conversation.
    MessageId,
    /// A named set of limits.
    PlanId,
    /// A person who signs in to the dashboard.
    StaffId,
    /// One unit of durable work.
    JobId,
    /// An amount set aside on every budget that applies, until the real usage is known. That of a job has the job's id.
    ReservationId,
    /// A key with which another program calls the gateway.
    ApiKeyId,
    /// An update as stored, before it is understood.
    UpdateRowId,
    /// Somebody whose models can be asked.
    ProviderId,
    /// One of a provider's keys.
    ProviderKeyId,
    /// A model of a provider.
    ModelId,
}

impl From<JobId> for ReservationId {
    fn from(job: JobId) -> Self {
        Self(job.0)
    }
}

macro_rules! number_id {
    ($($(#[$doc:meta])* $name:ident: $number:ty),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

number_id! {
    /// `User.id` of the Bot API: up to 52 significant bits.
    TelegramUserId: i64,
    /// `Chat.id` of the Bot API: negative for groups.
    TelegramChatId: i64,
    /// `Message.message_id`: unique inside a chat.
    TelegramMessageId: i64,
    /// `Message.message_thread_id`: a topic of a forum.
    ThreadId: i64,
    /// `Update.update_id`: rises by one, but restarts at random after a quiet week.
    UpdateId: i64,
}
