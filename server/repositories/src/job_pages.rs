//! The queue as staff see it, and what they change in it. The rules of lanes are those of [`crate::jobs`].

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::{
    BotId, ConversationId, JobId, UserId,
    views::{
        BotTransport,
        jobs::{JobHeld, JobList, JobMinute},
    },
};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Result;

/// How many jobs are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Behind another job of their lane, never tried.
    pub waiting: i64,
    /// May run, never tried.
    pub ready: i64,
    pub retrying: i64,
    pub running: i64,
    pub dead: i64,
    pub discarded: i64,
    /// Age of the oldest that has not ended.
    pub oldest_ms: Option<i64>,
}

pub async fn depth(db: &mut PgConnection) -> Result<Depth> {
    Ok(sqlx::query_as!(
        Depth,
        r#"SELECT count(*) FILTER (WHERE state = 'waiting' AND attempts = 0) AS "waiting!",
                  count(*) FILTER (WHERE state = 'ready' AND attempts = 0) AS "ready!",
                  count(*) FILTER (WHERE state IN ('waiting', 'ready') AND attempts > 0) AS "retrying!",
                  count(*) FILTER (WHERE state = 'running') AS "running!",
                  (SELECT count(*) FROM jobs WHERE state = 'dead') AS "dead!",
                  (SELECT count(*) FROM jobs WHERE state = 'discarded') AS "discarded!",
                  (extract(epoch FROM now() - min(created_at)) * 1000)::bigint AS oldest_ms
           FROM jobs WHERE state IN ('waiting', 'ready', 'running')"#
    )
    .fetch_one(db)
    .await?)
}

/// Jobs that were finished in the last 60 seconds.
pub async fn last_minute(db: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "n!" FROM jobs WHERE state = 'done' AND finished_at > now() - interval '1 minute'"#
    )
    .fetch_one(db)
    .await?)
}

/// The last 60 minutes, oldest first, empty ones included.
pub async fn minutes(db: &mut PgConnection) -> Result<Vec<JobMinute>> {
    Ok(sqlx::query_as!(
        JobMinute,
        r#"WITH minutes AS (
               SELECT generate_series(date_trunc('minute', now()) - interval '59 minutes', date_trunc('minute', now()), '1 minute') AS minute
           ), done AS (
               SELECT date_trunc('minute', finished_at) AS minute, count(*) AS n FROM jobs
               WHERE state = 'done' AND finished_at >= date_trunc('minute', now()) - interval '59 minutes' GROUP BY 1
           ), dead AS (
               SELECT date_trunc('minute', finished_at) AS minute, count(*) AS n FROM jobs
               WHERE state IN ('dead', 'discarded') AND finished_at >= date_trunc('minute', now()) - interval '59 minutes' GROUP BY 1
           )
           SELECT m.minute AS "minute!", coalesce(done.n, 0) AS "done!", coalesce(dead.n, 0) AS "dead!"
           FROM minutes m LEFT JOIN done USING (minute) LEFT JOIN dead USING (minute) ORDER BY m.minute"#
    )
    .fetch_all(db)
    .await?)
}

/// What a list is narrowed to.
#[derive(Clone, Debug)]
pub struct Filter<'a> {
    pub list: JobList,
    pub bot: Option<BotId>,
    /// Part of the last error; empty for all.
    pub words: &'a str,
    /// Sort key of the last row of the page before.
    pub after: Option<(DateTime<Utc>, Uuid)>,
}

/// The jobs of a page, in its order: what died last comes first; what is to run soonest, or has come first, of the others.
pub async fn ids(db: &mut PgConnection, filter: &Filter<'_>, limit: i64) -> Result<Vec<JobId>> {
    let words = crate::like(filter.words.trim());
    let bot = filter.bot.map(|bot| bot.0);
    let (at, id) = filter.after.unzip();
    let ids = match filter.list {
        JobList::Dead | JobList::Discarded => {
            sqlx::query_scalar!(
                "SELECT id FROM jobs j WHERE state IN ('dead', 'discarded') AND state = $1
                   AND ($2 = '' OR lower(last_error) LIKE '%' || $2 || '%')
                   AND ($3::uuid IS NULL OR EXISTS (SELECT FROM updates u WHERE u.id = j.id AND u.bot_id = $3))
                   AND ($4::timestamptz IS NULL OR (finished_at, id) < ($4, $5))
                 ORDER BY finished_at DESC, id DESC LIMIT $6",
                filter.list.name(),
                words,
                bot,
                at,
                id,
                limit
            )
            .fetch_all(db)
            .await?
        }
        JobList::Retrying => {
            sqlx::query_scalar!(
                "SELECT id FROM jobs j WHERE state IN ('waiting', 'ready') AND attempts > 0
                   AND ($1 = '' OR lower(last_error) LIKE '%' || $1 || '%')
                   AND ($2::uuid IS NULL OR EXISTS (SELECT FROM updates u WHERE u.id = j.id AND u.bot_id = $2))
                   AND ($3::timestamptz IS NULL OR (run_at, id) > ($3, $4))
                 ORDER BY run_at, id LIMIT $5",
                words,
                bot,
                at,
                id,
                limit
            )
            .fetch_all(db)
            .await?
        }
        JobList::Running | JobList::Waiting => {
            sqlx::query_scalar!(
                "SELECT id FROM jobs j WHERE state IN ('waiting', 'ready', 'running')
                   AND CASE WHEN $1 THEN state = 'running' ELSE state <> 'running' AND attempts = 0 END
                   AND ($2 = '' OR lower(last_error) LIKE '%' || $2 || '%')
                   AND ($3::uuid IS NULL OR EXISTS (SELECT FROM updates u WHERE u.id = j.id AND u.bot_id = $3))
                   AND ($4::timestamptz IS NULL OR (created_at, id) > ($4, $5))
                 ORDER BY created_at, id LIMIT $6",
                filter.list == JobList::Running,
                words,
                bot,
                at,
                id,
                limit
            )
            .fetch_all(db)
            .await?
        }
    };
    Ok(ids.into_iter().map(JobId).collect())
}

