//! Answers to first questions, with what tells how alike two of them are, and what came of comparing.

use chrono::{DateTime, Utc};
use domain::{
    BotId, ComparedBy, Likeness, ModelId, UserId,
    views::{requests::Named, similar::LookRow},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Result, directions, storable};

/// An answer that may be given to similar questions.
#[derive(Clone, Debug)]
pub struct NewAnswer<'a> {
    pub bot: BotId,
    /// A hash of all that made the answer but the question.
    pub space: &'a [u8; 32],
    pub user: UserId,
    pub question: &'a str,
    /// Of unit length.
    pub vector: &'a [f32],
    pub compared_by: ComparedBy,
    pub answer: &'a str,
    pub provider: &'a str,
    pub model: Option<ModelId>,
    pub at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// Its bytes are kept also where the database compares: a replica may not know that yet, and a dump may go where there is no pgvector.
pub async fn insert(db: &mut PgConnection, answer: &NewAnswer<'_>) -> Result<()> {
    let id = Uuid::now_v7();
    let bytes: Vec<u8> = answer.vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    sqlx::query!(
        "INSERT INTO similar_answers (id, bot_id, space, user_id, question, vector, answer, provider, model_id, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        id,
        answer.bot.0,
        answer.space,
        answer.user.0,
        storable(answer.question),
        bytes,
        storable(answer.answer),
        answer.provider,
        answer.model.map(|id| id.0),
        answer.at,
        answer.expires_at
    )
    .execute(&mut *db)
    .await?;
    match answer.compared_by {
        ComparedBy::Database => directions::insert(db, id, answer).await,
        ComparedBy::Process => Ok(()),
    }
}

/// What is compared in process.
#[derive(Clone, Debug)]
pub struct Compared {
    pub id: Uuid,
    pub vector: Box<[f32]>,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// The newest of a space that still hold and were made after `since`, newest first.
pub async fn load(
    db: &mut PgConnection,
    space: &[u8; 32],
    since: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Compared>> {
    let rows = sqlx::query!(
        "SELECT id, vector, created_at, expires_at FROM similar_answers
         WHERE space = $1 AND created_at > coalesce($2::timestamptz, '-infinity') AND expires_at > $3 ORDER BY created_at DESC LIMIT $4",
        space,
        since,
        now,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Compared {
            id: row.id,
            vector: numbers(&row.vector),
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
        .collect())
}

fn numbers(bytes: &[u8]) -> Box<[f32]> {
    let numbers = bytes.as_chunks::<4>().0.iter();
    numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// A question that was asked before, and its answer.
#[derive(Clone, Debug)]
pub struct Asked {
    pub user: UserId,
    pub question: String,
    pub answer: String,
    pub provider: String,
    pub model: Option<ModelId>,
}

/// `None` of one that holds no longer.
pub async fn get(db: &mut PgConnection, id: Uuid, now: DateTime<Utc>) -> Result<Option<Asked>> {
    let row = sqlx::query!(
        "SELECT user_id, question, answer, provider, model_id FROM similar_answers WHERE id = $1 AND expires_at > $2",
        id,
        now
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Asked {
        user: row.user_id.into(),
        question: row.question,
        answer: row.answer,
        provider: row.provider,
        model: row.model_id.map(ModelId),
    }))
}

/// How a question went, and what came nearest to it.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    pub bot: BotId,
    pub at: DateTime<Utc>,
    pub user: UserId,
    pub question: &'a str,
    pub near_user: UserId,
    pub near_question: &'a str,
    pub likeness: Likeness,
    pub hit: bool,
}

pub async fn note(db: &mut PgConnection, look: &Look<'_>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO similar_looks (id, bot_id, at, user_id, question, near_user_id, near_question, likeness, hit)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        Uuid::now_v7(),
        look.bot.0,
        look.at,
        look.user.0,
        storable(look.question),
        look.near_user.0,
        storable(look.near_question),
        look.likeness.thousandths(),
        look.hit
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The newest first.
pub async fn looks(db: &mut PgConnection, bot: BotId, limit: i64) -> Result<Vec<LookRow>> {
    let rows = sqlx::query!(
        "SELECT l.at, l.user_id, u.name, l.question, l.near_user_id, l.near_question, l.likeness, l.hit
         FROM similar_looks l JOIN users u ON u.id = l.user_id WHERE l.bot_id = $1 ORDER BY l.at DESC, l.id DESC LIMIT $2",
        bot.0,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| LookRow {
            at: row.at,
            user: Named {
                id: row.user_id.into(),
                name: row.name,
            },
            question: row.question,
            near_user: row.near_user_id.into(),
            near_question: row.near_question,
            likeness: Likeness::of_thousandths(row.likeness),
            hit: row.hit,
        })
        .collect())
}

/// Forgets what holds no longer, and of each bot all but the newest `answers` and `looks`.
pub async fn prune(db: &mut PgConnection, answers: i64, looks: i64, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!("DELETE FROM similar_answers WHERE expires_at <= $1", now)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "DELETE FROM similar_answers a USING bots b
         WHERE a.bot_id = b.id AND a.created_at < (
             SELECT n.created_at FROM similar_answers n WHERE n.bot_id = b.id ORDER BY n.created_at DESC OFFSET $1::bigint - 1 LIMIT 1)",
        answers
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "DELETE FROM similar_looks l USING bots b
         WHERE l.bot_id = b.id AND l.at < (
             SELECT n.at FROM similar_looks n WHERE n.bot_id = b.id ORDER BY n.at DESC, n.id DESC OFFSET $1::bigint - 1 LIMIT 1)",
        looks
    )
    .execute(db)
    .await?;
    Ok(())
}
