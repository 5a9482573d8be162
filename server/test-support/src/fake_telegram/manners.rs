//! Servers that are not Telegram's own: what they do not know, how they say so, and how they write what is absent.

use serde_json::{Map, Value};

use super::FakeTelegram;
use super::answer::Refusal;
use crate::net::lock;

/// How a server behaves; by default as Telegram's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// The methods it knows; `None`: all.
    pub only: Option<&'static [&'static str]>,
    pub unknown: Unknown,
    pub absent: Absent,
    /// It answers `getUpdates` at once, whether or not there is something.
    pub never_holds: bool,
}

/// How a method is refused that the server does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// As the Bot API refuses it.
    #[default]
    NotFound,
    /// With the page of a web server.
    Page,
    /// With JSON that is a framework's and not the Bot API's.
    Framework,
    NotImplemented,
    /// As if the token were wrong.
    Unauthorized,
    /// Never answered.
    Silence,
}

/// How fields are written that have no value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Absent {
    #[default]
    LeftOut,
    /// Every one of them, as `null`.
    Null,
    /// So is everything else that can be done without.
    AllButTheLeast,
}

impl FakeTelegram {
    /// From now on it behaves like another's server.
    pub fn manners(&self, manners: Manners) {
        *lock(&self.shared.manners) = manners;
    }
}

impl Manners {
    pub(crate) fn knows(&self, method: &str) -> bool {
        self.only.is_none_or(|only| only.contains(&method))
    }

    /// `None`: no answer at all.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        Some(match self.unknown {
            Unknown::NotFound => Refusal::new(404, "Not Found"),
            Unknown::Page => Refusal::html(404),
            Unknown::Framework => Refusal::foreign(404, "application/json", r#"{"detail":"Not Found"}"#),
            Unknown::NotImplemented => Refusal::new(501, "Not Implemented"),
            Unknown::Unauthorized => Refusal::new(401, "Unauthorized"),
            Unknown::Silence => return None,
        })
    }
}

/// What an object of the Bot API may have, told by the fields by which it is known; and what it must have.
struct Shape {
    known_by: &'static [&'static str],
    may: &'static [&'static str],
    must: &'static [&'static str],
}

const SHAPES: [Shape; 6] = [
    Shape {
        known_by: &["ok"],
        may: &["result", "error_code", "description", "parameters"],
        must: &["ok", "result"],
    },
    Shape {
        known_by: &["update_id"],
        may: &["message", "edited_message", "callback_query", "my_chat_member", "poll"],
        must: &["update_id", "message"],
    },
    Shape {
        known_by: &["message_id", "chat"],
        may: &[
            "from",
            "sender_chat",
            "message_thread_id",
            "is_topic_message",
            "media_group_id",
            "reply_to_message",
            "text",
            "caption",
            "entities",
            "caption_entities",
            "photo",
            "voice",
            "migrate_to_chat_id",
            "migrate_from_chat_id",
            "successful_payment",
            "link_preview_options",
        ],
        must: &["message_id", "chat", "from", "text"],
    },
    Shape {
        known_by: &["id", "is_bot"],
        may: &[
            "last_name",
            "username",
            "language_code",
            "can_join_groups",
            "can_read_all_group_messages",
            "supports_inline_queries",
        ],
        must: &["id"],
    },
    Shape {
        known_by: &["id", "type"],
        may: &["title", "username", "first_name", "last_name", "is_forum"],
        must: &["id"],
    },
    Shape {
        known_by: &["offset", "length"],
        may: &["url", "user", "language", "custom_emoji_id"],
        must: &["type", "offset", "length"],
    },
];

/// Writes an answer or an update in the way of another server.
pub(crate) fn write(absent: Absent, mut value: Value) -> Value {
    if absent != Absent::LeftOut {
        shape(absent, &mut value);
    }
    value
}

fn shape(absent: Absent, value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| shape(absent, item)),
        Value::Object(fields) => {
            let has = |fields: &Map<String, Value>, names: &[&str]| names.iter().all(|name| fields.contains_key(*name));
            let known = SHAPES.iter().find(|shape| has(fields, shape.known_by));
            for name in known.map_or(&[][..], |shape| shape.may) {
                if absent == Absent::Null {
                    fields.entry((*name).to_owned()).or_insert(Value::Null);
                }
            }
            if let Some(known) = known.filter(|_| absent == Absent::AllButTheLeast) {
                fields.retain(|name, _| known.must.contains(&name.as_str()));
            }
            fields.values_mut().for_each(|field| shape(absent, field));
        }
        _ => {}
    }
}
