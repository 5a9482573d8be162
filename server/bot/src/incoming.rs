//! From Telegram's update to what a handler wants to know.

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::Value;
use services::{BotRecord, Incoming};
use teloxide::types::{ChatMemberKind, ChatMemberUpdated, Message};

use crate::texts::name as clean_name;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody wrote to the bot.
    Text(Incoming),
    /// Somebody sent what no handler understands yet: a picture, a voice message…
    Unsupported(Incoming),
    /// The bot was blocked or thrown out (`closed`), or let in again.
    Membership { chat_id: i64, closed: bool },
    /// Nothing for the bot: other people's talk in a group, service messages, kinds without a handler.
    Ignored,
}

/// Understands an update. What cannot be read is ignored: it is kept in the database as it came.
///
/// The parts are read one by one, since teloxide's `Update` reads nothing out of a `Value` (its `UpdateKind` takes the first key
/// twice).
pub fn event(bot: &BotRecord, update: &Value, received_at: DateTime<Utc>) -> Event {
    if let Some(message) = read::<Message>(update, "message") {
        return message_event(bot, &message, &update["message"], received_at);
    }
    match read::<ChatMemberUpdated>(update, "my_chat_member") {
        Some(change) => Event::Membership {
            chat_id: change.chat.id.0,
            closed: matches!(
                change.new_chat_member.kind,
                ChatMemberKind::Banned(_) | ChatMemberKind::Left
            ),
        },
        None => Event::Ignored,
    }
}

fn read<T: DeserializeOwned>(update: &Value, field: &str) -> Option<T> {
    let value = update.get(field)?;
    // Not the error itself: it may quote what somebody wrote.
    T::deserialize(value)
        .inspect_err(|_| {
            tracing::warn!(
                update.kind = field,
                "An update of kind {field} could not be read and is skipped"
            );
        })
        .ok()
}

fn message_event(bot: &BotRecord, message: &Message, raw: &Value, received_at: DateTime<Utc>) -> Event {
    let Some(from) = message.from.as_ref().filter(|from| !from.is_bot) else {
        return Event::Ignored;
    };
    if !message.chat.is_private() && !addresses(bot, message) {
        return Event::Ignored;
    }
    let text = message.text().or_else(|| message.caption());
    let incoming = Incoming {
        bot: bot.id,
        transport: bot.transport,
        user_external_id: i64::try_from(from.id.0).unwrap_or(i64::MAX),
        user_name: clean_name(&from.full_name()),
        username: from.username.clone(),
        language: from.language_code.clone(),
        chat_external_id: message.chat.id.0,
        chat_kind: kind(message).to_owned(),
        chat_title: clean_name(
            message
                .chat
                .title()
                .map_or_else(|| from.full_name(), str::to_owned)
                .as_str(),
        ),
        thread_id: topic(message),
        message_id: i64::from(message.id.0),
        text: text.unwrap_or_default().to_owned(),
        received_at,
    };
    if message.text().is_some() {
        Event::Text(incoming)
    } else if is_content(raw) {
        Event::Unsupported(incoming)
    } else {
        Event::Ignored
    }
}

fn kind(message: &Message) -> &'static str {
    if message.chat.is_private() {
        "private"
    } else if message.chat.is_supergroup() {
        "supergroup"
    } else if message.chat.is_group() {
        "group"
    } else {
        "channel"
    }
}

fn topic(message: &Message) -> i64 {
    message
        .thread_id
        .filter(|_| message.is_topic_message)
        .map_or(0, |thread| i64::from(thread.0.0))
}

