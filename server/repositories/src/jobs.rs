//! The durable queue and the updates that fill it.
//!
//! Jobs of one lane run in the order of `seq`: at most one of them is `ready` or `running`, the rest are `waiting` and are
//! promoted by the one that ends. Whoever adds to or takes from a lane holds that lane's advisory lock, so a job can neither be
//! stranded behind one that has just ended nor run beside one. Leases run on the database's clock, since those of replicas differ.

use chrono::{DateTime, Utc};
use domain::{BotId, JobId, views::QueueState};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Result;

/// An update on its way in. Without `work` it is kept and nothing else.
#[derive(Clone, Debug)]
pub struct NewUpdate {
    /// Also the id of its job.
    pub id: Uuid,
    pub update_id: i64,
    pub kind: String,
    /// Of the message it brings.
    pub message_id: Option<i64>,
    pub payload: Value,
    pub work: Option<Work>,
    /// How it goes together with others of its lane; `None`: not at all.
    pub gather: Option<Gather>,
}

/// Updates of one lane with the same key become one job, as long as more may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gather {
    pub key: String,
    pub role: Role,
    /// When it was sent, in seconds by Telegram's clock: what lies far apart does not belong together.
    pub sent_at: i64,
}

/// What an update does to a gathering job of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Begins one, or joins it and keeps it open.
    Opens,
    /// Joins it as its last part; begins none.
    Closes,
    /// Ends it without joining.
    Breaks,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Opens => "opens",
            Self::Closes => "closes",
            Self::Breaks => "breaks",
        }
    }
}

/// How long a gathering job waits for its next part, and for all of them; also how far apart parts may have been sent. In seconds.
const NEXT_PART: f64 = 1.5;
const ALL_PARTS: f64 = 10.0;

/// Where in the queue an update goes.
#[derive(Clone, Debug)]
pub enum Work {
    /// Behind everything of the same lane.
    InLane(String),
    /// Before all that does not: `/stop`, buttons, payments. In a lane of their own kind, beside that of the conversation, so that who
    /// presses a hundred times takes one hand; `None` where nobody is known to have pressed.
    Overtakes(Option<String>),
}

impl Work {
    fn lane(&self) -> Option<&String> {
        match self {
            Self::InLane(lane) => Some(lane),
            Self::Overtakes(lane) => lane.as_ref(),
        }
    }
}

/// A job that this worker holds. `token` proves it.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub id: JobId,
    pub token: Uuid,
    pub lane: Option<String>,
    pub overtakes: bool,
    pub attempt: i32,
    pub max_attempts: i32,
    /// How often its workers went away or panicked.
    pub crashes: i32,
    /// How many updates the job stands for; those beside `update` are read by [`crate::updates::parts`].
    pub parts: i32,
    pub bot: BotId,
    pub update: Value,
    pub received_at: DateTime<Utc>,
}

