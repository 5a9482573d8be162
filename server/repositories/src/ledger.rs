//! What was used and what failed, and the figures drawn from it.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use domain::{
    BotId, ConversationId, JobId, ModelId, Money, Price, TraceId, UserId,
    views::{CodeCount, HourPoint, UserError, requests::TryRow},
};
use sqlx::{PgConnection, types::Json};

use crate::{Result, rollups};

/// One line of the ledger.
#[derive(Clone, Debug)]
pub struct Usage<'a> {
    pub job: JobId,
    pub at: DateTime<Utc>,
    /// `None` of what is done for a bot as a whole.
    pub user: Option<UserId>,
    pub bot: BotId,
    pub conversation: Option<ConversationId>,
    pub provider: &'a str,
    pub model: &'a str,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub cached_tokens: i64,
    pub reported: bool,
    pub cost: Money,
    pub attempts: i32,
    pub finish: &'a str,
    pub first_token_ms: Option<i64>,
    pub total_ms: i64,
    pub felt_ms: i64,
    /// The name that was asked for.
    pub alias: &'a str,
    pub model_id: Option<ModelId>,
    pub reasoning_tokens: i64,
    pub audio_input_tokens: i64,
    pub audio_output_tokens: i64,
    pub images: i64,
    /// At what it was billed.
    pub price: Price,
    pub tries: &'a [TryRow],
    /// Empty, or which cache it came from: `exact` or `semantic`.
    pub cache: &'a str,
    pub error_code: Option<&'a str>,
    /// What it was part of.
    pub trace: Option<TraceId>,
}

/// Whether a job's answer is in the ledger.
pub async fn has(db: &mut PgConnection, job: JobId) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM usage WHERE job_id = $1) AS "has!""#,
        job.0
    )
    .fetch_one(db)
    .await?)
}

/// Writes the line. The job is its key: a second line for the same answer is an error, never a second bill.
pub async fn insert(db: &mut PgConnection, usage: &Usage<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO usage (job_id, at, user_id, bot_id, conversation_id, provider, model, prompt_tokens, completion_tokens,
                            cached_tokens, reported, cost, attempts, finish, first_token_ms, total_ms, felt_ms, alias, input_price,
                            cached_price, output_price, error_code, model_id, reasoning_tokens, tries, cache, reasoning_price, image_price,
                            audio_input_price, audio_output_price, audio_input_tokens, audio_output_tokens, images, trace_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26,
                 $27, $28, $29, $30, $31, $32, $33, $34)",
        usage.job.0,
        usage.at,
        usage.user.map(|id| id.0),
        usage.bot.0,
        usage.conversation.map(|id| id.0),
        usage.provider,
        usage.model,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.reported,
        usage.cost.nanos(),
        usage.attempts,
        usage.finish,
        usage.first_token_ms,
        usage.total_ms,
        usage.felt_ms,
        usage.alias,
        usage.price.input.nanos(),
        usage.price.cached_input.nanos(),
        usage.price.output.nanos(),
        usage.error_code,
        usage.model_id.map(|id| id.0),
        usage.reasoning_tokens,
        Json(usage.tries) as _,
        usage.cache,
        usage.price.of_reasoning().nanos(),
        usage.price.image.nanos(),
        usage.price.audio_input.nanos(),
        usage.price.audio_output.nanos(),
        usage.audio_input_tokens,
        usage.audio_output_tokens,
        usage.images,
        usage.trace.map(TraceId::as_uuid)
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A failure that somebody met.
#[derive(Clone, Debug)]
pub struct Failure<'a> {
    pub at: DateTime<Utc>,
    pub code: &'a str,
    pub cause: Option<&'a str>,
    pub user: Option<UserId>,
    pub bot: Option<BotId>,
    pub conversation: Option<ConversationId>,
    pub job: Option<JobId>,
}

