//! What of a message must be known, read leniently, and whether it is for the bot.
//!
//! Not teloxide's `Message`: that reads nothing at all of a text with an entity newer than itself, nor of a voice message without
//! its optional `mime_type`, and who sent one is to be answered all the same.

use std::ops::Range;

use secrecy::ExposeSecret;
use serde::Deserialize;
use services::BotRecord;

use crate::lenient::null_is_absent;

#[derive(Debug, Deserialize)]
pub(super) struct Message {
    pub message_id: i64,
    pub from: Option<Person>,
    /// In whose name it was written: a group's of which the sender is an anonymous administrator, or a channel's.
    pub sender_chat: Option<Chat>,
    pub chat: Chat,
    message_thread_id: Option<i64>,
    #[serde(default, deserialize_with = "null_is_absent")]
    is_topic_message: bool,
    pub text: Option<String>,
    caption: Option<String>,
    #[serde(default, deserialize_with = "null_is_absent")]
    entities: Vec<Entity>,
    #[serde(default, deserialize_with = "null_is_absent")]
    caption_entities: Vec<Entity>,
    reply_to_message: Option<Original>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Person {
    pub id: i64,
    #[serde(default, deserialize_with = "null_is_absent")]
    pub is_bot: bool,
    #[serde(default, deserialize_with = "null_is_absent")]
    first_name: String,
    last_name: Option<String>,
    pub username: Option<String>,
    pub language_code: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Chat {
    pub id: i64,
    #[serde(rename = "type")]
    kind: Option<String>,
    pub title: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Original {
    from: Option<Person>,
}

/// Offset and length in UTF-16 units.
#[derive(Debug, Deserialize)]
struct Entity {
    #[serde(rename = "type", default, deserialize_with = "null_is_absent")]
    kind: String,
    #[serde(default, deserialize_with = "null_is_absent")]
    offset: usize,
    #[serde(default, deserialize_with = "null_is_absent")]
    length: usize,
    /// Of a `text_mention`.
    user: Option<Person>,
}

impl Person {
    pub fn full_name(&self) -> String {
        match &self.last_name {
            Some(last) => format!("{} {last}", self.first_name),
            None => self.first_name.clone(),
        }
    }

    fn is(&self, bot: &BotRecord) -> bool {
        let named = |name: &str| {
            bot.username
                .as_deref()
                .is_some_and(|own| own.eq_ignore_ascii_case(name))
        };
        own_id(bot) == Some(self.id) || self.username.as_deref().is_some_and(named)
    }
}

/// The number before the token's colon.
fn own_id(bot: &BotRecord) -> Option<i64> {
    bot.token.as_ref()?.expose_secret().split(':').next()?.parse().ok()
}

impl Chat {
    /// `None`: of a kind that does not exist yet. Where it is left out the id tells: those of people are above zero.
    pub fn known_kind(&self) -> Option<&'static str> {
        let Some(kind) = &self.kind else {
            return Some(if self.id > 0 { "private" } else { "group" });
        };
        let kinds = ["private", "group", "supergroup", "channel"];
        kinds.into_iter().find(|known| known == kind)
    }
}

impl Message {
    pub fn text_or_caption(&self) -> &str {
        self.text.as_deref().or(self.caption.as_deref()).unwrap_or_default()
    }

    fn entities(&self) -> &[Entity] {
        if self.text.is_some() {
            &self.entities
        } else {
            &self.caption_entities
        }
    }

    /// The topic; replies in ordinary groups carry a thread id too, but are no topics.
    pub fn topic(&self) -> i64 {
        self.message_thread_id.filter(|_| self.is_topic_message).unwrap_or(0)
    }

    /// Whether a message in a group is for the bot: a command, unless it is another bot's; a reply to the bot; or a mention of it.
    pub fn is_for(&self, bot: &BotRecord) -> bool {
        if let Some(command) = self.command() {
            return match command.split_once('@') {
                Some((_, whose)) => is_name(bot, whose),
                None => true,
            };
        }
        let original = self.reply_to_message.as_ref().and_then(|message| message.from.as_ref());
        original.is_some_and(|from| from.is(bot)) || !self.mentions(bot).is_empty() || self.commands_inside(bot)
    }

    /// The command with which it begins, without the slash.
    fn command(&self) -> Option<&str> {
        let text = self.text_or_caption();
        let entities = self.entities();
        if entities.is_empty() {
            return text.strip_prefix('/')?.split_whitespace().next();
        }
        let entity = entities
            .iter()
            .find(|entity| entity.kind == "bot_command" && entity.offset == 0)?;
        text.get(entity.range(text)?)?.strip_prefix('/')
    }

    /// `/command@bot` anywhere.
    fn commands_inside(&self, bot: &BotRecord) -> bool {
        let text = self.text_or_caption();
        let commands = self.entities().iter().filter(|entity| entity.kind == "bot_command");
        commands
            .filter_map(|entity| text.get(entity.range(text)?)?.split_once('@'))
            .any(|(_, whose)| is_name(bot, whose))
    }

    /// Where the bot is mentioned, in order. A text without entities is searched for words, since some servers leave them out.
    fn mentions(&self, bot: &BotRecord) -> Vec<Range<usize>> {
        let text = self.text_or_caption();
        let is_mention = |range: &Range<usize>| {
            text.get(range.clone())
                .and_then(|word| word.strip_prefix('@'))
                .is_some_and(|name| is_name(bot, name))
        };
        if self.entities().is_empty() {
            return words(text).filter(is_mention).collect();
        }
        let mut found: Vec<Range<usize>> = self
            .entities()
            .iter()
            .filter_map(|entity| {
                let range = entity.range(text)?;
                let meant = match entity.kind.as_str() {
                    "mention" => is_mention(&range),
                    "text_mention" => entity.user.as_ref().is_some_and(|user| user.is(bot)),
                    _ => false,
                };
                meant.then_some(range)
            })
            .collect();
        found.sort_by_key(|range| range.start);
        found
    }

    /// What is left when the bot is no longer called by its name.
    pub fn text_without_mention(&self, bot: &BotRecord) -> String {
        let mut text = self.text_or_caption().to_owned();
        // From the end, so that the places before stay where they are.
        for range in self.mentions(bot).into_iter().rev() {
            text = cut(&text, range);
        }
        text
    }
}

fn is_name(bot: &BotRecord, name: &str) -> bool {
    bot.username
        .as_deref()
        .is_some_and(|own| own.eq_ignore_ascii_case(name))
}

/// Runs of what a name may consist of, with their `@`.
fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '@';
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + text.get(rest..)?.find(is_part)?;
        let word = text.get(start..)?;
        rest = start + word.find(|c| !is_part(c)).unwrap_or(word.len());
        Some(start..rest)
    })
}

