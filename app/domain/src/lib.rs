//! Words that every room of Botdeck shares: identifiers, parsed values, money, permissions, failure codes and what pages show.
//!
//! Compiled for the server and for the browser, so nothing here may touch the network, the clock, randomness or a database.
//! To add a value: one type, one `parse` that names what was expected, one test of its bounds.

mod api_keys;
mod cache;
mod codes;
mod ids;
mod lang;
mod limit_owner;
mod limits;
mod models;
mod moment;
mod money;
mod permissions;
mod trace;
mod values;
pub mod views;

pub use api_keys::{ApiScope, Lifetime};
pub use cache::{BotCache, ComparedBy, KeptFor, Likeness, Sharing, Threshold};
pub use codes::{AppError, ErrorCode};
pub use ids::{
    ApiKeyId, BotId, ChatId, ConversationId, JobId, MessageId, ModelId, PlanId, ProviderId, ProviderKeyId,
    ReservationId, StaffId, TelegramChatId, TelegramMessageId, TelegramUserId, ThreadId, UpdateId, UpdateRowId, UserId,
};
pub use lang::Lang;
pub use limit_owner::LimitOwner;
pub use limits::{Limit, LimitKind, Measure, Period, Scope};
pub use models::{ModelKind, Price, ProviderKind};
pub use moment::{Moment, Past};
pub use money::Money;
pub use permissions::{Permission, Role};
pub use trace::TraceId;
pub use values::{BlockReason, BotName, Email, Invalid, KeyName, Password, Persona, PlanName, SearchText, Theme};