/// In a group the bot is meant by a command, its @name, or a reply to it.
fn addresses(bot: &BotRecord, message: &Message) -> bool {
    let Some(username) = bot.username.as_deref() else {
        return false;
    };
    let text = message.text().unwrap_or_default();
    let replied = message
        .reply_to_message()
        .and_then(|original| original.from.as_ref())
        .and_then(|from| from.username.as_deref());
    if replied.is_some_and(|name| name.eq_ignore_ascii_case(username)) {
        return true;
    }
    let mention = format!("@{username}");
    if let Some(command) = text.strip_prefix('/').and_then(|rest| rest.split_whitespace().next()) {
        return command
            .split_once('@')
            .is_none_or(|(_, name)| name.eq_ignore_ascii_case(username));
    }
    text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '@'))
        .any(|word| word.eq_ignore_ascii_case(&mention))
}

/// What a person can send beside text, as opposed to notes about the chat itself.
const CONTENT: &[&str] = &[
    "animation",
    "audio",
    "checklist",
    "contact",
    "dice",
    "document",
    "game",
    "location",
    "paid_media",
    "photo",
    "poll",
    "sticker",
    "story",
    "venue",
    "video",
    "video_note",
    "voice",
];

/// Looks at the raw message: teloxide reads nothing at all of a voice message without its optional `mime_type`, nor of kinds newer
/// than itself, and who sends one is to be answered all the same.
fn is_content(message: &Value) -> bool {
    CONTENT.iter().any(|kind| message.get(*kind).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bot() -> BotRecord {
        BotRecord {
            id: domain::BotId(uuid::Uuid::nil()),
            transport: domain::views::BotTransport::Telegram,
            name: "Deck".into(),
            username: Some("deck_bot".into()),
            mode: domain::views::IntakeMode::Polling,
            enabled: true,
            token: None,
            persona: String::new(),
            model: None,
        }
    }

    fn update(chat: Value, text: &str) -> Value {
        json!({ "update_id": 1, "message": {
            "message_id": 5, "date": 1_795_378_000, "chat": chat, "text": text, "entities": [],
            "from": { "id": 77, "is_bot": false, "first_name": "Anna", "language_code": "ru" },
        }})
    }

    fn at() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    #[test]
    fn a_private_text_is_understood() {
        let event = event(
            &bot(),
            &update(json!({"id": 77, "type": "private", "first_name": "Anna"}), "hello"),
            at(),
        );
        let Event::Text(incoming) = event else {
            panic!("{event:?}")
        };
        assert_eq!(
            (incoming.text.as_str(), incoming.chat_kind.as_str(), incoming.message_id),
            ("hello", "private", 5)
        );
        assert_eq!(incoming.language.as_deref(), Some("ru"));
    }

    #[test]
    fn in_a_group_only_what_is_meant_for_the_bot_is_heard() {
        let group = || json!({"id": -100, "type": "supergroup", "title": "Friends"});
        for (text, heard) in [
            ("hello all", false),
            ("hello @deck_bot", true),
            ("hello @deck_bot_2", false),
            ("/help", true),
            ("/help@deck_bot", true),
            ("/help@other_bot", false),
        ] {
            let event = event(&bot(), &update(group(), text), at());
            assert_eq!(matches!(event, Event::Text(_)), heard, "{text}");
        }
    }

    #[test]
    fn content_of_every_kind_is_noticed_and_notes_are_not() {
        let mut update = update(json!({"id": 77, "type": "private", "first_name": "Anna"}), "");
        let message = update["message"].as_object_mut().unwrap();
        message.remove("text");
        message.remove("entities");
        for (kind, body) in [
            ("voice", json!({"file_id": "v", "file_unique_id": "v", "duration": 3})),
            ("hologram", json!({})),
            ("dice", json!({"emoji": "x", "value": 70})),
        ] {
            let mut update = update.clone();
            update["message"][kind] = body;
            let noticed = matches!(event(&bot(), &update, at()), Event::Unsupported(_));
            assert_eq!(noticed, kind != "hologram", "{kind}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_ignored() {
        assert!(matches!(
            event(&bot(), &json!({"update_id": 1, "novelty": {"x": 1}}), at()),
            Event::Ignored
        ));
        assert!(matches!(
            event(&bot(), &json!({"update_id": 1, "message": {"x": 1}}), at()),
            Event::Ignored
        ));
    }
}
