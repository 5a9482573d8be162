//! The log of calls to models, newest first.

use chrono::{DateTime, Utc};
use domain::{
    ApiKeyId, BotId, ConversationId, Money, TraceId, UserId,
    views::requests::{BilledAt, Named, Outcome, RequestRow, TryRow},
};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use crate::Result;

/// What the list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub outcome: Outcome,
    pub code: Option<String>,
    /// Of a call, or of the trace that it was part of.
    pub id: Option<Uuid>,
    pub model: Option<String>,
    pub bot: Option<BotId>,
    pub user: Option<UserId>,
    pub key: Option<ApiKeyId>,
    pub conversation: Option<ConversationId>,
    pub from: Option<DateTime<Utc>>,
    /// The first moment that is left out.
    pub until: Option<DateTime<Utc>>,
    /// Sort key of the last row of the page before.
    pub after: Option<(DateTime<Utc>, Uuid)>,
}

#[derive(FromRow)]
struct Row {
    job_id: Uuid,
    at: DateTime<Utc>,
    user_id: Option<Uuid>,
    user_name: Option<String>,
    api_key_id: Option<Uuid>,
    key_name: Option<String>,
    bot_id: Option<Uuid>,
    bot_name: Option<String>,
    conversation_id: Option<Uuid>,
    alias: Option<String>,
    provider: String,
    model: String,
    /// Stored as they are shown.
    tries: Option<Json<Vec<TryRow>>>,
    prompt_tokens: i64,
    cached_tokens: i64,
    completion_tokens: i64,
    reasoning_tokens: Option<i64>,
    audio_input_tokens: Option<i64>,
    audio_output_tokens: Option<i64>,
    images: Option<i64>,
    reported: bool,
    cost: i64,
    input_price: Option<i64>,
    cached_price: Option<i64>,
    output_price: Option<i64>,
    reasoning_price: Option<i64>,
    image_price: Option<i64>,
    audio_input_price: Option<i64>,
    audio_output_price: Option<i64>,
    first_token_ms: Option<i64>,
    total_ms: i64,
    felt_ms: i64,
    cache: String,
    finish: String,
    error_code: Option<String>,
    http_status: Option<i32>,
    trace_id: Option<Uuid>,
}

fn named<T: From<Uuid>>(id: Option<Uuid>, name: Option<String>) -> Option<Named<T>> {
    id.map(|id| Named {
        id: id.into(),
        name: name.unwrap_or_default(),
    })
}

impl From<Row> for RequestRow {
    fn from(row: Row) -> Self {
        let money = |nanos: Option<i64>| nanos.map(Money::from_nanos);
        let billed_at = BilledAt {
            input: money(row.input_price),
            cached_input: money(row.cached_price),
            output: money(row.output_price),
            reasoning: money(row.reasoning_price),
            image: money(row.image_price),
            audio_input: money(row.audio_input_price),
            audio_output: money(row.audio_output_price),
        };
        Self {
            id: row.job_id,
            at: row.at,
            user: named(row.user_id, row.user_name),
            key: named(row.api_key_id, row.key_name),
            bot: named(row.bot_id, row.bot_name),
            conversation: row.conversation_id.map(ConversationId),
            alias: row.alias.unwrap_or_else(|| row.model.clone()),
            provider: row.provider,
            model: row.model,
            tries: row.tries.map(|tries| tries.0).unwrap_or_default(),
            prompt_tokens: row.prompt_tokens,
            cached_tokens: row.cached_tokens,
            completion_tokens: row.completion_tokens,
            reasoning_tokens: row.reasoning_tokens,
            audio_input_tokens: row.audio_input_tokens,
            audio_output_tokens: row.audio_output_tokens,
            images: row.images,
            reported: row.reported,
            cost: Money::from_nanos(row.cost),
            billed_at,
            first_token_ms: row.first_token_ms,
            total_ms: row.total_ms,
            felt_ms: row.felt_ms,
            cache: row.cache,
            finish: row.finish,
            code: row.error_code,
            status: row.http_status,
            trace: row.trace_id.and_then(TraceId::new),
        }
    }
}

