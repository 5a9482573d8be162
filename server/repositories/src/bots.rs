//! Bots, their sealed tokens and the lease by which one replica runs each.

use chrono::{DateTime, Utc};
use domain::{
    BotCache, BotId,
    views::{BotRow, BotTransport, IntakeMode},
};
use sqlx::PgConnection;

use crate::{Error, Result};

/// A bot as the runtime needs it. The token is sealed.
#[derive(Clone, Debug)]
pub struct Bot {
    pub id: BotId,
    pub transport: BotTransport,
    pub name: String,
    pub username: Option<String>,
    pub telegram_id: Option<i64>,
    pub mode: IntakeMode,
    /// Staff have chosen the mode; otherwise it follows the settings.
    pub mode_chosen: bool,
    pub enabled: bool,
    pub token_cipher: Option<Vec<u8>>,
    pub token_key_id: Option<String>,
    pub persona: String,
    pub model: Option<String>,
    pub cache: BotCache,
    /// Intake that was started under another number is to start anew.
    pub restarts: i32,
}

struct Row {
    id: uuid::Uuid,
    transport: String,
    name: String,
    username: Option<String>,
    telegram_id: Option<i64>,
    mode: String,
    mode_chosen: bool,
    enabled: bool,
    token_cipher: Option<Vec<u8>>,
    token_key_id: Option<String>,
    persona: String,
    model: Option<String>,
    cache: String,
    cache_seconds: i32,
    cache_similar_by: Option<String>,
    cache_similar_from: i32,
    restarts: i32,
}

/// From its columns, as several tables of pages read them.
pub(crate) fn cache(sharing: &str, seconds: i32, similar_by: Option<String>, similar_from: i32) -> Result<BotCache> {
    let stored = |_| Error::Stored("bots.cache");
    Ok(BotCache {
        sharing: sharing.parse().map_err(stored)?,
        kept_for: seconds.try_into().map_err(stored)?,
        similar_by,
        similar_from: similar_from.try_into().map_err(stored)?,
    })
}

pub(crate) fn transport(text: &str) -> Result<BotTransport> {
    match text {
        "telegram" => Ok(BotTransport::Telegram),
        "browser" => Ok(BotTransport::Browser),
        _ => Err(Error::Stored("bots.transport")),
    }
}

pub(crate) fn transport_name(transport: BotTransport) -> &'static str {
    match transport {
        BotTransport::Telegram => "telegram",
        BotTransport::Browser => "browser",
    }
}

fn mode(text: &str) -> Result<IntakeMode> {
    match text {
        "polling" => Ok(IntakeMode::Polling),
        "webhook" => Ok(IntakeMode::Webhook),
        _ => Err(Error::Stored("bots.mode")),
    }
}

pub(crate) fn mode_name(mode: IntakeMode) -> &'static str {
    match mode {
        IntakeMode::Polling => "polling",
        IntakeMode::Webhook => "webhook",
    }
}

impl TryFrom<Row> for Bot {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            id: row.id.into(),
            transport: transport(&row.transport)?,
            mode: mode(&row.mode)?,
            mode_chosen: row.mode_chosen,
            name: row.name,
            username: row.username,
            telegram_id: row.telegram_id,
            enabled: row.enabled,
            token_cipher: row.token_cipher,
            token_key_id: row.token_key_id,
            persona: row.persona,
            model: row.model,
            cache: cache(
                &row.cache,
                row.cache_seconds,
                row.cache_similar_by,
                row.cache_similar_from,
            )?,
            restarts: row.restarts,
        })
    }
}

