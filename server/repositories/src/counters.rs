//! Budgets in use: reserve before the call, settle after it, exactly once.
//!
//! The three windows that every user has are in `counters` and, while a job runs, in `reservations`; all others in
//! `scope_counters` and `holds`. Both pairs are taken and settled by the same statements, always in the same order of locks. Calls
//! without a job take theirs together ([`take`]), in that order, too.

mod together;

use chrono::{DateTime, Utc};
use domain::{JobId, LimitKind, Measure, Period, ReservationId, Scope, UserId};
use sqlx::PgConnection;
pub use together::{Before, Taken, Taking, take};
use uuid::Uuid;

use crate::Result;

/// A limit that applies to a call, or a window that is counted without one, and what is used of it now.
#[derive(Clone, Debug)]
pub struct Bound {
    pub scope: Scope,
    /// An id, the name of a model, or nothing for the deployment.
    pub subject: String,
    pub kind: LimitKind,
    /// `None` is no limit; the use is counted all the same. A boost is in it.
    pub cap: Option<i64>,
    /// When a boost ends that makes it so.
    pub boosted_until: Option<DateTime<Utc>>,
    /// From which use on staff is told, in percent of the cap.
    pub soft_percent: i64,
    pub starts_at: DateTime<Utc>,
    /// `None` for a total.
    pub resets_at: Option<DateTime<Utc>>,
    pub used: i64,
    pub reserved: i64,
}

impl Bound {
    /// Counted in `counters`, not in `scope_counters`.
    fn is_usual(&self) -> bool {
        self.scope == Scope::User
            && matches!(
                self.kind,
                LimitKind::MessagesPerDay | LimitKind::TokensPerDay | LimitKind::MoneyPerMonth
            )
    }

    /// What is left; `None` without a limit.
    pub fn left(&self) -> Option<i64> {
        Some(self.cap? - self.used - self.reserved)
    }

    /// The use from which staff is told; not of minutes, which come and go too fast to be news.
    pub fn soft(&self) -> Option<i64> {
        if self.kind.period() == Period::Minute {
            return None;
        }
        let soft = (i128::from(self.cap?) * i128::from(self.soft_percent) + 99) / 100;
        i64::try_from(soft).ok()
    }
}