/// Stores new updates with their jobs and returns how many were new. An update that is there already changes nothing.
/// Call inside a transaction.
pub async fn accept(db: &mut PgConnection, bot: BotId, updates: &[NewUpdate], now: DateTime<Utc>) -> Result<u64> {
    let lanes: Vec<Option<String>> = updates
        .iter()
        .map(|update| update.work.as_ref().and_then(Work::lane).cloned())
        .collect();
    // Only what has a place in a lane can go together with others.
    let gathers: Vec<Option<&Gather>> = updates
        .iter()
        .zip(&lanes)
        .map(|(update, lane)| update.gather.as_ref().filter(|_| lane.is_some()))
        .collect();
    // In one order for all, so that two batches cannot wait for each other.
    sqlx::query!(
        r#"SELECT pg_advisory_xact_lock(hash) AS "locked: ()" FROM (
               SELECT DISTINCT hashtextextended(lane, 0) AS hash FROM unnest($1::text[]) AS lane WHERE lane IS NOT NULL ORDER BY 1
           ) AS lanes"#,
        &lanes as &[Option<String>]
    )
    .fetch_all(&mut *db)
    .await?;
    // The lanes are locked, so what is not among `updates` now is not about to be either, and a job that gathers stays open
    // unless a worker takes it: `open` waits for that, and such a job is no longer joined.
    let new = sqlx::query_scalar!(
        r#"WITH input AS (
               SELECT * FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::jsonb[], $6::text[], $7::boolean[], $9::bigint[],
                                    $10::text[], $11::text[], $12::bigint[], $17::boolean[])
                   WITH ORDINALITY AS t (id, update_id, kind, payload, lane, works, message_id, gather, role, sent_at, overtakes, place)
           ), news AS (
               SELECT * FROM (SELECT DISTINCT ON (update_id) * FROM input ORDER BY update_id, place) AS i
               WHERE NOT EXISTS (SELECT FROM updates u WHERE u.bot_id = $1 AND u.update_id = i.update_id)
           ), marked AS (
               SELECT id, lane, gather, role, sent_at, place,
                      role = 'breaks' OR lag(role) OVER w <> 'opens' OR sent_at - lag(sent_at) OVER w > $14::float8 AS begins
               FROM news WHERE gather IS NOT NULL WINDOW w AS (PARTITION BY lane, gather ORDER BY place)
           ), stretched AS (
               -- Stretch 0 goes on with what is in the queue.
               SELECT *, count(*) FILTER (WHERE begins) OVER (PARTITION BY lane, gather ORDER BY place) AS stretch FROM marked
           ), open AS (
               SELECT id, seq, lane, gather, (payload->>'sent_at')::bigint AS sent_at FROM jobs
               WHERE lane = ANY($6) AND gather = ANY($10) AND state IN ('waiting', 'ready') AND attempts = 0
               FOR UPDATE
           ), led AS (
               SELECT s.id, s.lane, s.gather, s.role, coalesce(o.id, first_value(s.id) OVER w) AS leader,
                      count(*) OVER (PARTITION BY s.lane, s.gather, s.stretch) AS size,
                      bool_and(s.role = 'opens') OVER (PARTITION BY s.lane, s.gather, s.stretch) AS stays_open
               FROM (SELECT *, first_value(sent_at) OVER (PARTITION BY lane, gather, stretch ORDER BY place) AS begun FROM stretched) AS s
               LEFT JOIN LATERAL (
                   SELECT o.id FROM open o
                   WHERE s.stretch = 0 AND o.lane = s.lane AND o.gather = s.gather AND abs(s.begun - o.sent_at) <= $14::float8
                   ORDER BY o.seq DESC LIMIT 1
               ) AS o ON true
               WINDOW w AS (PARTITION BY s.lane, s.gather, s.stretch ORDER BY s.place)
           ), fresh AS (
               INSERT INTO updates (id, bot_id, update_id, kind, message_id, payload, received_at, job_id)
               SELECT n.id, $1, n.update_id, n.kind, n.message_id, n.payload, $8, nullif(l.leader, n.id)
               FROM news n LEFT JOIN led l USING (id) ORDER BY n.place
               ON CONFLICT (bot_id, update_id) DO NOTHING
               RETURNING id, job_id
           ), queued AS (
               INSERT INTO jobs (id, kind, lane, payload, priority, state, gather, parts, run_at)
               SELECT n.id, 'update', n.lane, jsonb_strip_nulls(jsonb_build_object('update', n.id, 'sent_at', CASE WHEN l.stays_open THEN n.sent_at END)),
                      CASE WHEN n.overtakes THEN $15::smallint ELSE $16::smallint END,
                      CASE WHEN n.lane IS NULL THEN 'ready'
                           WHEN row_number() OVER (PARTITION BY n.lane ORDER BY n.place) = 1 AND NOT EXISTS (
                               SELECT FROM jobs j WHERE j.lane = n.lane AND j.state IN ('waiting', 'ready', 'running')
                           ) THEN 'ready'
                           ELSE 'waiting' END,
                      CASE WHEN l.stays_open THEN n.gather END, coalesce(l.size, 1),
                      CASE WHEN l.stays_open THEN now() + make_interval(secs => $13) ELSE now() END
               FROM news n JOIN fresh f USING (id) LEFT JOIN led l USING (id)
               WHERE n.works AND f.job_id IS NULL ORDER BY n.place
           ), grown AS (
               UPDATE jobs j SET parts = j.parts + g.joined, gather = CASE WHEN g.stays_open THEN j.gather END,
                                 run_at = CASE WHEN g.stays_open THEN least(now() + make_interval(secs => $13), j.created_at + make_interval(secs => $14))
                                               ELSE now() END
               FROM (
                   SELECT o.id, count(*) FILTER (WHERE l.leader = o.id) AS joined, bool_and(l.leader = o.id AND l.role = 'opens') AS stays_open
                   FROM open o JOIN led l USING (lane, gather) JOIN fresh f ON f.id = l.id GROUP BY o.id
               ) AS g
               WHERE j.id = g.id
           ), seen AS (
               UPDATE bots SET last_update_at = $8
               -- Not each time: all intake of a bot would wait for this one row.
               WHERE id = $1 AND (last_update_at IS NULL OR last_update_at < $8::timestamptz - interval '5 seconds')
           )
           SELECT count(*) AS "new!" FROM fresh"#,
        bot.0,
        &updates.iter().map(|update| update.id).collect::<Vec<_>>(),
        &updates.iter().map(|update| update.update_id).collect::<Vec<_>>(),
        &updates.iter().map(|update| update.kind.clone()).collect::<Vec<_>>(),
        &updates.iter().map(|update| update.payload.clone()).collect::<Vec<_>>(),
        &lanes as &[Option<String>],
        &updates.iter().map(|update| update.work.is_some()).collect::<Vec<_>>(),
        now,
        &updates.iter().map(|update| update.message_id).collect::<Vec<_>>() as &[Option<i64>],
        &gathers.iter().map(|gather| gather.map(|gather| gather.key.clone())).collect::<Vec<_>>() as &[Option<String>],
        &gathers.iter().map(|gather| gather.map(|gather| gather.role.name().to_owned())).collect::<Vec<_>>() as &[Option<String>],
        &gathers.iter().map(|gather| gather.map(|gather| gather.sent_at)).collect::<Vec<_>>() as &[Option<i64>],
        NEXT_PART,
        ALL_PARTS,
        OVERTAKING,
        ORDINARY,
        &updates
            .iter()
            .map(|update| matches!(update.work, Some(Work::Overtakes(_))))
            .collect::<Vec<_>>()
    )
    .fetch_one(db)
    .await?;
    Ok(u64::try_from(new).unwrap_or(0))
}

