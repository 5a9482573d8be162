//! More of what people do: albums, second thoughts, and groups.

use std::sync::PoisonError;

use serde_json::{Value, json};

use super::state::{Chat, User, unix_now};
use super::{FakeTelegram, check};

/// A group, or one topic of a forum.
#[derive(Clone, Debug)]
pub struct Group {
    pub id: i64,
    pub title: String,
    /// `message_thread_id` of the topic.
    pub topic: Option<i64>,
}

impl Group {
    pub fn new(id: i64, title: &str) -> Self {
        Self {
            id,
            title: title.to_owned(),
            topic: None,
        }
    }

    pub fn topic(&self, topic: i64) -> Self {
        Self {
            topic: Some(topic),
            ..self.clone()
        }
    }

    /// As it stands in messages; ids of supergroups begin with -100.
    pub fn json(&self) -> Value {
        let kind = if self.id <= -1_000_000_000 {
            "supergroup"
        } else {
            "group"
        };
        json!({"id": self.id, "type": kind, "title": self.title, "is_forum": self.topic.is_some()})
    }
}

impl FakeTelegram {
    /// @BotFather gives a bot another token; the one before is not known any more. Its chats and what waits for it stay.
    pub fn renew_token(&self, before: &str, now: &str) {
        self.change(before, |state| state.revoked = false);
        let mut bots = self.shared.bots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(bot) = bots.remove(before) {
            bots.insert(now.to_owned(), bot);
        }
    }

    /// The id that the next message of the chat gets.
    pub fn next_message_id(&self, token: &str, chat: i64) -> i64 {
        self.change(token, |state| state.chats.get(&chat).map_or(1, Chat::next_id))
    }

    /// A person sends pictures in one go: as many messages with one `media_group_id`. Returns their ids.
    pub fn send_album(&self, token: &str, user: &User, captions: &[Option<&str>]) -> Vec<i64> {
        self.open_chat(token, user);
        let album = format!("{}", 13_000_000_000_000_000 + self.next_message_id(token, user.id));
        let send = |caption: &Option<&str>| self.send_picture(token, user, &album, *caption);
        captions.iter().map(send).collect()
    }

    /// One picture of an album. Returns its id.
    pub fn send_picture(&self, token: &str, user: &User, album: &str, caption: Option<&str>) -> i64 {
        self.open_chat(token, user);
        let id = self.next_message_id(token, user.id);
        let chat = json!({"id": user.id, "type": "private", "first_name": user.first_name});
        let size = json!({"file_id": format!("p{id}"), "file_unique_id": format!("u{id}"), "width": 90, "height": 90});
        let mut message = json!({
            "message_id": id, "from": user.json(), "chat": chat, "date": unix_now(),
            "media_group_id": album, "photo": [size],
        });
        if let Some(caption) = caption {
            message["caption"] = json!(caption);
        }
        self.push_update(token, json!({"message": message}));
        id
    }

    /// A person changes what they wrote in private; the same text stands for a change that nobody made on purpose.
    pub fn edit_text(&self, token: &str, user: &User, message_id: i64, text: &str) {
        let chat = json!({"id": user.id, "type": "private", "first_name": user.first_name});
        let mut message = json!({
            "message_id": message_id, "from": user.json(), "chat": chat, "date": unix_now(), "edit_date": unix_now(),
            "text": text,
        });
        with_entities(&mut message, text);
        self.push_update(token, json!({"edited_message": message}));
    }

    /// A person writes in a group, with the entities that Telegram's apps add. Returns the message's id.
    pub fn send_in_group(&self, token: &str, group: &Group, user: &User, text: &str) -> i64 {
        self.send_in_group_with(token, group, user, text, json!({}))
    }

    /// The same with more fields, such as `reply_to_message`.
    pub fn send_in_group_with(&self, token: &str, group: &Group, user: &User, text: &str, more: Value) -> i64 {
        let id = self.next_message_id(token, group.id);
        let mut message = json!({
            "message_id": id, "from": user.json(), "chat": group.json(), "date": unix_now(), "text": text,
        });
        with_entities(&mut message, text);
        if let Some(topic) = group.topic {
            message["message_thread_id"] = json!(topic);
            message["is_topic_message"] = json!(true);
        }
        if let (Some(message), Value::Object(more)) = (message.as_object_mut(), more) {
            message.extend(more);
        }
        self.push_update(token, json!({"message": message}));
        id
    }
}

fn with_entities(message: &mut Value, text: &str) {
    let entities = check::entities_of(text);
    if !entities.is_empty() {
        message["entities"] = json!(entities);
    }
}
