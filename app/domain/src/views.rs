//! What pages show: plain data that travels from a server function to a component. No behaviour, no secrets.

pub mod api_keys;
pub mod bots;
pub mod jobs;
pub mod limits;
pub mod models;
pub mod requests;
pub mod similar;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    BotId, ConversationId, ErrorCode, Lang, LimitKind, MessageId, Money, Permission, PlanId, Role, Scope, SearchText,
    StaffId, UserId,
};

/// Who is signed in, and what they may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Me {
    pub id: StaffId,
    pub name: String,
    pub email: String,
    pub role: Role,
    pub permissions: Vec<Permission>,
}

/// What is left to do after the first start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetupState {
    /// Without an owner only the set-up page is open.
    pub has_owner: bool,
    pub has_telegram_bot: bool,
    /// False means the built-in demo model answers.
    pub has_model_key: bool,
    pub model: String,
}

/// One page of a list; `next` is the opaque key of the page after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    pub rows: Vec<T>,
    pub next: Option<String>,
}

/// The figures of today (UTC), drawn from the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    pub now: DateTime<Utc>,
    /// Messages of users that were answered or refused today.
    pub messages: i64,
    pub active_users: i64,
    pub tokens: i64,
    pub cost: Money,
    /// Cost of the month so far.
    pub cost_month: Money,
    /// Milliseconds from the message's arrival to the end of its answer.
    pub p50_ms: Option<i64>,
    pub p95_ms: Option<i64>,
    pub errors: i64,
    pub hours: Vec<HourPoint>,
    pub errors_by_code: Vec<CodeCount>,
    pub queue: QueueState,
    /// False: limits per minute fall back to a stricter local count.
    pub redis_up: bool,
    pub bots: Vec<BotRow>,
}

