//! What the playground shows: the "other side" of a bot of transport "browser".

use chrono::{DateTime, Utc};
use domain::{
    BotId,
    views::{Author, PlaygroundMessage, RichText},
};
use sqlx::{PgConnection, types::Json};

use crate::Result;

// Whoever writes in a chat holds its lock until the commit: revisions then become visible in their order, and a reader that asks for
// what came after the last one misses none.

pub async fn insert(
    db: &mut PgConnection,
    bot: BotId,
    chat: i64,
    author: Author,
    body: &RichText,
    complete: bool,
    now: DateTime<Utc>,
) -> Result<i64> {
    let author = match author {
        Author::User => "user",
        Author::Bot => "bot",
    };
    Ok(sqlx::query_scalar!(
        "WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended('browser/' || $1::uuid || '/' || $2::bigint, 0)))
         INSERT INTO browser_messages (bot_id, chat_id, author, body, complete, revision, at)
         SELECT $1, $2, $3, $4, $5, nextval('browser_revisions'), $6 FROM turn RETURNING id",
        bot.0,
        chat,
        author,
        Json(crate::storable_rich(body)) as _,
        complete,
        now
    )
    .fetch_one(db)
    .await?)
}

/// False when there is no such message of the bot in that chat.
pub async fn edit(
    db: &mut PgConnection,
    bot: BotId,
    chat: i64,
    id: i64,
    body: &RichText,
    complete: bool,
) -> Result<bool> {
    let edited = sqlx::query!(
        "WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended('browser/' || $1::uuid || '/' || $2::bigint, 0)))
         UPDATE browser_messages SET body = $4, complete = $5, revision = nextval('browser_revisions') FROM turn
         WHERE bot_id = $1 AND chat_id = $2 AND id = $3 AND author = 'bot'",
        bot.0,
        chat,
        id,
        Json(crate::storable_rich(body)) as _,
        complete
    )
    .execute(db)
    .await?;
    Ok(edited.rows_affected() == 1)
}

/// The bot's messages after `after` in that chat, for finding one that was sent before a crash.
pub async fn bot_messages_after(db: &mut PgConnection, bot: BotId, chat: i64, after: i64) -> Result<Vec<i64>> {
    Ok(sqlx::query_scalar!(
        "SELECT id FROM browser_messages WHERE bot_id = $1 AND chat_id = $2 AND id > $3 AND author = 'bot' ORDER BY id",
        bot.0,
        chat,
        after
    )
    .fetch_all(db)
    .await?)
}

/// Messages changed since `revision`, oldest first, and the revision to ask with next time.
pub async fn changes(
    db: &mut PgConnection,
    bot: BotId,
    chat: i64,
    revision: i64,
    limit: i64,
) -> Result<(Vec<PlaygroundMessage>, i64)> {
    let rows = sqlx::query!(
        r#"SELECT id, author, body AS "body: Json<RichText>", complete, revision, at FROM (
               SELECT * FROM browser_messages WHERE bot_id = $1 AND chat_id = $2 AND revision > $3 ORDER BY id DESC LIMIT $4
           ) AS latest ORDER BY id"#,
        bot.0,
        chat,
        revision,
        limit
    )
    .fetch_all(db)
    .await?;
    let newest = rows.iter().map(|row| row.revision).max().unwrap_or(revision);
    let messages = rows
        .into_iter()
        .map(|row| PlaygroundMessage {
            id: row.id,
            author: if row.author == "user" {
                Author::User
            } else {
                Author::Bot
            },
            body: row.body.0,
            complete: row.complete,
            at: row.at,
        })
        .collect();
    Ok((messages, newest))
}
