//! A Bot API server that refuses what Telegram refuses and remembers everything.
//!
//! It listens on a real socket, so the bot's real HTTP client is what is tested. Message ids, update offsets, conflicts,
//! lengths, entities, keyboards, webhook deliveries and error texts follow the Bot API's documentation and server; where
//! Telegram would silently repair something, the fake refuses it. Not here: parsing of `parse_mode` text (the text is taken
//! as it is), `getFile`, payments, and method calls in the body of a webhook's answer.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use test_support::fake_telegram::{FakeTelegram, User};
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! let telegram = FakeTelegram::start().await?;
//! telegram.add_bot("123456:TEST", "deck_bot");
//! // … start the bot with TELEGRAM_API_URL = telegram.url() …
//! let anna = User::new(7, "Anna").language("ru");
//! let (_, asked) = telegram.send_text("123456:TEST", &anna, "Hello");
//! let reply = telegram.wait_reply("123456:TEST", anna.id, asked, Duration::from_secs(5)).await?;
//! # Ok(()) }
//! ```

mod answer;
mod check;
mod control;
mod faults;
mod http;
mod messages;
mod params;
mod profile;
mod state;
mod updates;
mod wait;
mod webhook;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use faults::Fault;
pub use state::{Call, CallbackAnswer, Counters, Delivery, Draft, FileInfo, Message, User};
pub use wait::NotSeen;

use crate::net::{Server, lock};
use faults::{Faults, Flood};
use state::{Bot, BotState, Chat, Log, Shared, unix_now};

/// A running fake; clones are the same one, and with the last of them it ends.
#[derive(Clone)]
pub struct FakeTelegram {
    shared: Arc<Shared>,
    /// Absent in the views that the server's own control interface takes: they must not keep it alive.
    running: Option<Arc<Running>>,
}

struct Running {
    server: Server,
    shared: Arc<Shared>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stopped.send_replace(true);
    }
}

