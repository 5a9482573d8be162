//! Stored messages: what the model is shown again, and what support reads.

use chrono::{DateTime, Utc};
use domain::{
    ConversationId, JobId, MessageId, Money, UserId,
    views::{Author, ConversationRow, ErrorNote, Made, Speaker, Transcript, TranscriptMessage},
};
use sqlx::PgConnection;

use crate::{Error, Result};

/// A message to be kept.
#[derive(Clone, Debug)]
pub struct NewMessage<'a> {
    pub id: MessageId,
    pub at: DateTime<Utc>,
    pub author: Author,
    /// Who wrote it, if that was a person who is known.
    pub user: Option<UserId>,
    pub text: &'a str,
    /// Estimated size in the model's context.
    pub tokens: i32,
    pub in_context: bool,
    pub error_code: Option<&'a str>,
    pub error_cause: Option<&'a str>,
}

fn author_name(author: Author) -> &'static str {
    match author {
        Author::User => "user",
        Author::Bot => "bot",
    }
}

fn author(text: &str) -> Result<Author> {
    match text {
        "user" => Ok(Author::User),
        "bot" => Ok(Author::Bot),
        _ => Err(Error::Stored("messages.author")),
    }
}

/// Keeps the messages, marks the conversation as used and notes who takes part in it. The messages are given in order; all of them move behind what the
/// conversation holds already when this process' clock is behind that of the one that wrote it.
pub async fn insert(
    db: &mut PgConnection,
    conversation: ConversationId,
    job: JobId,
    messages: &[NewMessage<'_>],
) -> Result<()> {
    sqlx::query!(
        "WITH held AS MATERIALIZED (
             SELECT last_at, user_id FROM conversations WHERE id = $1 FOR UPDATE
         ), moved AS MATERIALIZED (
             SELECT greatest(h.last_at + interval '1 microsecond' - min(t.at), interval '0') AS by, max(t.at) AS last
             FROM held h, unnest($4::timestamptz[]) AS t (at) GROUP BY h.last_at
         ), touched AS (
             UPDATE conversations SET last_at = m.last + m.by FROM moved m WHERE id = $1
         ), joined AS (
             INSERT INTO participants (user_id, conversation_id)
             SELECT DISTINCT s.id, $1::uuid FROM held h, unnest($11::uuid[]) AS s (id) WHERE s.id <> h.user_id
             ON CONFLICT DO NOTHING
         )
         INSERT INTO messages (conversation_id, job_id, id, created_at, author, text, tokens, in_context, error_code, error_cause, user_id)
         SELECT $1, $2, t.id, t.at + m.by, t.author, t.text, t.tokens, t.in_context, t.code, t.cause, t.user_id
         FROM moved m, unnest($3::uuid[], $4::timestamptz[], $5::text[], $6::text[], $7::int[], $8::boolean[], $9::text[], $10::text[], $11::uuid[])
             AS t (id, at, author, text, tokens, in_context, code, cause, user_id)",
        conversation.0,
        job.0,
        &messages.iter().map(|message| message.id.0).collect::<Vec<_>>(),
        &messages.iter().map(|message| message.at).collect::<Vec<_>>(),
        &messages.iter().map(|message| author_name(message.author).to_owned()).collect::<Vec<_>>(),
        &messages.iter().map(|message| crate::storable(message.text)).collect::<Vec<_>>(),
        &messages.iter().map(|message| message.tokens).collect::<Vec<_>>(),
        &messages.iter().map(|message| message.in_context).collect::<Vec<_>>(),
        &messages.iter().map(|message| message.error_code.map(str::to_owned)).collect::<Vec<_>>() as &[Option<String>],
        &messages.iter().map(|message| message.error_cause.map(crate::storable)).collect::<Vec<_>>() as &[Option<String>],
        &messages.iter().map(|message| message.user.map(|user| user.0)).collect::<Vec<_>>() as &[Option<uuid::Uuid>]
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A message as the model sees it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub author: Author,
    pub text: String,
    pub tokens: i32,
}

/// The latest messages that the model may see, oldest first and beginning with a question: at most `limit`, and at most `tokens` of
/// them in all, with `per_message` added to each. `without`: the exchange that is about to be replaced.
pub async fn history(
    db: &mut PgConnection,
    conversation: ConversationId,
    tokens: i64,
    per_message: i64,
    limit: i64,
    without: Option<JobId>,
) -> Result<Vec<Remembered>> {
    let rows = sqlx::query!(
        r#"SELECT author, text, tokens FROM (
               SELECT author, text, tokens, created_at, id, sum(tokens + $4::bigint) OVER (ORDER BY created_at DESC, id DESC) AS sum FROM (
                   SELECT author, text, tokens, created_at, id FROM messages
                   WHERE conversation_id = $1 AND in_context AND job_id IS DISTINCT FROM $5 ORDER BY created_at DESC, id DESC LIMIT $3
               ) AS latest
           ) AS summed
           WHERE sum <= $2::bigint ORDER BY created_at, id"#,
        conversation.0,
        tokens,
        limit,
        per_message,
        without.map(|job| job.0)
    )
    .fetch_all(db)
    .await?;
    let mut remembered = rows
        .into_iter()
        .map(|row| {
            Ok(Remembered {
                author: author(&row.author)?,
                text: row.text,
                tokens: row.tokens,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    // An answer whose question was cut off says little, and there are models that refuse a conversation which begins with one.
    let first = remembered.iter().position(|message| message.author == Author::User);
    remembered.drain(..first.unwrap_or(remembered.len()));
    Ok(remembered)
}

/// The model no longer sees a question and its answer.
pub async fn forget(db: &mut PgConnection, job: JobId) -> Result<()> {
    sqlx::query!(
        "UPDATE messages SET in_context = false
         WHERE job_id = $1 AND in_context AND conversation_id = (SELECT conversation_id FROM usage WHERE job_id = $1)
           AND created_at >= (SELECT min(created_at) FROM messages WHERE id = $1)",
        job.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Where the user began or took part, the last used first; `before` is the last row of the page before.
pub async fn conversations_of(
    db: &mut PgConnection,
    user: UserId,
    before: Option<(DateTime<Utc>, ConversationId)>,
    limit: i64,
) -> Result<Vec<ConversationRow>> {
    let rows = sqlx::query!(
        r#"WITH theirs AS (
               (SELECT id, last_at FROM conversations
                WHERE user_id = $1 AND ($2::timestamptz IS NULL OR (last_at, id) < ($2, $3)) ORDER BY last_at DESC, id DESC LIMIT $4)
               UNION
               (SELECT v.id, v.last_at FROM participants p JOIN conversations v ON v.id = p.conversation_id
                WHERE p.user_id = $1 AND ($2::timestamptz IS NULL OR (v.last_at, v.id) < ($2, $3)) ORDER BY v.last_at DESC, v.id DESC LIMIT $4)
           )
           SELECT v.id, b.name AS bot, c.title AS chat, v.started_at, v.last_at, v.ended_at
           FROM theirs JOIN conversations v ON v.id = theirs.id JOIN chats c ON c.id = v.chat_id JOIN bots b ON b.id = c.bot_id
           ORDER BY v.last_at DESC, v.id DESC LIMIT $4"#,
        user.0,
        before.map(|(at, _)| at),
        before.map(|(_, id)| id.0),
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ConversationRow {
            id: row.id.into(),
            bot: row.bot,
            chat: row.chat,
            started: row.started_at,
            last: row.last_at,
            current: row.ended_at.is_none(),
        })
        .collect())
}

/// One page of a conversation, ending before the message `before`, and whether there are older ones.
pub async fn transcript(
    db: &mut PgConnection,
    id: ConversationId,
    before: Option<(DateTime<Utc>, MessageId)>,
    limit: i64,
) -> Result<Option<(Transcript, bool)>> {
    let Some(head) = sqlx::query!(
        r#"SELECT v.id, b.name AS bot, c.title AS chat, c.kind IN ('private', 'browser') AS "private!", v.started_at, v.last_at,
                  v.ended_at, u.id AS user_id, u.name AS user_name
           FROM conversations v JOIN chats c ON c.id = v.chat_id JOIN bots b ON b.id = c.bot_id JOIN users u ON u.id = v.user_id
           WHERE v.id = $1"#,
        id.0
    )
    .fetch_optional(&mut *db)
    .await?
    else {
        return Ok(None);
    };
    let mut rows = sqlx::query!(
        r#"SELECT m.id, m.author, m.text, m.created_at, m.error_code, m.error_cause,
                  g.model AS "model?", g.prompt_tokens AS "prompt_tokens?", g.completion_tokens AS "completion_tokens?", g.cost AS "cost?",
                  g.first_token_ms, g.total_ms AS "total_ms?", g.finish AS "finish?", g.attempts AS "attempts?",
                  w.id AS "writer_id?", w.name AS "writer?"
           FROM messages m LEFT JOIN usage g ON g.job_id = m.job_id AND m.author = 'bot'
                LEFT JOIN usage a ON a.job_id = m.job_id AND m.author = 'user' AND m.user_id IS NULL
                LEFT JOIN users w ON w.id = coalesce(m.user_id, a.user_id)
           WHERE m.conversation_id = $1 AND ($2::timestamptz IS NULL OR (m.created_at, m.id) < ($2, $3))
           ORDER BY m.created_at DESC, m.id DESC LIMIT $4"#,
        id.0,
        before.map(|(at, _)| at),
        before.map(|(_, id)| id.0),
        limit + 1
    )
    .fetch_all(db)
    .await?;
    let more = rows.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    if more {
        rows.pop();
    }
    let messages = rows
        .into_iter()
        .rev()
        .map(|row| {
            Ok(TranscriptMessage {
                id: row.id.into(),
                author: author(&row.author)?,
                speaker: row
                    .writer_id
                    .zip(row.writer)
                    .map(|(id, name)| Speaker { id: id.into(), name }),
                text: row.text,
                at: row.created_at,
                made: row.model.map(|model| Made {
                    model,
                    prompt_tokens: row.prompt_tokens.unwrap_or_default(),
                    completion_tokens: row.completion_tokens.unwrap_or_default(),
                    cost: Money::from_nanos(row.cost.unwrap_or_default()),
                    first_token_ms: row.first_token_ms,
                    total_ms: row.total_ms.unwrap_or_default(),
                    finish: row.finish.unwrap_or_default(),
                    attempts: i64::from(row.attempts.unwrap_or_default()),
                }),
                error: row.error_code.map(|code| ErrorNote {
                    code,
                    cause: row.error_cause,
                }),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let conversation = ConversationRow {
        id: head.id.into(),
        bot: head.bot,
        chat: head.chat,
        started: head.started_at,
        last: head.last_at,
        current: head.ended_at.is_none(),
    };
    let transcript = Transcript {
        conversation,
        user_id: head.user_id.into(),
        user: head.user_name,
        is_group: !head.private,
        messages,
        older: None,
    };
    Ok(Some((transcript, more)))
}
