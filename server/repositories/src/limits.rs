//! Limits of users, API keys, bots, models and the deployment, boosts, and what was told of thresholds. Those of plans are in `plans`.

use chrono::{DateTime, Utc};
use domain::{
    LimitKind, Scope, UserId,
    views::{LimitEvent, ScopeLimits},
};
use sqlx::PgConnection;

use crate::Result;

/// Whether the database knows a time zone of this name.
pub async fn is_zone(db: &mut PgConnection, name: &str) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1) AS "known!""#,
        name
    )
    .fetch_one(db)
    .await?)
}

/// All that is set, by scope and subject, each with the name of what it is about.
pub async fn list(db: &mut PgConnection) -> Result<Vec<ScopeLimits>> {
    let rows = sqlx::query!(
        r#"SELECT s.scope, s.subject, s.measure, s.period, s.amount, s.zone, s.soft_percent,
                  coalesce(b.name, k.name, u.name, s.subject) AS "name!"
           FROM scope_limits s
           LEFT JOIN bots b ON s.scope = 'bot' AND b.id::text = s.subject
           LEFT JOIN api_keys k ON k.id = CASE WHEN s.scope = 'api_key' THEN s.subject::uuid END
           LEFT JOIN users u ON s.scope = 'user' AND u.id = CASE WHEN s.scope = 'user' THEN s.subject::uuid END
           ORDER BY s.scope, 8, s.subject"#
    )
    .fetch_all(db)
    .await?;
    let mut list: Vec<ScopeLimits> = Vec::new();
    for row in rows {
        let (Some(scope), Some(kind)) = (
            Scope::from_name(&row.scope),
            LimitKind::from_parts(&row.measure, &row.period),
        ) else {
            continue;
        };
        match list.last_mut() {
            Some(last) if last.scope == scope && last.subject == row.subject => last.limits.push((kind, row.amount)),
            _ => list.push(ScopeLimits {
                scope,
                subject: row.subject,
                name: row.name,
                zone: row.zone,
                soft_percent: row.soft_percent.into(),
                limits: vec![(kind, row.amount)],
            }),
        }
    }
    for one in &mut list {
        one.limits.sort_by_key(|(kind, _)| *kind);
    }
    Ok(list)
}

/// The limits of one subject, with zone and threshold of each, locked until the transaction ends so that a before/after record is true.
pub async fn lock(db: &mut PgConnection, scope: Scope, subject: &str) -> Result<Vec<(LimitKind, i64, String, i64)>> {
    // Rows that are not there yet cannot be locked; what is being changed can be named.
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('limits ' || $1 || ' ' || $2, 0))",
        scope.name(),
        subject
    )
    .execute(&mut *db)
    .await?;
    let rows = sqlx::query!(
        "SELECT measure, period, amount, zone, soft_percent FROM scope_limits WHERE scope = $1 AND subject = $2",
        scope.name(),
        subject
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let kind = LimitKind::from_parts(&row.measure, &row.period)?;
            Some((kind, row.amount, row.zone, row.soft_percent.into()))
        })
        .collect())
}

/// `None` takes the limit away.
pub async fn set(
    db: &mut PgConnection,
    scope: Scope,
    subject: &str,
    kind: LimitKind,
    amount: Option<i64>,
) -> Result<()> {
    let (measure, period) = (kind.measure().name(), kind.period().name());
    match amount {
        Some(amount) => {
            sqlx::query!(
                "INSERT INTO scope_limits (scope, subject, measure, period, amount) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (scope, subject, measure, period) DO UPDATE SET amount = excluded.amount",
                scope.name(),
                subject,
                measure,
                period,
                amount
            )
            .execute(db)
            .await?
        }
        None => {
            sqlx::query!(
                "DELETE FROM scope_limits WHERE scope = $1 AND subject = $2 AND measure = $3 AND period = $4",
                scope.name(),
                subject,
                measure,
                period
            )
            .execute(db)
            .await?
        }
    };
    Ok(())
}

/// Time zone and threshold of all limits of a subject.
pub async fn set_manner(
    db: &mut PgConnection,
    scope: Scope,
    subject: &str,
    zone: &str,
    soft_percent: i16,
) -> Result<()> {
    sqlx::query!(
        "UPDATE scope_limits SET zone = $3, soft_percent = $4 WHERE scope = $1 AND subject = $2",
        scope.name(),
        subject,
        zone,
        soft_percent
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What plan and own limit let a user have, whatever a boost adds.
pub async fn limit_without_boost(db: &mut PgConnection, user: UserId, kind: LimitKind) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar!(
        "SELECT least(l.amount, s.amount) FROM users u
         LEFT JOIN limits l ON l.plan_id = u.plan_id AND l.measure = $2 AND l.period = $3
         LEFT JOIN scope_limits s ON s.scope = 'user' AND s.subject = u.id::text AND s.measure = $2 AND s.period = $3
         WHERE u.id = $1",
        user.0,
        kind.measure().name(),
        kind.period().name()
    )
    .fetch_optional(db)
    .await?
    .flatten())
}

/// The boost of a user's limit, one that has ended included.
pub async fn boost(db: &mut PgConnection, user: UserId, kind: LimitKind) -> Result<Option<(i64, DateTime<Utc>)>> {
    let row = sqlx::query!(
        "SELECT amount, until FROM limit_boosts WHERE user_id = $1 AND measure = $2 AND period = $3",
        user.0,
        kind.measure().name(),
        kind.period().name()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.amount, row.until)))
}

/// `None` ends the boost.
pub async fn set_boost(
    db: &mut PgConnection,
    user: UserId,
    kind: LimitKind,
    boost: Option<(i64, DateTime<Utc>)>,
) -> Result<()> {
    let (measure, period) = (kind.measure().name(), kind.period().name());
    match boost {
        Some((amount, until)) => {
            sqlx::query!(
                "INSERT INTO limit_boosts (user_id, measure, period, amount, until) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (user_id, measure, period) DO UPDATE SET amount = excluded.amount, until = excluded.until",
                user.0,
                measure,
                period,
                amount,
                until
            )
            .execute(db)
            .await?
        }
        None => {
            sqlx::query!(
                "DELETE FROM limit_boosts WHERE user_id = $1 AND measure = $2 AND period = $3",
                user.0,
                measure,
                period
            )
            .execute(db)
            .await?
        }
    };
    Ok(())
}

/// Thresholds that were passed, newest first, with or without those of users.
pub async fn events(db: &mut PgConnection, users: bool, limit: i64) -> Result<Vec<LimitEvent>> {
    let rows = sqlx::query!(
        r#"SELECT e.scope, e.subject, e.measure, e.period, e.at, e.used, e.cap, coalesce(b.name, k.name, u.name, e.subject) AS "name!"
           FROM (SELECT * FROM limit_events WHERE scope <> 'user' OR $1 ORDER BY at DESC LIMIT $2) e
           LEFT JOIN bots b ON e.scope = 'bot' AND b.id::text = e.subject
           LEFT JOIN api_keys k ON k.id = CASE WHEN e.scope = 'api_key' THEN e.subject::uuid END
           LEFT JOIN users u ON u.id = CASE WHEN e.scope = 'user' THEN e.subject::uuid END
           ORDER BY e.at DESC"#,
        users,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            Some(LimitEvent {
                at: row.at,
                scope: Scope::from_name(&row.scope)?,
                subject: row.subject,
                name: row.name,
                kind: LimitKind::from_parts(&row.measure, &row.period)?,
                used: row.used,
                limit: row.cap,
            })
        })
        .collect())
}
