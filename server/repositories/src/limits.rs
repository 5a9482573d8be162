//! Limits of users, API keys, bots, models and the deployment, boosts, and what was told of thresholds. Those of plans are in `plans`.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::{
    LimitKind, Scope, UserId,
    views::{LimitEvent, ScopeLimits},
};
use sqlx::PgConnection;

use crate::Result;

/// The channel on which changes are told.
pub(crate) const CHANGED: &str = "botdeck_limits";

/// Tells all replicas of a change of limits, when it is committed.
pub async fn tell_of_change(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("SELECT pg_notify($1, '')", CHANGED).execute(db).await?;
    Ok(())
}

/// Whether the database knows a time zone of this name.
pub async fn is_zone(db: &mut PgConnection, name: &str) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1) AS "known!""#,
        name
    )
    .fetch_one(db)
    .await?)
}

/// What the subjects of limits are called: the one place to add to when limits can be set on something new. What is gone, or needs no
/// other name, is not among them.
pub async fn names(db: &mut PgConnection, subjects: &[(Scope, String)]) -> Result<HashMap<(Scope, String), String>> {
    let rows = sqlx::query!(
        r#"SELECT t.scope AS "scope!", t.subject AS "subject!", coalesce(b.name, k.name, u.name) AS "name!"
           FROM unnest($1::text[], $2::text[]) AS t (scope, subject)
           LEFT JOIN bots b ON b.id = CASE WHEN t.scope = 'bot' THEN t.subject::uuid END
           LEFT JOIN api_keys k ON k.id = CASE WHEN t.scope = 'api_key' THEN t.subject::uuid END
           LEFT JOIN users u ON u.id = CASE WHEN t.scope = 'user' THEN t.subject::uuid END
           WHERE coalesce(b.name, k.name, u.name) IS NOT NULL"#,
        &subjects
            .iter()
            .map(|(scope, _)| scope.name().to_owned())
            .collect::<Vec<_>>(),
        &subjects.iter().map(|(_, subject)| subject.clone()).collect::<Vec<_>>()
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some(((Scope::from_name(&row.scope)?, row.subject), row.name)))
        .collect())
}

/// What limits can be set on beside plans, users and the deployment, by scope and name: all bots, names of models, and API keys
/// that are not revoked.
pub async fn subjects(db: &mut PgConnection) -> Result<Vec<(Scope, String, String)>> {
    let rows = sqlx::query!(
        r#"SELECT scope AS "scope!", subject AS "subject!", name AS "name!" FROM (
               SELECT 'bot' AS scope, id::text AS subject, name FROM bots
               UNION ALL SELECT 'model', name, name FROM aliases
               UNION ALL SELECT 'api_key', id::text, name FROM api_keys WHERE revoked_at IS NULL
           ) AS known ORDER BY scope, lower(name), subject"#
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((Scope::from_name(&row.scope)?, row.subject, row.name)))
        .collect())
}

/// All that is set, by scope and subject, each with the name of what it is about.
pub async fn list(db: &mut PgConnection) -> Result<Vec<ScopeLimits>> {
    let rows = sqlx::query!(
        "SELECT scope, subject, measure, period, amount, zone, soft_percent FROM scope_limits ORDER BY scope, subject"
    )
    .fetch_all(&mut *db)
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
                name: row.subject.clone(),
                subject: row.subject,
                zone: row.zone,
                soft_percent: row.soft_percent.into(),
                limits: vec![(kind, row.amount)],
            }),
        }
    }
    let subjects: Vec<_> = list.iter().map(|one| (one.scope, one.subject.clone())).collect();
    let mut names = names(db, &subjects).await?;
    for one in &mut list {
        if let Some(name) = names.remove(&(one.scope, one.subject.clone())) {
            one.name = name;
        }
        one.limits.sort_by_key(|(kind, _)| *kind);
    }
    list.sort_by(|a, b| (a.scope.name(), &a.name, &a.subject).cmp(&(b.scope.name(), &b.name, &b.subject)));
    Ok(list)
}

/// Locks the limits of one subject until the transaction ends, so that a before/after record is true.
pub async fn lock(db: &mut PgConnection, scope: Scope, subject: &str) -> Result<()> {
    // Rows that are not there yet cannot be locked; what is being changed can be named.
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('limits ' || $1 || ' ' || $2, 0))",
        scope.name(),
        subject
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The limits of one subject, with zone and threshold of each.
pub async fn of(db: &mut PgConnection, scope: Scope, subject: &str) -> Result<Vec<(LimitKind, i64, String, i64)>> {
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

/// A limit that many share, and its boost, one that has ended included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedLimit {
    pub amount: i64,
    pub boost: Option<(i64, DateTime<Utc>)>,
}

impl SharedLimit {
    /// What holds at `now`, as `counters::bounds` has it.
    pub fn cap(&self, now: DateTime<Utc>) -> i64 {
        match self.boost {
            Some((amount, until)) if until > now => self.amount.max(amount),
            _ => self.amount,
        }
    }
}

/// One limit of a subject that is not a user.
pub async fn shared(
    db: &mut PgConnection,
    scope: Scope,
    subject: &str,
    kind: LimitKind,
) -> Result<Option<SharedLimit>> {
    let row = sqlx::query!(
        "SELECT amount, boost_amount, boost_until FROM scope_limits
         WHERE scope = $1 AND subject = $2 AND measure = $3 AND period = $4",
        scope.name(),
        subject,
        kind.measure().name(),
        kind.period().name()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| SharedLimit {
        amount: row.amount,
        boost: row.boost_amount.zip(row.boost_until),
    }))
}

/// `None` ends the boost; it also ends with its limit.
pub async fn set_shared_boost(
    db: &mut PgConnection,
    scope: Scope,
    subject: &str,
    kind: LimitKind,
    boost: Option<(i64, DateTime<Utc>)>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE scope_limits SET boost_amount = $5, boost_until = $6
         WHERE scope = $1 AND subject = $2 AND measure = $3 AND period = $4",
        scope.name(),
        subject,
        kind.measure().name(),
        kind.period().name(),
        boost.map(|(amount, _)| amount),
        boost.map(|(_, until)| until)
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Thresholds that were passed, newest first, with or without those of users.
pub async fn events(db: &mut PgConnection, users: bool, limit: i64) -> Result<Vec<LimitEvent>> {
    let rows = sqlx::query!(
        "SELECT scope, subject, measure, period, at, used, cap FROM limit_events
         WHERE scope <> 'user' OR $1 ORDER BY at DESC LIMIT $2",
        users,
        limit
    )
    .fetch_all(&mut *db)
    .await?;
    let mut events: Vec<LimitEvent> = rows
        .into_iter()
        .filter_map(|row| {
            Some(LimitEvent {
                at: row.at,
                scope: Scope::from_name(&row.scope)?,
                name: row.subject.clone(),
                subject: row.subject,
                kind: LimitKind::from_parts(&row.measure, &row.period)?,
                used: row.used,
                limit: row.cap,
            })
        })
        .collect();
    let subjects: Vec<_> = events
        .iter()
        .map(|event| (event.scope, event.subject.clone()))
        .collect();
    let names = names(db, &subjects).await?;
    for event in &mut events {
        if let Some(name) = names.get(&(event.scope, event.subject.clone())) {
            event.name.clone_from(name);
        }
    }
    Ok(events)
}