/// One hour of the last 24.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HourPoint {
    pub hour: DateTime<Utc>,
    pub messages: i64,
    pub errors: i64,
    pub cost: Money,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodeCount {
    pub code: String,
    pub count: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueState {
    pub waiting: i64,
    pub running: i64,
    pub dead: i64,
    pub oldest_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserStatus {
    #[default]
    Any,
    Active,
    Blocked,
}

/// The state of the users page; lives in its address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserQuery {
    /// Part of a name or @username, or a whole Telegram id.
    pub search: SearchText,
    pub status: UserStatus,
    pub plan: Option<PlanId>,
    /// `Page::next` of the page before.
    pub after: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserRow {
    pub id: UserId,
    pub name: String,
    pub username: Option<String>,
    /// `None` for people of the playground.
    pub telegram_id: Option<i64>,
    pub plan: String,
    pub blocked: bool,
    /// The fullest of the user's limits, in percent of it; `None` where nothing is limited.
    pub fullest_percent: Option<i64>,
    /// It is past the threshold of the plan.
    pub near_limit: bool,
    pub spent_month: Money,
    pub last_seen: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserDetail {
    pub id: UserId,
    pub name: String,
    pub username: Option<String>,
    pub telegram_id: Option<i64>,
    pub language: Option<String>,
    pub plan_id: PlanId,
    pub plan: String,
    pub blocked: Option<Blocked>,
    pub created: DateTime<Utc>,
    pub last_seen: DateTime<Utc>,
    pub limits: Vec<LimitBar>,
    /// Where they began or took part, the last used first.
    pub conversations: Page<ConversationRow>,
    /// Failures this user met, newest first.
    pub errors: Vec<UserError>,
    /// What staff did with this user, newest first; empty without `audit:read`.
    pub staff_actions: Vec<AuditRow>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blocked {
    pub at: DateTime<Utc>,
    pub reason: String,
    pub by: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UserError {
    pub at: DateTime<Utc>,
    pub code: String,
    pub conversation: Option<ConversationId>,
}

/// One limit with what is used of it. All amounts in the unit of the kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitBar {
    /// Whose use it counts, and the name of it where it is not the user's own.
    pub scope: Scope,
    pub name: String,
    pub kind: LimitKind,
    pub limit: Option<i64>,
    /// When the limit falls back to what it is without the boost.
    pub boosted_until: Option<DateTime<Utc>>,
    /// More is used than the threshold from which staff is told.
    pub near: bool,
    /// `None`: not known, as that of a minute without Redis.
    pub used: Option<i64>,
    /// Set aside for answers that are being made right now.
    pub reserved: i64,
    /// When there is more again; `None` for a total, and when nothing is used of a window that slides.
    pub resets_at: Option<DateTime<Utc>>,
}

/// The limits of something that is not a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScopeLimits {
    pub scope: Scope,
    /// An id, the name of a model, or nothing for the deployment.
    pub subject: String,
    pub name: String,
    pub zone: String,
    pub soft_percent: i64,
    /// Only those that are set.
    pub limits: Vec<(LimitKind, i64)>,
}

/// A threshold was passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitEvent {
    pub at: DateTime<Utc>,
    pub scope: Scope,
    pub subject: String,
    pub name: String,
    pub kind: LimitKind,
    pub used: i64,
    pub limit: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConversationRow {
    pub id: ConversationId,
    pub bot: String,
    pub chat: String,
    pub started: DateTime<Utc>,
    pub last: DateTime<Utc>,
    /// False after `/new`: the model no longer sees it.
    pub current: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    pub conversation: ConversationRow,
    /// With whom it began; in a group they are one of many.
    pub user_id: UserId,
    pub user: String,
    pub is_group: bool,
    /// Oldest first.
    pub messages: Vec<TranscriptMessage>,
    /// Key of the page with older messages.
    pub older: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Author {
    User,
    Bot,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TranscriptMessage {
    pub id: MessageId,
    pub author: Author,
    /// Who wrote it; `None` for the bot, and where it was not noted.
    pub speaker: Option<Speaker>,
    pub text: String,
    pub at: DateTime<Utc>,
    /// How the answer was made; `None` for what people wrote and for answers without a model.
    pub made: Option<Made>,
    pub error: Option<ErrorNote>,
}

/// A person who wrote in a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    pub id: UserId,
    pub name: String,
}

/// How an answer was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    pub model: String,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub cost: Money,
    pub first_token_ms: Option<i64>,
    pub total_ms: i64,
    /// `stop`, `length`, `stopped` (by the user), `cut` (by the provider)…
    pub finish: String,
    pub attempts: i64,
}

/// What the user met, and what was behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorNote {
    pub code: String,
    pub cause: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    pub id: PlanId,
    pub name: String,
    /// New users get this one.
    pub is_default: bool,
    pub users: i64,
    /// By whose days and months it counts: an IANA name such as `Europe/Berlin`.
    pub zone: String,
    /// From which use on staff is told, in percent.
    pub soft_percent: i64,
    /// Which models its users may choose; none: all that are shown.
    pub models: Vec<String>,
    /// Every kind, in order; `None` is no limit.
    pub limits: Vec<(LimitKind, Option<i64>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BotTransport {
    Telegram,
    /// The playground: messages come from and go to the dashboard.
    Browser,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntakeMode {
    Polling,
    Webhook,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BotRow {
    pub id: BotId,
    pub name: String,
    pub username: Option<String>,
    pub transport: BotTransport,
    pub mode: IntakeMode,
    /// What staff want: running or not.
    pub enabled: bool,
    /// A replica holds the lease (polling) or the webhook is registered; always true for the playground.
    pub running: bool,
    /// Why it does not run, in words for staff.
    pub fault: Option<String>,
    pub last_update: Option<DateTime<Utc>>,
    pub model: String,
    pub messages_today: i64,
}

/// A text with marks, as Telegram would show it: offsets and lengths in UTF-16 code units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RichText {
    pub text: String,
    pub entities: Vec<Entity>,
}

/// A mark over a part of a text; field names and kinds are those of the Bot API's `MessageEntity`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    #[serde(rename = "type")]
    pub kind: EntityKind,
    pub offset: usize,
    pub length: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    Bold,
    Italic,
    Strikethrough,
    Code,
    Pre,
    TextLink,
    Blockquote,
}

/// The chat of one member of staff with one bot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Playground {
    pub bot: BotId,
    pub bot_name: String,
    /// The model that answers, and whether it is the built-in demo.
    pub model: String,
    pub demo: bool,
    /// The user record that stands for this member of staff.
    pub user: Option<UserId>,
    pub messages: Vec<PlaygroundMessage>,
}

/// A message in the playground. The same `id` arrives again with more text while an answer streams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlaygroundMessage {
    pub id: i64,
    pub author: Author,
    pub body: RichText,
    /// False while the answer is still being written.
    pub complete: bool,
    pub at: DateTime<Utc>,
}

/// The state of the audit page; lives in its address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditQuery {
    /// Part of an actor's name.
    pub actor: Option<String>,
    /// An action such as `user.block`, or the part before the dot.
    pub action: Option<String>,
    /// Id of the thing acted on, or part of its name; readings are found by the people whose words were read, too.
    pub target: Option<String>,
    /// First and last day (UTC), such as `2026-11-24`.
    pub from: Option<String>,
    pub to: Option<String>,
    pub after: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRow {
    pub id: i64,
    pub at: DateTime<Utc>,
    pub actor: String,
    /// `user.block`, `conversation.read`, `staff.sign_in`…
    pub action: String,
    pub target_kind: String,
    pub target_id: String,
    /// How the target was called at the time.
    pub target_name: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub ip: Option<String>,
}

/// What the layout of every page needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shell {
    pub me: Option<Me>,
    pub has_owner: bool,
    pub lang: Lang,
}

/// A code a page can link to.
pub fn is_error_code(text: &str) -> bool {
    ErrorCode::ALL
        .iter()
        .any(|code| code.as_str().eq_ignore_ascii_case(text.trim()))
}
