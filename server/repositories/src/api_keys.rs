//! Keys with which other programs call the gateway.

use chrono::{DateTime, Utc};
use domain::{
    ApiKeyId, ApiScope,
    views::api_keys::{KeyOrder, KeyRow, KeyStates, Revoked, SOON},
};
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder};

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

#[derive(FromRow)]
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

/// What the list is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    /// A part of the name, or how the key begins; empty for all.
    pub search: &'a str,
    pub states: KeyStates,
    pub order: KeyOrder,
    /// The last row of the page before.
    pub after: Option<After>,
}

/// Where a page ended: what its order goes by, and the key.
#[derive(Clone, Debug, PartialEq)]
pub enum After {
    Created(DateTime<Utc>, ApiKeyId),
    Name(String, ApiKeyId),
    Used(Option<DateTime<Utc>>, ApiKeyId),
}

/// One page. Keys are made by hand, so there are thousands at most, and no order but that of time has an index. Their limits are told by
/// [`crate::limits::list`].
pub async fn list(db: &mut PgConnection, filter: &Filter<'_>, now: DateTime<Utc>, limit: i64) -> Result<Vec<KeyRow>> {
    let mut query = QueryBuilder::<Postgres>::new(
        "SELECT id, name, prefix, scopes, models, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by
         FROM api_keys WHERE ",
    );
    let mut conditions = query.separated(" AND ");
    match filter.states {
        KeyStates::Any => conditions.push("true"),
        KeyStates::Active => conditions
            .push("revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ")
            .push_bind_unseparated(now)
            .push_unseparated(")"),
        KeyStates::Expiring => conditions
            .push("revoked_at IS NULL AND expires_at > ")
            .push_bind_unseparated(now)
            .push_unseparated(" AND expires_at <= ")
            .push_bind_unseparated(now + SOON),
        KeyStates::Expired => conditions
            .push("revoked_at IS NULL AND expires_at <= ")
            .push_bind_unseparated(now),
        KeyStates::Revoked => conditions.push("revoked_at IS NOT NULL"),
    };
    let search = filter.search.trim();
    if !search.is_empty() {
        conditions
            .push("(lower(name) LIKE '%' || ")
            .push_bind_unseparated(crate::like(search))
            .push_unseparated(" || '%' OR starts_with(prefix, ")
            .push_bind_unseparated(search)
            // Of a key that was found somewhere more may be known than is kept.
            .push_unseparated(") OR starts_with(")
            .push_bind_unseparated(search)
            .push_unseparated(", prefix))");
    }
    match &filter.after {
        None => {}
        Some(After::Created(at, id)) => {
            conditions.push("(created_at, id) < (").push_bind_unseparated(at);
            conditions
                .push_unseparated(", ")
                .push_bind_unseparated(id.0)
                .push_unseparated(")");
        }
        Some(After::Name(name, id)) => {
            conditions
                .push("(lower(name), id) > (lower(")
                .push_bind_unseparated(name);
            conditions
                .push_unseparated("), ")
                .push_bind_unseparated(id.0)
                .push_unseparated(")");
        }
        Some(After::Used(at, id)) => {
            conditions
                .push("(coalesce(last_used_at, '-infinity'), id) < (coalesce(")
                .push_bind_unseparated(at);
            conditions
                .push_unseparated(", '-infinity'), ")
                .push_bind_unseparated(id.0)
                .push_unseparated(")");
        }
    }
    query.push(match filter.order {
        KeyOrder::Created => " ORDER BY created_at DESC, id DESC LIMIT ",
        KeyOrder::Name => " ORDER BY lower(name), id LIMIT ",
        KeyOrder::Used => " ORDER BY coalesce(last_used_at, '-infinity') DESC, id DESC LIMIT ",
    });
    query.push_bind(limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(db).await?;
    rows.into_iter().map(KeyRow::try_from).collect()
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
