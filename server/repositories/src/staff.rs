//! Staff, the one-time links that make the first owner, and failed sign-ins.

use chrono::{DateTime, Utc};
use domain::{Email, Role, StaffId};
use sqlx::PgConnection;

use crate::{Error, Result};

/// A person who signs in.
#[derive(Clone, Debug)]
pub struct Staff {
    pub id: StaffId,
    pub email: String,
    pub name: String,
    pub role: Role,
    pub password_hash: String,
}

struct Row {
    id: uuid::Uuid,
    email: String,
    name: String,
    role: String,
    password_hash: String,
}

impl TryFrom<Row> for Staff {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self> {
        let role = row.role.parse().map_err(|_| Error::Stored("staff.role"))?;
        Ok(Self {
            id: row.id.into(),
            email: row.email,
            name: row.name,
            role,
            password_hash: row.password_hash,
        })
    }
}

/// Disabled staff are not found.
pub async fn by_email(db: &mut PgConnection, email: &Email) -> Result<Option<Staff>> {
    sqlx::query_as!(
        Row,
        "SELECT id, email, name, role, password_hash FROM staff WHERE email = $1 AND disabled_at IS NULL",
        email.as_str()
    )
    .fetch_optional(db)
    .await?
    .map(Staff::try_from)
    .transpose()
}

/// Disabled staff are not found.
pub async fn by_id(db: &mut PgConnection, id: StaffId) -> Result<Option<Staff>> {
    sqlx::query_as!(
        Row,
        "SELECT id, email, name, role, password_hash FROM staff WHERE id = $1 AND disabled_at IS NULL",
        id.0
    )
    .fetch_optional(db)
    .await?
    .map(Staff::try_from)
    .transpose()
}

pub async fn has_owner(db: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM staff WHERE role = 'owner' AND disabled_at IS NULL) AS "exists!""#
    )
    .fetch_one(db)
    .await?)
}

pub async fn insert(db: &mut PgConnection, staff: &Staff, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO staff (id, email, name, role, password_hash, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        staff.id.0,
        staff.email,
        staff.name,
        staff.role.name(),
        staff.password_hash,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

pub async fn set_password(db: &mut PgConnection, id: StaffId, password_hash: &str) -> Result<()> {
    sqlx::query!("UPDATE staff SET password_hash = $2 WHERE id = $1", id.0, password_hash)
        .execute(db)
        .await?;
    Ok(())
}

/// From here to the end of the transaction nobody else makes or uses a set-up link.
pub async fn lock_setup(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("LOCK TABLE setup_tokens IN SHARE ROW EXCLUSIVE MODE")
        .execute(db)
        .await?;
    Ok(())
}

/// Replaces every unused link by this one: only the last that was printed works. Call it under [`lock_setup`].
pub async fn replace_setup_token(db: &mut PgConnection, hash: &[u8], expires_at: DateTime<Utc>) -> Result<()> {
    sqlx::query!("DELETE FROM setup_tokens WHERE used_at IS NULL")
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "INSERT INTO setup_tokens (token_hash, expires_at) VALUES ($1, $2)",
        hash,
        expires_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Whether the link would still make an owner; only [`use_setup_token`] decides.
pub async fn setup_token_is_good(db: &mut PgConnection, hash: &[u8], now: DateTime<Utc>) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM setup_tokens WHERE token_hash = $1 AND used_at IS NULL AND expires_at > $2) AS "good!""#,
        hash,
        now
    )
    .fetch_one(db)
    .await?)
}

/// Marks the link as used; false when there is no such link, or it is used or expired. Call it under [`lock_setup`]: there may be
/// another link in somebody else's hands.
pub async fn use_setup_token(db: &mut PgConnection, hash: &[u8], now: DateTime<Utc>) -> Result<bool> {
    let used = sqlx::query!(
        "UPDATE setup_tokens SET used_at = $2 WHERE token_hash = $1 AND used_at IS NULL AND expires_at > $2",
        hash,
        now
    )
    .execute(db)
    .await?;
    Ok(used.rows_affected() == 1)
}

/// Failures counted for `key` and the time of the last one.
pub async fn failures(db: &mut PgConnection, key: &str) -> Result<Option<(i32, DateTime<Utc>)>> {
    let row = sqlx::query!("SELECT failures, last_at FROM sign_in_failures WHERE key = $1", key)
        .fetch_optional(db)
        .await?;
    Ok(row.map(|row| (row.failures, row.last_at)))
}

/// Counts one more failure; a count older than `forget_before` starts again at one.
pub async fn count_failure(
    db: &mut PgConnection,
    key: &str,
    now: DateTime<Utc>,
    forget_before: DateTime<Utc>,
) -> Result<i32> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO sign_in_failures AS f (key, failures, last_at) VALUES ($1, 1, $2)
         ON CONFLICT (key) DO UPDATE SET
             failures = CASE WHEN f.last_at < $3 THEN 1 ELSE least(f.failures, 1000000) + 1 END,
             last_at = excluded.last_at
         RETURNING failures",
        key,
        now,
        forget_before
    )
    .fetch_one(db)
    .await?)
}

/// Forgets the failures of every key that begins so.
pub async fn forget_failures_under(db: &mut PgConnection, prefix: &str) -> Result<()> {
    sqlx::query!("DELETE FROM sign_in_failures WHERE starts_with(key, $1)", prefix)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets failures that have slowed nobody down for a day.
pub async fn tidy_failures(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("DELETE FROM sign_in_failures WHERE last_at < now() - interval '1 day'")
        .execute(db)
        .await?;
    Ok(())
}
