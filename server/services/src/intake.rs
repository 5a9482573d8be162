//! The way in: an update and its job are committed before anybody is told that it was taken.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use domain::BotId;
use repositories::jobs::{self, Gather, NewUpdate, Role, Work};
use serde_json::Value;
use uuid::Uuid;

use crate::{Error, Services};

/// The kinds of update that have a handler. The others are kept, and nothing else happens.
const HANDLED: &[&str] = &[
    "message",
    "edited_message",
    "callback_query",
    "my_chat_member",
    "pre_checkout_query",
    "stopped_message_generation",
];

/// What overtakes is taken until there is so many times as much to do as otherwise: who presses `/stop` again and again must not
/// fill the database.
const MORE_FOR_OVERTAKING: i64 = 2;

/// How long it is believed which bots have too much to do.
const BELIEVED: Duration = Duration::from_secs(1);

/// The bots of which nothing more is taken for now.
#[derive(Debug)]
pub(crate) struct Crowded {
    /// Jobs of one bot.
    pub(crate) most: i64,
    /// And when, and how many there are.
    seen: Mutex<(Option<Instant>, HashMap<BotId, i64>)>,
}

impl Crowded {
    pub(crate) fn new(most: i64) -> Self {
        Self {
            most,
            seen: Mutex::default(),
        }
    }
}

/// Accepting updates.
pub struct Intake(pub(crate) Services);

impl Intake {
    /// Whether more of a bot's updates are to be taken. While too many of its jobs wait they are left with Telegram, which keeps them
    /// for a day. Asks the database once a second at most; a bot may go beyond the limit by what comes within that second.
    pub async fn has_room(&self, bot: BotId) -> Result<bool, Error> {
        Ok(self.jobs_if_crowded(bot).await?.is_none())
    }

    /// Whether more of what overtakes is to be taken.
    pub async fn has_room_for_overtaking(&self, bot: BotId) -> Result<bool, Error> {
        let most = self.0.crowded.most.saturating_mul(MORE_FOR_OVERTAKING);
        Ok(self.jobs_if_crowded(bot).await?.is_none_or(|jobs| jobs < most))
    }

