//! The playground: a member of staff writes to a bot of transport "browser". The message becomes an update like Telegram's and
//! takes the very same way; only its first and last step differ.

use domain::{
    BotId,
    views::{Author, BotTransport, Playground, PlaygroundMessage, RichText},
};
use repositories::{bots, browser, people};
use serde_json::json;
use tokio::sync::futures::Notified;

use crate::{Actor, Error, Services};

const SHOWN: i64 = 200;
const LONGEST: usize = 4096;

/// Talking to bots from the dashboard.
pub struct PlaygroundService(pub(crate) Services);

impl PlaygroundService {
    pub async fn open(&self, actor: &Actor, id: BotId) -> Result<Option<Playground>, Error> {
        let mut db = self.0.db.acquire().await?;
        let Some(bot) = bots::get(&mut db, id)
            .await?
            .filter(|bot| bot.transport == BotTransport::Browser)
        else {
            return Ok(None);
        };
        let user = match actor.staff {
            Some(staff) => people::find_browser_user(&mut db, staff).await?,
            None => None,
        };
        let messages = match user {
            Some((_, chat)) => browser::changes(&mut db, id, chat, 0, SHOWN).await?.0,
            None => Vec::new(),
        };
        Ok(Some(Playground {
            bot: id,
            bot_name: bot.name,
            model: bot.model.unwrap_or_else(|| self.0.gateway.default_model().name.clone()),
            demo: self.0.gateway.is_demo(),
            user: user.map(|(id, _)| id),
            messages,
        }))
    }

    /// Messages that changed after `revision` (0 for all), and the revision to ask with next time.
    pub async fn changes(
        &self,
        actor: &Actor,
        id: BotId,
        revision: i64,
    ) -> Result<(Vec<PlaygroundMessage>, i64), Error> {
        let staff = actor.staff.ok_or(Error::SignedOut)?;
        let mut db = self.0.db.acquire().await?;
        let Some((_, chat)) = people::find_browser_user(&mut db, staff).await? else {
            return Ok((Vec::new(), revision));
        };
        Ok(browser::changes(&mut db, id, chat, revision, SHOWN).await?)
    }

    /// Ends when a message of a playground is written or changed in this process after the call; other replicas are not heard.
    pub fn changed(&self) -> Notified<'_> {
        self.0.talk.notified()
    }

    /// Sends a text as the member of staff. The message and its job are committed together.
    pub async fn send(&self, actor: &Actor, id: BotId, text: String) -> Result<(), Error> {
        let text = text.trim();
        if text.is_empty() || text.encode_utf16().count() > LONGEST {
            return Err(Error::Invalid("a message of 1 to 4096 characters"));
        }
        let staff = actor.staff.ok_or(Error::SignedOut)?;
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        let bot = bots::get(&mut tx, id)
            .await?
            .filter(|bot| bot.transport == BotTransport::Browser);
        let bot = bot.ok_or(Error::NotFound("a bot with a playground"))?;
        if !bot.enabled {
            return Err(Error::Conflict("the bot is stopped; start it first"));
        }
        let (_, chat) = people::browser_user(&mut tx, staff, &actor.name, now).await?;
        let body = RichText {
            text: text.replace('\0', ""),
            entities: Vec::new(),
        };
        let message = browser::insert(&mut tx, id, chat, Author::User, &body, true, now).await?;
        let person =
            json!({ "id": chat, "is_bot": false, "first_name": actor.name, "language_code": actor.origin.lang.tag() });
        let update = json!({
            "update_id": message,
            "message": {
                "message_id": message,
                "date": now.timestamp(),
                "chat": { "id": chat, "type": "private", "first_name": actor.name },
                "from": person,
                "text": body.text,
                "entities": command_entity(&body.text),
            }
        });
        let peek = crate::peek(&update).ok_or(Error::Internal("a playground update is malformed"))?;
        let work = crate::intake::work(id, &peek);
        let update = repositories::jobs::NewUpdate {
            id: uuid::Uuid::now_v7(),
            update_id: peek.update_id,
            kind: peek.kind,
            message_id: peek.message_id,
            payload: update,
            work: Some(work),
            gather: None,
        };
        repositories::jobs::accept(&mut tx, id, &[update], now).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.0.work.notify_one();
        self.0.talk.notify_waiters();
        Ok(())
    }

    /// The bot's side: a new message in the browser.
    pub async fn deliver(&self, bot: BotId, chat: i64, body: &RichText, complete: bool) -> Result<i64, Error> {
        let mut db = self.0.db.acquire().await?;
        let id = browser::insert(&mut db, bot, chat, Author::Bot, body, complete, self.0.now()).await?;
        self.0.talk.notify_waiters();
        Ok(id)
    }

    /// The bot's side: new text in a message; false when there is no such message.
    pub async fn edit(&self, bot: BotId, chat: i64, id: i64, body: &RichText, complete: bool) -> Result<bool, Error> {
        let found = browser::edit(&mut *self.0.db.acquire().await?, bot, chat, id, body, complete).await?;
        self.0.talk.notify_waiters();
        Ok(found)
    }

    /// The bot's messages after one of the user's, for finding what was sent before a crash.
    pub async fn sent_after(&self, bot: BotId, chat: i64, after: i64) -> Result<Vec<i64>, Error> {
        Ok(browser::bot_messages_after(&mut *self.0.db.acquire().await?, bot, chat, after).await?)
    }
}

/// Telegram marks a leading command; so do we.
fn command_entity(text: &str) -> serde_json::Value {
    match text.split_whitespace().next() {
        Some(word) if word.starts_with('/') && word.len() > 1 => {
            json!([{ "type": "bot_command", "offset": 0, "length": word.encode_utf16().count() }])
        }
        _ => json!([]),
    }
}
