//! From Telegram's update to what a handler wants to know.

use chrono::{DateTime, Utc};
use serde_json::Value;
use services::{BotRecord, Incoming};
use teloxide::types::{ChatMemberKind, Message, Update, UpdateKind};

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
pub fn event(bot: &BotRecord, update: &Value, received_at: DateTime<Utc>) -> Event {
    let Ok(update) = serde_json::from_value::<Update>(update.clone()) else {
        return Event::Ignored;
    };
    match update.kind {
        UpdateKind::Message(message) => message_event(bot, &message, received_at),
        UpdateKind::MyChatMember(change) => Event::Membership {
            chat_id: change.chat.id.0,
            closed: matches!(
                change.new_chat_member.kind,
                ChatMemberKind::Banned(_) | ChatMemberKind::Left
            ),
        },
        _ => Event::Ignored,
    }
}

fn message_event(bot: &BotRecord, message: &Message, received_at: DateTime<Utc>) -> Event {
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
    } else if is_content(message) {
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

/// Something a person sent, as opposed to a note about the chat itself.
fn is_content(message: &Message) -> bool {
    message.photo().is_some()
        || message.voice().is_some()
        || message.audio().is_some()
        || message.video().is_some()
        || message.video_note().is_some()
        || message.document().is_some()
        || message.sticker().is_some()
        || message.animation().is_some()
        || message.location().is_some()
        || message.contact().is_some()
        || message.poll().is_some()
}
