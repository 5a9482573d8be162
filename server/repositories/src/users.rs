//! Users as staff see them.

use chrono::{DateTime, Utc};
use domain::{
    BotId, Money, PlanId, UserId,
    views::{Blocked, UserRow, UserStatus},
};
use sqlx::PgConnection;

use crate::Result;

/// What the list is narrowed to.
#[derive(Clone, Debug)]
pub struct Filter<'a> {
    /// Part of a name or @username, or a whole Telegram id; empty for all.
    pub search: &'a str,
    pub status: UserStatus,
    pub plan: Option<PlanId>,
    /// The last row of the page before.
    pub after: Option<(DateTime<Utc>, UserId)>,
}

/// Latest seen first, with what is used in the windows of `now`.
pub async fn list(db: &mut PgConnection, filter: &Filter<'_>, now: DateTime<Utc>, limit: i64) -> Result<Vec<UserRow>> {
    let search = filter.search.trim().trim_start_matches('@');
    let blocked = match filter.status {
        UserStatus::Any => None,
        UserStatus::Active => Some(false),
        UserStatus::Blocked => Some(true),
    };
    let rows = sqlx::query!(
        r#"SELECT u.id, u.name, u.username, u.transport, u.external_id, p.name AS plan, u.blocked_at IS NOT NULL AS "blocked!",
                  u.last_seen_at, p.soft_percent,
                  greatest(
                      (SELECT max(CASE WHEN m.amount = 0 THEN 100
                                   WHEN m.amount > 0 THEN least(100, (coalesce(c.used, 0) + coalesce(c.reserved, 0)) * 100 / m.amount) END)
                       FROM (VALUES ('messages', 'day'), ('tokens', 'day'), ('money', 'month')) AS k (measure, period)
                       LEFT JOIN limits l ON l.plan_id = u.plan_id AND l.measure = k.measure AND l.period = k.period
                       LEFT JOIN scope_limits s
                            ON s.scope = 'user' AND s.subject = u.id::text AND s.measure = k.measure AND s.period = k.period
                       LEFT JOIN limit_boosts b
                            ON b.user_id = u.id AND b.measure = k.measure AND b.period = k.period AND b.until > $5
                       CROSS JOIN LATERAL (SELECT CASE WHEN coalesce(l.amount, s.amount) IS NOT NULL
                                           THEN greatest(least(l.amount, s.amount), b.amount) END AS amount) m
                       LEFT JOIN counters c ON c.user_id = u.id AND c.measure = k.measure AND c.period = k.period
                            AND c.starts_at = date_trunc(k.period, $5::timestamptz, p.zone)),
                      (SELECT max(CASE WHEN o.cap = 0 THEN 100 WHEN o.cap > 0 THEN least(100, (o.used + o.reserved) * 100 / o.cap) END)
                       FROM scope_counters o WHERE o.scope = 'user' AND o.subject = u.id::text AND o.period IN ('day', 'month', 'total')
                            AND o.starts_at = CASE o.period WHEN 'total' THEN 'epoch' ELSE date_trunc(o.period, $5, p.zone) END)
                  )::bigint AS fullest,
                  coalesce((SELECT c.used FROM counters c WHERE c.user_id = u.id AND c.measure = 'money' AND c.period = 'month'
                            AND c.starts_at = date_trunc('month', $5, p.zone)), 0) AS "spent!"
           FROM users u JOIN plans p ON p.id = u.plan_id
           WHERE ($1 = '' OR lower(u.name || ' ' || coalesce(u.username, '')) LIKE '%' || $1 || '%'
                  OR (u.transport = 'telegram' AND u.external_id = $2))
             AND ($3::boolean IS NULL OR (u.blocked_at IS NOT NULL) = $3)
             AND ($4::uuid IS NULL OR u.plan_id = $4)
             AND ($6::timestamptz IS NULL OR (u.last_seen_at, u.id) < ($6, $7))
           ORDER BY u.last_seen_at DESC, u.id DESC LIMIT $8"#,
        crate::like(search),
        search.parse::<i64>().ok(),
        blocked,
        filter.plan.map(|plan| plan.0),
        now,
        filter.after.map(|(at, _)| at),
        filter.after.map(|(_, id)| id.0),
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| UserRow {
            id: row.id.into(),
            name: row.name,
            username: row.username,
            telegram_id: (row.transport == "telegram").then_some(row.external_id),
            plan: row.plan,
            blocked: row.blocked,
            near_limit: row
                .fullest
                .is_some_and(|fullest| fullest >= i64::from(row.soft_percent)),
            fullest_percent: row.fullest,
            spent_month: Money::from_nanos(row.spent),
            last_seen: row.last_seen_at,
        })
        .collect())
}

/// One user.
#[derive(Clone, Debug)]
pub struct User {
    pub id: UserId,
    pub name: String,
    pub username: Option<String>,
    pub telegram_id: Option<i64>,
    pub language: Option<String>,
    pub plan: PlanId,
    pub plan_name: String,
    pub blocked: Option<Blocked>,
    pub created: DateTime<Utc>,
    pub last_seen: DateTime<Utc>,
}

/// Locked until the transaction ends, so that a before/after record is true.
pub async fn lock(db: &mut PgConnection, id: UserId) -> Result<Option<User>> {
    sqlx::query!("SELECT FROM users WHERE id = $1 FOR UPDATE", id.0)
        .fetch_optional(&mut *db)
        .await?;
    get(db, id).await
}

pub async fn get(db: &mut PgConnection, id: UserId) -> Result<Option<User>> {
    let row = sqlx::query!(
        "SELECT u.*, p.name AS plan_name FROM users u JOIN plans p ON p.id = u.plan_id WHERE u.id = $1",
        id.0
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| User {
        id: row.id.into(),
        name: row.name,
        username: row.username,
        telegram_id: (row.transport == "telegram").then_some(row.external_id),
        language: row.language,
        plan: row.plan_id.into(),
        plan_name: row.plan_name,
        blocked: row.blocked_at.map(|at| Blocked {
            at,
            reason: row.blocked_reason.unwrap_or_default(),
            by: row.blocked_by.unwrap_or_default(),
        }),
        created: row.created_at,
        last_seen: row.last_seen_at,
    }))
}

/// The bots that a user has written to, with their names.
pub async fn bots_of(db: &mut PgConnection, id: UserId) -> Result<Vec<(BotId, String)>> {
    let rows = sqlx::query!(
        "SELECT b.id, b.name FROM bots b WHERE b.id IN (
             SELECT c.bot_id FROM conversations v JOIN chats c ON c.id = v.chat_id WHERE v.user_id = $1)",
        id.0
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id.into(), row.name)).collect())
}

pub async fn set_plan(db: &mut PgConnection, id: UserId, plan: PlanId) -> Result<()> {
    sqlx::query!("UPDATE users SET plan_id = $2 WHERE id = $1", id.0, plan.0)
        .execute(db)
        .await?;
    Ok(())
}

/// `None` unblocks.
pub async fn set_blocked(db: &mut PgConnection, id: UserId, blocked: Option<&Blocked>) -> Result<()> {
    sqlx::query!(
        "UPDATE users SET blocked_at = $2, blocked_reason = $3, blocked_by = $4 WHERE id = $1",
        id.0,
        blocked.map(|blocked| blocked.at),
        blocked.map(|blocked| blocked.reason.as_str()),
        blocked.map(|blocked| blocked.by.as_str())
    )
    .execute(db)
    .await?;
    Ok(())
}