    /// How many jobs the bot has, if those are too many.
    async fn jobs_if_crowded(&self, bot: BotId) -> Result<Option<i64>, Error> {
        let crowded = &self.0.crowded;
        let lock = || crowded.seen.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut seen = lock();
            if seen.0.is_some_and(|at| at.elapsed() < BELIEVED) {
                return Ok(seen.1.get(&bot).copied());
            }
            // One asks, the others go by what was seen before.
            seen.0 = Some(Instant::now());
        }
        let now = jobs::crowded(&mut *self.0.db.acquire().await?, crowded.most).await?;
        metrics::gauge!("botdeck_bots_held_back").set(u32::try_from(now.len()).unwrap_or(u32::MAX));
        let mut seen = lock();
        seen.1 = now.into_iter().collect();
        Ok(seen.1.get(&bot).copied())
    }

    /// Of updates that cannot all be taken, stores what overtakes. The others come again, and then these are known.
    pub async fn accept_overtaking(&self, bot: BotId, updates: Vec<Value>) -> Result<u64, Error> {
        let overtakes = |update: &Value| peek(update).is_some_and(|peek| peek.overtakes);
        let overtaking: Vec<Value> = updates.into_iter().filter(overtakes).collect();
        if overtaking.is_empty() {
            return Ok(0);
        }
        self.accept(bot, overtaking).await
    }

    /// Stores the updates that are new, each with its job, in one transaction, and returns how many were. What is no update at
    /// all (no `update_id`) is refused as a whole.
    pub async fn accept(&self, bot: BotId, updates: Vec<Value>) -> Result<u64, Error> {
        let new = updates
            .into_iter()
            .map(|payload| {
                let payload = without_nul(payload);
                let peek = peek(&payload).ok_or(Error::Invalid("a Telegram update with an update_id"))?;
                let work = HANDLED.contains(&peek.kind.as_str()).then(|| work(bot, &peek));
                let gather = gather(&payload, &peek);
                Ok(NewUpdate {
                    gather,
                    id: Uuid::now_v7(),
                    update_id: peek.update_id,
                    kind: peek.kind,
                    message_id: peek.message_id,
                    payload,
                    work,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let mut tx = self.0.db.begin().await?;
        let accepted = jobs::accept(&mut tx, bot, &new, self.0.now()).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        metrics::counter!("botdeck_updates_total", "outcome" => "new").increment(accepted);
        metrics::counter!("botdeck_updates_total", "outcome" => "repeated")
            .increment((new.len() as u64).saturating_sub(accepted));
        self.0.work.notify_one();
        Ok(accepted)
    }
}

/// The lane of a conversation: bot, chat, topic.
pub fn lane(bot: BotId, chat: i64, thread: i64) -> String {
    format!("{bot}/{chat}/{thread}")
}

/// Where in the queue an update goes. What overtakes has a lane for each kind in a conversation, or of a person: a payment does not
/// wait behind somebody's hundredth `/stop`.
pub(crate) fn work(bot: BotId, peek: &Peek) -> Work {
    match peek.chat {
        Some((chat, thread)) if !peek.overtakes => Work::InLane(lane(bot, chat, thread)),
        at => {
            let place = at.or_else(|| Some((peek.sender?, 0)));
            Work::Overtakes(place.map(|(chat, thread)| format!("{}/{}", lane(bot, chat, thread), peek.kind)))
        }
    }
}

/// What must be known of an update before it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    pub update_id: i64,
    /// The name of its one other field: `message`, `callback_query`…; `unknown` when there is none.
    pub kind: String,
    /// Chat and topic.
    pub chat: Option<(i64, i64)>,
    pub sender: Option<i64>,
    /// Of the message it brings.
    pub message_id: Option<i64>,
    /// Runs beside its conversation instead of behind it.
    pub overtakes: bool,
}

/// Looks into a raw update without insisting on anything but its id.
pub fn peek(update: &Value) -> Option<Peek> {
    let fields = update.as_object()?;
    let update_id = fields.get("update_id")?.as_i64()?;
    let (kind, body) = fields
        .iter()
        .find(|(name, value)| *name != "update_id" && value.is_object())
        .map_or(("unknown", &Value::Null), |(name, value)| (name.as_str(), value));
    let message = if kind == "callback_query" {
        &body["message"]
    } else {
        body
    };
    let chat = message["chat"]["id"].as_i64().map(|chat| (chat, thread(message)));
    let overtakes = matches!(
        kind,
        "callback_query" | "pre_checkout_query" | "stopped_message_generation"
    ) || (kind == "message" && (is_stop(body) || !body["successful_payment"].is_null()));
    let message_id = (kind != "callback_query")
        .then(|| body["message_id"].as_i64())
        .flatten();
    Some(Peek {
        update_id,
        kind: kind.to_owned(),
        chat,
        sender: body["from"]["id"].as_i64(),
        message_id,
        overtakes,
    })
}

/// A text this long, in UTF-16 units, may be the beginning of one that the sender's app has cut: apps cut at 4096 or at a good place
/// shortly before.
const CUT_TEXT: std::ops::RangeInclusive<usize> = 4000..=4096;

/// What may come in several messages: an album, and a text that is longer than a message can be.
fn gather(update: &Value, peek: &Peek) -> Option<Gather> {
    if peek.kind != "message" || peek.overtakes {
        return None;
    }
    let message = &update["message"];
    let sent_at = message["date"].as_i64().unwrap_or(0);
    if let Some(album) = message["media_group_id"].as_str() {
        return Some(Gather {
            key: format!("album:{album}"),
            role: Role::Opens,
            sent_at,
        });
    }
    let text = message["text"].as_str()?;
    let sender = message["from"]["id"].as_i64()?;
    let role = match text {
        text if is_command(text) => Role::Breaks,
        text if CUT_TEXT.contains(&text.encode_utf16().count()) => Role::Opens,
        _ => Role::Closes,
    };
    Some(Gather {
        key: format!("paste:{sender}"),
        role,
        sent_at,
    })
}

/// `/word` or `/word@bot` at the beginning, not a path and not a comment.
pub fn is_command(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    first.strip_prefix('/').is_some_and(|name| {
        (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'@'))
    })
}

/// The topic; replies in ordinary groups carry a thread id too, but are no topics.
fn thread(message: &Value) -> i64 {
    if message["is_topic_message"].as_bool() == Some(true) {
        message["message_thread_id"].as_i64().unwrap_or(0)
    } else {
        0
    }
}

/// `/stop` or `/stop@bot` as the first word.
fn is_stop(message: &Value) -> bool {
    let first = message["text"]
        .as_str()
        .and_then(|text| text.split_whitespace().next())
        .unwrap_or_default();
    first
        .split('@')
        .next()
        .is_some_and(|command| command.eq_ignore_ascii_case("/stop"))
}

/// Postgres keeps no NUL in a JSON text; Telegram lets one through now and then.
fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains('\0') => Value::String(text.replace('\0', "")),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| (key.replace('\0', ""), without_nul(value)))
            .collect(),
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn stop_and_buttons_overtake_and_text_does_not() {
        let text = |text: &str| json!({"update_id": 7, "message": {"message_id": 1, "chat": {"id": 5}, "text": text}});
        assert_eq!(
            peek(&text("hello /stop")),
            Some(Peek {
                update_id: 7,
                kind: "message".into(),
                chat: Some((5, 0)),
                sender: None,
                message_id: Some(1),
                overtakes: false
            })
        );
        assert!(peek(&text("/stop@my_bot now")).unwrap().overtakes);
        assert!(!peek(&text("/stopwatch")).unwrap().overtakes);
        // Some servers write null for what is absent.
        let nulls =
            json!({"update_id": 7, "callback_query": null, "message": {"text": "hello", "successful_payment": null}});
        assert_eq!(peek(&nulls).unwrap().kind, "message");
        assert!(!peek(&nulls).unwrap().overtakes);
        let button = json!({"update_id": 8, "callback_query": {"id": "1", "message": {"chat": {"id": 5}}}});
        assert!(peek(&button).unwrap().overtakes);
        let paid = json!({"update_id": 9, "message": {"chat": {"id": 5}, "successful_payment": {}}});
        assert!(peek(&paid).unwrap().overtakes);
    }

    #[test]
    fn what_overtakes_has_a_lane_of_its_kind_beside_the_conversation_or_of_the_person() {
        let bot = BotId(Uuid::nil());
        let place = |update: Value| match work(bot, &peek(&update).unwrap()) {
            Work::InLane(lane) => (false, Some(lane)),
            Work::Overtakes(lane) => (true, lane),
        };
        let text =
            |text: &str| json!({"update_id": 7, "message": {"chat": {"id": 5}, "from": {"id": 3}, "text": text}});
        assert_eq!(place(text("hello")), (false, Some(format!("{bot}/5/0"))));
        assert_eq!(place(text("/stop")), (true, Some(format!("{bot}/5/0/message"))));
        let checkout = json!({"update_id": 8, "pre_checkout_query": {"id": "1", "from": {"id": 3}}});
        assert_eq!(place(checkout), (true, Some(format!("{bot}/3/0/pre_checkout_query"))));
        let nobodys = json!({"update_id": 8, "callback_query": {"id": "1"}});
        assert_eq!(place(nobodys), (true, None));
    }

    #[test]
    fn albums_and_long_texts_gather_and_a_command_does_not() {
        let role = |message: Value| {
            let mut update = json!({"update_id": 7, "message": {"date": 9, "chat": {"id": 5}, "from": {"id": 3}}});
            for (name, value) in message.as_object().unwrap() {
                update["message"][name] = value.clone();
            }
            gather(&update, &peek(&update).unwrap()).map(|gather| (gather.key, gather.role))
        };
        let paste = |role| Some(("paste:3".to_owned(), role));
        // In UTF-16 units, as Telegram counts: a smile is two.
        assert_eq!(role(json!({"text": "😀".repeat(2000)})), paste(Role::Opens));
        assert_eq!(role(json!({"text": "😀".repeat(1999) + "a"})), paste(Role::Closes));
        assert_eq!(role(json!({"text": "/new"})), paste(Role::Breaks));
        assert_eq!(role(json!({"text": "/usr/bin is a path"})), paste(Role::Closes));
        assert_eq!(role(json!({"text": "/stop"})), None);
        assert_eq!(role(json!({"sticker": {}})), None);
        assert_eq!(
            role(json!({"photo": [], "media_group_id": "12", "caption": "x"})),
            Some(("album:12".to_owned(), Role::Opens))
        );
        let edited =
            json!({"update_id": 7, "edited_message": {"chat": {"id": 5}, "from": {"id": 3}, "text": "a".repeat(4096)}});
        assert_eq!(gather(&edited, &peek(&edited).unwrap()), None);
    }

    #[test]
    fn topics_have_lanes_of_their_own_and_unknown_kinds_are_named() {
        let topic =
            json!({"update_id": 1, "message": {"chat": {"id": -5}, "message_thread_id": 9, "is_topic_message": true}});
        assert_eq!(peek(&topic).unwrap().chat, Some((-5, 9)));
        let reply = json!({"update_id": 1, "message": {"chat": {"id": -5}, "message_thread_id": 9}});
        assert_eq!(peek(&reply).unwrap().chat, Some((-5, 0)));
        assert_eq!(
            peek(&json!({"update_id": 3, "novelty": {"x": 1}})).unwrap().kind,
            "novelty"
        );
        assert_eq!(peek(&json!({"update_id": 3})).unwrap().kind, "unknown");
        assert_eq!(peek(&json!({"message": {}})), None);
    }
}