/// Starting, bots, and what people do.
///
/// # Panics
/// Methods that take a token panic when no such bot was added: the test itself is wrong then.
impl FakeTelegram {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn start_on(addr: SocketAddr) -> io::Result<Self> {
        // Refused when a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tcp = tokio::net::TcpListener::bind(addr).await?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build();
        let shared = Arc::new(Shared {
            bots: RwLock::new(HashMap::new()),
            log: Mutex::new(Log::default()),
            faults: Mutex::new(Faults::default()),
            record: true.into(),
            refuse_drafts: false.into(),
            duplicates: 0.into(),
            changed: watch::Sender::new(()),
            stopped: watch::Sender::new(false),
            client: client.map_err(io::Error::other)?,
            started: Instant::now(),
            addr: tcp.local_addr()?,
        });
        let router = Router::new()
            .nest("/control", control::router())
            .fallback(http::entry)
            .layer(DefaultBodyLimit::max(params::MAX_BODY))
            .with_state(Arc::clone(&shared));
        let server = Server::start(tcp, router);
        Ok(Self {
            running: Some(Arc::new(Running {
                server,
                shared: Arc::clone(&shared),
            })),
            shared,
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// What `TELEGRAM_API_URL` is to be: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.addr)
    }

    /// Closes the port and cuts all connections, as an outage would; what was recorded can still be read.
    pub fn stop(&self) {
        self.shared.stopped.send_replace(true);
        if let Some(running) = &self.running {
            running.server.stop();
        }
    }

    /// Makes a bot known and returns its id, the number before the token's colon.
    ///
    /// # Panics
    /// When the token is not `number:letters`.
    pub fn add_bot(&self, token: &str, username: &str) -> i64 {
        let Some(id) = http::bot_id(token) else {
            panic!("{token:?} is not a bot token")
        };
        let state = BotState {
            next_update_id: 100_000_001,
            ..BotState::default()
        };
        let bot = Bot {
            id,
            username: username.to_owned(),
            state: Mutex::new(state),
            news: watch::Sender::new(()),
        };
        let mut bots = self.shared.bots.write().unwrap_or_else(PoisonError::into_inner);
        bots.insert(token.to_owned(), Arc::new(bot));
        id
    }

    /// Makes the token invalid, as @BotFather does: every call is answered 401 from now on.
    pub fn revoke(&self, token: &str) {
        self.change(token, |state| state.revoked = true);
    }

    /// A person writes to the bot in private. Returns update id and message id.
    ///
    /// # Panics
    /// When the text is empty or longer than the 4096 UTF-16 units that Telegram's apps send as one message.
    pub fn send_text(&self, token: &str, user: &User, text: &str) -> (i64, i64) {
        assert!(
            (1..=check::MAX_TEXT).contains(&check::utf16_len(text)),
            "Telegram's apps send 1–4096 characters"
        );
        self.open_chat(token, user);
        self.change(token, |state| {
            let Some(chat) = state.chats.get(&user.id) else {
                return (0, 0);
            };
            let id = chat.next_message_id;
            let mut message = json!({
                "message_id": id, "from": user.json(), "chat": chat.json, "date": unix_now(), "text": text,
            });
            let entities = check::entities_of(text);
            if !entities.is_empty() {
                message["entities"] = json!(entities);
            }
            (self.enqueue(state, json!({"message": message})), id)
        })
    }

    /// Any update, also of groups and of kinds yet unknown; `update_id` is given unless present. Chats and messages in it
    /// become known, so that the bot can answer them. Returns the update's id.
    pub fn push_update(&self, token: &str, update: Value) -> i64 {
        self.change(token, |state| self.enqueue(state, update))
    }

    /// A person presses a button under a message. Returns the id of the callback query.
    pub fn press_button(&self, token: &str, user: &User, message_id: i64, data: &str) -> String {
        self.change(token, |state| {
            state.next_callback += 1;
            let id = format!("{}", 4_000_000_000 + state.next_callback);
            state.callbacks.insert(id.clone(), None);
            let message = state
                .chats
                .get_mut(&user.id)
                .and_then(|chat| chat.message(message_id))
                .map(|m| m.json());
            let mut query = json!({"id": id, "from": user.json(), "chat_instance": user.id.to_string(), "data": data});
            if let Some(message) = message {
                query["message"] = message;
            }
            self.enqueue(state, json!({"callback_query": query}));
            id
        })
    }

    /// Makes a private chat known without a message, as if the person had written long ago.
    pub fn open_chat(&self, token: &str, user: &User) {
        let mut chat = json!({"id": user.id, "type": "private", "first_name": user.first_name});
        if let Some(username) = &user.username {
            chat["username"] = json!(username);
        }
        self.change(token, |state| {
            state.chats.entry(user.id).or_insert_with(|| Chat::new(user.id, chat));
        });
    }

    /// The person blocks the bot: sends are answered 403, and a `my_chat_member` update tells it.
    pub fn block(&self, token: &str, chat: i64) {
        self.set_blocked(token, chat, true);
    }

    pub fn unblock(&self, token: &str, chat: i64) {
        self.set_blocked(token, chat, false);
    }

    fn set_blocked(&self, token: &str, chat: i64, blocked: bool) {
        let user = self.bot(token).user_json();
        self.change(token, |state| {
            let Some(chat) = state.chats.get_mut(&chat) else { return };
            chat.blocked = blocked;
            let member = json!({"user": user, "status": "member"});
            let kicked = json!({"user": user, "status": "kicked", "until_date": 0});
            let (old, new) = if blocked { (member, kicked) } else { (kicked, member) };
            let from = json!({"id": chat.id, "is_bot": false, "first_name": chat.json["first_name"]});
            let update = json!({"my_chat_member": {
                "chat": chat.json, "from": from, "date": unix_now(), "old_chat_member": old, "new_chat_member": new,
            }});
            self.enqueue(state, update);
        });
    }

    /// Queues an update and makes the chat and message in it known.
    fn enqueue(&self, state: &mut BotState, update: Value) -> i64 {
        let kind = updates::kind(&update);
        let body = &update[&kind];
        let message = if body["message"].is_object() {
            &body["message"]
        } else {
            body
        };
        if let Some(chat_id) = message["chat"]["id"].as_i64() {
            let chat = state
                .chats
                .entry(chat_id)
                .or_insert_with(|| Chat::new(chat_id, message["chat"].clone()));
            if let Some(id) = message["message_id"].as_i64()
                && kind.ends_with("message")
            {
                chat.insert(received(id, chat_id, message), self.shared.records());
            }
        }
        lock(&self.shared.log).counters.updates += 1;
        updates::queue(state, update)
    }
}

/// A person's message as the fake keeps it.
fn received(id: i64, chat: i64, message: &Value) -> Message {
    Message {
        id,
        chat,
        from_bot: message["from"]["is_bot"] == true,
        date: message["date"].as_i64().unwrap_or_default(),
        text: message["text"]
            .as_str()
            .or_else(|| message["caption"].as_str())
            .unwrap_or_default()
            .to_owned(),
        entities: message["entities"].as_array().cloned().unwrap_or_default(),
        reply_markup: None,
        reply_to: message["reply_to_message"]["message_id"].as_i64(),
        file: None,
        edits: Vec::new(),
        edit_count: 0,
        deleted: false,
        raw: message.clone(),
    }
}

/// Failures and other ways to make the bot's life harder.
impl FakeTelegram {
    /// The next `times` calls of the method (`*`: of any) meet this fault.
    pub fn fail_next(&self, method: &str, times: u32, fault: Fault) {
        lock(&self.shared.faults).plan(method, times, fault);
    }

    /// From now on a chat (`None`: each chat) takes at most so many send and edit calls, chat actions and drafts included,
    /// within `window`. One more is answered 429, as are all until `retry_after` has passed: those are violations.
    pub fn flood(&self, chat: Option<i64>, calls: usize, window: Duration) {
        lock(&self.shared.faults).floods.push(Flood { chat, calls, window });
    }

    /// Calls made to a chat although its `retry_after` had not passed.
    pub fn flood_violations(&self) -> u64 {
        self.counters().flood_violations
    }

    /// `sendMessageDraft` is refused with `TEXTDRAFT_PEER_INVALID`.
    pub fn refuse_drafts(&self, refuse: bool) {
        self.shared.refuse_drafts.store(refuse, Ordering::Relaxed);
    }

