//! The methods that make, change and delete messages.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::check;
use super::params::{Params, int_of};
use super::state::{Bot, BotState, Chat, Draft, FileInfo, Message, Shared, unix_now};
use crate::net::lock;

/// The chat to write to: known, and not blocked by its person.
fn open_chat<'a>(state: &'a mut BotState, params: &Params) -> Result<&'a mut Chat, Refusal> {
    let id = params.get("chat_id").ok_or_else(|| Refusal::bad("chat_id is empty"))?;
    let chat = int_of(id)
        .and_then(|id| state.chats.get_mut(&id))
        .ok_or_else(|| Refusal::bad("chat not found"))?;
    match chat.blocked {
        true if chat.is_private() => Err(Refusal::new(403, "Forbidden: bot was blocked by the user")),
        true => Err(Refusal::new(403, "Forbidden: bot was kicked from the group chat")),
        false => Ok(chat),
    }
}

/// The message replied to, checked to exist unless the bot said it does not matter.
fn reply_to(chat: &mut Chat, params: &Params) -> Result<Option<i64>, Refusal> {
    let (id, lenient) = match params.get("reply_parameters") {
        None => (
            params.int("reply_to_message_id"),
            params.flag("allow_sending_without_reply"),
        ),
        Some(reply) => {
            let id = reply.get("message_id").and_then(int_of);
            let id = id.ok_or_else(|| Refusal::bad("can't parse reply parameters: \"message_id\" is missing"))?;
            (
                Some(id),
                reply
                    .get("allow_sending_without_reply")
                    .and_then(Value::as_bool)
                    .unwrap_or(false),
            )
        }
    };
    match id {
        Some(id) if chat.message(id).is_some() => Ok(Some(id)),
        Some(_) if !lenient => Err(Refusal::bad("message to be replied not found")),
        _ => Ok(None),
    }
}

/// Puts a new message of the bot into its chat and returns its JSON.
fn store(shared: &Shared, bot: &Bot, params: &Params, new: NewMessage) -> Answer {
    let mut state = lock(&bot.state);
    let chat = open_chat(&mut state, params)?;
    let reply_to = reply_to(chat, params)?;
    let mut raw = json!({"from": bot.user_json(), "chat": chat.json});
    if let Some(thread) = params.int("message_thread_id") {
        raw["message_thread_id"] = json!(thread);
    }
    if let Some(id) = reply_to
        && let Some(replied) = chat.message(id)
    {
        let mut replied = replied.json();
        if let Some(fields) = replied.as_object_mut() {
            fields.remove("reply_to_message");
        }
        raw["reply_to_message"] = replied;
    }
    if let Some((name, media)) = new.media {
        raw[name] = media;
    }
    let message = Message {
        id: chat.next_id(),
        chat: chat.id,
        from_bot: true,
        date: unix_now(),
        text: new.content.text,
        entities: new.content.entities,
        reply_markup: new.markup,
        reply_to,
        file: new.file,
        edits: Vec::new(),
        edit_count: 0,
        deleted: false,
        raw,
    };
    let answer = message.json();
    shared.announce(&message);
    chat.insert(message, shared.records());
    drop(state);
    lock(&shared.log).counters.sent += 1;
    Ok(answer.into())
}

struct NewMessage {
    content: check::Formatted,
    markup: Option<Value>,
    file: Option<FileInfo>,
    media: Option<(&'static str, Value)>,
}

pub(crate) fn send_message(shared: &Shared, bot: &Bot, params: &Params) -> Answer {
    let content = check::message_text(params)?;
    let markup = check::reply_markup(params, false)?;
    store(
        shared,
        bot,
        params,
        NewMessage {
            content,
            markup,
            file: None,
            media: None,
        },
    )
}

/// `sendPhoto` and `sendDocument`: a file in the form, `attach://` a part of it, a file id, or an address.
pub(crate) fn send_file(shared: &Shared, bot: &Bot, params: &Params, field: &'static str) -> Answer {
    let content = check::caption(params)?;
    let markup = check::reply_markup(params, false)?;
    let given = params.text(field).filter(|text| !text.is_empty());
    let part = given
        .as_deref()
        .and_then(|text| text.strip_prefix("attach://"))
        .unwrap_or(field);
    let file = match (params.files.iter().find(|file| file.field == part), given) {
        (Some(file), _) => file.clone(),
        (None, Some(id)) if !id.starts_with("attach://") => FileInfo {
            field: field.to_owned(),
            file_name: Some(id),
            mime: None,
            bytes: 1,
        },
        _ => return Err(Refusal::bad(format!("there is no {field} in the request"))),
    };
    if file.bytes == 0 {
        return Err(Refusal::bad("file must be non-empty"));
    }
    if field == "photo" && file.bytes > 10 * 1024 * 1024 {
        return Err(Refusal::bad(format!(
            "file of size {} bytes is too big for a photo",
            file.bytes
        )));
    }
    let id = format!("{field}-{}", shared.started.elapsed().as_nanos());
    let described = json!({"file_id": id, "file_unique_id": id, "file_size": file.bytes});
    let media = if field == "photo" {
        let mut size = described;
        size["width"] = json!(512);
        size["height"] = json!(512);
        json!([size])
    } else {
        let mut document = described;
        document["file_name"] = json!(file.file_name);
        document["mime_type"] = json!(file.mime);
        document
    };
    store(
        shared,
        bot,
        params,
        NewMessage {
            content,
            markup,
            file: Some(file),
            media: Some((field, media)),
        },
    )
}

/// The bot's own message that is to be edited.
fn editable<'a>(chat: &'a mut Chat, params: &Params) -> Result<&'a mut Message, Refusal> {
    let id = params
        .int("message_id")
        .ok_or_else(|| Refusal::bad("message identifier is not specified"))?;
    let message = chat
        .message(id)
        .ok_or_else(|| Refusal::bad("message to edit not found"))?;
    if message.from_bot {
        Ok(message)
    } else {
        Err(Refusal::bad("message can't be edited"))
    }
}