/// Everything that bounds a call of `user` on `subjects` (pairs of scope and subject) at `now`. Days and months begin by the zone of
/// each limit; the database knows the zones.
pub async fn bounds(
    db: &mut PgConnection,
    user: Option<UserId>,
    subjects: &[(Scope, String)],
    now: DateTime<Utc>,
) -> Result<Vec<Bound>> {
    let rows = sqlx::query!(
        r#"WITH person AS (
               SELECT u.id, u.id::text AS subject, u.plan_id, p.zone, p.soft_percent FROM users u JOIN plans p ON p.id = u.plan_id
               WHERE u.id = $1
           ), kinds AS (
               SELECT 'messages' AS measure, 'day' AS period UNION SELECT 'tokens', 'day' UNION SELECT 'money', 'month'
               UNION SELECT l.measure, l.period FROM limits l JOIN person p USING (plan_id)
               UNION SELECT s.measure, s.period FROM scope_limits s JOIN person p ON s.scope = 'user' AND s.subject = p.subject
           ), rules AS (
               SELECT 'user' AS scope, p.subject, k.measure, k.period, p.zone, p.soft_percent, b.until AS boosted_until,
                      CASE WHEN coalesce(l.amount, s.amount) IS NOT NULL THEN greatest(least(l.amount, s.amount), b.amount) END AS cap
               FROM person p CROSS JOIN kinds k
               LEFT JOIN limits l ON l.plan_id = p.plan_id AND l.measure = k.measure AND l.period = k.period
               LEFT JOIN scope_limits s
                    ON s.scope = 'user' AND s.subject = p.subject AND s.measure = k.measure AND s.period = k.period
               LEFT JOIN limit_boosts b
                    ON b.user_id = p.id AND b.measure = k.measure AND b.period = k.period AND b.until > $4
                       AND b.amount > least(l.amount, s.amount)
               UNION ALL
               SELECT s.scope, s.subject, s.measure, s.period, s.zone, s.soft_percent,
                      CASE WHEN s.boost_until > $4 AND s.boost_amount > s.amount THEN s.boost_until END,
                      CASE WHEN s.boost_until > $4 THEN greatest(s.amount, s.boost_amount) ELSE s.amount END
               FROM unnest($2::text[], $3::text[]) AS t (scope, subject) JOIN scope_limits s USING (scope, subject)
           ), windows AS (
               SELECT r.*,
                      CASE r.period WHEN 'total' THEN 'epoch' ELSE date_trunc(r.period, $4::timestamptz, r.zone) END AS starts_at,
                      CASE WHEN r.period <> 'total' THEN
                          (date_trunc(r.period, $4 AT TIME ZONE r.zone) + ('1 ' || r.period)::interval) AT TIME ZONE r.zone
                      END AS resets_at
               FROM rules r
           )
           SELECT w.scope AS "scope!", w.subject AS "subject!", w.measure AS "measure!", w.period AS "period!",
                  w.soft_percent AS "soft_percent!", w.boosted_until, w.cap, w.starts_at AS "starts_at!", w.resets_at,
                  coalesce(c.used, s.used, 0) AS "used!", coalesce(c.reserved, s.reserved, 0) AS "reserved!"
           FROM windows w
           LEFT JOIN counters c ON w.scope = 'user' AND c.user_id = $1
                AND (c.measure, c.period, c.starts_at) = (w.measure, w.period, w.starts_at)
           LEFT JOIN scope_counters s
                ON (s.scope, s.subject, s.measure, s.period, s.starts_at) = (w.scope, w.subject, w.measure, w.period, w.starts_at)"#,
        user.map(|user| user.0),
        &subjects.iter().map(|(scope, _)| scope.name().to_owned()).collect::<Vec<_>>(),
        &subjects.iter().map(|(_, subject)| subject.clone()).collect::<Vec<_>>(),
        now
    )
    .fetch_all(db)
    .await?;
    let mut bounds: Vec<Bound> = rows
        .into_iter()
        .filter_map(|row| {
            Some(Bound {
                scope: Scope::from_name(&row.scope)?,
                subject: row.subject,
                kind: LimitKind::from_parts(&row.measure, &row.period)?,
                cap: row.cap,
                boosted_until: row.boosted_until,
                soft_percent: row.soft_percent.into(),
                starts_at: row.starts_at,
                resets_at: row.resets_at,
                used: row.used,
                reserved: row.reserved,
            })
        })
        .collect();
    // The order of locks.
    bounds.sort_by(|a, b| {
        let key = |bound: &Bound| (bound.kind.measure().name(), bound.kind.period().name());
        (a.scope, &a.subject, key(a)).cmp(&(b.scope, &b.subject, key(b)))
    });
    Ok(bounds)
}

/// An amount to be set aside from the window of a bound.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    pub bound: &'a Bound,
    pub amount: i64,
}

