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

/// Where a message may be that a job has sent without learning its id.
#[derive(Clone, Debug, Default)]
pub struct KnownIds {
    /// The ids of its chat.
    pub in_chat: Taken,
    /// The one row in which Telegram numbers the messages of all private chats and small groups of a bot; `None` for a supergroup,
    /// which numbers for itself.
    pub in_row: Option<Taken>,
    /// How many jobs of the bot are sending, or were when their worker went away, what has no id here yet.
    pub unnoted: i64,
}

/// Ids that others have, in no order.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// The message that is looked for came after this one.
    pub after: i64,
    /// Those that are known beyond it.
    pub ids: Vec<i64>,
}

impl Taken {
    /// From ids with whether they were known before the job was about to send.
    fn new(question: i64, ids: impl Iterator<Item = (i64, bool)> + Clone) -> Self {
        let before = ids.clone().filter_map(|(id, before)| before.then_some(id));
        let after = before.fold(question, i64::max);
        Self {
            after,
            ids: ids.map(|(id, _)| id).filter(|id| *id > after).collect(),
        }
    }
}

/// How many of the newest ids are looked at: far more than are given out between a message and the search for it.
const NEWEST: i64 = 10_000;

/// For a job that answers the message `question` in a chat. Moments are compared by this database's clock alone.
pub async fn known_ids(db: &mut PgConnection, job: JobId, bot: BotId, chat: &str, question: i64) -> Result<KnownIds> {
    let sent = sqlx::query!(
        r#"SELECT d.message_id AS "id!", d.chat = $2 AS "here!", d.chat NOT LIKE $1::text || '/-100__________%' AS "in_row!",
                  coalesce(j.finished_at < (SELECT min(begun_at) FROM deliveries WHERE job_id = $4), false) AS "before!"
           FROM deliveries d JOIN jobs j ON j.id = d.job_id
           WHERE d.message_id > $3 AND d.chat LIKE $1::text || '/%' ORDER BY d.message_id DESC LIMIT $5"#,
        bot.to_string(),
        chat,
        question,
        job.0,
        NEWEST
    )
    .fetch_all(&mut *db)
    .await?;
    let received = sqlx::query!(
        r#"SELECT u.message_id AS "id!",
                  coalesce(u.payload->'message'->'chat'->>'id' = split_part($2, '/', 2), false) AS "here!",
                  coalesce(u.payload->'message'->'chat'->>'type' <> 'supergroup', true) AS "in_row!",
                  coalesce(j.created_at < (SELECT min(begun_at) FROM deliveries WHERE job_id = $4), false) AS "before!"
           FROM updates u LEFT JOIN jobs j ON j.id = u.id
           WHERE u.bot_id = $1 AND u.message_id > $3 ORDER BY u.message_id DESC LIMIT $5"#,
        bot.0,
        chat,
        question,
        job.0,
        NEWEST
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
    let sent = sent.into_iter().map(|row| (row.id, row.here, row.in_row, row.before));
    let received = received
        .into_iter()
        .map(|row| (row.id, row.here, row.in_row, row.before));
    let all: Vec<_> = sent.chain(received).collect();
    let in_chat = all.iter().filter(|(_, here, ..)| *here);
    let in_row = all.iter().filter(|(_, _, in_row, _)| *in_row);
    let supergroup = chat
        .rsplit('/')
        .next()
        .is_some_and(|id| id.starts_with("-100") && id.len() >= 14);
    Ok(KnownIds {
        in_chat: Taken::new(question, in_chat.map(|(id, .., before)| (*id, *before))),
        in_row: (!supergroup).then(|| Taken::new(question, in_row.map(|(id, .., before)| (*id, *before)))),
        unnoted,
    })
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