fn not_modified() -> Refusal {
    Refusal::bad(
        "message is not modified: specified new message content and reply markup are exactly the same as a current content \
         and reply markup of the message",
    )
}

pub(crate) fn edit_text(shared: &Shared, bot: &Bot, params: &Params) -> Answer {
    let content = check::message_text(params)?;
    edit_content(shared, bot, params, content, |message| match message.file {
        None => Ok(()),
        Some(_) => Err(Refusal::bad("there is no text in the message to edit")),
    })
}

pub(crate) fn edit_caption(shared: &Shared, bot: &Bot, params: &Params) -> Answer {
    let content = check::caption(params)?;
    edit_content(shared, bot, params, content, |message| match message.file {
        Some(_) => Ok(()),
        None => Err(Refusal::bad("there is no caption in the message to edit")),
    })
}

fn edit_content(
    shared: &Shared,
    bot: &Bot,
    params: &Params,
    content: check::Formatted,
    fits: impl Fn(&Message) -> Result<(), Refusal>,
) -> Answer {
    let markup = check::reply_markup(params, true)?;
    let mut state = lock(&bot.state);
    let message = editable(open_chat(&mut state, params)?, params)?;
    fits(message)?;
    if message.text == content.text && message.entities == content.entities && message.reply_markup == markup {
        return Err(not_modified());
    }
    let before = std::mem::replace(&mut message.text, content.text);
    if shared.records() {
        message.edits.push(before);
    }
    message.entities = content.entities;
    message.reply_markup = markup;
    message.edit_count += 1;
    shared.announce(message);
    Ok(message.json().into())
}

pub(crate) fn edit_reply_markup(bot: &Bot, params: &Params) -> Answer {
    let markup = check::reply_markup(params, true)?;
    let mut state = lock(&bot.state);
    let message = editable(open_chat(&mut state, params)?, params)?;
    if message.reply_markup == markup {
        return Err(not_modified());
    }
    message.reply_markup = markup;
    message.edit_count += 1;
    Ok(message.json().into())
}

/// In a private chat a bot may delete the messages of both sides, elsewhere its own.
pub(crate) fn delete_message(bot: &Bot, params: &Params) -> Answer {
    let mut state = lock(&bot.state);
    let chat = open_chat(&mut state, params)?;
    let private = chat.is_private();
    let id = params
        .int("message_id")
        .ok_or_else(|| Refusal::bad("message identifier is not specified"))?;
    let message = chat
        .message(id)
        .ok_or_else(|| Refusal::bad("message to delete not found"))?;
    if !private && !message.from_bot {
        return Err(Refusal::bad("message can't be deleted"));
    }
    message.deleted = true;
    Ok(json!(true).into())
}

/// A preview in a private chat. Refused chats answer `TEXTDRAFT_PEER_INVALID`, as Telegram does.
pub(crate) fn send_draft(shared: &Shared, bot: &Bot, params: &Params, refused: bool) -> Answer {
    let content = check::draft_text(params)?;
    let draft_id = params.int("draft_id").unwrap_or(0);
    if draft_id == 0 {
        return Err(Refusal::bad("draft identifier must be non-zero"));
    }
    let mut state = lock(&bot.state);
    let chat = open_chat(&mut state, params)?;
    if refused || !chat.is_private() {
        return Err(Refusal::bad("TEXTDRAFT_PEER_INVALID"));
    }
    if shared.records() {
        chat.drafts.push(Draft {
            draft_id,
            text: content.text,
            entities: content.entities,
            can_stop: params.flag("can_stop"),
            at: SystemTime::now(),
        });
    }
    Ok(json!(true).into())
}

/// Kinds from the documentation of `sendChatAction`.
const ACTIONS: [&str; 11] = [
    "typing",
    "upload_photo",
    "record_video",
    "upload_video",
    "record_voice",
    "upload_voice",
    "upload_document",
    "choose_sticker",
    "find_location",
    "record_video_note",
    "upload_video_note",
];

pub(crate) fn send_chat_action(shared: &Shared, bot: &Bot, params: &Params) -> Answer {
    let action = params.text("action").unwrap_or_default();
    if !ACTIONS.contains(&action.as_str()) {
        return Err(Refusal::bad("wrong parameter action in request"));
    }
    let mut state = lock(&bot.state);
    let chat = open_chat(&mut state, params)?;
    if shared.records() {
        chat.actions.push(action);
    }
    Ok(json!(true).into())
}