/// Sets all amounts aside and returns the places in `claims` where that was not possible. When there is one, the caller must roll
/// back. The row locks make it safe however many run at once: the condition is looked at again after each wait. Rows are taken in
/// the order of `bounds`, those of the user first, so two reservations cannot wait for each other.
pub async fn reserve(db: &mut PgConnection, user: Option<UserId>, claims: &[Claim<'_>]) -> Result<Vec<usize>> {
    let texts =
        |text: fn(&Bound) -> &str| -> Vec<String> { claims.iter().map(|claim| text(claim.bound).to_owned()).collect() };
    let taken = sqlx::query_scalar!(
        r#"WITH claims AS MATERIALIZED (
               SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[], $8::bigint[],
                                    $9::bigint[], $10::boolean[]) WITH ORDINALITY
                      AS t (scope, subject, measure, period, starts_at, amount, cap, soft, usual, place)
               WHERE cap IS NULL OR amount <= cap
           ), of_user AS (
               INSERT INTO counters AS c (user_id, measure, period, starts_at, reserved, cap, soft)
               SELECT $1, measure, period, starts_at, amount, cap, soft FROM claims WHERE usual ORDER BY place
               ON CONFLICT (user_id, measure, period, starts_at) DO UPDATE
               SET reserved = c.reserved + excluded.reserved, cap = excluded.cap, soft = excluded.soft
               WHERE excluded.cap IS NULL OR c.used + c.reserved + excluded.reserved <= excluded.cap
               RETURNING measure, period
           ), of_others AS (
               INSERT INTO scope_counters AS c (scope, subject, measure, period, starts_at, reserved, cap, soft)
               SELECT scope, subject, measure, period, starts_at, amount, cap, soft FROM claims
               -- The count makes it wait for the user's rows.
               WHERE NOT usual AND (SELECT count(*) FROM of_user) >= 0 ORDER BY place
               ON CONFLICT (scope, subject, measure, period, starts_at) DO UPDATE
               SET reserved = c.reserved + excluded.reserved, cap = excluded.cap, soft = excluded.soft
               WHERE excluded.cap IS NULL OR c.used + c.reserved + excluded.reserved <= excluded.cap
               RETURNING scope, measure, period
           )
           SELECT c.place AS "place!" FROM claims c JOIN of_user u ON c.usual AND (c.measure, c.period) = (u.measure, u.period)
           UNION ALL
           SELECT c.place FROM claims c JOIN of_others o
                  ON NOT c.usual AND (c.scope, c.measure, c.period) = (o.scope, o.measure, o.period)"#,
        user.map(|user| user.0),
        &texts(|bound| bound.scope.name()),
        &texts(|bound| &bound.subject),
        &texts(|bound| bound.kind.measure().name()),
        &texts(|bound| bound.kind.period().name()),
        &claims.iter().map(|claim| claim.bound.starts_at).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.amount).collect::<Vec<_>>(),
        &claims.iter().map(|claim| claim.bound.cap).collect::<Vec<_>>() as &[Option<i64>],
        &claims.iter().map(|claim| claim.bound.soft()).collect::<Vec<_>>() as &[Option<i64>],
        &claims.iter().map(|claim| claim.bound.is_usual()).collect::<Vec<_>>()
    )
    .fetch_all(db)
    .await?;
    let is_taken = |place: &usize| taken.iter().any(|taken| usize::try_from(*taken) == Ok(place + 1));
    Ok((0..claims.len()).filter(|place| !is_taken(place)).collect())
}