/// Which jobs a worker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    /// Nothing that overtakes.
    Ordinary,
    /// Only what overtakes.
    Overtaking,
}

/// How many more jobs of one bot a worker takes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub bot: BotId,
    pub ordinary: i64,
    pub overtaking: i64,
}

/// Of what overtakes, and of everything else.
const OVERTAKING: i16 = 1;
const ORDINARY: i16 = 5;

/// Takes up to `limit` jobs that may run now, those that may for longest first, for `lease_seconds`; of the bots in `room` no more
/// than there is room for. Of a bot that is stopped only what overtakes is taken, which may be to end an answer; of one that cannot
/// speak nothing: a model would be asked for nobody.
///
/// Does not wait for the disk, where all else that is written does: what the worker writes before it does anything that can be seen waits
/// for this as well, and a claim that a crash of the server undoes was never used.
pub async fn claim(
    db: &mut PgConnection,
    worker: &str,
    limit: i64,
    lease_seconds: f64,
    which: Which,
    room: &[Room],
) -> Result<Vec<Claimed>> {
    let (most_urgent, least_urgent) = match which {
        Which::All => (OVERTAKING, ORDINARY),
        Which::Ordinary => (OVERTAKING + 1, ORDINARY),
        Which::Overtaking => (OVERTAKING, OVERTAKING),
    };
    let rows = sqlx::query!(
        r#"WITH candidates AS MATERIALIZED (
               -- The lane of a conversation begins with its bot.
               SELECT id, priority, run_at, seq, left(lane, 36) AS bot FROM jobs
               WHERE state = 'ready' AND run_at <= now() AND priority BETWEEN $4 AND $5
                 AND (lane IS NULL OR left(lane, 36) <> ALL (ARRAY(
                     SELECT id::text FROM bots WHERE token_refused AND fault IS NOT NULL
                 )))
                 AND (lane IS NULL OR CASE WHEN priority = $6 THEN left(lane, 36) <> ALL (ARRAY(
                     SELECT bot FROM unnest($7::text[], $9::bigint[]) AS room (bot, free) WHERE free <= 0
                 )) ELSE left(lane, 36) <> ALL (ARRAY(
                     SELECT bot FROM unnest($7::text[], $8::bigint[]) AS room (bot, free) WHERE free <= 0
                     UNION ALL SELECT id::text FROM bots WHERE NOT enabled
                 )) END)
               ORDER BY priority, run_at, seq LIMIT $2 FOR UPDATE SKIP LOCKED
           ), placed AS (
               SELECT id, priority, bot, row_number() OVER (PARTITION BY bot, priority ORDER BY run_at, seq) AS place FROM candidates
           ), claimed AS (
               UPDATE jobs SET state = 'running', lease_token = gen_random_uuid(), worker = $1, attempts = attempts + 1, claimed_at = now(),
                               lease_until = now() + make_interval(secs => $3)
               WHERE set_config('synchronous_commit', 'off', true) = 'off' AND id IN (
                   SELECT p.id FROM placed p
                   LEFT JOIN unnest($7::text[], $8::bigint[], $9::bigint[]) AS room (bot, ordinary, overtaking) USING (bot)
                   WHERE room.bot IS NULL OR p.place <= CASE WHEN p.priority = $6 THEN room.overtaking ELSE room.ordinary END
               )
               RETURNING id, run_at, seq, lease_token, lane, attempts, max_attempts, crashes, parts, priority
           )
           SELECT c.id, c.lease_token AS "token!", c.lane, c.priority, c.attempts, c.max_attempts, c.crashes, c.parts,
                  u.bot_id, u.payload, u.received_at
           FROM claimed c JOIN updates u ON u.id = c.id ORDER BY c.priority, c.run_at, c.seq"#,
        worker,
        limit,
        lease_seconds,
        most_urgent,
        least_urgent,
        OVERTAKING,
        &room.iter().map(|room| room.bot.to_string()).collect::<Vec<_>>(),
        &room.iter().map(|room| room.ordinary).collect::<Vec<_>>(),
        &room.iter().map(|room| room.overtaking).collect::<Vec<_>>()
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Claimed {
            id: row.id.into(),
            token: row.token,
            lane: row.lane,
            overtakes: row.priority == OVERTAKING,
            attempt: row.attempts,
            max_attempts: row.max_attempts,
            crashes: row.crashes,
            parts: row.parts,
            bot: row.bot_id.into(),
            update: row.payload,
            received_at: row.received_at,
        })
        .collect())
}

