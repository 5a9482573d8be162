//! The Telegram side: updates come in, answers go out.
//!
//! - [`render`]: a model's Markdown as texts with entities, cut into messages
//! - [`telegram`]: the Bot API, and sending at a pace that Telegram accepts; [`telegram::ChatOut`] is the edge
//! - [`texts`]: everything the bot says by itself, in each language
//! - [`intake`]: which replica listens for which bot
//! - `runtime`, `incoming`, `handlers`: one job from claim to end; the dptree schema stands in `handlers`
//! - `preview`, `delivery`, `browser`: showing an answer while it is made, sending it once, and the playground's side of that
//!
//! No SQL and no decision about who may do what: handlers ask `services`. Nothing a user wrote is logged here.
//!
//! To let the bot say something new: one entry in `locales/*/bot.ftl` and one function in [`texts`]. To call one more method
//! of the Bot API: one function in [`telegram::TelegramClient`].

mod browser;
mod delivery;
mod directory;
mod handlers;
mod incoming;
pub mod intake;
mod lenient;
mod preview;
pub mod render;
mod runtime;
pub mod telegram;
pub mod texts;

pub use directory::Directory;
pub use runtime::Runtime;
