//! Keys with which other programs call the gateway.

use chrono::{DateTime, Utc};
use domain::{
    ApiKeyId, ApiScope,
    views::api_keys::{KeyRow, Revoked},
};
use sqlx::PgConnection;

use crate::{Error, Result};

/// A key to be stored; of the key itself only the hash.
#[derive(Clone, Debug)]
pub struct NewKey<'a> {
    pub id: ApiKeyId,
    pub name: &'a str,
    pub prefix: &'a str,
    pub hash: &'a [u8; 32],
    pub scopes: &'a [ApiScope],
    pub models: Option<&'a [String]>,
    pub created_by: &'a str,
    pub expires_at: Option<DateTime<Utc>>,
}

pub async fn insert(db: &mut PgConnection, key: &NewKey<'_>, now: DateTime<Utc>) -> Result<()> {
    let scopes: Vec<String> = key.scopes.iter().map(|scope| scope.name().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO api_keys (id, name, prefix, hash, scopes, models, created_at, created_by, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        key.id.0,
        key.name,
        key.prefix,
        key.hash,
        &scopes,
        key.models,
        now,
        key.created_by,
        key.expires_at
    )
    .execute(db)
    .await?;
    Ok(())
}

struct Row {
    id: uuid::Uuid,
    name: String,
    prefix: String,
    scopes: Vec<String>,
    models: Option<Vec<String>>,
    created_at: DateTime<Utc>,
    created_by: String,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    revoked_by: Option<String>,
}

impl TryFrom<Row> for KeyRow {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self> {
        let scopes = row
            .scopes
            .iter()
            .map(|scope| scope.parse())
            .collect::<std::result::Result<_, _>>();
        Ok(Self {
            id: row.id.into(),
            name: row.name,
            prefix: row.prefix,
            scopes: scopes.map_err(|_| Error::Stored("api_keys.scopes"))?,
            models: row.models,
            limits: Vec::new(),
            created: row.created_at,
            created_by: row.created_by,
            expires: row.expires_at,
            last_used: row.last_used_at,
            revoked: row.revoked_at.zip(row.revoked_by).map(|(at, by)| Revoked { at, by }),
        })
    }
}

/// Those that open something first, then the newest first. Their limits are told by [`crate::limits::list`].
pub async fn list(db: &mut PgConnection, now: DateTime<Utc>, limit: i64) -> Result<Vec<KeyRow>> {
    sqlx::query_as!(
        Row,
        "SELECT id, name, prefix, scopes, models, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by
         FROM api_keys ORDER BY revoked_at IS NOT NULL OR coalesce(expires_at <= $1, false), created_at DESC, id DESC LIMIT $2",
        now,
        limit
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(KeyRow::try_from)
    .collect()
}

/// Also one that opens nothing any more.
pub async fn by_hash(db: &mut PgConnection, hash: &[u8; 32]) -> Result<Option<KeyRow>> {
    sqlx::query_as!(
        Row,
        "SELECT id, name, prefix, scopes, models, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by
         FROM api_keys WHERE hash = $1",
        hash
    )
    .fetch_optional(db)
    .await?
    .map(KeyRow::try_from)
    .transpose()
}

/// What a key is for.
pub async fn name(db: &mut PgConnection, id: ApiKeyId) -> Result<Option<String>> {
    Ok(sqlx::query_scalar!("SELECT name FROM api_keys WHERE id = $1", id.0)
        .fetch_optional(db)
        .await?)
}

/// Locked until the transaction ends.
pub async fn lock(db: &mut PgConnection, id: ApiKeyId) -> Result<Option<KeyRow>> {
    sqlx::query_as!(
        Row,
        "SELECT id, name, prefix, scopes, models, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by
         FROM api_keys WHERE id = $1 FOR UPDATE",
        id.0
    )
    .fetch_optional(db)
    .await?
    .map(KeyRow::try_from)
    .transpose()
}

pub async fn revoke(db: &mut PgConnection, id: ApiKeyId, by: &str, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "UPDATE api_keys SET revoked_at = $3, revoked_by = $2 WHERE id = $1",
        id.0,
        by,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes when keys were used, at most once a minute each; never backwards.
pub async fn used(db: &mut PgConnection, ids: &[ApiKeyId], now: DateTime<Utc>) -> Result<()> {
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.0).collect();
    sqlx::query!(
        "UPDATE api_keys SET last_used_at = $2
         WHERE id = ANY($1) AND (last_used_at IS NULL OR last_used_at < $2::timestamptz - interval '1 minute')",
        &ids,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}
