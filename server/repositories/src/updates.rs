//! Updates as they came, and which of them make one request.

use domain::{BotId, JobId};
use serde_json::Value;
use sqlx::PgConnection;

use crate::Result;

/// The updates that a job stands for beside the one it was made for. Read after the job was claimed, in a statement of its own:
/// no part joins any more then, while the snapshot of the claiming statement could lack one.
pub async fn parts(db: &mut PgConnection, job: JobId) -> Result<Vec<Value>> {
    Ok(sqlx::query_scalar!(
        "SELECT payload FROM updates WHERE job_id = $1 ORDER BY message_id, update_id",
        job.0
    )
    .fetch_all(db)
    .await?)
}

/// A question that a model was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// That answered it last.
    pub job: JobId,
    /// As it was asked.
    pub text: String,
}

/// What was asked by a message, or by the request of which it is a part, when a model was asked at all. What came last is told by
/// Telegram's clock: ours differ from replica to replica.
pub async fn asked(db: &mut PgConnection, bot: BotId, chat: i64, message_id: i64) -> Result<Option<Asked>> {
    let row = sqlx::query!(
        "WITH root AS (
             SELECT coalesce(job_id, id) AS job FROM updates
             WHERE bot_id = $1 AND message_id = $3 AND kind = 'message' AND payload->'message'->'chat'->>'id' = $2::bigint::text
             ORDER BY received_at LIMIT 1
         ), parts AS (
             SELECT DISTINCT p.message_id FROM updates p, root WHERE (p.id = root.job OR p.job_id = root.job) AND p.message_id IS NOT NULL
         )
         SELECT g.job_id, m.text FROM parts
         JOIN updates u ON u.bot_id = $1 AND u.message_id = parts.message_id AND u.payload->u.kind->'chat'->>'id' = $2::bigint::text
         JOIN usage g ON g.job_id = u.id
         JOIN messages m ON m.id = u.id AND m.author = 'user'
         ORDER BY coalesce(u.payload->u.kind->'edit_date', u.payload->u.kind->'date')::bigint DESC NULLS LAST, u.update_id DESC LIMIT 1",
        bot.0,
        chat,
        message_id
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Asked {
        job: row.job_id.into(),
        text: row.text,
    }))
}

/// The request to which a message belongs as it is now: the newest version of each of its messages, by Telegram's clock.
pub async fn newest(db: &mut PgConnection, bot: BotId, chat: i64, message_id: i64) -> Result<Vec<Value>> {
    Ok(sqlx::query_scalar!(
        "WITH root AS (
             SELECT coalesce(job_id, id) AS job FROM updates
             WHERE bot_id = $1 AND message_id = $3 AND kind = 'message' AND payload->'message'->'chat'->>'id' = $2::bigint::text
             ORDER BY received_at LIMIT 1
         ), parts AS (
             SELECT DISTINCT p.message_id FROM updates p, root WHERE (p.id = root.job OR p.job_id = root.job) AND p.message_id IS NOT NULL
         )
         SELECT DISTINCT ON (u.message_id) u.payload FROM parts
         JOIN updates u ON u.bot_id = $1 AND u.message_id = parts.message_id AND u.payload->u.kind->'chat'->>'id' = $2::bigint::text
         WHERE u.kind IN ('message', 'edited_message')
         ORDER BY u.message_id, coalesce(u.payload->u.kind->'edit_date', u.payload->u.kind->'date')::bigint DESC NULLS LAST, u.update_id DESC",
        bot.0,
        chat,
        message_id
    )
    .fetch_all(db)
    .await?)
}

/// The messages that wait in a lane and that no attempt was made at, in their order.
pub async fn waiting(db: &mut PgConnection, lane: &str, limit: i64) -> Result<Vec<(JobId, Value)>> {
    let rows = sqlx::query!(
        "SELECT j.id, u.payload FROM jobs j JOIN updates u ON u.id = j.id
         WHERE j.lane = $1 AND j.state = 'waiting' AND j.attempts = 0 AND u.kind = 'message' ORDER BY j.seq LIMIT $2",
        lane,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id.into(), row.payload)).collect())
}

/// Makes waiting requests part of another, which ends with it. Hold the lane's lock ([`crate::jobs::lock_lane`]).
pub async fn absorb(db: &mut PgConnection, by: JobId, waiting: &[JobId]) -> Result<()> {
    sqlx::query!(
        "WITH over AS (
             UPDATE jobs SET state = 'done', finished_at = now() WHERE id = ANY($2) AND state = 'waiting' AND attempts = 0 RETURNING id
         )
         UPDATE updates SET job_id = $1 FROM over WHERE updates.id = over.id",
        by.0,
        &waiting.iter().map(|job| job.0).collect::<Vec<_>>()
    )
    .execute(db)
    .await?;
    Ok(())
}
