//! What a job sends, and what of it is known to have arrived.

use std::collections::HashMap;

use domain::{BotId, JobId, views::RichText};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::Result;

/// One message of an answer.
#[derive(Clone, Debug)]
pub struct Part {
    /// `None` while only a preview stands there, and for a message of which the answer has no use any more.
    pub body: Option<RichText>,
    pub message_id: Option<i64>,
    pub lost: Lost,
}

/// What is known of a part that has no id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// It may stand in the chat.
    pub maybe_sent: bool,
    /// Ids that are not its.
    pub tried: Vec<i64>,
    /// Ids whose messages may have got its text in the moment in which the attempt before was lost.
    pub trying: Vec<i64>,
    /// What may stand there is the beginning of it only.
    pub previewed: bool,
}

/// Beyond the parts: not of the answer, but that there will be none.
const APOLOGY: i32 = 1_000_000;

/// In the order of the parts; for an attempt that has sent nothing yet.
pub async fn load(db: &mut PgConnection, job: JobId) -> Result<Vec<Part>> {
    let rows = sqlx::query!(
        r#"SELECT body AS "body: Json<RichText>", message_id FROM deliveries
           WHERE job_id = $1 AND part < $2 ORDER BY part"#,
        job.0,
        APOLOGY
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Part {
            body: row.body.map(|body| body.0),
            message_id: row.message_id,
            lost: Lost::default(),
        })
        .collect())
}

/// What earlier attempts at the job have left, in the order of the parts, and notes that sending begins again. Parts are sent one
/// after another, so only the first that has no id may have been sent. Of a job older than `hours` none is said to: the ids of
/// messages that came after it may be forgotten, and one of them would be taken for it. An apology comes last, as a message of which
/// the answer has no use.
pub async fn resume(db: &mut PgConnection, job: JobId, hours: i32) -> Result<Vec<Part>> {
    let rows = sqlx::query!(
        r#"WITH again AS (
               UPDATE deliveries SET maybe_sent = true, begun_at = now() WHERE job_id = $1 AND message_id IS NULL AND NOT maybe_sent
           )
           SELECT body AS "body: Json<RichText>", message_id, tried, trying, previewed,
                  maybe_sent AND message_id IS NULL AND j.created_at > now() - make_interval(hours => $2)
                  AND part = min(part) FILTER (WHERE message_id IS NULL) OVER () AS "maybe_sent!"
           FROM deliveries d JOIN jobs j ON j.id = d.job_id WHERE job_id = $1 ORDER BY part"#,
        job.0,
        hours
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Part {
            body: row.body.map(|body| body.0),
            message_id: row.message_id,
            lost: Lost {
                maybe_sent: row.maybe_sent,
                tried: row.tried,
                trying: row.trying,
                previewed: row.previewed,
            },
        })
        .collect())
}