/// What runs, the longest running first.
pub async fn running(db: &mut PgConnection, limit: i64) -> Result<Vec<JobId>> {
    let ids = sqlx::query_scalar!(
        "SELECT id FROM jobs WHERE state = 'running' ORDER BY claimed_at NULLS FIRST, id LIMIT $1",
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(JobId).collect())
}

/// A job with the update that it works on. The payload holds what people wrote: it does not leave the service.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: JobId,
    pub bot: BotId,
    pub bot_name: String,
    pub transport: BotTransport,
    pub kind: String,
    pub payload: Value,
    pub state: String,
    pub attempts: i32,
    pub max_attempts: i32,
    pub created: DateTime<Utc>,
    pub run_at: DateTime<Utc>,
    pub held: Option<JobHeld>,
    pub ended: Option<DateTime<Utc>>,
    pub discarded: Option<DateTime<Utc>>,
    pub error: Option<String>,
}

/// The jobs with these ids, in their order; one that is gone is left out.
pub async fn get(db: &mut PgConnection, ids: &[JobId]) -> Result<Vec<Job>> {
    let rows = sqlx::query!(
        r#"SELECT j.id, u.bot_id, b.name AS bot_name, b.transport, u.kind, u.payload, j.state, j.attempts, j.max_attempts, j.created_at,
                  j.run_at, j.worker, j.claimed_at, j.finished_at, j.discarded_at, j.last_error,
                  (extract(epoch FROM j.lease_until - now()) * 1000)::bigint AS lease_left_ms
           FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (id, place)
           JOIN jobs j ON j.id = wanted.id JOIN updates u ON u.id = j.id JOIN bots b ON b.id = u.bot_id ORDER BY wanted.place"#,
        &ids.iter().map(|id| id.0).collect::<Vec<_>>()
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let held = (row.state == "running").then(|| JobHeld {
                worker: row.worker.unwrap_or_default(),
                since: row.claimed_at,
                lease_left_ms: row.lease_left_ms.unwrap_or(0),
            });
            Ok(Job {
                id: row.id.into(),
                bot: row.bot_id.into(),
                bot_name: row.bot_name,
                transport: crate::bots::transport(&row.transport)?,
                kind: row.kind,
                payload: row.payload,
                attempts: row.attempts,
                max_attempts: row.max_attempts,
                created: row.created_at,
                run_at: row.run_at,
                held,
                ended: row.finished_at,
                discarded: row.discarded_at,
                error: row.last_error,
                state: row.state,
            })
        })
        .collect()
}

/// Of people by what Telegram (or the playground) calls them: our ids and their names.
pub async fn people(
    db: &mut PgConnection,
    transport: BotTransport,
    external_ids: &[i64],
) -> Result<HashMap<i64, (UserId, String)>> {
    let rows = sqlx::query!(
        "SELECT external_id, id, name FROM users WHERE transport = $1 AND external_id = ANY($2)",
        crate::bots::transport_name(transport),
        external_ids
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.external_id, (row.id.into(), row.name)))
        .collect())
}

/// A place where people talk to a bot: bot, chat, topic.
pub type Place = (BotId, i64, i64);

