//! Bots as staff see them: their health, and the settings that staff change.

use chrono::{DateTime, Utc};
use domain::{BotCache, BotId, views::IntakeMode};
use sqlx::PgConnection;

use crate::{
    Result,
    bots::{self, mode_name},
};

/// How a bot is doing, and what it is set to.
#[derive(Clone, Debug)]
pub struct Health {
    pub id: BotId,
    pub enabled: bool,
    /// Of Telegram, and not of the browser, which has no intake that could fail.
    pub telegram: bool,
    pub fault: Option<String>,
    pub last_update_at: Option<DateTime<Utc>>,
    pub lease_holder: Option<String>,
    /// Age of its oldest job that waits.
    pub lag_ms: Option<i64>,
    pub pending: Option<(i64, DateTime<Utc>)>,
    /// In the last hour.
    pub flood_waits: i64,
    pub persona: String,
    pub model: Option<String>,
    pub cache: BotCache,
}

/// Of every bot. Jobs without a lane are not looked at: they do not wait.
pub async fn health(db: &mut PgConnection) -> Result<Vec<Health>> {
    let rows = sqlx::query!(
        r#"WITH oldest AS (
               -- The lane begins with the bot's id.
               SELECT left(lane, 36) AS bot, min(created_at) AS at FROM jobs
               WHERE state IN ('waiting', 'ready') AND lane IS NOT NULL GROUP BY 1
           )
           SELECT b.id, b.persona, b.model, b.cache, b.cache_seconds, b.cache_similar_by, b.cache_similar_from, b.pending_updates, b.pending_at, b.enabled, b.transport = 'telegram' AS "telegram!",
                  b.fault, b.last_update_at,
                  CASE WHEN b.enabled AND b.lease_until > now() THEN b.lease_holder END AS lease_holder,
                  (extract(epoch FROM now() - o.at) * 1000)::bigint AS lag_ms,
                  (SELECT coalesce(sum(f.waits), 0) FROM flood_waits f
                   WHERE f.bot_id = b.id AND f.minute > now() - interval '1 hour')::bigint AS "flood_waits!"
           FROM bots b LEFT JOIN oldest o ON o.bot = b.id::text ORDER BY b.created_at, b.id"#
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Health {
                id: row.id.into(),
                enabled: row.enabled,
                telegram: row.telegram,
                fault: row.fault,
                last_update_at: row.last_update_at,
                lease_holder: row.lease_holder,
                lag_ms: row.lag_ms,
                pending: row.pending_updates.zip(row.pending_at),
                flood_waits: row.flood_waits,
                persona: row.persona,
                model: row.model,
                cache: bots::cache(
                    &row.cache,
                    row.cache_seconds,
                    row.cache_similar_by,
                    row.cache_similar_from,
                )?,
            })
        })
        .collect()
}

/// `None` is the default model.
pub async fn set_manner(db: &mut PgConnection, id: BotId, persona: &str, model: Option<&str>) -> Result<()> {
    sqlx::query!(
        "UPDATE bots SET persona = $2, model = $3 WHERE id = $1",
        id.0,
        persona,
        model
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Which answers it gives again.
pub async fn set_cache(db: &mut PgConnection, id: BotId, cache: &BotCache) -> Result<()> {
    sqlx::query!(
        "UPDATE bots SET cache = $2, cache_seconds = $3, cache_similar_by = $4, cache_similar_from = $5 WHERE id = $1",
        id.0,
        cache.sharing.name(),
        cache.kept_for.seconds(),
        cache.similar_by,
        cache.similar_from.likeness().thousandths()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Intake starts anew in the other way, and an old fault is forgotten. `chosen`: by staff, who are not overruled by a later start.
pub async fn set_mode(db: &mut PgConnection, id: BotId, mode: IntakeMode, chosen: bool) -> Result<()> {
    sqlx::query!(
        "UPDATE bots SET mode = $2, mode_chosen = $3, fault = NULL, pending_updates = NULL, pending_at = NULL WHERE id = $1",
        id.0,
        mode_name(mode),
        chosen
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The sealed token, and what Telegram calls the bot; an old fault is forgotten.
pub async fn set_token(
    db: &mut PgConnection,
    id: BotId,
    cipher: &[u8],
    key_id: &str,
    name: &str,
    username: Option<&str>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE bots SET token_cipher = $2, token_key_id = $3, name = $4, username = $5, fault = NULL, restarts = restarts + 1
         WHERE id = $1",
        id.0,
        cipher,
        key_id,
        name,
        username
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Lets the intake start anew at once, whatever it is waiting for, and forgets the fault. Returns what the fault was.
pub async fn restart(db: &mut PgConnection, id: BotId) -> Result<Option<String>> {
    Ok(sqlx::query_scalar!(
        "WITH old AS (SELECT fault FROM bots WHERE id = $1)
         UPDATE bots SET fault = NULL, restarts = restarts + 1 WHERE id = $1 RETURNING (SELECT fault FROM old)",
        id.0
    )
    .fetch_optional(db)
    .await?
    .flatten())
}

/// What Telegram says it holds back for the bot.
pub async fn set_pending(db: &mut PgConnection, id: BotId, pending: i64, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE bots SET pending_updates = $2, pending_at = $3 WHERE id = $1",
        id.0,
        pending,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Adds to this minute's count of flood waits, by the database's clock.
pub async fn add_flood_waits(db: &mut PgConnection, id: BotId, waits: i64) -> Result<()> {
    sqlx::query!(
        "INSERT INTO flood_waits AS f (bot_id, minute, waits)
         SELECT id, date_trunc('minute', now()), $2 FROM bots WHERE id = $1
         ON CONFLICT (bot_id, minute) DO UPDATE SET waits = f.waits + excluded.waits",
        id.0,
        waits
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets the counts of yesterday.
pub async fn prune_flood_waits(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("DELETE FROM flood_waits WHERE minute < now() - interval '1 day'")
        .execute(db)
        .await?;
    Ok(())
}