/// Notes what `reserve` has set aside for a call, so that it can be settled, and given back if nobody does. `expires_at`: when, for
/// a call that no job stands behind.
pub async fn keep(
    db: &mut PgConnection,
    call: ReservationId,
    user: Option<UserId>,
    claims: &[Claim<'_>],
    expires_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<()> {
    let usual = |kind: LimitKind| {
        let mut usual = claims.iter().filter(|claim| claim.bound.is_usual());
        usual.find(|claim| claim.bound.kind == kind)
    };
    if let (Some(user), Some(messages), Some(tokens), Some(money)) = (
        user,
        usual(LimitKind::MessagesPerDay),
        usual(LimitKind::TokensPerDay),
        usual(LimitKind::MoneyPerMonth),
    ) {
        sqlx::query!(
            "INSERT INTO reservations (job_id, user_id, day, month, messages, tokens, money, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            call.0,
            user.0,
            messages.bound.starts_at,
            money.bound.starts_at,
            messages.amount,
            tokens.amount,
            money.amount,
            now
        )
        .execute(&mut *db)
        .await?;
    }
    let others: Vec<_> = claims.iter().filter(|claim| !claim.bound.is_usual()).collect();
    // A call without a job must leave something by which it is settled once.
    if others.is_empty() && expires_at.is_none() {
        return Ok(());
    }
    let texts =
        |text: fn(&Bound) -> &str| -> Vec<String> { others.iter().map(|claim| text(claim.bound).to_owned()).collect() };
    sqlx::query!(
        "INSERT INTO holds (call_id, scopes, subjects, measures, periods, starts, amounts, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        call.0,
        &texts(|bound| bound.scope.name()),
        &texts(|bound| &bound.subject),
        &texts(|bound| bound.kind.measure().name()),
        &texts(|bound| bound.kind.period().name()),
        &others.iter().map(|claim| claim.bound.starts_at).collect::<Vec<_>>(),
        &others.iter().map(|claim| claim.amount).collect::<Vec<_>>(),
        now,
        expires_at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What a job has set aside before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAside {
    Nothing,
    Tokens(i64),
    /// The job is another worker's now, or over: nothing may be set aside for it any more, since nobody would settle it.
    LeaseLost,
}

/// Looks at the reservation of a job and locks the job for the rest of the transaction.
pub async fn reservation(db: &mut PgConnection, job: JobId, token: Uuid) -> Result<SetAside> {
    let row = sqlx::query!(
        r#"SELECT r.tokens AS "tokens?" FROM jobs j LEFT JOIN reservations r ON r.job_id = j.id
           WHERE j.id = $1 AND j.lease_token = $2 FOR UPDATE OF j"#,
        job.0,
        token
    )
    .fetch_optional(db)
    .await?;
    Ok(match row.map(|row| row.tokens) {
        None => SetAside::LeaseLost,
        Some(None) => SetAside::Nothing,
        Some(Some(tokens)) => SetAside::Tokens(tokens),
    })
}

/// What a call has really used; the default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    pub messages: i64,
    pub tokens: i64,
    /// Nano-dollars.
    pub money: i64,
    pub images: i64,
}

impl Use {
    pub const fn of(&self, measure: Measure) -> i64 {
        match measure {
            Measure::Messages => self.messages,
            Measure::Tokens => self.tokens,
            Measure::Money => self.money,
            Measure::Images => self.images,
        }
    }
}

/// How a settlement went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// False: there was nothing set aside any more, and nothing was changed.
    pub done: bool,
    /// The soft thresholds that it has passed, each told of once in its window.
    pub passed: Vec<(Scope, LimitKind)>,
}

/// Turns what a call has set aside into its real use. It is deleted by the same statement, so a second call changes nothing.
/// No use at all gives everything back.
pub async fn settle(db: &mut PgConnection, call: ReservationId, used: Use, now: DateTime<Utc>) -> Result<Settled> {
    let (done, passed) = settle_all(db, &[(call, used)], now).await?;
    Ok(Settled {
        done: !done.is_empty(),
        passed,
    })
}

/// The same for many calls in one statement. Returns those of which something was set aside, and the soft thresholds that were passed.
pub async fn settle_all(
    db: &mut PgConnection,
    calls: &[(ReservationId, Use)],
    now: DateTime<Utc>,
) -> Result<(Vec<ReservationId>, Vec<(Scope, LimitKind)>)> {
    let amounts = |of: fn(&Use) -> i64| -> Vec<i64> { calls.iter().map(|(_, used)| of(used)).collect() };
    let rows = sqlx::query!(
        r#"WITH told AS MATERIALIZED (
               SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
                             AS t (call_id, messages_used, tokens_used, money_used, images_used)
           ), gone AS (
               DELETE FROM reservations r USING told t WHERE r.job_id = t.call_id RETURNING r.*, t.*
           ), held AS (
               DELETE FROM holds h USING told t WHERE h.call_id = t.call_id
               RETURNING h.*, t.messages_used, t.tokens_used, t.money_used, t.images_used
           ), shares AS (
               SELECT g.user_id, s.measure, s.period, s.starts_at, sum(s.reserved)::bigint AS reserved, sum(s.used)::bigint AS used
               FROM gone g CROSS JOIN LATERAL (VALUES
                   ('messages', 'day', g.day, g.messages, g.messages_used),
                   ('money', 'month', g.month, g.money, g.money_used),
                   ('tokens', 'day', g.day, g.tokens, g.tokens_used)
               ) AS s (measure, period, starts_at, reserved, used)
               GROUP BY 1, 2, 3, 4
           ), locked AS MATERIALIZED (
               -- In the order in which `reserve` takes them.
               SELECT c.user_id, c.measure, c.period, c.starts_at, s.reserved, s.used FROM counters c
               JOIN shares s USING (user_id, measure, period, starts_at)
               ORDER BY c.user_id, c.measure, c.period, c.starts_at FOR UPDATE OF c
           ), counted AS (
               UPDATE counters c SET reserved = c.reserved - l.reserved, used = c.used + l.used FROM locked l
               WHERE (c.user_id, c.measure, c.period, c.starts_at) = (l.user_id, l.measure, l.period, l.starts_at)
               RETURNING 'user' AS scope, c.user_id::text AS subject, c.measure, c.period, c.starts_at, c.used, c.cap, c.soft,
                         l.used AS more
           ), other_shares AS (
               SELECT s.scope, s.subject, s.measure, s.period, s.starts_at, sum(s.reserved)::bigint AS reserved,
                      sum(CASE s.measure WHEN 'messages' THEN h.messages_used WHEN 'tokens' THEN h.tokens_used
                          WHEN 'money' THEN h.money_used WHEN 'images' THEN h.images_used ELSE 0 END)::bigint AS used
               FROM held h
               CROSS JOIN LATERAL unnest(h.scopes, h.subjects, h.measures, h.periods, h.starts, h.amounts)
                          AS s (scope, subject, measure, period, starts_at, reserved)
               GROUP BY 1, 2, 3, 4, 5
           ), others_locked AS MATERIALIZED (
               SELECT c.scope, c.subject, c.measure, c.period, c.starts_at, s.reserved, s.used FROM scope_counters c
               JOIN other_shares s USING (scope, subject, measure, period, starts_at)
               WHERE (SELECT count(*) FROM counted) >= 0
               ORDER BY array_position($7::text[], c.scope), c.subject COLLATE "C", c.measure, c.period, c.starts_at FOR UPDATE OF c
           ), others_counted AS (
               UPDATE scope_counters c SET reserved = c.reserved - l.reserved, used = c.used + l.used FROM others_locked l
               WHERE (c.scope, c.subject, c.measure, c.period, c.starts_at) = (l.scope, l.subject, l.measure, l.period, l.starts_at)
               RETURNING c.scope, c.subject, c.measure, c.period, c.starts_at, c.used, c.cap, c.soft, l.used AS more
           ), passed AS (
               INSERT INTO limit_events (scope, subject, measure, period, starts_at, at, used, cap)
               SELECT scope, subject, measure, period, starts_at, $6, used, cap
               FROM (SELECT * FROM counted UNION ALL SELECT * FROM others_counted) all_counted
               WHERE more > 0 AND cap IS NOT NULL AND used >= soft
               ON CONFLICT DO NOTHING RETURNING scope, measure, period
           )
           SELECT job_id AS "call?", NULL AS "scope?", NULL AS "measure?", NULL AS "period?" FROM gone
           UNION SELECT call_id, NULL, NULL, NULL FROM held
           UNION ALL SELECT NULL, scope, measure, period FROM passed"#,
        &calls.iter().map(|(call, _)| call.0).collect::<Vec<_>>(),
        &amounts(|used| used.messages),
        &amounts(|used| used.tokens),
        &amounts(|used| used.money),
        &amounts(|used| used.images),
        now,
        &Scope::ALL.iter().map(|scope| scope.name().to_owned()).collect::<Vec<_>>()
    )
    .fetch_all(db)
    .await?;
    let done = rows.iter().filter_map(|row| row.call.map(ReservationId)).collect();
    let passed = rows.iter().filter_map(|row| {
        let kind = LimitKind::from_parts(row.measure.as_deref()?, row.period.as_deref()?)?;
        Some((Scope::from_name(row.scope.as_deref()?)?, kind))
    });
    Ok((done, passed.collect()))
}

/// Begins a window anew: what was used of it no longer counts, what is set aside still does. `user`: whose it is. The number is what was
/// used.
pub async fn reset(db: &mut PgConnection, bound: &Bound, user: Option<UserId>) -> Result<i64> {
    let (measure, period) = (bound.kind.measure().name(), bound.kind.period().name());
    let used = if bound.is_usual() {
        sqlx::query_scalar!(
            "UPDATE counters c SET used = 0
             FROM (SELECT used FROM counters WHERE user_id = $1 AND measure = $2 AND period = $3 AND starts_at = $4 FOR UPDATE) AS before
             WHERE c.user_id = $1 AND c.measure = $2 AND c.period = $3 AND c.starts_at = $4 RETURNING before.used",
            user.map(|user| user.0),
            measure,
            period,
            bound.starts_at
        )
        .fetch_optional(db)
        .await?
    } else {
        sqlx::query_scalar!(
            "UPDATE scope_counters c SET used = 0
             FROM (SELECT used FROM scope_counters WHERE scope = $1 AND subject = $2 AND measure = $3 AND period = $4
                   AND starts_at = $5 FOR UPDATE) AS before
             WHERE c.scope = $1 AND c.subject = $2 AND c.measure = $3 AND c.period = $4 AND c.starts_at = $5 RETURNING before.used",
            bound.scope.name(),
            bound.subject,
            measure,
            period,
            bound.starts_at
        )
        .fetch_optional(db)
        .await?
    };
    Ok(used.unwrap_or(0))
}

/// What was set aside and is settled by nobody any more, with what the ledger says of the call: the job has ended or is gone (a
/// failure nobody foresaw, or the release before has settled only what it knew), the call has expired, or the replica that made it has
/// said nothing for so long.
pub async fn orphans(
    db: &mut PgConnection,
    silent_seconds: f64,
    now: DateTime<Utc>,
) -> Result<Vec<(ReservationId, Use)>> {
    let rows = sqlx::query!(
        r#"WITH left_behind AS (
               SELECT r.job_id AS id FROM reservations r LEFT JOIN jobs j ON j.id = r.job_id
               WHERE r.created_at < now() - interval '1 minute' AND (j.id IS NULL OR j.state IN ('done', 'dead'))
                     AND NOT EXISTS (SELECT FROM holds h WHERE h.call_id = r.job_id AND h.expires_at IS NOT NULL)
               UNION
               SELECT h.call_id FROM holds h LEFT JOIN jobs j ON j.id = h.call_id
               WHERE CASE WHEN h.expires_at IS NOT NULL THEN h.expires_at <= $1
                     ELSE h.created_at < now() - interval '1 minute' AND (j.id IS NULL OR j.state IN ('done', 'dead')) END
               UNION
               SELECT h.call_id FROM holds h JOIN api_replicas r ON r.id = h.replica_id
               WHERE r.alive_at < now() - make_interval(secs => $2)
               LIMIT 1000
           )
           SELECT l.id AS "id!",
                  -- Nothing came where it failed or was left and nothing was used.
                  (u.job_id IS NOT NULL AND (u.finish NOT IN ('failed', 'gone') OR u.prompt_tokens + u.completion_tokens > 0))::int::bigint
                      AS "messages!",
                  coalesce(u.prompt_tokens + u.completion_tokens, 0) AS "tokens!", coalesce(u.cost, 0) AS "money!",
                  coalesce(u.images, 0)::bigint AS "images!"
           FROM left_behind l LEFT JOIN usage u ON u.job_id = l.id"#,
        now,
        silent_seconds
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let used = Use {
                messages: row.messages,
                tokens: row.tokens,
                money: row.money,
                images: row.images,
            };
            (ReservationId(row.id), used)
        })
        .collect())
}

/// Forgets windows that have long ended, in blocks: minutes after a day, days and months after 13 months; and what was told of them.
/// True when there may be more.
pub async fn prune(db: &mut PgConnection) -> Result<bool> {
    let gone = sqlx::query!(
        "DELETE FROM scope_counters WHERE (scope, subject, measure, period, starts_at) IN (
             SELECT scope, subject, measure, period, starts_at FROM scope_counters
             WHERE period <> 'total' AND reserved = 0
                   AND starts_at < now() - CASE period WHEN 'minute' THEN interval '1 day' ELSE interval '13 months' END LIMIT 1000)"
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("DELETE FROM limit_events WHERE at < now() - interval '13 months'")
        .execute(db)
        .await?;
    Ok(gone.rows_affected() == 1000)
}