/// Notes that of the parts without an id none was sent, unless the lease has been lost.
pub async fn unsent(db: &mut PgConnection, job: JobId, token: Uuid) -> Result<()> {
    sqlx::query!(
        "UPDATE deliveries SET maybe_sent = false
         WHERE job_id = $1 AND message_id IS NULL AND EXISTS (SELECT FROM jobs WHERE id = $1 AND lease_token = $2)",
        job.0,
        token
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes the ids that a part turned out not to have, and those that are looked at next.
pub async fn tried(db: &mut PgConnection, job: JobId, part: i32, ids: &[i64], next: &[i64]) -> Result<()> {
    sqlx::query!(
        "UPDATE deliveries SET tried = $3, trying = $4 WHERE job_id = $1 AND part = $2",
        job.0,
        part,
        ids,
        next
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes the id of the message that says that there will be no answer: nobody is to take it for something that was lost.
pub async fn apologised(db: &mut PgConnection, job: JobId, chat: &str, message_id: i64) -> Result<()> {
    sqlx::query!(
        "INSERT INTO deliveries (job_id, chat, part, message_id) VALUES ($1, $2, $3, $4)
         ON CONFLICT (job_id, part) DO UPDATE SET message_id = excluded.message_id",
        job.0,
        chat,
        APOLOGY,
        message_id
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that a preview is about to be sent as part number `part`; not for a worker that has lost its lease.
pub async fn begin_preview(db: &mut PgConnection, job: JobId, token: Uuid, chat: &str, part: i32) -> Result<()> {
    sqlx::query!(
        "INSERT INTO deliveries (job_id, chat, part, previewed) SELECT id, $3, $4, true FROM jobs WHERE id = $1 AND lease_token = $2
         ON CONFLICT DO NOTHING",
        job.0,
        token,
        chat,
        part
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Stores the final parts; those that a preview began keep their message id.
pub async fn store(db: &mut PgConnection, job: JobId, chat: &str, parts: &[RichText]) -> Result<()> {
    let numbers: Vec<i32> = (0..).take(parts.len()).collect();
    let bodies: Vec<serde_json::Value> = parts
        .iter()
        .map(|part| serde_json::json!(crate::storable_rich(part)))
        .collect();
    sqlx::query!(
        "INSERT INTO deliveries (job_id, chat, part, body)
         SELECT $1, $2, part, body FROM unnest($3::int[], $4::jsonb[]) AS t (part, body)
         ON CONFLICT (job_id, part) DO UPDATE SET body = excluded.body, maybe_sent = true,
             begun_at = CASE WHEN deliveries.maybe_sent THEN deliveries.begun_at ELSE now() END",
        job.0,
        chat,
        &numbers,
        &bodies
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes the ids under which parts arrived, from the first part on; not for a worker that has lost its lease.
pub async fn sent(db: &mut PgConnection, job: JobId, token: Uuid, first_part: i32, message_ids: &[i64]) -> Result<()> {
    let numbers: Vec<i32> = (first_part..).take(message_ids.len()).collect();
    sqlx::query!(
        "UPDATE deliveries d SET message_id = t.message_id FROM unnest($2::int[], $3::bigint[]) AS t (part, message_id)
         WHERE d.job_id = $1 AND d.part = t.part AND EXISTS (SELECT FROM jobs WHERE id = $1 AND lease_token = $4)",
        job.0,
        &numbers,
        message_ids,
        token
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Whose a message is that a job has found.
#[derive(Clone, Debug)]
pub enum Owner {
    /// Another job's, and what it is to say: `None` while that is a preview.
    Another(Option<RichText>),
    /// Nobody has noted it, but others in the chat are sending something.
    PerhapsAnother,
    Nobody,
}

/// Whose a message of a chat is, if it is not this job's.
pub async fn owner(db: &mut PgConnection, job: JobId, chat: &str, message_id: i64) -> Result<Owner> {
    let row = sqlx::query!(
        r#"SELECT body AS "body: Json<RichText>", true AS "noted!" FROM deliveries WHERE chat = $1 AND message_id = $2 AND job_id <> $3
           UNION ALL
           SELECT NULL, false FROM jobs j JOIN deliveries d ON d.job_id = j.id
           WHERE j.state IN ('ready', 'running') AND j.attempts > 0 AND j.id <> $3
                 AND d.chat = $1 AND d.message_id IS NULL AND d.maybe_sent
           ORDER BY 2 DESC LIMIT 1"#,
        chat,
        message_id,
        job.0
    )
    .fetch_optional(db)
    .await?;
    Ok(match row {
        None => Owner::Nobody,
        Some(row) if row.noted => Owner::Another(row.body.map(|body| body.0)),
        Some(_) => Owner::PerhapsAnother,
    })
}

/// Those of these messages of a chat that are another job's, and what they are to say.
pub async fn of_others(db: &mut PgConnection, job: JobId, chat: &str, ids: &[i64]) -> Result<Vec<(i64, RichText)>> {
    let rows = sqlx::query!(
        r#"SELECT message_id AS "message_id!", body AS "body!: Json<RichText>" FROM deliveries
           WHERE chat = $1 AND message_id = ANY($2) AND job_id <> $3 AND body IS NOT NULL"#,
        chat,
        ids,
        job.0
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.message_id, row.body.0)).collect())
}

/// Where a message may be that a job has sent without learning its id.
#[derive(Clone, Debug, Default)]
pub struct KnownIds {
    /// The one row in which Telegram numbers the messages of all private chats and small groups of a bot. `None` for a supergroup,
    /// which numbers for itself, and where two chats are seen to have the same id: some servers let every chat number for itself.
    pub in_row: Option<Taken>,
    /// The ids of its chat; `None` where it is plain that there is one row.
    pub in_chat: Option<Taken>,
}

/// Ids that others have, in no order.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// The message that is looked for came after this one.
    pub after: i64,
    /// And before this one, if anything is known that was sent later.
    pub before: Option<i64>,
    /// The highest that was known when it can have been sent last.
    pub highest: i64,
    /// Those that are known beyond `after`.
    pub ids: Vec<i64>,
    /// How many jobs are sending there, or were when their worker went away, what has no id here yet.
    pub unnoted: i64,
}

/// A message somebody has noted.
struct Noted {
    id: i64,
    /// Telegram's id of the chat.
    chat: Option<String>,
    /// Noted before the job was about to send.
    earlier: bool,
    /// Begun, or come to us, after the job had sent.
    later: bool,
    /// Of the bot; when a message of somebody else was written is known by Telegram's clock only.
    sent: bool,
}

impl Taken {
    fn new<'a>(question: i64, noted: impl Iterator<Item = &'a Noted> + Clone, unnoted: i64) -> Self {
        let earlier = noted.clone().filter(|message| message.earlier);
        let after = earlier.map(|message| message.id).fold(question, i64::max);
        let beyond = noted.filter(|message| message.id > after);
        Self {
            after,
            before: beyond
                .clone()
                .filter(|message| message.later && message.sent)
                .map(|message| message.id)
                .min(),
            highest: beyond
                .clone()
                .filter(|message| !message.later)
                .map(|message| message.id)
                .fold(after, i64::max),
            ids: beyond.map(|message| message.id).collect(),
            unnoted,
        }
    }
}

/// As the Bot API numbers them: <https://core.telegram.org/api/bots/ids>.
fn is_supergroup(chat: &str) -> bool {
    chat.starts_with("-100") && chat.len() >= 14
}

/// How many of the newest ids are looked at: far more than are given out between a message and the search for it.
const NEWEST: i64 = 10_000;
/// To see how chats are numbered, so many ids before the question are looked at as well.
const BEFORE: i64 = 200;
/// When none of so many ids of other chats is there twice, it is one row.
const PLAIN: usize = 20;

/// For a job that answers the message `question` in a chat, and cannot have sent anything in the last `seconds`. Moments are
/// compared by this database's clock alone.
pub async fn known_ids(
    db: &mut PgConnection,
    job: JobId,
    bot: BotId,
    chat: &str,
    question: i64,
    seconds: f64,
) -> Result<KnownIds> {
    let external = chat.rsplit('/').next().unwrap_or(chat);
    let supergroup = is_supergroup(external);
    let here = noted(db, job, bot, question, seconds, Some(chat)).await?;
    // A supergroup's ids say nothing of the row, and the row's nothing of a supergroup's.
    let row = if supergroup {
        Vec::new()
    } else {
        noted(db, job, bot, question, seconds, None).await?
    };
    let unnoted = sqlx::query!(
        r#"SELECT count(*) AS "of_bot!", count(*) FILTER (WHERE d.here) AS "of_chat!"
           FROM jobs j CROSS JOIN LATERAL
               (SELECT bool_or(chat = $2) AS here FROM deliveries
                WHERE job_id = j.id AND message_id IS NULL AND maybe_sent AND chat LIKE $1::text || '/%') d
           WHERE j.state IN ('ready', 'running') AND j.attempts > 0 AND d.here IS NOT NULL"#,
        bot.to_string(),
        chat
    )
    .fetch_one(db)
    .await?;
    let one_row = if supergroup {
        Some(false)
    } else {
        numbered_in_one_row(row.iter().chain(&here), external)
    };
    Ok(KnownIds {
        in_row: (one_row != Some(false)).then(|| Taken::new(question, row.iter(), unnoted.of_bot)),
        in_chat: (one_row != Some(true)).then(|| Taken::new(question, here.iter(), unnoted.of_chat)),
    })
}

/// What was sent and received in one chat, or in all that stand in the bot's row.
async fn noted(
    db: &mut PgConnection,
    job: JobId,
    bot: BotId,
    question: i64,
    seconds: f64,
    chat: Option<&str>,
) -> Result<Vec<Noted>> {
    let (external, after) = (
        chat.and_then(|chat| chat.rsplit('/').next()),
        question.saturating_sub(BEFORE),
    );
    let mut noted = match chat {
        Some(chat) => {
            sqlx::query_as!(
                Noted,
                r#"SELECT d.message_id AS "id!", split_part(d.chat, '/', 2) AS chat,
                          coalesce((SELECT finished_at FROM jobs WHERE id = d.job_id)
                                   < (SELECT min(begun_at) FROM deliveries WHERE job_id = $3), false) AS "earlier!",
                          d.begun_at > now() - make_interval(secs => $5) AS "later!", true AS "sent!"
                   FROM deliveries d WHERE d.chat = $1 AND d.message_id > $2 ORDER BY d.message_id DESC LIMIT $4"#,
                chat,
                after,
                job.0,
                NEWEST,
                seconds
            )
            .fetch_all(&mut *db)
            .await?
        }
        None => {
            sqlx::query_as!(
                Noted,
                r#"SELECT d.message_id AS "id!", split_part(d.chat, '/', 2) AS chat,
                          coalesce((SELECT finished_at FROM jobs WHERE id = d.job_id)
                                   < (SELECT min(begun_at) FROM deliveries WHERE job_id = $3), false) AS "earlier!",
                          d.begun_at > now() - make_interval(secs => $5) AS "later!", true AS "sent!"
                   FROM deliveries d WHERE split_part(d.chat, '/', 1) = $1 AND d.message_id > $2
                   AND split_part(d.chat, '/', 2) NOT LIKE '-100__________%' ORDER BY d.message_id DESC LIMIT $4"#,
                bot.to_string(),
                after,
                job.0,
                NEWEST,
                seconds
            )
            .fetch_all(&mut *db)
            .await?
        }
    };
    let received = sqlx::query_as!(
        Noted,
        r#"SELECT u.message_id AS "id!", u.payload->u.kind->'chat'->>'id' AS chat,
                  coalesce(j.created_at < (SELECT min(begun_at) FROM deliveries WHERE job_id = $3), false) AS "earlier!",
                  coalesce(j.created_at > now() - make_interval(secs => $5), false) AS "later!", false AS "sent!"
           FROM updates u
           LEFT JOIN LATERAL (SELECT created_at FROM jobs WHERE id = coalesce(u.job_id, u.id) LIMIT 1) j ON true
           WHERE u.bot_id = $1 AND u.message_id > $2
           AND CASE WHEN $6::text IS NULL THEN coalesce(u.payload->u.kind->'chat'->>'id', '') NOT LIKE '-100__________%'
                    ELSE u.payload->u.kind->'chat'->>'id' = $6 END
           ORDER BY u.message_id DESC LIMIT $4"#,
        bot.0,
        after,
        job.0,
        NEWEST,
        seconds,
        external
    )
    .fetch_all(db)
    .await?;
    noted.extend(received);
    Ok(noted)
}

/// `None`: too little is known to say.
fn numbered_in_one_row<'a>(noted: impl Iterator<Item = &'a Noted>, here: &str) -> Option<bool> {
    let mut chats = HashMap::new();
    for message in noted {
        let Some(chat) = message.chat.as_deref() else { continue };
        if *chats.entry(message.id).or_insert(chat) != chat {
            return Some(false);
        }
    }
    let elsewhere = chats.values().filter(|chat| **chat != here).count();
    (elsewhere >= PLAIN).then_some(true)
}

/// The messages of one job's answer become those of another's, which is to replace it.
pub async fn take_over(db: &mut PgConnection, from: JobId, to: JobId) -> Result<()> {
    sqlx::query!(
        "UPDATE deliveries SET job_id = $2, body = NULL WHERE job_id = $1 AND part < $3",
        from.0,
        to.0,
        APOLOGY
    )
    .execute(db)
    .await?;
    Ok(())
}
