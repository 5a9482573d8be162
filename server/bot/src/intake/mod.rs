//! The way in: which replica listens for which bot, by polling or by webhook.
//!
//! Each bot has one lease. Its holder polls, or has registered the webhook; another replica takes over when the lease runs out.
//! Updates are committed before Telegram is told: by the offset of the next poll, or by the 200 of the webhook.

mod polling;
mod supervisor;

pub use supervisor::{IntakeSettings, supervise};

/// The kinds of update asked for. Left unset, Telegram would keep whatever was asked for last.
pub const ALLOWED_UPDATES: &[&str] = &[
    "message",
    "edited_message",
    "callback_query",
    "my_chat_member",
    "pre_checkout_query",
    "stopped_message_generation",
];
