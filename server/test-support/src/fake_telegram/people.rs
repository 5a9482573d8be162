//! What people do: they make bots, write, press buttons and block.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::state::{Bot, BotState, Chat, Message, User, unix_now};
use super::{FakeTelegram, check, http, updates};
use crate::net::lock;

impl FakeTelegram {
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

    /// From now on all chats of the bot that are not supergroups number their messages in one row, as Telegram's do; before anybody
    /// has written.
    pub fn number_in_one_row(&self, token: &str) {
        self.change(token, |state| state.row = Some(Arc::new(AtomicI64::new(1))));
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
            let id = chat.next_id();
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

    /// A person is about to pay: the id of the question whether they may.
    pub fn check_out(&self, token: &str, user: &User) -> String {
        self.change(token, |state| {
            state.next_callback += 1;
            let id = format!("{}", 5_000_000_000 + state.next_callback);
            state.checkouts.insert(id.clone(), None);
            let query = json!({"id": id, "from": user.json(), "currency": "XTR", "total_amount": 100, "invoice_payload": "coffee"});
            self.enqueue(state, json!({"pre_checkout_query": query}));
            id
        })
    }

    /// A person presses the stop button under the draft that was shown last; false when there is none.
    pub fn press_stop(&self, token: &str, chat: i64) -> bool {
        self.change(token, |state| {
            let Some(chat) = state.chats.get(&chat) else {
                return false;
            };
            let Some(draft) = chat.drafts.last().filter(|draft| draft.can_stop) else {
                return false;
            };
            let stopped = json!({"chat": chat.json, "draft_id": draft.draft_id});
            self.enqueue(state, json!({"stopped_message_generation": stopped}));
            true
        })
    }

    /// Makes a private chat known without a message, as if the person had written long ago.
    pub fn open_chat(&self, token: &str, user: &User) {
        let mut chat = json!({"id": user.id, "type": "private", "first_name": user.first_name});
        if let Some(username) = &user.username {
            chat["username"] = json!(username);
        }
        self.change(token, |state| {
            let row = state.row.as_ref();
            let new = || Chat::new(user.id, chat, row);
            state.chats.entry(user.id).or_insert_with(new);
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
                .or_insert_with(|| Chat::new(chat_id, message["chat"].clone(), state.row.as_ref()));
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
