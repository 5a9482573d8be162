//! What Telegram refuses in texts, entities and keyboards. Lengths and offsets are UTF-16 code units throughout.
//!
//! Facts: the Bot API's own documentation of `sendMessage`, `MessageEntity` and `InlineKeyboardButton`. Where Telegram would
//! silently repair (entities out of range, or nested in forbidden ways) the fake refuses: a bot should not rely on repairs.

use serde_json::Value;

use super::answer::Refusal;
use super::params::{Params, int_of};

pub(crate) const MAX_TEXT: usize = 4096;
pub(crate) const MAX_CAPTION: usize = 1024;

/// Inside any other and around any other, except code.
const STYLES: [&str; 5] = ["bold", "italic", "underline", "strikethrough", "spoiler"];
const QUOTES: [&str; 2] = ["blockquote", "expandable_blockquote"];
const CODE: [&str; 2] = ["pre", "code"];
const OTHERS: [&str; 11] = [
    "mention",
    "hashtag",
    "cashtag",
    "bot_command",
    "url",
    "email",
    "phone_number",
    "text_link",
    "text_mention",
    "custom_emoji",
    "date_time",
];

/// Kinds of buttons an inline keyboard may hold; each button is exactly one.
const BUTTON_KINDS: [&str; 11] = [
    "url",
    "callback_data",
    "web_app",
    "login_url",
    "switch_inline_query",
    "switch_inline_query_current_chat",
    "switch_inline_query_chosen_chat",
    "copy_text",
    "callback_game",
    "pay",
    "disabled",
];

pub(crate) fn utf16_len(text: &str) -> usize {
    text.encode_utf16().count()
}

/// A text that passed, as Telegram stores it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Formatted {
    pub(crate) text: String,
    pub(crate) entities: Vec<Value>,
}

/// The text of a message: 1–4096 code units, entities within.
pub(crate) fn message_text(params: &Params) -> Result<Formatted, Refusal> {
    let text = params.text("text").unwrap_or_default();
    if text.trim().is_empty() {
        return Err(Refusal::bad("message text is empty"));
    }
    if utf16_len(&text) > MAX_TEXT {
        return Err(Refusal::bad("message is too long"));
    }
    formatted(params, text, "entities")
}

/// The text of a draft: may be empty, which shows a placeholder.
pub(crate) fn draft_text(params: &Params) -> Result<Formatted, Refusal> {
    let text = params.text("text").unwrap_or_default();
    if utf16_len(&text) > MAX_TEXT {
        return Err(Refusal::bad("message is too long"));
    }
    formatted(params, text, "entities")
}

/// A caption: 0–1024 code units.
pub(crate) fn caption(params: &Params) -> Result<Formatted, Refusal> {
    let text = params.text("caption").unwrap_or_default();
    if utf16_len(&text) > MAX_CAPTION {
        return Err(Refusal::bad("message caption is too long"));
    }
    formatted(params, text, "caption_entities")
}

fn formatted(params: &Params, text: String, entities: &str) -> Result<Formatted, Refusal> {
    if let Some(mode) = params.text("parse_mode")
        && !["", "none", "html", "markdownv2"].contains(&mode.to_ascii_lowercase().as_str())
    {
        return Err(Refusal::bad("unsupported parse_mode"));
    }
    let entities = match params.get(entities) {
        None => Vec::new(),
        Some(Value::String(empty)) if empty.is_empty() => Vec::new(),
        Some(Value::Array(list)) => check_entities(&text, list)?,
        Some(_) => return Err(Refusal::bad("can't parse entities: expected an Array of MessageEntity")),
    };
    Ok(trimmed(text, entities))
}

/// Telegram drops white space at the end; entities shrink with it.
fn trimmed(mut text: String, mut entities: Vec<Value>) -> Formatted {
    text.truncate(text.trim_end().len());
    let end = utf16_len(&text);
    entities.retain_mut(|entity| {
        let (offset, length) = range(entity);
        entity["length"] = Value::from(length.min(end.saturating_sub(offset)));
        offset < end
    });
    Formatted { text, entities }
}

