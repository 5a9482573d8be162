//! What the fake remembers: bots, chats, messages, updates and the log of calls.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::faults::{Faults, Limiter};
use super::manners::Manners;
use crate::net::lock;

/// How many messages of a chat are kept while recording is off: enough for edits and replies to find theirs.
const KEPT_WITHOUT_RECORD: usize = 64;

/// Seconds since 1970, as Telegram's `date` fields have it.
pub(crate) fn unix_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// A person who writes to a bot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: i64,
    pub first_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// IETF tag as the person's app reports it; absent when the app tells none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_code: Option<String>,
}

impl User {
    pub fn new(id: i64, first_name: &str) -> Self {
        Self {
            id,
            first_name: first_name.to_owned(),
            username: None,
            language_code: None,
        }
    }

    pub fn language(mut self, code: &str) -> Self {
        self.language_code = Some(code.to_owned());
        self
    }

    pub fn username(mut self, username: &str) -> Self {
        self.username = Some(username.to_owned());
        self
    }

    pub(crate) fn json(&self) -> Value {
        let mut user = json!({"id": self.id, "is_bot": false, "first_name": self.first_name});
        if let Some(username) = &self.username {
            user["username"] = json!(username);
        }
        if let Some(code) = &self.language_code {
            user["language_code"] = json!(code);
        }
        user
    }
}

/// A file that came with a call, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileInfo {
    /// Name of the form field it came in.
    pub field: String,
    pub file_name: Option<String>,
    pub mime: Option<String>,
    pub bytes: usize,
}

/// A message as it stands in a chat now.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    pub id: i64,
    pub chat: i64,
    pub from_bot: bool,
    /// Unix seconds.
    pub date: i64,
    /// Text, or the caption of a photo or document.
    pub text: String,
    pub entities: Vec<Value>,
    pub reply_markup: Option<Value>,
    pub reply_to: Option<i64>,
    pub file: Option<FileInfo>,
    /// Texts it had before the present one, oldest first; empty while recording is off.
    pub edits: Vec<String>,
    /// How often it was edited, counted even while recording is off.
    pub edit_count: u64,
    pub deleted: bool,
    /// Everything Telegram would send for it beside the fields above (sender, topic, media).
    #[serde(skip)]
    pub(crate) raw: Value,
}

impl Message {
    /// The message as a method's result or an update shows it.
    pub(crate) fn json(&self) -> Value {
        let mut message = self.raw.clone();
        let is_media = self.file.is_some();
        message["message_id"] = json!(self.id);
        message["date"] = json!(self.date);
        if !self.text.is_empty() {
            message[if is_media { "caption" } else { "text" }] = json!(self.text);
        }
        if !self.entities.is_empty() {
            message[if is_media { "caption_entities" } else { "entities" }] = json!(self.entities);
        }
        if let Some(markup) = &self.reply_markup {
            message["reply_markup"] = markup.clone();
        }
        if self.edit_count > 0 {
            message["edit_date"] = json!(unix_now());
        }
        message
    }
}

/// One accepted `sendMessageDraft`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Draft {
    pub draft_id: i64,
    pub text: String,
    pub entities: Vec<Value>,
    /// Its reader is shown a stop button.
    pub can_stop: bool,
    #[serde(skip)]
    pub at: SystemTime,
}

/// What becomes of `sendMessageDraft`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drafts {
    /// As by a Bot API server that is older than the method.
    #[default]
    Unknown,
    /// `TEXTDRAFT_PEER_INVALID`
    Refused,
    Taken,
}

/// The next message id of all private chats and small groups of a bot together, as Telegram has it.
pub(crate) type Row = Arc<AtomicI64>;

/// A chat as one bot sees it. Message ids count up by one, shared by both sides, and by other chats in the same row.
pub(crate) struct Chat {
    pub(crate) id: i64,
    /// Telegram's Chat object.
    pub(crate) json: Value,
    pub(crate) blocked: bool,
    next_message_id: i64,
    row: Option<Row>,
    pub(crate) messages: BTreeMap<i64, Message>,
    pub(crate) drafts: Vec<Draft>,
    pub(crate) actions: Vec<String>,
}

impl Chat {
    pub(crate) fn new(id: i64, json: Value, row: Option<&Row>) -> Self {
        let numbers_for_itself = json["type"] == "supergroup";
        Self {
            id,
            json,
            blocked: false,
            next_message_id: 1,
            row: row.filter(|_| !numbers_for_itself).cloned(),
            messages: BTreeMap::new(),
            drafts: Vec::new(),
            actions: Vec::new(),
        }
    }

    pub(crate) fn is_private(&self) -> bool {
        self.json["type"] == "private"
    }

    /// The id that the next message gets.
    pub(crate) fn next_id(&self) -> i64 {
        let row = self.row.as_ref().map(|row| row.load(Ordering::Relaxed));
        row.unwrap_or(self.next_message_id)
    }

    /// Keeps a message; while recording is off, forgets the oldest ones.
    pub(crate) fn insert(&mut self, message: Message, record: bool) {
        self.next_message_id = self.next_message_id.max(message.id + 1);
        if let Some(row) = &self.row {
            row.fetch_max(message.id + 1, Ordering::Relaxed);
        }
        self.messages.insert(message.id, message);
        while !record && self.messages.len() > KEPT_WITHOUT_RECORD {
            self.messages.pop_first();
        }
    }

    /// The message, unless it never was or was deleted.
    pub(crate) fn message(&mut self, id: i64) -> Option<&mut Message> {
        self.messages.get_mut(&id).filter(|message| !message.deleted)
    }
}

