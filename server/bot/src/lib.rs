//! The Telegram side: updates come in, answers go out.
//!
//! - [`render`]: a model's Markdown as texts with entities, cut into messages
//! - [`telegram`]: the Bot API, and sending at a pace that Telegram accepts; [`telegram::ChatOut`] is the edge
//! - [`texts`]: everything the bot says by itself, in each language
//!
//! No SQL and no decision about who may do what: handlers ask `services`. Nothing a user wrote is logged here.
//!
//! To let the bot say something new: one entry in `locales/*/bot.ftl` and one function in [`texts`]. To call one more method
//! of the Bot API: one function in [`telegram::TelegramClient`].

pub mod render;
pub mod telegram;
pub mod texts;