/// Offset and length of an entity that has passed.
fn range(entity: &Value) -> (usize, usize) {
    let number = |name: &str| {
        entity
            .get(name)
            .and_then(int_of)
            .and_then(|n| usize::try_from(n).ok())
            .unwrap_or(0)
    };
    (number("offset"), number("length"))
}

fn kind(entity: &Value) -> &str {
    entity.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Refuses unknown types, ranges outside of the text or through a surrogate pair, and forbidden nesting.
pub(crate) fn check_entities(text: &str, list: &[Value]) -> Result<Vec<Value>, Refusal> {
    let fail = |why: String| Refusal::bad(format!("can't parse entities: {why}"));
    let units: Vec<u16> = text.encode_utf16().collect();
    // A cut before this unit would halve a character.
    let halves = |at: usize| units.get(at).is_some_and(|unit| (0xDC00..0xE000).contains(unit));
    let mut entities = list.to_vec();
    for entity in &entities {
        let kind = kind(entity);
        if ![&STYLES[..], &QUOTES, &CODE, &OTHERS].concat().contains(&kind) {
            return Err(fail(format!("unsupported entity type \"{kind}\"")));
        }
        let (Some(offset), Some(length)) = (
            entity.get("offset").and_then(int_of),
            entity.get("length").and_then(int_of),
        ) else {
            return Err(fail("offset and length must be of type Number".into()));
        };
        let (Ok(start), Ok(length)) = (usize::try_from(offset), usize::try_from(length)) else {
            return Err(fail(format!(
                "entity has a negative offset or length at UTF-16 offset {offset}"
            )));
        };
        let end = start.saturating_add(length);
        if length == 0 {
            return Err(fail(format!("entity at UTF-16 offset {start} is empty")));
        }
        if end > units.len() {
            return Err(fail(format!(
                "entity beginning at UTF-16 offset {start} ends after the end of the text at UTF-16 offset {end}"
            )));
        }
        if halves(start) {
            return Err(fail(format!(
                "entity begins in a middle of a UTF-16 symbol at UTF-16 offset {start}"
            )));
        }
        if halves(end) {
            return Err(fail(format!(
                "entity ends in a middle of a UTF-16 symbol at UTF-16 offset {end}"
            )));
        }
        let needs = match kind {
            "text_link" => Some("url"),
            "text_mention" => Some("user"),
            "custom_emoji" => Some("custom_emoji_id"),
            "date_time" => Some("unix_time"),
            _ => None,
        };
        if let Some(field) = needs.filter(|field| entity.get(field).is_none()) {
            return Err(fail(format!(
                "{kind} at UTF-16 offset {start} lacks the field \"{field}\""
            )));
        }
    }
    // Outer before inner, so that a stack of the open ones tells what contains what.
    entities.sort_by_key(|entity| {
        let (offset, length) = range(entity);
        (offset, usize::MAX - length)
    });
    let mut open: Vec<&Value> = Vec::new();
    for entity in &entities {
        let (start, length) = range(entity);
        open.retain(|outer| range(outer).0 + range(outer).1 > start);
        for outer in &open {
            let (outer_start, outer_length) = range(outer);
            if start + length > outer_start + outer_length {
                return Err(fail(format!(
                    "entities at UTF-16 offsets {outer_start} and {start} overlap partly"
                )));
            }
            if !may_contain(kind(outer), kind(entity)) {
                return Err(fail(format!(
                    "{} at UTF-16 offset {start} can't be inside {} at UTF-16 offset {outer_start}",
                    kind(entity),
                    kind(outer)
                )));
            }
        }
        open.push(entity);
    }
    Ok(entities)
}

/// Bold and its like contain and are contained freely, except with code; quotes are not nested; the others exclude each other.
fn may_contain(outer: &str, inner: &str) -> bool {
    if CODE.contains(&outer) {
        return false;
    }
    if QUOTES.contains(&outer) {
        return !QUOTES.contains(&inner);
    }
    if CODE.contains(&inner) {
        return false;
    }
    STYLES.contains(&outer) || STYLES.contains(&inner)
}

/// A keyboard: inline ones are checked to the byte, other kinds only for their one telling field.
pub(crate) fn reply_markup(params: &Params, inline_only: bool) -> Result<Option<Value>, Refusal> {
    let markup = match params.get("reply_markup") {
        None => return Ok(None),
        Some(Value::String(empty)) if empty.is_empty() => return Ok(None),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(Refusal::bad("object expected as reply markup")),
    };
    let Some(rows) = markup.get("inline_keyboard") else {
        let other = ["keyboard", "remove_keyboard", "force_reply"]
            .iter()
            .any(|name| markup.contains_key(*name));
        if markup.is_empty() {
            return Ok(None);
        }
        if inline_only || !other {
            return Err(Refusal::bad("inline keyboard expected"));
        }
        return Ok(Some(Value::Object(markup.clone())));
    };
    let rows = rows
        .as_array()
        .ok_or_else(|| Refusal::bad("field \"inline_keyboard\" must be of type Array"))?;
    for row in rows {
        let row = row
            .as_array()
            .ok_or_else(|| Refusal::bad("field \"inline_keyboard\" must be an Array of Arrays"))?;
        for button in row {
            check_button(button)?;
        }
    }
    let buttons: usize = rows.iter().filter_map(Value::as_array).map(Vec::len).sum();
    if buttons > 100 {
        return Err(Refusal::bad("REPLY_MARKUP_TOO_LONG"));
    }
    // An empty keyboard is how a bot takes the keyboard away.
    Ok((buttons > 0).then(|| Value::Object(markup.clone())))
}

fn check_button(button: &Value) -> Result<(), Refusal> {
    let fail = |why: &str| Refusal::bad(format!("can't parse inline keyboard button: {why}"));
    let fields = button
        .as_object()
        .ok_or_else(|| fail("InlineKeyboardButton must be an Object"))?;
    if fields
        .get("text")
        .and_then(Value::as_str)
        .is_none_or(|text| text.trim().is_empty())
    {
        return Err(fail("field \"text\" must be a non-empty String"));
    }
    match BUTTON_KINDS.iter().filter(|name| fields.contains_key(**name)).count() {
        1 => {}
        0 => return Err(fail("Text buttons are unallowed in the inline keyboard")),
        _ => return Err(fail("exactly one of the optional fields must be used")),
    }
    if let Some(data) = fields.get("callback_data")
        && !data.as_str().is_some_and(|data| (1..=64).contains(&data.len()))
    {
        return Err(Refusal::bad("BUTTON_DATA_INVALID"));
    }
    Ok(())
}

/// The entities Telegram itself finds in what a person writes: commands, mentions and links that are words of their own.
pub(crate) fn entities_of(text: &str) -> Vec<Value> {
    let mut entities = Vec::new();
    let mut offset = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        let name_len = |rest: &str, more: &[char]| {
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || more.contains(&c)))
                .unwrap_or(rest.len())
        };
        let found = if let Some(rest) = bare.strip_prefix('/') {
            Some(("bot_command", 1 + name_len(rest, &['@'])))
        } else if let Some(rest) = bare.strip_prefix('@') {
            Some(("mention", 1 + name_len(rest, &[])))
        } else if bare.starts_with("https://") || bare.starts_with("http://") {
            Some(("url", utf16_len(bare)))
        } else {
            None
        };
        if let Some((kind, length)) = found.filter(|(_, length)| *length > 1) {
            entities.push(serde_json::json!({"type": kind, "offset": offset, "length": length}));
        }
        offset += utf16_len(word);
    }
    entities
}
