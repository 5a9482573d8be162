//! Whom a limit would stop, were it set: the use of the current window, reckoned as `counters::bounds` does. Nothing is locked or changed.

use chrono::{DateTime, Utc};
use domain::{LimitKind, Measure, Period, PlanId, Scope, UserId};
use sqlx::PgConnection;

use crate::Result;

/// How many of those with most use are named.
const NAMED: i64 = 5;

/// Users of whom each has a limit of their own count.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    Plan(PlanId),
    User(UserId),
}

/// What a limit of so much would mean for each of some users now.
#[derive(Clone, Debug, Default)]
pub struct People {
    pub count: i64,
    /// Whose use has reached what would hold for them.
    pub stopped: i64,
    pub resets_at: Option<DateTime<Utc>>,
    /// Those with most use first.
    pub heaviest: Vec<Person>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub id: UserId,
    pub name: String,
    /// What is set aside for answers under way included.
    pub used: i64,
    /// Of the limit in question, the others of this user and a boost; `None` is no limit.
    pub cap: Option<i64>,
}

/// With `amount` in the place of the plan's limit or of the user's own one; windows begin by `zone`, or by that of the user's plan.
pub async fn people(
    db: &mut PgConnection,
    whose: Whose,
    kind: LimitKind,
    amount: Option<i64>,
    zone: Option<&str>,
    now: DateTime<Utc>,
) -> Result<People> {
    let (plan, user) = match whose {
        Whose::Plan(id) => (Some(id.0), None),
        Whose::User(id) => (None, Some(id.0)),
    };
    let rows = sqlx::query!(
        r#"WITH people AS (
               SELECT u.id, u.name, u.id::text AS subject, coalesce($6, p.zone) AS zone,
                      CASE WHEN $1::uuid IS NULL THEN l.amount ELSE $5::bigint END AS of_plan,
                      CASE WHEN $1::uuid IS NULL THEN $5 ELSE o.amount END AS own, b.amount AS boost
               FROM users u JOIN plans p ON p.id = u.plan_id
               LEFT JOIN limits l ON l.plan_id = u.plan_id AND l.measure = $3 AND l.period = $4
               LEFT JOIN scope_limits o ON o.scope = 'user' AND o.subject = u.id::text AND o.measure = $3 AND o.period = $4
               LEFT JOIN limit_boosts b ON b.user_id = u.id AND b.measure = $3 AND b.period = $4 AND b.until > $7
               WHERE u.plan_id = $1 OR u.id = $2
           ), windows AS (
               SELECT p.*,
                      CASE $4 WHEN 'total' THEN 'epoch' ELSE date_trunc($4, $7::timestamptz, p.zone) END AS starts_at,
                      CASE WHEN $4 <> 'total' THEN
                          (date_trunc($4, $7 AT TIME ZONE p.zone) + ('1 ' || $4)::interval) AT TIME ZONE p.zone
                      END AS resets_at
               FROM people p
           ), counted AS (
               SELECT w.id, w.name, w.resets_at, coalesce(c.used + c.reserved, s.used + s.reserved, 0) AS used,
                      CASE WHEN coalesce(w.of_plan, w.own) IS NOT NULL THEN greatest(least(w.of_plan, w.own), w.boost) END AS cap
               FROM windows w
               LEFT JOIN counters c ON c.user_id = w.id AND (c.measure, c.period, c.starts_at) = ($3, $4, w.starts_at)
               LEFT JOIN scope_counters s
                    ON (s.scope, s.subject, s.measure, s.period, s.starts_at) = ('user', w.subject, $3, $4, w.starts_at)
           )
           SELECT id, name, used AS "used!", cap, resets_at,
                  count(*) OVER () AS "count!", count(*) FILTER (WHERE used >= cap) OVER () AS "stopped!"
           FROM counted ORDER BY used DESC, id LIMIT $8"#,
        plan,
        user,
        kind.measure().name(),
        kind.period().name(),
        amount,
        zone,
        now,
        NAMED
    )
    .fetch_all(db)
    .await?;
    let first = rows.first();
    Ok(People {
        count: first.map_or(0, |row| row.count),
        stopped: first.map_or(0, |row| row.stopped),
        resets_at: first.and_then(|row| row.resets_at),
        heaviest: rows
            .into_iter()
            .map(|row| Person {
                id: row.id.into(),
                name: row.name,
                used: row.used,
                cap: row.cap,
            })
            .collect(),
    })
}

