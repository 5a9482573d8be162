//! Plans and their limits.

use chrono::{DateTime, Utc};
use domain::{Limit, LimitKind, PlanId, PlanName, views::PlanView};
use sqlx::PgConnection;

use crate::Result;

/// By name, with their limits and the number of users of each.
pub async fn list(db: &mut PgConnection) -> Result<Vec<PlanView>> {
    let plans = sqlx::query!(
        r#"SELECT p.id, p.name, p.is_default, p.zone, p.soft_percent, p.models, (SELECT count(*) FROM users u WHERE u.plan_id = p.id) AS "users!"
           FROM plans p ORDER BY p.is_default DESC, lower(p.name)"#
    )
    .fetch_all(&mut *db)
    .await?;
    let limits = sqlx::query!("SELECT plan_id, measure, period, amount FROM limits")
        .fetch_all(db)
        .await?;
    Ok(plans
        .into_iter()
        .map(|plan| PlanView {
            id: plan.id.into(),
            name: plan.name,
            is_default: plan.is_default,
            users: plan.users,
            zone: plan.zone,
            soft_percent: plan.soft_percent.into(),
            models: plan.models,
            limits: LimitKind::ALL
                .iter()
                .map(|&kind| {
                    let set = limits.iter().find(|limit| {
                        limit.plan_id == plan.id && LimitKind::from_parts(&limit.measure, &limit.period) == Some(kind)
                    });
                    (kind, set.map(|limit| limit.amount))
                })
                .collect(),
        })
        .collect())
}

pub async fn name(db: &mut PgConnection, id: PlanId) -> Result<Option<String>> {
    Ok(sqlx::query_scalar!("SELECT name FROM plans WHERE id = $1", id.0)
        .fetch_optional(db)
        .await?)
}

/// The models that the users of a plan may choose; none: all that are shown.
pub async fn models(db: &mut PgConnection, id: PlanId) -> Result<Vec<String>> {
    let models = sqlx::query_scalar!("SELECT models FROM plans WHERE id = $1", id.0);
    Ok(models.fetch_optional(db).await?.unwrap_or_default())
}

pub async fn set_models(db: &mut PgConnection, id: PlanId, models: &[String]) -> Result<()> {
    sqlx::query!("UPDATE plans SET models = $2 WHERE id = $1", id.0, models)
        .execute(db)
        .await?;
    Ok(())
}

/// How many users a plan has.
pub async fn users(db: &mut PgConnection, id: PlanId) -> Result<i64> {
    let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM users WHERE plan_id = $1"#, id.0);
    Ok(count.fetch_one(db).await?)
}

/// Without regard to case.
pub async fn by_name(db: &mut PgConnection, name: &str) -> Result<Option<PlanId>> {
    let id = sqlx::query_scalar!("SELECT id FROM plans WHERE lower(name) = lower($1)", name)
        .fetch_optional(db)
        .await?;
    Ok(id.map(PlanId))
}

pub async fn insert(db: &mut PgConnection, id: PlanId, name: &PlanName, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO plans (id, name, created_at) VALUES ($1, $2, $3)",
        id.0,
        name.as_str(),
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Locks a plan until the transaction ends, so that a before/after record is true.
pub async fn lock(db: &mut PgConnection, id: PlanId) -> Result<()> {
    sqlx::query!("SELECT FROM plans WHERE id = $1 FOR UPDATE", id.0)
        .fetch_optional(db)
        .await?;
    Ok(())
}

pub async fn limits(db: &mut PgConnection, id: PlanId) -> Result<Vec<Limit>> {
    let rows = sqlx::query!("SELECT measure, period, amount FROM limits WHERE plan_id = $1", id.0)
        .fetch_all(db)
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            Some(Limit {
                kind: LimitKind::from_parts(&row.measure, &row.period)?,
                amount: row.amount,
            })
        })
        .collect())
}

/// By whose days and months the plan counts, and the threshold in percent.
pub async fn manner(db: &mut PgConnection, id: PlanId) -> Result<Option<(String, i64)>> {
    let row = sqlx::query!("SELECT zone, soft_percent FROM plans WHERE id = $1", id.0)
        .fetch_optional(db)
        .await?;
    Ok(row.map(|row| (row.zone, row.soft_percent.into())))
}

pub async fn set_manner(db: &mut PgConnection, id: PlanId, zone: &str, soft_percent: i16) -> Result<()> {
    sqlx::query!(
        "UPDATE plans SET zone = $2, soft_percent = $3 WHERE id = $1",
        id.0,
        zone,
        soft_percent
    )
    .execute(db)
    .await?;
    Ok(())
}

/// `None` takes the limit away.
pub async fn set_limit(db: &mut PgConnection, id: PlanId, kind: LimitKind, amount: Option<i64>) -> Result<()> {
    let (measure, period) = (kind.measure().name(), kind.period().name());
    match amount {
        Some(amount) => {
            sqlx::query!(
                "INSERT INTO limits (plan_id, measure, period, amount) VALUES ($1, $2, $3, $4)
             ON CONFLICT (plan_id, measure, period) DO UPDATE SET amount = excluded.amount",
                id.0,
                measure,
                period,
                amount
            )
            .execute(db)
            .await?
        }
        None => {
            sqlx::query!(
                "DELETE FROM limits WHERE plan_id = $1 AND measure = $2 AND period = $3",
                id.0,
                measure,
                period
            )
            .execute(db)
            .await?
        }
    };
    Ok(())
}