const SELECT: &str = "SELECT g.job_id, g.at, g.user_id, u.name AS user_name, g.api_key_id, k.name AS key_name, g.bot_id, b.name AS bot_name,
        g.conversation_id, g.alias, g.provider, g.model, g.tries, g.prompt_tokens, g.cached_tokens, g.completion_tokens,
        g.reasoning_tokens, g.images, g.reported, g.cost, g.input_price, g.cached_price, g.output_price, g.reasoning_price,
        g.image_price, g.audio_input_price, g.audio_output_price, g.audio_input_tokens, g.audio_output_tokens, g.first_token_ms, g.total_ms,
        g.felt_ms, g.cache, g.finish, g.error_code, g.http_status, g.trace_id
    FROM usage g LEFT JOIN users u ON u.id = g.user_id LEFT JOIN api_keys k ON k.id = g.api_key_id LEFT JOIN bots b ON b.id = g.bot_id
    WHERE ";

/// One page. The columns of the order are those of an index by each of bot, user and key as well.
pub async fn list(db: &mut PgConnection, filter: &Filter, limit: i64) -> Result<Vec<RequestRow>> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT);
    let mut conditions = query.separated(" AND ");
    conditions.push("true");
    match filter.outcome {
        Outcome::Any => {}
        // Rows of a release before have no code; what failed altogether says so by itself.
        Outcome::Good => {
            conditions.push("g.error_code IS NULL AND g.finish <> 'failed'");
        }
        Outcome::Failed => {
            conditions.push("g.error_code IS NOT NULL");
        }
    }
    if let Some(code) = &filter.code {
        conditions.push("g.error_code = ").push_bind_unseparated(code);
    }
    if let Some(id) = filter.id {
        conditions.push("(g.trace_id = ").push_bind_unseparated(id);
        conditions
            .push_unseparated(" OR g.job_id = ")
            .push_bind_unseparated(id)
            .push_unseparated(")");
    }
    if let Some(model) = &filter.model {
        conditions.push("(g.alias = ").push_bind_unseparated(model);
        conditions
            .push_unseparated(" OR g.model = ")
            .push_bind_unseparated(model)
            .push_unseparated(")");
    }
    if let Some(bot) = filter.bot {
        conditions.push("g.bot_id = ").push_bind_unseparated(bot.0);
    }
    if let Some(user) = filter.user {
        conditions.push("g.user_id = ").push_bind_unseparated(user.0);
    }
    if let Some(key) = filter.key {
        conditions.push("g.api_key_id = ").push_bind_unseparated(key.0);
    }
    if let Some(conversation) = filter.conversation {
        conditions
            .push("g.conversation_id = ")
            .push_bind_unseparated(conversation.0);
    }
    // By these Postgres leaves out the months that lie beyond.
    if let Some(from) = filter.from {
        conditions.push("g.at >= ").push_bind_unseparated(from);
    }
    if let Some(until) = filter.until {
        conditions.push("g.at < ").push_bind_unseparated(until);
    }
    if let Some((at, id)) = filter.after {
        // Says nothing more than the next, of which no month is left out.
        conditions.push("g.at <= ").push_bind_unseparated(at);
        conditions.push("(g.at, g.job_id) < (").push_bind_unseparated(at);
        conditions
            .push_unseparated(", ")
            .push_bind_unseparated(id)
            .push_unseparated(")");
    }
    query.push(" ORDER BY g.at DESC, g.job_id DESC LIMIT ").push_bind(limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(db).await?;
    Ok(rows.into_iter().map(RequestRow::from).collect())
}

/// One call by the id of its job.
pub async fn get(db: &mut PgConnection, id: Uuid) -> Result<Option<RequestRow>> {
    let mut query = QueryBuilder::<Postgres>::new(SELECT);
    query
        .push("g.job_id = ")
        .push_bind(id)
        .push(" ORDER BY g.at DESC LIMIT 1");
    let row: Option<Row> = query.build_query_as().fetch_optional(db).await?;
    Ok(row.map(RequestRow::from))
}
