//! Calls of other programs: noted while they run, then written into the ledger, many at a time.

use chrono::{DateTime, Utc};
use domain::{ApiKeyId, TraceId, views::requests::TryRow};
use serde::Serialize;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::Result;

/// A call that begins. What it may use at most is charged if nobody ever says what it did use.
#[derive(Clone, Debug, Serialize)]
pub struct Intent {
    pub id: Uuid,
    pub api_key_id: ApiKeyId,
    pub alias: String,
    pub began_at: DateTime<Utc>,
    pub estimated_tokens: i64,
    /// Nano-dollars.
    pub estimated_cost: i64,
    pub trace_id: Option<TraceId>,
}

/// A call that has ended, as the ledger takes it. Money in nano-dollars.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub id: Uuid,
    /// An [`Intent`] was written before: without one, the call has been charged already and is left out.
    pub intended: bool,
    pub at: DateTime<Utc>,
    pub api_key_id: ApiKeyId,
    pub alias: String,
    pub provider: String,
    pub provider_id: Option<Uuid>,
    pub model: String,
    pub model_id: Option<Uuid>,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub cached_tokens: i64,
    pub reasoning_tokens: i64,
    pub audio_input_tokens: i64,
    pub audio_output_tokens: i64,
    pub images: i64,
    pub reported: bool,
    pub cost: i64,
    pub input_price: Option<i64>,
    pub cached_price: Option<i64>,
    pub output_price: Option<i64>,
    pub reasoning_price: Option<i64>,
    pub image_price: Option<i64>,
    pub audio_input_price: Option<i64>,
    pub audio_output_price: Option<i64>,
    pub finish: String,
    pub first_token_ms: Option<i64>,
    pub total_ms: i64,
    pub tries: Vec<TryRow>,
    pub cache: &'static str,
    pub error_code: Option<&'static str>,
    pub http_status: i32,
    pub trace_id: Option<TraceId>,
}

/// Says that a replica lives, by the database's clock, and whether it asks models. Returns how many do that have not been silent for so
/// long, this one among them.
pub async fn beat(db: &mut PgConnection, replica: Uuid, asks: bool, silent_seconds: f64) -> Result<u32> {
    let others = sqlx::query_scalar!(
        r#"WITH mine AS (
               INSERT INTO api_replicas (id, alive_at, asks) VALUES ($1, now(), $3)
               ON CONFLICT (id) DO UPDATE SET alive_at = excluded.alive_at, asks = excluded.asks
           )
           SELECT count(*) AS "count!" FROM api_replicas
           WHERE id <> $1 AND asks AND alive_at > now() - make_interval(secs => $2)"#,
        replica,
        silent_seconds,
        asks
    )
    .fetch_one(db)
    .await?;
    Ok(u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1))
}