/// Locks the job for the rest of the transaction; false when the lease has been lost, and then nothing may be written. Not its key:
/// a preview that is under way may note meanwhile that it begins.
pub async fn hold(db: &mut PgConnection, id: JobId, token: Uuid) -> Result<bool> {
    let held = sqlx::query!(
        "SELECT FROM jobs WHERE id = $1 AND lease_token = $2 FOR NO KEY UPDATE",
        id.0,
        token
    )
    .fetch_optional(db)
    .await?;
    Ok(held.is_some())
}

/// How a job ends, or when it is tried again.
#[derive(Clone, Debug)]
pub enum End<'a> {
    Done,
    /// Done, and these are the ids of the messages it has sent, from part 0 on.
    Delivered(&'a [i64]),
    Dead {
        error: &'a str,
    },
    Retry {
        after_seconds: f64,
        error: &'a str,
        /// Its worker went away or panicked.
        crashes: i32,
    },
    /// Given back unharmed: does not count as an attempt, and keeps its place.
    Returned,
}

/// Ends the job and, unless it is to be tried again, promotes the next of its lane. Whether that lets a job run that did not;
/// `None` when the lease has been lost. Call inside a transaction.
pub async fn end(
    db: &mut PgConnection,
    id: JobId,
    token: Uuid,
    lane: Option<&str>,
    end: End<'_>,
) -> Result<Option<bool>> {
    let sent = if let End::Delivered(ids) = end { ids } else { &[] };
    let (state, delay, error, crashes, returned) = match end {
        End::Done | End::Delivered(_) => ("done", 0.0, None, 0, 0),
        End::Dead { error } => ("dead", 0.0, Some(error), 0, 0),
        End::Retry {
            after_seconds,
            error,
            crashes,
        } => ("ready", after_seconds, Some(error), crashes, 0),
        End::Returned => ("ready", 0.0, None, 0, 1),
    };
    if state != "ready" {
        lock_lane(db, lane).await?;
    }
    Ok(sqlx::query_scalar!(
        r#"WITH ended AS (
             UPDATE jobs SET state = $3, lease_token = NULL, lease_until = NULL, last_error = coalesce($5, last_error),
                             attempts = attempts - $6, crashes = crashes + $7,
                             run_at = CASE WHEN $3 = 'ready' AND $6 = 0 THEN now() + make_interval(secs => $4) ELSE run_at END,
                             finished_at = CASE WHEN $3 = 'ready' THEN NULL ELSE now() END
             WHERE id = $1 AND lease_token = $2
             RETURNING id, lane
         ), next AS (
             UPDATE jobs SET state = 'ready', run_at = greatest(run_at, now())
             WHERE $3 <> 'ready' AND id = (
                 SELECT j.id FROM jobs j WHERE j.lane = (SELECT lane FROM ended) AND j.state = 'waiting' ORDER BY j.seq LIMIT 1
             )
             RETURNING id
         ), noted AS (
             UPDATE deliveries d SET message_id = t.message_id
             FROM ended e, unnest($8::bigint[]) WITH ORDINALITY AS t (message_id, place) WHERE d.job_id = e.id AND d.part = t.place - 1
         )
         SELECT $3 = 'ready' OR EXISTS (SELECT FROM next) AS "more!" FROM ended"#,
        id.0,
        token,
        state,
        delay,
        error.map(crate::storable),
        returned,
        crashes,
        sent
    )
    .fetch_optional(db)
    .await?)
}

