//! What the tests begin with.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{BotId, ComparedBy, JobId, UserId, views::BotTransport};
use repositories::{
    Database, PgConnection,
    jobs::{self, Claimed, End, NewUpdate, Work},
    people::{self, Known, Place, Sender},
    similar::NewAnswer,
};
use serde_json::json;
use uuid::Uuid;

/// The playground, which every database has.
pub const BOT: BotId = BotId(Uuid::from_u128(0x01930000_0000_7000_8000_0000000000b0));

pub fn update(update_id: i64, work: Option<Work>) -> NewUpdate {
    NewUpdate {
        id: Uuid::now_v7(),
        update_id,
        kind: "message".to_owned(),
        message_id: Some(update_id),
        payload: json!({ "update_id": update_id }),
        work,
        gather: None,
    }
}

pub fn in_lane(update_id: i64, lane: &str) -> NewUpdate {
    update(update_id, Some(Work::InLane(lane.to_owned())))
}

/// Accepts as intake does, in a transaction of its own.
pub async fn accept(db: &Database, updates: &[NewUpdate]) -> u64 {
    let now = db.now().await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let new = jobs::accept(&mut tx, BOT, updates, now).await.unwrap();
    tx.commit().await.unwrap();
    new
}

pub async fn claim(db: &Database, limit: i64) -> Vec<Claimed> {
    let mut connection = db.acquire().await.unwrap();
    jobs::claim(&mut connection, "worker", limit, 60.0, jobs::Which::All, &[])
        .await
        .unwrap()
}

/// Ends as the queue does, in a transaction of its own.
pub async fn end(db: &Database, job: &Claimed, how: End<'_>) -> bool {
    let mut tx = db.begin().await.unwrap();
    let ended = jobs::end(&mut tx, job.id, job.token, job.lane.as_deref(), how)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    ended.is_some()
}

pub async fn state(db: &Database, job: JobId) -> String {
    sqlx::query_scalar("SELECT state FROM jobs WHERE id = $1")
        .bind(job.0)
        .fetch_one(db.pool())
        .await
        .unwrap()
}

/// A person of Telegram in a private chat.
pub async fn meet(db: &mut PgConnection, external_id: i64, now: DateTime<Utc>) -> Known {
    let sender = Sender {
        transport: BotTransport::Telegram,
        external_id,
        name: "Anna",
        username: Some("anna"),
        language: Some("en"),
    };
    let place = Place {
        bot: BOT,
        chat_external_id: external_id,
        kind: "private",
        title: "Anna",
        thread_id: 0,
    };
    people::meet(db, &sender, &place, now).await.unwrap()
}

/// An answer for an hour, that is compared in process; tests change what they are about.
pub fn similar_answer<'a>(user: UserId, space: &'a [u8; 32], vector: &'a [f32], at: DateTime<Utc>) -> NewAnswer<'a> {
    NewAnswer {
        bot: BOT,
        space,
        user,
        question: "why?",
        vector,
        compared_by: ComparedBy::Process,
        answer: "because",
        provider: "p",
        model: None,
        at,
        expires_at: at + TimeDelta::hours(1),
    }
}