/// The current conversation of each place that has one.
pub async fn conversations(db: &mut PgConnection, places: &[Place]) -> Result<HashMap<Place, ConversationId>> {
    let rows = sqlx::query!(
        r#"SELECT c.bot_id, c.external_id, v.thread_id, v.id
           FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS place (bot, chat, thread)
           JOIN chats c ON c.bot_id = place.bot AND c.external_id = place.chat
           JOIN conversations v ON v.chat_id = c.id AND v.thread_id = place.thread AND v.ended_at IS NULL"#,
        &places.iter().map(|place| place.0.0).collect::<Vec<_>>(),
        &places.iter().map(|place| place.1).collect::<Vec<_>>(),
        &places.iter().map(|place| place.2).collect::<Vec<_>>()
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.bot_id.into(), row.external_id, row.thread_id), row.id.into()))
        .collect())
}

/// A job that staff may act on, as it is now.
#[derive(Clone, Debug)]
pub struct Failed {
    pub id: JobId,
    pub state: String,
    pub attempts: i32,
    pub error: Option<String>,
    pub kind: String,
    pub bot_name: String,
}

/// Locks those of the jobs that failed and do not run yet, in the order in which they came, until the transaction ends; their
/// lanes first, as whoever adds to or takes from a lane does, in one order for all. The others are left out.
pub async fn lock_failed(db: &mut PgConnection, ids: &[JobId]) -> Result<Vec<Failed>> {
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    sqlx::query!(
        r#"SELECT pg_advisory_xact_lock(hash) AS "locked: ()" FROM (
               SELECT DISTINCT hashtextextended(lane, 0) AS hash FROM jobs WHERE id = ANY($1) AND lane IS NOT NULL ORDER BY 1
           ) AS lanes"#,
        &ids
    )
    .fetch_all(&mut *db)
    .await?;
    let rows = sqlx::query!(
        "SELECT j.id, j.state, j.attempts, j.last_error, u.kind, b.name FROM jobs j
         JOIN updates u ON u.id = j.id JOIN bots b ON b.id = u.bot_id
         WHERE j.id = ANY($1)
           AND (j.state IN ('dead', 'discarded') OR j.state = 'ready' AND j.attempts > 0 AND j.run_at > clock_timestamp())
         ORDER BY j.seq FOR UPDATE OF j",
        &ids
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Failed {
            id: row.id.into(),
            state: row.state,
            attempts: row.attempts,
            error: row.last_error,
            kind: row.kind,
            bot_name: row.name,
        })
        .collect())
}

/// Puts a dead or discarded job back, behind everything of its lane, and says in which state it is now. It counts as tried
/// once: the next attempt looks for what an earlier one may have sent. Hold the lane's lock.
pub async fn put_back(db: &mut PgConnection, id: JobId) -> Result<String> {
    Ok(sqlx::query_scalar!(
        "UPDATE jobs j SET seq = DEFAULT, attempts = 1, crashes = 0, run_at = now(), finished_at = NULL, discarded_at = NULL, cancel_requested = false,
                           state = CASE WHEN EXISTS (
                               SELECT FROM jobs o WHERE o.lane = j.lane AND o.state IN ('waiting', 'ready', 'running')
                           ) THEN 'waiting' ELSE 'ready' END
         WHERE id = $1 AND state IN ('dead', 'discarded') RETURNING state",
        id.0
    )
    .fetch_one(db)
    .await?)
}

/// Lets a job that waits for its next attempt have it now.
pub async fn hurry(db: &mut PgConnection, id: JobId) -> Result<()> {
    sqlx::query!("UPDATE jobs SET run_at = now() WHERE id = $1 AND state = 'ready'", id.0)
        .execute(db)
        .await?;
    Ok(())
}

/// Gives a dead letter up, or a job that waits for its next attempt: then the next of its lane may run. Hold the lane's lock.
pub async fn discard(db: &mut PgConnection, id: JobId) -> Result<()> {
    sqlx::query!(
        "WITH discarded AS (
             UPDATE jobs SET state = 'discarded', discarded_at = now(), finished_at = coalesce(finished_at, now())
             WHERE id = $1 AND state IN ('dead', 'ready') RETURNING lane
         )
         UPDATE jobs SET state = 'ready', run_at = greatest(run_at, now())
         WHERE id = (
             SELECT j.id FROM jobs j JOIN discarded USING (lane) WHERE j.state = 'waiting' AND NOT EXISTS (
                 SELECT FROM jobs o WHERE o.lane = j.lane AND o.state IN ('ready', 'running') AND o.id <> $1
             ) ORDER BY j.seq LIMIT 1
         )",
        id.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Removes jobs that staff discarded more than `keep_days` ago.
pub async fn prune_discarded(db: &mut PgConnection, keep_days: i32) -> Result<u64> {
    let pruned = sqlx::query!(
        "DELETE FROM jobs WHERE id IN (
             SELECT id FROM jobs WHERE state IN ('dead', 'discarded') AND state = 'discarded'
               AND discarded_at < now() - make_interval(days => $1) LIMIT 10000
         )",
        keep_days
    )
    .execute(db)
    .await?;
    Ok(pruned.rows_affected())
}
