//! The way in: an update and its job are committed before anybody is told that it was taken.

use domain::BotId;
use repositories::jobs::{self, NewUpdate, Work};
use serde_json::Value;
use uuid::Uuid;

use crate::{Error, Services};

/// The kinds of update that have a handler. The others are kept, and nothing else happens.
const HANDLED: &[&str] = &["message", "callback_query", "my_chat_member"];

/// Accepting updates.
pub struct Intake(pub(crate) Services);

impl Intake {
    /// Stores the updates that are new, each with its job, in one transaction, and returns how many were. What is no update at
    /// all (no `update_id`) is refused as a whole.
    pub async fn accept(&self, bot: BotId, updates: Vec<Value>) -> Result<u64, Error> {
        let new = updates
            .into_iter()
            .map(|payload| {
                let payload = without_nul(payload);
                let peek = peek(&payload).ok_or(Error::Invalid("a Telegram update with an update_id"))?;
                let work = HANDLED.contains(&peek.kind.as_str()).then(|| match peek.chat {
                    Some((chat, thread)) if !peek.overtakes => Work::InLane(lane(bot, chat, thread)),
                    _ => Work::Overtakes,
                });
                Ok(NewUpdate {
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

/// What must be known of an update before it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    pub update_id: i64,
    /// The name of its one other field: `message`, `callback_query`…; `unknown` when there is none.
    pub kind: String,
    /// Chat and topic.
    pub chat: Option<(i64, i64)>,
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
    let overtakes =
        kind == "callback_query" || (kind == "message" && (is_stop(body) || body.get("successful_payment").is_some()));
    let message_id = (kind != "callback_query")
        .then(|| body["message_id"].as_i64())
        .flatten();
    Some(Peek {
        update_id,
        kind: kind.to_owned(),
        chat,
        message_id,
        overtakes,
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
                message_id: Some(1),
                overtakes: false
            })
        );
        assert!(peek(&text("/stop@my_bot now")).unwrap().overtakes);
        assert!(!peek(&text("/stopwatch")).unwrap().overtakes);
        let button = json!({"update_id": 8, "callback_query": {"id": "1", "message": {"chat": {"id": 5}}}});
        assert!(peek(&button).unwrap().overtakes);
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
