//! The Bot API, and sending at a pace that Telegram accepts.
//!
//! [`TelegramClient`] makes single calls and says exactly what came of them. [`Sender`] adds pace ([`Pacer`]) and patience
//! and is the Telegram half of [`ChatOut`], the edge that the rest of the bot speaks through.
//!
//! To give one more refusal of Telegram an answer of its own: a variant of [`TelegramError`] with its words, and an arm in the
//! sender.

mod client;
mod error;
mod lost;
mod out;
mod pacer;
mod sender;

pub use client::{BotProfile, DEFAULT_API_URL, TelegramClient, WebhookInfo};
pub use error::TelegramError;
pub use out::{Address, ChatOut, Drawn, Found, OutError};
pub use pacer::Pacer;
pub use sender::Sender;