/// The busiest minutes of some users in a time before now.
#[derive(Clone, Debug, Default)]
pub struct Minutes {
    /// `stopped`: who had a minute with more than would hold for them. `used`: messages of the busiest one.
    pub people: People,
    /// From when on all calls were looked at.
    pub since: DateTime<Utc>,
}

/// How many messages people sent within a minute, by the ledger: when each arrived of those that a model was asked. With `amount` as in
/// [`people`]. Of the time from `since` on, or of the latest `most` calls in it, so that a look costs about the same on any deck.
pub async fn minutes(
    db: &mut PgConnection,
    whose: Whose,
    kind: LimitKind,
    amount: Option<i64>,
    since: DateTime<Utc>,
    most: i64,
    now: DateTime<Utc>,
) -> Result<Minutes> {
    let (plan, user) = match whose {
        Whose::Plan(id) => (Some(id.0), None),
        Whose::User(id) => (None, Some(id.0)),
    };
    let rows = sqlx::query!(
        r#"WITH calls AS MATERIALIZED (
               (SELECT user_id, at, felt_ms FROM usage WHERE $1::uuid IS NOT NULL AND at > $6 AND at <= $7 ORDER BY at DESC LIMIT $8)
               UNION ALL
               (SELECT user_id, at, felt_ms FROM usage WHERE user_id = $2 AND at > $6 AND at <= $7 ORDER BY at DESC LIMIT $8)
           ), looked AS (
               SELECT CASE WHEN count(*) >= $8 THEN min(at) ELSE $6 END AS since FROM calls
           ), arrived AS (
               SELECT user_id, at - felt_ms * interval '1 millisecond' AS at FROM calls WHERE user_id IS NOT NULL
           ), within AS (
               -- A minute is over when the sixty seconds are.
               SELECT user_id, count(*) OVER (PARTITION BY user_id ORDER BY at
                                              RANGE BETWEEN interval '59.999999 seconds' PRECEDING AND CURRENT ROW) AS messages
               FROM arrived
           ), busiest AS (
               SELECT user_id, max(messages) AS messages FROM within GROUP BY user_id
           ), counted AS (
               SELECT u.id, u.name, coalesce(m.messages, 0) AS used,
                      CASE WHEN coalesce(s.of_plan, s.own) IS NOT NULL THEN greatest(least(s.of_plan, s.own), b.amount) END AS cap
               FROM users u
               LEFT JOIN limits l ON l.plan_id = u.plan_id AND l.measure = $3 AND l.period = $4
               LEFT JOIN scope_limits o ON o.scope = 'user' AND o.subject = u.id::text AND o.measure = $3 AND o.period = $4
               LEFT JOIN limit_boosts b ON b.user_id = u.id AND b.measure = $3 AND b.period = $4 AND b.until > $7
               CROSS JOIN LATERAL (SELECT CASE WHEN $1::uuid IS NULL THEN l.amount ELSE $5::bigint END AS of_plan,
                                          CASE WHEN $1::uuid IS NULL THEN $5 ELSE o.amount END AS own) AS s
               LEFT JOIN busiest m ON m.user_id = u.id
               WHERE u.plan_id = $1 OR u.id = $2
           )
           SELECT id, name, used AS "used!", cap, (SELECT since FROM looked) AS "since!",
                  count(*) OVER () AS "count!", count(*) FILTER (WHERE used > cap) OVER () AS "stopped!"
           FROM counted ORDER BY used DESC, id LIMIT $9"#,
        plan,
        user,
        kind.measure().name(),
        kind.period().name(),
        amount,
        since,
        now,
        most,
        NAMED
    )
    .fetch_all(db)
    .await?;
    let first = rows.first();
    Ok(Minutes {
        since: first.map_or(since, |row| row.since),
        people: People {
            count: first.map_or(0, |row| row.count),
            stopped: first.map_or(0, |row| row.stopped),
            resets_at: None,
            heaviest: rows
                .into_iter()
                .map(|row| Person {
                    id: row.id.into(),
                    name: row.name,
                    used: row.used,
                    cap: row.cap,
                })
                .collect(),
        },
    })
}

