//! The append-only trail. The hash is made by the service, which has the key; here is only the order.

use chrono::{DateTime, Utc};
use domain::{StaffId, UserId, views};
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::Result;

/// One row as stored.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: i64,
    pub at: DateTime<Utc>,
    pub staff_id: Option<StaffId>,
    pub actor: String,
    pub action: String,
    pub target_kind: String,
    pub target_id: String,
    pub target_name: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub ip: Option<String>,
    pub request_id: Option<String>,
    pub key_id: String,
    pub hash: Vec<u8>,
}

/// Id and hash of the last row. Locks the end of the chain until the transaction ends: one writer after another.
pub async fn lock_head(db: &mut PgConnection) -> Result<(i64, Vec<u8>)> {
    let row = sqlx::query!("SELECT id, hash FROM audit_head FOR UPDATE")
        .fetch_one(db)
        .await?;
    Ok((row.id, row.hash))
}

/// Lets everything that is read in this transaction be of one moment. Call it first.
pub async fn freeze(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .execute(db)
        .await?;
    Ok(())
}

/// Id and hash of the last row, as of now.
pub async fn head(db: &mut PgConnection) -> Result<(i64, Vec<u8>)> {
    let row = sqlx::query!("SELECT id, hash FROM audit_head").fetch_one(db).await?;
    Ok((row.id, row.hash))
}

/// Writes the row and moves the end of the chain to it.
pub async fn append(db: &mut PgConnection, entry: &Entry) -> Result<()> {
    sqlx::query!(
        "WITH written AS (
             INSERT INTO audit (id, at, staff_id, actor, action, target_kind, target_id, target_name, before, after, ip, request_id, key_id, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         )
         UPDATE audit_head SET id = $1, hash = $14",
        entry.id,
        entry.at,
        entry.staff_id.map(|id| id.0),
        entry.actor,
        entry.action,
        entry.target_kind,
        entry.target_id,
        entry.target_name,
        entry.before,
        entry.after,
        entry.ip,
        entry.request_id,
        entry.key_id,
        entry.hash
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The next `limit` rows after `id`, oldest first, for verification.
pub async fn after(db: &mut PgConnection, id: i64, limit: i64) -> Result<Vec<Entry>> {
    let rows = sqlx::query!("SELECT * FROM audit WHERE id > $1 ORDER BY id LIMIT $2", id, limit)
        .fetch_all(db)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| Entry {
            id: row.id,
            at: row.at,
            staff_id: row.staff_id.map(StaffId),
            actor: row.actor,
            action: row.action,
            target_kind: row.target_kind,
            target_id: row.target_id,
            target_name: row.target_name,
            before: row.before,
            after: row.after,
            ip: row.ip,
            request_id: row.request_id,
            key_id: row.key_id,
            hash: row.hash,
        })
        .collect())
}

/// What is looked for in the trail; every part that is given must fit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Part of an actor's name.
    pub actor: Option<&'a str>,
    /// A whole action or its part before the dot.
    pub action: Option<&'a str>,
    /// The id of what was acted on, part of its name, or the id of somebody whose words were read.
    pub target: Option<&'a str>,
    pub from: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
}

struct Row {
    id: i64,
    at: DateTime<Utc>,
    actor: String,
    action: String,
    target_kind: String,
    target_id: String,
    target_name: String,
    before: Option<Value>,
    after: Option<Value>,
    ip: Option<String>,
}

impl From<Row> for views::AuditRow {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            at: row.at,
            actor: row.actor,
            action: row.action,
            target_kind: row.target_kind,
            target_id: row.target_id,
            target_name: row.target_name,
            before: row.before,
            after: row.after,
            ip: row.ip,
        }
    }
}

/// Newest first.
pub async fn list(
    db: &mut PgConnection,
    filter: &Filter<'_>,
    before_id: Option<i64>,
    limit: i64,
) -> Result<Vec<views::AuditRow>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, at, actor, action, target_kind, target_id, target_name, before, after, ip FROM audit
         WHERE ($1::text IS NULL OR lower(actor) LIKE '%' || $1 || '%')
           AND ($2::text IS NULL OR action = $2 OR action LIKE $2 || '.%')
           AND ($3::text IS NULL OR target_id = $3 OR lower(target_name) LIKE '%' || $4 || '%'
                OR (action = 'conversation.read' AND (after @> jsonb_build_object('user', $3)
                                                      OR after @> jsonb_build_object('users', jsonb_build_array($3)))))
           AND ($5::timestamptz IS NULL OR at >= $5)
           AND ($6::timestamptz IS NULL OR at < $6)
           AND ($7::bigint IS NULL OR id < $7)
         ORDER BY id DESC LIMIT $8",
        filter.actor.map(crate::like),
        filter.action,
        filter.target,
        filter.target.map(crate::like),
        filter.from,
        filter.until,
        before_id,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The last that was done with a user, and the last readings of what they wrote; newest first.
pub async fn about_user(db: &mut PgConnection, user: UserId, limit: i64) -> Result<Vec<views::AuditRow>> {
    let id = user.0.to_string();
    // Each half stops at its limit by an index, however long the trail is.
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id!", at AS "at!", actor AS "actor!", action AS "action!", target_kind AS "target_kind!",
                  target_id AS "target_id!", target_name AS "target_name!", before, after, ip FROM (
               (SELECT id, at, actor, action, target_kind, target_id, target_name, before, after, ip FROM audit
                WHERE target_kind = 'user' AND target_id = $1 ORDER BY id DESC LIMIT $4)
               UNION ALL
               (SELECT id, at, actor, action, target_kind, target_id, target_name, before, after, ip FROM audit
                WHERE action = 'conversation.read' AND (after @> $2 OR after @> $3) ORDER BY id DESC LIMIT $4)
           ) AS done ORDER BY id DESC LIMIT $4"#,
        id,
        json!({ "user": id }),
        json!({ "users": [id] }),
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

/// The last rows of some actions on one target, newest first.
pub async fn about(
    db: &mut PgConnection,
    target_kind: &str,
    target_id: &str,
    actions: &[&str],
    limit: i64,
) -> Result<Vec<views::AuditRow>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, at, actor, action, target_kind, target_id, target_name, before, after, ip FROM audit
         WHERE target_kind = $1 AND target_id = $2 AND action = ANY($3) ORDER BY id DESC LIMIT $4",
        target_kind,
        target_id,
        &actions.iter().map(|&action| action.to_owned()).collect::<Vec<_>>(),
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}