/// Nobody else adds to the lane or takes from it until the transaction ends. Take it before locking any of its jobs.
pub async fn lock_lane(db: &mut PgConnection, lane: Option<&str>) -> Result<()> {
    if let Some(lane) = lane {
        sqlx::query!(
            r#"SELECT pg_advisory_xact_lock(hashtextextended($1, 0)) AS "locked: ()""#,
            lane
        )
        .fetch_one(db)
        .await?;
    }
    Ok(())
}

/// Makes jobs of a worker that stops ready for others at once, where they were. They count as tried: something may have been sent.
pub async fn hand_over(db: &mut PgConnection, tokens: &[Uuid]) -> Result<u64> {
    let handed = sqlx::query!(
        "UPDATE jobs SET state = 'ready', lease_token = NULL, lease_until = NULL, last_error = 'the worker stopped'
         WHERE state = 'running' AND lease_token = ANY($1)",
        tokens
    )
    .execute(db)
    .await?;
    Ok(handed.rows_affected())
}

/// Prolongs the leases of the jobs in hand; those not returned have been lost.
pub async fn heartbeat(db: &mut PgConnection, tokens: &[Uuid], lease_seconds: f64) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        r#"UPDATE jobs SET lease_until = now() + make_interval(secs => $2)
           WHERE state = 'running' AND lease_token = ANY($1) RETURNING lease_token AS "token!""#,
        tokens,
        lease_seconds
    )
    .fetch_all(db)
    .await?)
}

/// Prolongs the leases of the jobs in hand but those that are locked just now, by a transaction of their own as a rule: one that
/// hangs must not cost the others their leases. Those not returned have been lost.
pub async fn renew(db: &mut PgConnection, tokens: &[Uuid], lease_seconds: f64) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        r#"WITH renewed AS (
               UPDATE jobs SET lease_until = now() + make_interval(secs => $2) WHERE id IN (
                   SELECT id FROM jobs WHERE state = 'running' AND lease_token = ANY($1) FOR UPDATE SKIP LOCKED
               )
           )
           SELECT lease_token AS "token!" FROM jobs WHERE state = 'running' AND lease_token = ANY($1)"#,
        tokens,
        lease_seconds
    )
    .fetch_all(db)
    .await?)
}

/// Of the jobs in hand, those that somebody wants stopped.
pub async fn cancelled(db: &mut PgConnection, tokens: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(sqlx::query_scalar!(
        r#"SELECT lease_token AS "token!" FROM jobs WHERE state = 'running' AND cancel_requested AND lease_token = ANY($1)"#,
        tokens
    )
    .fetch_all(db)
    .await?)
}