/// The window of a limit that many share.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub starts_at: DateTime<Utc>,
    pub resets_at: Option<DateTime<Utc>>,
    /// As counted for the limit, what is set aside included; nothing where there was no limit.
    pub used: i64,
}

/// What is used of a shared limit in the window that `now` falls into by `zone`.
pub async fn window(
    db: &mut PgConnection,
    scope: Scope,
    subject: &str,
    kind: LimitKind,
    zone: &str,
    now: DateTime<Utc>,
) -> Result<Window> {
    let row = sqlx::query!(
        r#"WITH windows AS (
               SELECT CASE $4 WHEN 'total' THEN 'epoch' ELSE date_trunc($4, $6::timestamptz, $5) END AS starts_at,
                      CASE WHEN $4 <> 'total' THEN
                          (date_trunc($4, $6 AT TIME ZONE $5) + ('1 ' || $4)::interval) AT TIME ZONE $5
                      END AS resets_at
           )
           SELECT w.starts_at AS "starts_at!", w.resets_at, coalesce(s.used + s.reserved, 0) AS "used!"
           FROM windows w LEFT JOIN scope_counters s
                ON (s.scope, s.subject, s.measure, s.period, s.starts_at) = ($1, $2, $3, $4, w.starts_at)"#,
        scope.name(),
        subject,
        kind.measure().name(),
        kind.period().name(),
        zone,
        now
    )
    .fetch_one(db)
    .await?;
    Ok(Window {
        starts_at: row.starts_at,
        resets_at: row.resets_at,
        used: row.used,
    })
}

/// Who has used a bot, a model or the deployment since then, by the ledger: how many, and those with most use. Nobody for a total,
/// which would be all of the ledger; for images, which it does not count; and for an API key, behind which is a program.
pub async fn users_since(
    db: &mut PgConnection,
    scope: Scope,
    subject: &str,
    kind: LimitKind,
    since: DateTime<Utc>,
) -> Result<(i64, Vec<Person>)> {
    let (bot, model) = match scope {
        Scope::Bot => (subject.parse::<uuid::Uuid>().ok(), None),
        Scope::Model => (None, Some(subject)),
        Scope::Deployment => (None, None),
        Scope::User | Scope::ApiKey => return Ok((0, Vec::new())),
    };
    if kind.period() == Period::Total || kind.measure() == Measure::Images {
        return Ok((0, Vec::new()));
    }
    let rows = sqlx::query!(
        r#"SELECT u.id, u.name, g.used AS "used!", count(*) OVER () AS "count!"
           FROM (SELECT user_id, sum(CASE $1 WHEN 'messages' THEN 1 WHEN 'tokens' THEN prompt_tokens + completion_tokens
                                             ELSE cost END)::bigint AS used
                 FROM usage WHERE at >= $2 AND ($3::uuid IS NULL OR bot_id = $3) AND ($4::text IS NULL OR coalesce(alias, model) = $4)
                 GROUP BY user_id) AS g
           JOIN users u ON u.id = g.user_id ORDER BY g.used DESC, u.id LIMIT $5"#,
        kind.measure().name(),
        since,
        bot,
        model,
        NAMED
    )
    .fetch_all(db)
    .await?;
    let count = rows.first().map_or(0, |row| row.count);
    let people = rows.into_iter().map(|row| Person {
        id: row.id.into(),
        name: row.name,
        used: row.used,
        cap: None,
    });
    Ok((count, people.collect()))
}