    /// Every webhook delivery is accompanied by so many copies at the same moment.
    pub fn duplicate_deliveries(&self, copies: usize) {
        self.shared.duplicates.store(copies, Ordering::Relaxed);
    }

    /// Whether history is kept (the default). Off for benchmarks: calls and old messages are forgotten, counters go on.
    pub fn record(&self, on: bool) {
        self.shared.record.store(on, Ordering::Relaxed);
    }
}

/// What was seen.
impl FakeTelegram {
    /// All answered calls, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.log).calls.clone()
    }

    /// The calls of one method.
    pub fn calls_of(&self, method: &str) -> Vec<Call> {
        let log = lock(&self.shared.log);
        log.calls
            .iter()
            .filter(|call| call.method.eq_ignore_ascii_case(method))
            .cloned()
            .collect()
    }

    pub fn counters(&self) -> Counters {
        lock(&self.shared.log).counters.clone()
    }

    /// The messages of a chat as they stand now, deleted ones marked, in order of their ids.
    pub fn messages(&self, token: &str, chat: i64) -> Vec<Message> {
        let read = |state: &mut BotState| {
            state
                .chats
                .get(&chat)
                .map(|chat| chat.messages.values().cloned().collect())
        };
        self.read(token, read).unwrap_or_default()
    }

    /// Drafts shown in a chat, oldest first.
    pub fn drafts(&self, token: &str, chat: i64) -> Vec<Draft> {
        self.read(token, |state| state.chats.get(&chat).map(|chat| chat.drafts.clone()))
            .unwrap_or_default()
    }

    /// Chat actions shown in a chat, oldest first.
    pub fn chat_actions(&self, token: &str, chat: i64) -> Vec<String> {
        self.read(token, |state| state.chats.get(&chat).map(|chat| chat.actions.clone()))
            .unwrap_or_default()
    }

    /// How a button press was answered; `None` as long as it was not.
    pub fn callback_answer(&self, token: &str, query_id: &str) -> Option<CallbackAnswer> {
        self.read(token, |state| state.callbacks.get(query_id).cloned().flatten())
    }

    /// The highest offset asked for: all updates below it are confirmed. 0 at first.
    pub fn confirmed_offset(&self, token: &str) -> i64 {
        self.read(token, |state| state.confirmed_offset)
    }

    /// Ids of the updates that were neither confirmed nor accepted by a webhook.
    pub fn pending_updates(&self, token: &str) -> Vec<i64> {
        self.read(token, |state| state.updates.iter().map(|(id, _)| *id).collect())
    }

    /// Updates the bot did not get because their kind was not in its `allowed_updates`.
    pub fn updates_not_allowed(&self, token: &str) -> Vec<Value> {
        self.read(token, |state| state.not_allowed.clone())
    }

    /// The remembered `allowed_updates`; empty means Telegram's default.
    pub fn allowed_updates(&self, token: &str) -> Vec<String> {
        self.read(token, |state| state.allowed.clone())
    }

    /// How often the bot asked for `drop_pending_updates`; a bot that takes payments never may.
    pub fn pending_dropped(&self, token: &str) -> u64 {
        self.read(token, |state| state.pending_dropped)
    }

    /// getUpdates calls that are being held open now.
    pub fn polls_open(&self, token: &str) -> usize {
        self.read(token, |state| state.polling)
    }

    /// Where updates are posted to, if anywhere.
    pub fn webhook_url(&self, token: &str) -> Option<String> {
        self.read(token, |state| state.webhook.as_ref().map(|webhook| webhook.url.clone()))
    }

    /// Attempts to deliver by webhook, in the order they ended.
    pub fn deliveries(&self, token: &str) -> Vec<Delivery> {
        self.read(token, |state| state.deliveries.clone())
    }

    pub(crate) fn all_chats(&self) -> Vec<(String, i64)> {
        let bots: Vec<_> = {
            let bots = self.shared.bots.read().unwrap_or_else(PoisonError::into_inner);
            bots.iter()
                .map(|(token, bot)| (token.clone(), Arc::clone(bot)))
                .collect()
        };
        let chats = |bot: &Bot| lock(&bot.state).chats.keys().copied().collect::<Vec<_>>();
        bots.into_iter()
            .flat_map(|(token, bot)| chats(&bot).into_iter().map(move |id| (token.clone(), id)))
            .collect()
    }

    fn bot(&self, token: &str) -> Arc<Bot> {
        match self.shared.bot(token) {
            Some(bot) => bot,
            None => panic!("no bot with this token: call add_bot first"),
        }
    }

    fn read<T>(&self, token: &str, read: impl FnOnce(&mut BotState) -> T) -> T {
        read(&mut lock(&self.bot(token).state))
    }

    /// Changes a bot and wakes its polls, deliverers and those who wait.
    fn change<T>(&self, token: &str, change: impl FnOnce(&mut BotState) -> T) -> T {
        let bot = self.bot(token);
        let result = change(&mut lock(&bot.state));
        bot.news.send_replace(());
        self.shared.changed.send_replace(());
        result
    }
}