/// Asks whatever runs in the lane to stop, unless it came after the job `stop`; returns how many jobs that was.
pub async fn cancel_lane(db: &mut PgConnection, lane: &str, stop: JobId) -> Result<u64> {
    let asked = sqlx::query!(
        "UPDATE jobs SET cancel_requested = true
         WHERE lane = $1 AND state IN ('ready', 'running') AND NOT cancel_requested AND seq < (SELECT seq FROM jobs WHERE id = $2)",
        lane,
        stop.0
    )
    .execute(db)
    .await?;
    Ok(asked.rows_affected())
}

/// Asks the one running job of a lane whose id ends in these 24 bits to stop; returns whether there was one.
pub async fn cancel_ending_in(db: &mut PgConnection, lane: &str, bits: i32) -> Result<bool> {
    let asked = sqlx::query!(
        "UPDATE jobs SET cancel_requested = true
         WHERE lane = $1 AND state = 'running' AND NOT cancel_requested AND ('x' || right(id::text, 6))::bit(24)::int = $2",
        lane,
        bits
    )
    .execute(db)
    .await?;
    Ok(asked.rows_affected() > 0)
}

/// A job whose worker has gone away.
#[derive(Clone, Debug)]
pub struct Lost {
    pub id: JobId,
    pub token: Uuid,
    pub lane: Option<String>,
    pub crashes: i32,
}

/// Jobs whose lease has run out, but those that are locked just now: whoever hangs with one must not keep the others from being run
/// again.
pub async fn lost(db: &mut PgConnection, limit: i64) -> Result<Vec<Lost>> {
    let rows = sqlx::query!(
        r#"SELECT id, lease_token AS "token!", lane, crashes FROM jobs
           WHERE state = 'running' AND lease_until < now() LIMIT $1 FOR UPDATE SKIP LOCKED"#,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Lost {
            id: row.id.into(),
            token: row.token,
            lane: row.lane,
            crashes: row.crashes,
        })
        .collect())
}

/// Removes finished jobs that ended more than `keep_hours` ago; dead ones stay.
pub async fn prune(db: &mut PgConnection, keep_hours: i32) -> Result<u64> {
    let pruned = sqlx::query!(
        "DELETE FROM jobs WHERE id IN (
             SELECT id FROM jobs WHERE state = 'done' AND finished_at < now() - make_interval(hours => $1) LIMIT 10000
         )",
        keep_hours
    )
    .execute(db)
    .await?;
    Ok(pruned.rows_affected())
}

/// The bots that have at least so many jobs still to do, and how many.
pub async fn crowded(db: &mut PgConnection, most: i64) -> Result<Vec<(BotId, i64)>> {
    let bots = sqlx::query!(
        r#"SELECT split_part(lane, '/', 1) AS "bot!", count(*) AS "jobs!" FROM jobs
           WHERE state IN ('waiting', 'ready', 'running') AND lane IS NOT NULL GROUP BY 1 HAVING count(*) >= $1"#,
        most
    )
    .fetch_all(db)
    .await?;
    // The lane of a conversation begins with its bot.
    Ok(bots
        .iter()
        .filter_map(|row| Some((row.bot.parse().ok()?, row.jobs)))
        .collect())
}

/// Depth and age, from the partial indexes.
pub async fn queue_state(db: &mut PgConnection) -> Result<QueueState> {
    let row = sqlx::query!(
        r#"SELECT count(*) FILTER (WHERE state IN ('waiting', 'ready')) AS "waiting!",
                  count(*) FILTER (WHERE state = 'running') AS "running!",
                  (SELECT count(*) FROM jobs WHERE state = 'dead') AS "dead!",
                  (extract(epoch FROM now() - min(created_at)) * 1000)::bigint AS oldest_ms
           FROM jobs WHERE state IN ('waiting', 'ready', 'running')"#
    )
    .fetch_one(db)
    .await?;
    Ok(QueueState {
        waiting: row.waiting,
        running: row.running,
        dead: row.dead,
        oldest_ms: row.oldest_ms,
    })
}
