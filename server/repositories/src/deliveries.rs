//! What a job sends, and what of it is known to have arrived.

use domain::{BotId, JobId, views::RichText};
use sqlx::{PgConnection, types::Json};

use crate::Result;

/// One message of an answer.
#[derive(Clone, Debug)]
pub struct Part {
    /// `None` while only a preview stands there, and for a message of which the answer has no use any more.
    pub body: Option<RichText>,
    pub message_id: Option<i64>,
}

/// In the order of the parts.
pub async fn load(db: &mut PgConnection, job: JobId) -> Result<Vec<Part>> {
    let rows = sqlx::query!(
        r#"SELECT body AS "body: Json<RichText>", message_id FROM deliveries WHERE job_id = $1 ORDER BY part"#,
        job.0
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Part {
            body: row.body.map(|body| body.0),
            message_id: row.message_id,
        })
        .collect())
}

/// Notes that a preview is about to be sent as part number `part`.
pub async fn begin_preview(db: &mut PgConnection, job: JobId, chat: &str, part: i32) -> Result<()> {
    sqlx::query!(
        "INSERT INTO deliveries (job_id, chat, part) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        job.0,
        chat,
        part
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Stores the final parts; those that a preview began keep their message id.
pub async fn store(db: &mut PgConnection, job: JobId, chat: &str, parts: &[RichText]) -> Result<()> {
    let numbers: Vec<i32> = (0..).take(parts.len()).collect();
    let bodies: Vec<serde_json::Value> = parts
        .iter()
        .map(|part| serde_json::json!(crate::storable_rich(part)))
        .collect();
    sqlx::query!(
        "INSERT INTO deliveries (job_id, chat, part, body)
         SELECT $1, $2, part, body FROM unnest($3::int[], $4::jsonb[]) AS t (part, body)
         ON CONFLICT (job_id, part) DO UPDATE SET body = excluded.body",
        job.0,
        chat,
        &numbers,
        &bodies
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes the ids under which parts arrived, from the first part on.
pub async fn sent(db: &mut PgConnection, job: JobId, first_part: i32, message_ids: &[i64]) -> Result<()> {
    let numbers: Vec<i32> = (first_part..).take(message_ids.len()).collect();
    sqlx::query!(
        "UPDATE deliveries d SET message_id = t.message_id FROM unnest($2::int[], $3::bigint[]) AS t (part, message_id)
         WHERE d.job_id = $1 AND d.part = t.part",
        job.0,
        &numbers,
        message_ids
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Which message ids after one are taken, as far as we know.
#[derive(Clone, Debug, Default)]
pub struct KnownIds {
    /// By the bot's own messages and those it received in the chat.
    pub in_chat: Vec<i64>,
    /// By anybody's messages in any chat of the bot.
    pub anywhere: Vec<i64>,
    /// How many jobs of the bot are sending, or were when their worker went away, what has no id here yet.
    pub unnoted: i64,
}

/// For a bot and one of its chats.
pub async fn known_ids(db: &mut PgConnection, bot: BotId, chat: &str, after: i64) -> Result<KnownIds> {
    let sent = sqlx::query!(
        r#"SELECT message_id AS "id!", chat = $2 AS "here!" FROM deliveries
           WHERE message_id > $3 AND chat LIKE $1::text || '/%' ORDER BY message_id LIMIT 5000"#,
        bot.to_string(),
        chat,
        after
    )
    .fetch_all(&mut *db)
    .await?;
    let received = sqlx::query!(
        r#"SELECT message_id AS "id!", coalesce(payload->'message'->'chat'->>'id' = split_part($3, '/', 2), false) AS "here!"
           FROM updates WHERE bot_id = $1 AND message_id > $2 ORDER BY message_id LIMIT 5000"#,
        bot.0,
        after,
        chat
    )
    .fetch_all(&mut *db)
    .await?;
    let unnoted = sqlx::query_scalar!(
        r#"SELECT count(*) AS "unnoted!" FROM jobs j
           WHERE j.state IN ('ready', 'running') AND j.attempts > 0
             AND EXISTS (SELECT FROM deliveries d
                         WHERE d.job_id = j.id AND d.message_id IS NULL AND d.chat LIKE $1::text || '/%')"#,
        bot.to_string()
    )
    .fetch_one(db)
    .await?;
    let mut known = KnownIds {
        unnoted,
        ..KnownIds::default()
    };
    let sent = sent.into_iter().map(|row| (row.id, row.here));
    for (id, here) in sent.chain(received.into_iter().map(|row| (row.id, row.here))) {
        known.anywhere.push(id);
        if here {
            known.in_chat.push(id);
        }
    }
    Ok(known)
}

/// The messages of one job's answer become those of another's, which is to replace it.
pub async fn take_over(db: &mut PgConnection, from: JobId, to: JobId) -> Result<()> {
    sqlx::query!(
        "UPDATE deliveries SET job_id = $2, body = NULL WHERE job_id = $1",
        from.0,
        to.0
    )
    .execute(db)
    .await?;
    Ok(())
}
