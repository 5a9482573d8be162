//! Who speaks, where, in which conversation: everything that the hot way needs to know, in one statement.

use chrono::{DateTime, Utc};
use domain::{BotId, ChatId, ConversationId, PlanId, UserId, views::BotTransport};
use sqlx::PgConnection;

use crate::Result;

/// A person as their message tells it.
#[derive(Clone, Debug)]
pub struct Sender<'a> {
    pub transport: BotTransport,
    pub external_id: i64,
    pub name: &'a str,
    pub username: Option<&'a str>,
    pub language: Option<&'a str>,
}

/// A place as the message tells it.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub bot: BotId,
    pub chat_external_id: i64,
    pub kind: &'a str,
    pub title: &'a str,
    /// 0 outside of forum topics.
    pub thread_id: i64,
}

/// What is known of the two.
#[derive(Clone, Debug)]
pub struct Known {
    pub user: UserId,
    pub plan: PlanId,
    pub plan_name: String,
    pub blocked: bool,
    pub chat: ChatId,
    /// Where it is now: not the id asked for, once a group has become a supergroup.
    pub chat_external_id: i64,
    pub chat_closed: bool,
    pub conversation: ConversationId,
    /// The model this conversation was switched to.
    pub model: Option<String>,
    /// The models that the plan lists; none: it leaves the choice.
    pub plan_models: Vec<String>,
    /// Name, language or time of last visit in the table are old.
    stale: bool,
}

impl Known {
    /// Whether the plan lets the user have a model of this name.
    pub fn may_use(&self, model: &str) -> bool {
        self.plan_models.is_empty() || self.plan_models.iter().any(|listed| listed == model)
    }
}

fn transport(transport: BotTransport) -> &'static str {
    match transport {
        BotTransport::Telegram => "telegram",
        BotTransport::Browser => "browser",
    }
}

/// Finds the sender, the chat and its current conversation, and makes those that are missing. One statement when all are
/// there and fresh.
pub async fn meet(db: &mut PgConnection, sender: &Sender<'_>, place: &Place<'_>, now: DateTime<Utc>) -> Result<Known> {
    if let Some(known) = find(db, sender, place, now).await? {
        if known.stale {
            refresh(db, known.user, sender, now).await?;
        }
        return Ok(known);
    }
    let mut place = place.clone();
    if let Some(id) = moved_to(db, &place).await? {
        place.chat_external_id = id;
        place.kind = "supergroup";
    }
    create(db, sender, &place, now).await?;
    find(db, sender, &place, now)
        .await?
        .ok_or(crate::Error::Stored("conversation vanished"))
}

async fn find(
    db: &mut PgConnection,
    sender: &Sender<'_>,
    place: &Place<'_>,
    now: DateTime<Utc>,
) -> Result<Option<Known>> {
    let row = sqlx::query!(
        r#"SELECT u.id AS user_id, u.plan_id, p.name AS plan_name, p.models AS plan_models, u.blocked_at IS NOT NULL AS "blocked!",
                  c.id AS chat_id, c.closed_at IS NOT NULL AS "chat_closed!", v.id AS conversation_id, v.model,
                  (u.name <> $6 OR u.username IS DISTINCT FROM $7 OR u.language IS DISTINCT FROM $8
                   OR u.last_seen_at < $9::timestamptz - interval '1 minute') AS "stale!"
           FROM users u
           JOIN plans p ON p.id = u.plan_id
           JOIN chats c ON c.bot_id = $3 AND c.external_id = $4
           JOIN conversations v ON v.chat_id = c.id AND v.thread_id = $5 AND v.ended_at IS NULL
           WHERE u.transport = $1 AND u.external_id = $2"#,
        transport(sender.transport),
        sender.external_id,
        place.bot.0,
        place.chat_external_id,
        place.thread_id,
        sender.name,
        sender.username,
        sender.language,
        now
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Known {
        user: row.user_id.into(),
        plan: row.plan_id.into(),
        plan_name: row.plan_name,
        blocked: row.blocked,
        chat: row.chat_id.into(),
        chat_external_id: place.chat_external_id,
        chat_closed: row.chat_closed,
        conversation: row.conversation_id.into(),
        model: row.model,
        plan_models: row.plan_models,
        stale: row.stale,
    }))
}

/// The present id of a chat that had this one before.
async fn moved_to(db: &mut PgConnection, place: &Place<'_>) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar!(
        "SELECT external_id FROM chats WHERE bot_id = $1 AND former_id = $2",
        place.bot.0,
        place.chat_external_id
    )
    .fetch_optional(db)
    .await?)
}