impl Entity {
    /// Where it is in bytes; `None` when it does not lie in the text, or cuts a character.
    fn range(&self, text: &str) -> Option<Range<usize>> {
        let end = self.offset.checked_add(self.length)?;
        let (mut units, mut start) = (0, None);
        for (at, char) in text
            .char_indices()
            .map(|(at, char)| (at, Some(char)))
            .chain([(text.len(), None)])
        {
            if units == self.offset && start.is_none() {
                start = Some(at);
            }
            if units == end {
                return Some(start?..at);
            }
            units += char.map_or(0, char::len_utf16);
        }
        None
    }
}

/// Takes a name out of a sentence, with the comma that followed it.
fn cut(text: &str, range: Range<usize>) -> String {
    let (Some(before), Some(after)) = (text.get(..range.start), text.get(range.end..)) else {
        return text.to_owned();
    };
    let (head, tail) = (before.trim_end(), after.trim_start());
    if head.is_empty() {
        return tail
            .trim_start_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ':' | ';'))
            .to_owned();
    }
    let line_ends = before.get(head.len()..).is_some_and(|space| space.contains('\n'))
        || after
            .get(..after.len() - tail.len())
            .is_some_and(|space| space.contains('\n'));
    let gap = match tail.chars().next() {
        None | Some(',' | '.' | '!' | '?' | ':' | ';') => "",
        Some(_) if line_ends => "\n",
        Some(_) => " ",
    };
    format!("{head}{gap}{tail}")
}
