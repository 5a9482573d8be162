//! Budgets in use: reserve before the call, settle after it, exactly once.

use chrono::{DateTime, Utc};
use domain::{JobId, Measure, Period, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Result;

/// An amount to be set aside from one window.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub measure: Measure,
    pub period: Period,
    pub starts_at: DateTime<Utc>,
    pub amount: i64,
    /// `None` is no limit; the use is counted all the same.
    pub cap: Option<i64>,
}

/// A window with what is used and set aside of it.
#[derive(Clone, Debug)]
pub struct Counter {
    pub measure: String,
    pub period: String,
    pub used: i64,
    pub reserved: i64,
}

/// Sets all amounts aside and returns the windows in which that was possible, as (measure, period). When one is missing
/// from the answer the caller must roll back. The row locks make it safe however many run at once: the condition is looked
/// at again after each wait. Rows are taken in one order, so two reservations cannot wait for each other.
pub async fn reserve(db: &mut PgConnection, user: UserId, claims: &[Claim]) -> Result<Vec<(String, String)>> {
    let mut claims = claims.to_vec();
    claims.sort_by_key(|claim| (claim.measure.name(), claim.period.name()));
    let rows = sqlx::query!(
        "INSERT INTO counters AS c (user_id, measure, period, starts_at, reserved, cap)
         SELECT $1, measure, period, starts_at, amount, cap
         FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::bigint[]) WITH ORDINALITY
              AS t (measure, period, starts_at, amount, cap, place)
         WHERE cap IS NULL OR amount <= cap ORDER BY place
         ON CONFLICT (user_id, measure, period, starts_at) DO UPDATE SET reserved = c.reserved + excluded.reserved, cap = excluded.cap
         WHERE excluded.cap IS NULL OR c.used + c.reserved + excluded.reserved <= excluded.cap
         RETURNING measure, period",
        user.0,
        &claims.iter().map(|claim| claim.measure.name().to_owned()).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.period.name().to_owned()).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.starts_at).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.amount).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.cap).collect::<Vec<_>>() as &[Option<i64>]
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.measure, row.period)).collect())
}

/// What a job has set aside.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub job: JobId,
    pub user: UserId,
    pub day: DateTime<Utc>,
    pub month: DateTime<Utc>,
    pub messages: i64,
    pub tokens: i64,
    /// Nano-dollars.
    pub money: i64,
}

pub async fn insert_reservation(db: &mut PgConnection, reservation: &Reservation, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO reservations (job_id, user_id, day, month, messages, tokens, money, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        reservation.job.0,
        reservation.user.0,
        reservation.day,
        reservation.month,
        reservation.messages,
        reservation.tokens,
        reservation.money,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What a job has set aside before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAside {
    Nothing,
    Tokens(i64),
    /// The job is another worker's now, or over: nothing may be set aside for it any more, since nobody would settle it.
    LeaseLost,
}

/// Looks at the reservation of a job and locks the job for the rest of the transaction.
pub async fn reservation(db: &mut PgConnection, job: JobId, token: Uuid) -> Result<SetAside> {
    let row = sqlx::query!(
        r#"SELECT r.tokens AS "tokens?" FROM jobs j LEFT JOIN reservations r ON r.job_id = j.id
           WHERE j.id = $1 AND j.lease_token = $2 FOR UPDATE OF j"#,
        job.0,
        token
    )
    .fetch_optional(db)
    .await?;
    Ok(match row.map(|row| row.tokens) {
        None => SetAside::LeaseLost,
        Some(None) => SetAside::Nothing,
        Some(Some(tokens)) => SetAside::Tokens(tokens),
    })
}

/// Turns the reservation of a job into its real use. The reservation is deleted by the same statement, so a second call
/// changes nothing and returns false. Zeroes give everything back.
pub async fn settle(db: &mut PgConnection, job: JobId, messages: i64, tokens: i64, money: i64) -> Result<bool> {
    let settled = sqlx::query_scalar!(
        r#"WITH gone AS (
               DELETE FROM reservations WHERE job_id = $1 RETURNING *
           ), shares AS (
               SELECT g.user_id, s.measure, s.period, s.starts_at, s.reserved, s.used FROM gone g CROSS JOIN LATERAL (VALUES
                   ('messages', 'day', g.day, g.messages, $2::bigint),
                   ('money', 'month', g.month, g.money, $4::bigint),
                   ('tokens', 'day', g.day, g.tokens, $3::bigint)
               ) AS s (measure, period, starts_at, reserved, used)
           ), locked AS MATERIALIZED (
               -- In the order in which `reserve` takes them.
               SELECT c.user_id, c.measure, c.period, c.starts_at, s.reserved, s.used FROM counters c
               JOIN shares s USING (user_id, measure, period, starts_at) ORDER BY c.measure, c.period FOR UPDATE OF c
           ), counted AS (
               UPDATE counters c SET reserved = c.reserved - l.reserved, used = c.used + l.used FROM locked l
               WHERE (c.user_id, c.measure, c.period, c.starts_at) = (l.user_id, l.measure, l.period, l.starts_at)
           )
           SELECT count(*) AS "gone!" FROM gone"#,
        job.0,
        messages,
        tokens,
        money
    )
    .fetch_one(db)
    .await?;
    Ok(settled > 0)
}

/// The windows of a user that `day` and `month` start.
pub async fn of_user(
    db: &mut PgConnection,
    user: UserId,
    day: DateTime<Utc>,
    month: DateTime<Utc>,
) -> Result<Vec<Counter>> {
    Ok(sqlx::query_as!(
        Counter,
        "SELECT measure, period, used, reserved FROM counters
         WHERE user_id = $1 AND ((period = 'day' AND starts_at = $2) OR (period = 'month' AND starts_at = $3))",
        user.0,
        day,
        month
    )
    .fetch_all(db)
    .await?)
}

/// Reservations whose job has ended without settling, or is gone: left by a failure nobody foresaw.
pub async fn orphans(db: &mut PgConnection) -> Result<Vec<JobId>> {
    Ok(sqlx::query_scalar!(
        "SELECT r.job_id FROM reservations r LEFT JOIN jobs j ON j.id = r.job_id
         WHERE r.created_at < now() - interval '1 minute' AND (j.id IS NULL OR j.state IN ('done', 'dead')) LIMIT 1000"
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(JobId)
    .collect())
}