/// A group has become a supergroup: its chat goes on under the new id. When there is a chat under that id already, it takes over
/// the conversations; of two current ones of a topic the older goes on, with what was said in the other. Done again, it changes
/// nothing. Call inside a transaction.
pub async fn move_chat(db: &mut PgConnection, bot: BotId, from: i64, to: i64, now: DateTime<Utc>) -> Result<()> {
    let chats = sqlx::query!(
        "SELECT id, external_id FROM chats WHERE bot_id = $1 AND external_id IN ($2, $3) ORDER BY id FOR UPDATE",
        bot.0,
        from,
        to
    )
    .fetch_all(&mut *db)
    .await?;
    let with = |external: i64| {
        chats
            .iter()
            .find(|chat| chat.external_id == external)
            .map(|chat| chat.id)
    };
    let chat = match (with(from), with(to)) {
        (Some(old), Some(new)) if old != new => {
            merge(db, old, new, now).await?;
            new
        }
        (Some(id), _) | (None, Some(id)) => id,
        (None, None) => return Ok(()),
    };
    sqlx::query!(
        "UPDATE chats SET external_id = $3, former_id = $2, kind = 'supergroup' WHERE id = $1",
        chat,
        from,
        to
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn merge(db: &mut PgConnection, old: uuid::Uuid, new: uuid::Uuid, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "WITH pairs AS (
             SELECT o.id AS old, n.id AS new FROM conversations o JOIN conversations n USING (thread_id)
             WHERE o.chat_id = $1 AND n.chat_id = $2 AND o.ended_at IS NULL AND n.ended_at IS NULL
         ), ended AS (
             UPDATE conversations SET ended_at = $3 FROM pairs WHERE conversations.id = pairs.new
         ), joined AS (
             INSERT INTO participants (user_id, conversation_id)
             SELECT said.user_id, pairs.old FROM pairs
             JOIN (SELECT id AS conversation_id, user_id FROM conversations UNION SELECT conversation_id, user_id FROM participants) AS said
                 ON said.conversation_id = pairs.new
             JOIN conversations o ON o.id = pairs.old AND o.user_id <> said.user_id
             ON CONFLICT DO NOTHING
         )
         UPDATE messages SET conversation_id = pairs.old FROM pairs WHERE messages.conversation_id = pairs.new",
        old,
        new,
        now
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("UPDATE conversations SET chat_id = $2 WHERE chat_id = $1", old, new)
        .execute(&mut *db)
        .await?;
    sqlx::query!("DELETE FROM chats WHERE id = $1", old).execute(db).await?;
    Ok(())
}

async fn refresh(db: &mut PgConnection, user: UserId, sender: &Sender<'_>, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE users SET name = $2, username = $3, language = $4, last_seen_at = greatest(last_seen_at, $5) WHERE id = $1",
        user.0,
        sender.name,
        sender.username,
        sender.language,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn create(db: &mut PgConnection, sender: &Sender<'_>, place: &Place<'_>, now: DateTime<Utc>) -> Result<()> {
    let new_id = || uuid::Uuid::now_v7();
    let user = sqlx::query_scalar!(
        "INSERT INTO users AS u (id, transport, external_id, name, username, language, plan_id, created_at, last_seen_at)
         SELECT $1, $2, $3, $4, $5, $6, p.id, $7, $7 FROM plans p WHERE p.is_default
         ON CONFLICT (transport, external_id) DO UPDATE SET last_seen_at = greatest(u.last_seen_at, excluded.last_seen_at)
         RETURNING id",
        new_id(),
        transport(sender.transport),
        sender.external_id,
        sender.name,
        sender.username,
        sender.language,
        now
    )
    .fetch_one(&mut *db)
    .await?;
    let chat = sqlx::query_scalar!(
        "INSERT INTO chats AS c (id, bot_id, external_id, kind, title, created_at) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (bot_id, external_id) DO UPDATE SET title = excluded.title, kind = excluded.kind
         RETURNING id",
        new_id(),
        place.bot.0,
        place.chat_external_id,
        place.kind,
        place.title,
        now
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query!(
        "INSERT INTO conversations (id, chat_id, thread_id, user_id, started_at, last_at) VALUES ($1, $2, $3, $4, $5, $5)
         ON CONFLICT (chat_id, thread_id) WHERE ended_at IS NULL DO NOTHING",
        new_id(),
        chat,
        place.thread_id,
        user,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends the conversation and starts an empty one in the same place; the chosen model stays.
pub async fn renew(db: &mut PgConnection, conversation: ConversationId, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE conversations SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL",
        conversation.0,
        now
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "INSERT INTO conversations (id, chat_id, thread_id, user_id, model, started_at, last_at)
         SELECT $2, chat_id, thread_id, user_id, model, $3, $3 FROM conversations WHERE id = $1
         ON CONFLICT (chat_id, thread_id) WHERE ended_at IS NULL DO NOTHING",
        conversation.0,
        uuid::Uuid::now_v7(),
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

pub async fn set_model(db: &mut PgConnection, conversation: ConversationId, model: &str) -> Result<()> {
    sqlx::query!(
        "UPDATE conversations SET model = $2 WHERE id = $1",
        conversation.0,
        model
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Whether the user was told in this chat that the plan does not list the chosen model.
pub async fn was_told(db: &mut PgConnection, chat: ChatId, user: UserId, model: &str) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM model_notices WHERE chat_id = $1 AND user_id = $2 AND model = $3) AS "told!""#,
        chat.0,
        user.0,
        model
    )
    .fetch_one(db)
    .await?)
}

/// Notes that the user was told.
pub async fn told(db: &mut PgConnection, chat: ChatId, user: UserId, model: &str) -> Result<()> {
    sqlx::query!(
        "INSERT INTO model_notices (chat_id, user_id, model) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        chat.0,
        user.0,
        model
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A model was chosen anew: whoever loses it is told again.
pub async fn forget_told(db: &mut PgConnection, chat: ChatId) -> Result<()> {
    sqlx::query!("DELETE FROM model_notices WHERE chat_id = $1", chat.0)
        .execute(db)
        .await?;
    Ok(())
}

/// The user blocked the bot, or it was thrown out (`closed`), or came back.
pub async fn set_chat_closed(
    db: &mut PgConnection,
    bot: BotId,
    chat_external_id: i64,
    closed_at: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE chats SET closed_at = $3 WHERE bot_id = $1 AND external_id = $2",
        bot.0,
        chat_external_id,
        closed_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Somebody has written: a chat that was closed before that is open again. False when it was closed since, so that the message
/// stems from before.
pub async fn reopen_chat(
    db: &mut PgConnection,
    bot: BotId,
    chat_external_id: i64,
    written_at: DateTime<Utc>,
) -> Result<bool> {
    let opened = sqlx::query!(
        "UPDATE chats SET closed_at = NULL
         WHERE bot_id = $1 AND external_id = $2 AND (closed_at IS NULL OR closed_at < $3)",
        bot.0,
        chat_external_id,
        written_at
    )
    .execute(db)
    .await?;
    Ok(opened.rows_affected() > 0)
}

/// The users behind ids of a transport, those that are known.
pub async fn by_external_ids(
    db: &mut PgConnection,
    of: BotTransport,
    external_ids: &[i64],
) -> Result<Vec<(i64, UserId)>> {
    let rows = sqlx::query!(
        "SELECT external_id, id FROM users WHERE transport = $1 AND external_id = ANY($2)",
        transport(of),
        external_ids
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.external_id, row.id.into())).collect())
}

/// The playground user that stands for a member of staff; made when missing.
pub async fn browser_user(
    db: &mut PgConnection,
    staff: domain::StaffId,
    name: &str,
    now: DateTime<Utc>,
) -> Result<(UserId, i64)> {
    let row = sqlx::query!(
        "INSERT INTO users AS u (id, transport, external_id, staff_id, name, plan_id, created_at, last_seen_at)
         SELECT $1, 'browser', nextval('browser_user_ids'), $2, $3, p.id, $4, $4 FROM plans p WHERE p.is_default
         ON CONFLICT (staff_id) DO UPDATE SET name = excluded.name
         RETURNING id, external_id",
        uuid::Uuid::now_v7(),
        staff.0,
        name,
        now
    )
    .fetch_one(db)
    .await?;
    Ok((row.id.into(), row.external_id))
}

/// The same, only looked up.
pub async fn find_browser_user(db: &mut PgConnection, staff: domain::StaffId) -> Result<Option<(UserId, i64)>> {
    let row = sqlx::query!("SELECT id, external_id FROM users WHERE staff_id = $1", staff.0)
        .fetch_optional(db)
        .await?;
    Ok(row.map(|row| (row.id.into(), row.external_id)))
}