pub async fn all(db: &mut PgConnection) -> Result<Vec<Bot>> {
    sqlx::query_as!(
        Row,
        "SELECT id, transport, name, username, telegram_id, mode, mode_chosen, enabled, token_cipher, token_key_id, persona, model,
                cache, cache_seconds, cache_similar_by, cache_similar_from, restarts
         FROM bots ORDER BY created_at, id"
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(Bot::try_from)
    .collect()
}

pub async fn get(db: &mut PgConnection, id: BotId) -> Result<Option<Bot>> {
    sqlx::query_as!(
        Row,
        "SELECT id, transport, name, username, telegram_id, mode, mode_chosen, enabled, token_cipher, token_key_id, persona, model,
                cache, cache_seconds, cache_similar_by, cache_similar_from, restarts
         FROM bots WHERE id = $1",
        id.0
    )
    .fetch_optional(db)
    .await?
    .map(Bot::try_from)
    .transpose()
}

/// Locked until the transaction ends, so that a before/after record is true.
pub async fn lock(db: &mut PgConnection, id: BotId) -> Result<Option<Bot>> {
    sqlx::query!("SELECT FROM bots WHERE id = $1 FOR UPDATE", id.0)
        .fetch_optional(&mut *db)
        .await?;
    get(db, id).await
}

/// The same by Telegram's id.
pub async fn lock_telegram(db: &mut PgConnection, telegram_id: i64) -> Result<Option<Bot>> {
    let id = sqlx::query_scalar!("SELECT id FROM bots WHERE telegram_id = $1 FOR UPDATE", telegram_id)
        .fetch_optional(&mut *db)
        .await?;
    match id {
        Some(id) => get(db, id.into()).await,
        None => Ok(None),
    }
}

/// For the dashboard. `since` is the start of today.
pub async fn rows(db: &mut PgConnection, since: DateTime<Utc>, default_model: &str) -> Result<Vec<BotRow>> {
    let live = crate::rollups::live(db, since).await?;
    let rows = sqlx::query!(
        r#"SELECT b.id, b.transport, b.name, b.username, b.mode, b.enabled, b.fault, b.last_update_at, b.model,
                  (b.transport = 'browser' OR coalesce(b.lease_until > now(), false)) AS "running!",
                  (coalesce((SELECT sum(h.calls - h.failed) FROM usage_hours h
                             WHERE h.starts_at >= $1 AND h.starts_at < $2 AND h.bot_id = b.id
                                   -- Questions are compared by these, and answered by none.
                                   AND h.model NOT IN (SELECT name FROM models WHERE kind = 'embedding')), 0)
                   + (SELECT count(*) FROM usage u
                      WHERE u.bot_id = b.id AND u.at >= $2 AND u.finish <> 'failed' AND u.user_id IS NOT NULL))::bigint
                      AS "messages_today!"
           FROM bots b ORDER BY b.transport DESC, b.created_at, b.id"#,
        since,
        live
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(BotRow {
                id: row.id.into(),
                transport: transport(&row.transport)?,
                mode: mode(&row.mode)?,
                name: row.name,
                username: row.username,
                enabled: row.enabled,
                running: row.enabled && row.running && row.fault.is_none(),
                fault: row.fault,
                last_update: row.last_update_at,
                model: row.model.unwrap_or_else(|| default_model.to_owned()),
                messages_today: row.messages_today,
            })
        })
        .collect()
}

/// A Telegram bot to be added, or whose token and mode are to be replaced.
pub struct NewTelegramBot<'a> {
    pub id: BotId,
    pub telegram_id: i64,
    pub name: &'a str,
    pub username: Option<&'a str>,
    pub mode: IntakeMode,
    pub token_cipher: &'a [u8],
    pub token_key_id: &'a str,
}

/// Adds the bot, or gives the one with the same Telegram id this token and mode. The id is that of the row that stands.
pub async fn upsert_telegram(
    db: &mut PgConnection,
    bot: &NewTelegramBot<'_>,
    now: DateTime<Utc>,
) -> Result<(BotId, bool)> {
    let row = sqlx::query!(
        r#"INSERT INTO bots AS b (id, transport, name, username, telegram_id, mode, token_cipher, token_key_id, created_at)
           VALUES ($1, 'telegram', $2, $3, $4, $5, $6, $7, $8)
           ON CONFLICT (telegram_id) DO UPDATE SET
               mode = excluded.mode, token_cipher = excluded.token_cipher, token_key_id = excluded.token_key_id,
               fault = NULL, token_refused = false,
               username = coalesce(excluded.username, b.username)
           RETURNING id, (xmax = 0) AS "added!""#,
        bot.id.0,
        bot.name,
        bot.username,
        bot.telegram_id,
        mode_name(bot.mode),
        bot.token_cipher,
        bot.token_key_id,
        now
    )
    .fetch_one(db)
    .await?;
    Ok((row.id.into(), row.added))
}