/// What `setWebhook` left behind.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    pub(crate) url: String,
    pub(crate) secret: Option<String>,
    pub(crate) max_connections: usize,
    pub(crate) last_error: Option<(i64, String)>,
    /// Distinguishes this setting from the ones before, so that their deliverers end.
    pub(crate) generation: u64,
}

/// One attempt to hand an update to a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    pub update_id: i64,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// `None` when the connection failed.
    pub status: Option<u16>,
    /// Sent once more on purpose, see `duplicate_deliveries`.
    pub duplicate: bool,
}

/// An answered callback query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallbackAnswer {
    pub text: Option<String>,
    pub show_alert: bool,
}

/// What a bot said of a payment that somebody was about to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckoutAnswer {
    pub ok: bool,
    pub error_message: Option<String>,
}

#[derive(Default)]
pub(crate) struct BotState {
    pub(crate) revoked: bool,
    /// Not confirmed yet, oldest first.
    pub(crate) updates: VecDeque<(i64, Value)>,
    pub(crate) next_update_id: i64,
    pub(crate) confirmed_offset: i64,
    /// Counts getUpdates calls; a poll that sees a newer number than its own was taken over.
    pub(crate) poll: u64,
    pub(crate) polling: usize,
    pub(crate) allowed: Vec<String>,
    pub(crate) not_allowed: Vec<Value>,
    pub(crate) webhook: Option<Webhook>,
    pub(crate) webhooks_set: u64,
    pub(crate) pending_dropped: u64,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) chats: HashMap<i64, Chat>,
    /// `None`: each chat numbers for itself.
    pub(crate) row: Option<Row>,
    /// Commands by (scope as JSON text, language code).
    pub(crate) commands: HashMap<(String, String), Value>,
    pub(crate) next_callback: u64,
    pub(crate) callbacks: HashMap<String, Option<CallbackAnswer>>,
    pub(crate) checkouts: HashMap<String, Option<CheckoutAnswer>>,
    pub(crate) limiters: HashMap<(i64, &'static str), Limiter>,
}

pub(crate) struct Bot {
    pub(crate) id: i64,
    pub(crate) username: String,
    pub(crate) state: Mutex<BotState>,
    /// Wakes polls and deliverers of this bot only.
    pub(crate) news: watch::Sender<()>,
}

impl Bot {
    /// The bot as a message's sender.
    pub(crate) fn user_json(&self) -> Value {
        json!({"id": self.id, "is_bot": true, "first_name": self.username, "username": self.username})
    }
}

/// One call of a bot, as it was answered.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// In Telegram's own spelling, whatever case the bot used.
    pub method: String,
    /// 0 when the token was malformed.
    pub bot_id: i64,
    /// Parameters with JSON strings (entities, markup) parsed, so that every encoding looks alike.
    pub params: Value,
    pub files: Vec<FileInfo>,
    pub at: SystemTime,
    /// HTTP status; `None` when a fault dropped the connection instead of answering.
    pub status: Option<u16>,
    /// The description of a refusal.
    pub description: Option<String>,
}

/// Sums that are kept even while recording is off.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counters {
    /// Calls by method, refused ones included.
    pub calls: BTreeMap<String, u64>,
    /// Refusals by status.
    pub refused: BTreeMap<u16, u64>,
    /// Calls to a chat made although its `retry_after` had not passed.
    pub flood_violations: u64,
    /// Updates given to bots' queues.
    pub updates: u64,
    /// Messages that bots have sent, edits not counted.
    pub sent: u64,
    /// Attempts to deliver by webhook.
    pub deliveries: u64,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) calls: Vec<Call>,
    pub(crate) counters: Counters,
}

/// Hears every message of a bot as it arrives.
pub(crate) type Listener = Box<dyn Fn(&Message) + Send + Sync>;

/// Everything behind the handle, shared by the server's handlers and the deliverers.
pub(crate) struct Shared {
    pub(crate) bots: RwLock<HashMap<String, Arc<Bot>>>,
    pub(crate) log: Mutex<Log>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) record: AtomicBool,
    pub(crate) drafts: Mutex<Drafts>,
    pub(crate) manners: Mutex<Manners>,
    pub(crate) duplicates: AtomicUsize,
    /// Called with a bot's state locked.
    pub(crate) listener: OnceLock<Listener>,
    /// Wakes those who wait for something to be seen.
    pub(crate) changed: watch::Sender<()>,
    /// True once the handle is gone.
    pub(crate) stopped: watch::Sender<bool>,
    pub(crate) client: reqwest::Client,
    pub(crate) started: Instant,
    pub(crate) addr: std::net::SocketAddr,
}

impl Shared {
    pub(crate) fn bot(&self, token: &str) -> Option<Arc<Bot>> {
        self.bots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(token)
            .cloned()
    }

    pub(crate) fn records(&self) -> bool {
        self.record.load(Ordering::Relaxed)
    }

    /// A message of a bot was sent or edited.
    pub(crate) fn announce(&self, message: &Message) {
        if let Some(listener) = self.listener.get() {
            listener(message);
        }
    }

    pub(crate) fn log_call(&self, call: Call) {
        let mut log = lock(&self.log);
        *log.counters.calls.entry(call.method.clone()).or_default() += 1;
        if let Some(status) = call.status.filter(|status| *status != 200) {
            *log.counters.refused.entry(status).or_default() += 1;
        }
        if self.records() {
            log.calls.push(call);
        }
        drop(log);
        self.changed.send_replace(());
    }
}