/// Notes calls that begin. Done again, it changes nothing.
pub async fn begin(db: &mut PgConnection, replica: Uuid, intents: &[&Intent]) -> Result<()> {
    sqlx::query!(
        "INSERT INTO api_calls (id, replica_id, api_key_id, alias, began_at, estimated_tokens, estimated_cost, trace_id)
         SELECT id, $1, api_key_id, alias, began_at, estimated_tokens, estimated_cost, trace_id
         FROM jsonb_to_recordset($2) AS t (id uuid, api_key_id uuid, alias text, began_at timestamptz, estimated_tokens bigint,
                                           estimated_cost bigint, trace_id uuid)
         ON CONFLICT (id) DO NOTHING",
        replica,
        Json(intents) as _
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Writes the lines of calls that have ended and takes their notes away, in one statement. Done again, it changes nothing. The line of
/// a key that is not there any more names none. Returns the calls whose lines it wrote.
pub async fn end(db: &mut PgConnection, lines: &[&Line]) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        "WITH ended AS MATERIALIZED (
             SELECT * FROM jsonb_to_recordset($1) AS t (
                 id uuid, intended boolean, at timestamptz, api_key_id uuid, alias text, provider text, provider_id uuid, model text,
                 model_id uuid, prompt_tokens bigint, completion_tokens bigint, cached_tokens bigint, reasoning_tokens bigint,
                 images bigint, reported boolean, cost bigint, input_price bigint, cached_price bigint, output_price bigint,
                 finish text, first_token_ms bigint, total_ms bigint, tries jsonb, cache text, error_code text, http_status integer,
                 reasoning_price bigint, image_price bigint, audio_input_price bigint, audio_output_price bigint,
                 audio_input_tokens bigint, audio_output_tokens bigint, trace_id uuid)
         ), gone AS (
             DELETE FROM api_calls c USING ended e WHERE c.id = e.id RETURNING c.id
         )
         INSERT INTO usage (job_id, at, api_key_id, alias, provider, provider_id, model, model_id, prompt_tokens, completion_tokens,
                            cached_tokens, reasoning_tokens, images, reported, cost, input_price, cached_price, output_price, attempts,
                            finish, first_token_ms, total_ms, felt_ms, tries, cache, error_code, http_status, reasoning_price, image_price,
                            audio_input_price, audio_output_price, audio_input_tokens, audio_output_tokens, trace_id)
         SELECT id, at, (SELECT k.id FROM api_keys k WHERE k.id = e.api_key_id), alias, provider, provider_id, model, model_id, prompt_tokens, completion_tokens, cached_tokens,
                reasoning_tokens, images, reported, cost, input_price, cached_price, output_price, greatest(jsonb_array_length(tries), 1),
                finish, first_token_ms, total_ms, total_ms, tries, cache, error_code, http_status, reasoning_price, image_price,
                audio_input_price, audio_output_price, audio_input_tokens, audio_output_tokens, trace_id
         FROM ended e WHERE NOT intended OR EXISTS (SELECT FROM gone g WHERE g.id = e.id)
         ON CONFLICT (job_id, at) DO NOTHING
         RETURNING job_id",
        Json(lines) as _
    )
    .fetch_all(db)
    .await?)
}

/// What a call that nobody has ended was charged.
#[derive(Clone, Debug)]
pub struct Charged {
    pub api_key_id: ApiKeyId,
    pub alias: String,
    pub tokens: i64,
    /// Nano-dollars.
    pub cost: i64,
    /// Something is set aside for it.
    pub held: bool,
}

/// Charges the calls of replicas that have not been heard of for a while by their estimates, once. Call inside a transaction.
pub async fn charge_lost(db: &mut PgConnection, silent_seconds: f64, now: DateTime<Utc>) -> Result<Vec<Charged>> {
    let charged = sqlx::query_as!(
        Charged,
        r#"WITH lost AS (
               DELETE FROM api_calls c USING api_replicas r
               WHERE r.id = c.replica_id AND r.alive_at < now() - make_interval(secs => $1) RETURNING c.*
           ), written AS (
               INSERT INTO usage (job_id, at, api_key_id, alias, provider, model, prompt_tokens, completion_tokens, cached_tokens, reported,
                                  cost, attempts, finish, total_ms, felt_ms, error_code, trace_id)
               SELECT id, $2, api_key_id, alias, '', alias, estimated_tokens, 0, 0, false, estimated_cost, 1, 'failed', 0, 0, 'BD-INTERNAL', trace_id
               FROM lost
           )
           SELECT api_key_id, alias, estimated_tokens AS tokens, estimated_cost AS cost,
                  EXISTS (SELECT FROM holds h WHERE h.call_id = lost.id) AS "held!"
           FROM lost"#,
        silent_seconds,
        now
    )
    .fetch_all(&mut *db)
    .await?;
    sqlx::query!(
        "DELETE FROM api_replicas r WHERE alive_at < now() - interval '1 day'
         AND NOT EXISTS (SELECT FROM api_calls c WHERE c.replica_id = r.id)"
    )
    .execute(db)
    .await?;
    Ok(charged)
}