pub async fn insert_failure(db: &mut PgConnection, failure: &Failure<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO errors (id, at, code, cause, user_id, bot_id, conversation_id, job_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        uuid::Uuid::now_v7(),
        failure.at,
        failure.code,
        failure.cause.map(crate::storable),
        failure.user.map(|id| id.0),
        failure.bot.map(|id| id.0),
        failure.conversation.map(|id| id.0),
        failure.job.map(|id| id.0)
    )
    .execute(db)
    .await?;
    Ok(())
}

pub async fn failures_of(db: &mut PgConnection, user: UserId, limit: i64) -> Result<Vec<UserError>> {
    let rows = sqlx::query!(
        "SELECT at, code, conversation_id FROM errors WHERE user_id = $1 ORDER BY at DESC LIMIT $2",
        user.0,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| UserError {
            at: row.at,
            code: row.code,
            conversation: row.conversation_id.map(ConversationId),
        })
        .collect())
}

/// The figures of a day. Times are those of answers: how long a failure took says nothing about them.
#[derive(Clone, Debug)]
pub struct Totals {
    pub messages: i64,
    /// Who wrote, whatever came of it.
    pub active_users: i64,
    pub errors: i64,
    pub used: rollups::Sums,
    pub cost_month: Money,
}

pub async fn totals(db: &mut PgConnection, day: DateTime<Utc>, month: DateTime<Utc>) -> Result<Totals> {
    let row = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM messages WHERE created_at >= $1 AND author = 'user') AS "messages!",
                  (SELECT count(*) FROM errors WHERE at >= $1) AS "errors!",
                  (SELECT count(*) FROM users WHERE last_seen_at >= $1) AS "users!""#,
        day
    )
    .fetch_one(&mut *db)
    .await?;
    Ok(Totals {
        messages: row.messages,
        active_users: row.users,
        errors: row.errors,
        used: rollups::sums(db, day).await?,
        cost_month: rollups::spent(db, month).await?,
    })
}

/// The 24 hours that end with the current one, empty ones included.
pub async fn hours(db: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<HourPoint>> {
    let hour = now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
    let live = rollups::live(db, hour - TimeDelta::hours(23)).await?;
    let rows = sqlx::query!(
        r#"WITH hours AS (
               SELECT generate_series(date_trunc('hour', $1::timestamptz, 'UTC') - interval '23 hours', date_trunc('hour', $1, 'UTC'), '1 hour') AS hour
           ), used AS (
               SELECT hour, sum(messages)::bigint AS messages, sum(cost)::bigint AS cost FROM (
                   SELECT starts_at AS hour, calls - failed AS messages, cost FROM usage_hours
                   WHERE starts_at >= date_trunc('hour', $1, 'UTC') - interval '23 hours' AND starts_at < $2
                   UNION ALL
                   SELECT date_trunc('hour', at, 'UTC'), (finish <> 'failed')::int, cost FROM usage WHERE at >= $2
               ) AS parts GROUP BY 1
           ), failed AS (
               SELECT date_trunc('hour', at, 'UTC') AS hour, count(*) AS errors FROM errors WHERE at >= $1 - interval '25 hours' GROUP BY 1
           )
           SELECT h.hour AS "hour!", coalesce(u.messages, 0) AS "messages!", coalesce(u.cost, 0) AS "cost!", coalesce(f.errors, 0) AS "errors!"
           FROM hours h LEFT JOIN used u USING (hour) LEFT JOIN failed f USING (hour) ORDER BY h.hour"#,
        now,
        live
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| HourPoint {
            hour: row.hour,
            messages: row.messages,
            errors: row.errors,
            cost: Money::from_nanos(row.cost),
        })
        .collect())
}

pub async fn failures_by_code(db: &mut PgConnection, since: DateTime<Utc>) -> Result<Vec<CodeCount>> {
    Ok(sqlx::query_as!(
        CodeCount,
        r#"SELECT code, count(*) AS "count!" FROM errors WHERE at >= $1 GROUP BY code ORDER BY 2 DESC, 1 LIMIT 20"#,
        since
    )
    .fetch_all(db)
    .await?)
}
