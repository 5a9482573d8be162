//! From Telegram's updates to what a handler wants to know.

mod message;

use chrono::{DateTime, Utc};
use message::Message;
use serde::de::DeserializeOwned;
use serde_json::Value;
use services::{BotRecord, Incoming};
use teloxide::types::{ChatMemberKind, ChatMemberUpdated};

use crate::{lenient::without_nulls, texts::name as clean_name};

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody wrote to the bot.
    Text(Incoming),
    /// Somebody sent what no handler understands yet: a picture, a voice message…
    Unsupported(Incoming),
    /// Somebody changed a text that may or may not have been for the bot.
    Edited(Incoming),
    /// The bot was blocked or thrown out (`closed`), or let in again.
    Membership { chat_id: i64, closed: bool },
    /// A group has become a supergroup.
    Moved { from: i64, to: i64 },
    /// Nothing for the bot: other people's talk in a group, service messages, kinds without a handler.
    Ignored,
}

/// Understands an update. What cannot be read is ignored: it is kept in the database as it came.
pub fn event(bot: &BotRecord, update: &Value, received_at: DateTime<Utc>) -> Event {
    gathered(bot, &[update], received_at)
}

/// Understands updates that are one request, such as the parts of an album: their texts one below the other, in the order in
/// which they were sent. In a group the whole is meant for the bot when one of them is.
pub fn gathered(bot: &BotRecord, updates: &[&Value], received_at: DateTime<Utc>) -> Event {
    let mut pieces: Vec<Piece> = updates
        .iter()
        .filter_map(|update| Piece::read(bot, update, "message", received_at))
        .collect();
    pieces.sort_by_key(|piece| piece.incoming.message_id);
    let Some(last) = pieces.last() else {
        return updates
            .first()
            .map_or(Event::Ignored, |update| other(bot, update, received_at));
    };
    if !pieces.iter().any(|piece| piece.is_meant) {
        return Event::Ignored;
    }
    let incoming = Incoming {
        text: joined(&pieces),
        // The answer comes after the last part.
        ..last.incoming.clone()
    };
    if pieces.iter().any(|piece| piece.is_text) {
        Event::Text(incoming)
    } else if pieces.iter().any(|piece| piece.is_content) {
        Event::Unsupported(incoming)
    } else {
        Event::Ignored
    }
}

fn joined(pieces: &[Piece]) -> String {
    let texts = pieces.iter().map(|piece| piece.incoming.text.as_str());
    texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The text of a request whose messages are given in their newest versions: what a model is asked.
pub fn text_now(bot: &BotRecord, updates: &[Value]) -> String {
    let mut pieces: Vec<Piece> = updates
        .iter()
        .filter_map(|update| {
            let field = ["message", "edited_message"]
                .into_iter()
                .find(|field| !update[*field].is_null())?;
            Piece::read(bot, update, field, DateTime::UNIX_EPOCH)
        })
        .collect();
    pieces.sort_by_key(|piece| piece.incoming.message_id);
    joined(&pieces)
}

/// When a message was sent, or edited, by Telegram's clock.
pub fn sent_at(update: &Value) -> Option<DateTime<Utc>> {
    let seconds = update["message"]["date"]
        .as_i64()
        .or_else(|| update["edited_message"]["edit_date"].as_i64())?;
    DateTime::from_timestamp(seconds, 0)
}

fn other(bot: &BotRecord, update: &Value, received_at: DateTime<Utc>) -> Event {
    if let Some((from, to)) = moved(&update["message"]) {
        return Event::Moved { from, to };
    }
    if let Some(piece) = Piece::read(bot, update, "edited_message", received_at) {
        return if piece.is_text {
            Event::Edited(piece.incoming)
        } else {
            Event::Ignored
        };
    }
    // Its type is teloxide's, which takes a `null` for a fault.
    match read::<ChatMemberUpdated>(&without_nulls(update), "my_chat_member") {
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

/// Telegram says it twice: in the group that was, and in the supergroup that is.
fn moved(message: &Value) -> Option<(i64, i64)> {
    let chat = message["chat"]["id"].as_i64()?;
    let to = message["migrate_to_chat_id"].as_i64().map(|to| (chat, to));
    to.or_else(|| Some((message["migrate_from_chat_id"].as_i64()?, chat)))
}

fn read<T: DeserializeOwned>(update: &Value, field: &str) -> Option<T> {
    let value = update.get(field).filter(|value| !value.is_null())?;
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

/// One message of a person.
struct Piece {
    incoming: Incoming,
    is_text: bool,
    is_content: bool,
    /// For the bot.
    is_meant: bool,
}

impl Piece {
    fn read(bot: &BotRecord, update: &Value, field: &str, received_at: DateTime<Utc>) -> Option<Self> {
        let raw = update.get(field)?;
        if moved(raw).is_some() {
            return None;
        }
        let message: Message = read(update, field)?;
        let from = message.from.as_ref()?;
        // Who writes in the name of a group or channel is shown as a bot of Telegram's, the same for all; other bots are not heard.
        let (sender, full_name) = match &message.sender_chat {
            Some(chat) if from.is_bot => (chat.id, chat.title.clone().unwrap_or_default()),
            _ if from.is_bot => return None,
            _ => (from.id, from.full_name()),
        };
        let kind = message.chat.known_kind()?;
        let private = kind == "private";
        let is_meant = private || message.is_for(bot);
        let text = if private {
            message.text_or_caption().to_owned()
        } else {
            message.text_without_mention(bot)
        };
        let incoming = Incoming {
            bot: bot.id,
            transport: bot.transport,
            user_external_id: sender,
            user_name: clean_name(&full_name),
            username: from.username.clone().filter(|_| !from.is_bot),
            language: from.language_code.clone(),
            chat_external_id: message.chat.id,
            chat_kind: kind.to_owned(),
            chat_title: clean_name(message.chat.title.as_deref().unwrap_or(&full_name)),
            thread_id: message.topic(),
            message_id: message.message_id,
            text,
            received_at,
            replaces: None,
        };
        Some(Self {
            incoming,
            is_text: message.text.is_some(),
            is_content: is_content(raw),
            is_meant,
        })
    }
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

fn is_content(message: &Value) -> bool {
    CONTENT.iter().any(|kind| !message[*kind].is_null())
}

#[cfg(test)]
mod tests;