/// The same token under another key; false when somebody else has changed it since.
pub async fn seal_anew(db: &mut PgConnection, id: BotId, old: &[u8], cipher: &[u8], key_id: &str) -> Result<bool> {
    let done = sqlx::query!(
        "UPDATE bots SET token_cipher = $3, token_key_id = $4 WHERE id = $1 AND token_cipher = $2",
        id.0,
        old,
        cipher,
        key_id
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What getMe said.
pub async fn set_identity(db: &mut PgConnection, id: BotId, name: &str, username: Option<&str>) -> Result<()> {
    sqlx::query!(
        "UPDATE bots SET name = $2, username = $3 WHERE id = $1",
        id.0,
        name,
        username
    )
    .execute(db)
    .await?;
    Ok(())
}

/// False when there is no such bot.
pub async fn is_enabled(db: &mut PgConnection, id: BotId) -> Result<bool> {
    let enabled = sqlx::query_scalar!("SELECT enabled FROM bots WHERE id = $1", id.0);
    Ok(enabled.fetch_optional(db).await?.unwrap_or(false))
}

/// Starting again forgets the old fault.
pub async fn set_enabled(db: &mut PgConnection, id: BotId, enabled: bool) -> Result<()> {
    sqlx::query!(
        "UPDATE bots SET enabled = $2, fault = CASE WHEN $2 THEN NULL ELSE fault END, token_refused = token_refused AND NOT $2
         WHERE id = $1",
        id.0,
        enabled
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What keeps a bot from running.
#[derive(Clone, Copy, Debug)]
pub struct Fault<'a> {
    /// For staff; `None`: nothing.
    pub words: Option<&'a str>,
    /// Telegram does not take the token.
    pub token_refused: bool,
}

impl<'a> Fault<'a> {
    pub const NONE: Self = Self {
        words: None,
        token_refused: false,
    };

    pub const fn words(words: &'a str) -> Self {
        Self {
            words: Some(words),
            token_refused: false,
        }
    }
}

/// By `holder` of the bot's lease only, if one is named: whoever has lost it may have seen nothing but its successor at work.
pub async fn set_fault(db: &mut PgConnection, id: BotId, holder: Option<&str>, fault: Fault<'_>) -> Result<()> {
    sqlx::query!(
        "UPDATE bots SET fault = $2, token_refused = $3
         WHERE id = $1 AND (fault IS DISTINCT FROM $2 OR token_refused <> $3)
           AND ($4::text IS NULL OR lease_holder = $4 AND lease_until > now())",
        id.0,
        fault.words,
        fault.token_refused,
        holder
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes or renews the lease for `seconds`; false while another replica holds it. The database's clock decides.
pub async fn lease(db: &mut PgConnection, id: BotId, holder: &str, seconds: f64) -> Result<bool> {
    let taken = sqlx::query!(
        "UPDATE bots SET lease_holder = $2, lease_until = now() + make_interval(secs => $3)
         WHERE id = $1 AND enabled AND (lease_holder = $2 OR lease_holder IS NULL OR lease_until < now())",
        id.0,
        holder,
        seconds
    )
    .execute(db)
    .await?;
    Ok(taken.rows_affected() == 1)
}

pub async fn release(db: &mut PgConnection, id: BotId, holder: &str) -> Result<()> {
    sqlx::query!(
        "UPDATE bots SET lease_holder = NULL, lease_until = NULL WHERE id = $1 AND lease_holder = $2",
        id.0,
        holder
    )
    .execute(db)
    .await?;
    Ok(())
}
