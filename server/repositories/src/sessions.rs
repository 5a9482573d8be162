//! Browser sessions, as `tower-sessions` wants them kept. The id is what a browser shows to be let in, so only its hash is stored.

use chrono::{DateTime, Utc};
use domain::StaffId;
use serde_json::Value;
use sqlx::PgConnection;

use crate::Result;

/// False when the id is taken already.
pub async fn create(db: &mut PgConnection, id: &str, data: &Value, expires_at: DateTime<Utc>) -> Result<bool> {
    let made = sqlx::query!(
        "INSERT INTO sessions (id, data, expires_at) VALUES (encode(sha256(convert_to($1, 'UTF8')), 'hex'), $2, $3)
         ON CONFLICT DO NOTHING",
        id,
        data,
        expires_at
    )
    .execute(db)
    .await?;
    Ok(made.rows_affected() == 1)
}

/// False when there is no such session: one that was ended while a request of it was under way stays ended.
pub async fn save(db: &mut PgConnection, id: &str, data: &Value, expires_at: DateTime<Utc>) -> Result<bool> {
    let saved = sqlx::query!(
        "UPDATE sessions SET data = $2, expires_at = $3 WHERE id = encode(sha256(convert_to($1, 'UTF8')), 'hex')",
        id,
        data,
        expires_at
    )
    .execute(db)
    .await?;
    Ok(saved.rows_affected() == 1)
}

/// However often it was prolonged, a session ends 30 days after it began.
pub async fn load(db: &mut PgConnection, id: &str) -> Result<Option<(Value, DateTime<Utc>)>> {
    let row = sqlx::query!(
        "SELECT data, expires_at FROM sessions
         WHERE id = encode(sha256(convert_to($1, 'UTF8')), 'hex')
           AND expires_at > now() AND created_at > now() - interval '30 days'",
        id
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.data, row.expires_at)))
}

pub async fn delete(db: &mut PgConnection, id: &str) -> Result<()> {
    sqlx::query!(
        "DELETE FROM sessions WHERE id = encode(sha256(convert_to($1, 'UTF8')), 'hex')",
        id
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends every session of a member of staff; `field` is the one under which a session names its owner.
pub async fn delete_of_staff(db: &mut PgConnection, field: &str, staff: StaffId) -> Result<u64> {
    Ok(sqlx::query!(
        "DELETE FROM sessions WHERE data ->> $1 = $2",
        field,
        staff.0.to_string()
    )
    .execute(db)
    .await?
    .rows_affected())
}

pub async fn delete_expired(db: &mut PgConnection) -> Result<u64> {
    Ok(
        sqlx::query!("DELETE FROM sessions WHERE expires_at < now() OR created_at < now() - interval '30 days'")
            .execute(db)
            .await?
            .rows_affected(),
    )
}
