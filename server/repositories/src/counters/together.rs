//! Budgets of calls that no job stands behind, for as many of them as there are at the moment: the counters of a key that many calls
//! share are locked once for all of them, and for no longer than one statement takes.

use chrono::{DateTime, Utc};
use domain::{ReservationId, Scope};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Bound;
use crate::Result;

/// What one call takes: an amount from each window, named by its place among the bounds.
#[derive(Clone, Debug)]
pub struct Taking {
    pub call: ReservationId,
    /// When it is given back if nobody settles it.
    pub expires_at: DateTime<Utc>,
    pub shares: Vec<(usize, i64)>,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Everything was set aside. What stood in the windows before, by their places: used, and reserved by others.
    All(Vec<Before>),
    /// Nothing was: the places of bounds that have not enough left.
    Missing(Vec<usize>),
    /// Nothing was: other limits apply by now, or other windows.
    Changed,
}

/// What stood in a window before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub place: usize,
    pub used: i64,
    pub reserved: i64,
}

/// Sets aside what all these calls take, and notes it of each, so that it can be settled; or nothing of any. `replica`: who keeps
/// them. `bounds` may be from a while ago: the statement looks whether just these apply to `subjects` now. Not for windows in `counters`, those that every user has;
/// call outside of a transaction.
///
/// The commit does not wait for the disk: what a crash of the database takes back was reserved and noted in the same moment, so both are
/// gone, and the call counts by what it used when its line is written.
pub async fn take(
    db: &mut PgConnection,
    replica: Uuid,
    subjects: &[(Scope, String)],
    bounds: &[Bound],
    takings: &[Taking],
    now: DateTime<Utc>,
) -> Result<Taken> {
    let claims = sums(bounds.len(), takings);
    loop {
        let Some(windows) = take_what_is_there(db, replica, subjects, bounds, &claims, takings, now).await? else {
            return Ok(Taken::Changed);
        };
        let of = |state: WindowState| {
            let those = windows.iter().filter(move |(_, is)| *is == state);
            those.map(|(before, _)| before.place)
        };
        let short: Vec<usize> = of(WindowState::Short).collect();
        let new: Vec<usize> = of(WindowState::New).collect();
        if !short.is_empty() {
            return Ok(Taken::Missing(short));
        }
        if new.is_empty() {
            return Ok(Taken::All(windows.into_iter().map(|(before, _)| before).collect()));
        }
        open_windows(db, new.into_iter().filter_map(|place| bounds.get(place))).await?;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WindowState {
    Enough,
    Short,
    /// Nobody has taken anything from it so far.
    New,
}

/// Places, and what is taken there by all together; in the order of locks.
fn sums(places: usize, takings: &[Taking]) -> Vec<(usize, i64)> {
    let mut sums = vec![None; places];
    for (place, amount) in takings.iter().flat_map(|taking| &taking.shares) {
        if let Some(sum) = sums.get_mut(*place) {
            *sum = Some(sum.unwrap_or(0_i64).saturating_add(*amount));
        }
    }
    let taken = |(place, sum): (usize, Option<i64>)| Some((place, sum?));
    sums.into_iter().enumerate().filter_map(taken).collect()
}

/// Takes from windows that were taken from before, if all of them have enough. `None`: other limits apply.
async fn take_what_is_there(
    db: &mut PgConnection,
    replica: Uuid,
    subjects: &[(Scope, String)],
    bounds: &[Bound],
    claims: &[(usize, i64)],
    takings: &[Taking],
    now: DateTime<Utc>,
) -> Result<Option<Vec<(Before, WindowState)>>> {
    let number = |place: usize| i64::try_from(place).unwrap_or(i64::MAX);
    // Of rates as well, which are looked at and not taken from.
    let mut amounts = vec![None; bounds.len()];
    for (place, amount) in claims {
        if let Some(claimed) = amounts.get_mut(*place) {
            *claimed = Some(*amount);
        }
    }
    let texts =
        |text: fn(&Bound) -> &str| -> Vec<String> { bounds.iter().map(|bound| text(bound).to_owned()).collect() };
    let shares: Vec<(&Taking, usize, i64)> = takings
        .iter()
        .flat_map(|taking| {
            taking
                .shares
                .iter()
                .map(move |(place, amount)| (taking, *place, *amount))
        })
        .collect();
    let rows = sqlx::query!(
        r#"WITH known AS MATERIALIZED (
               SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[],
                                    $8::bigint[], $9::bigint[], $10::bigint[])
                      AS t (place, scope, subject, measure, period, starts_at, amount, cap, soft, soft_percent)
               -- For this statement alone, which is a transaction of its own.
               WHERE (SELECT set_config('synchronous_commit', 'off', true)) = 'off'
           ), claims AS MATERIALIZED (
               SELECT * FROM known WHERE amount IS NOT NULL
           ), rules AS (
               SELECT s.scope, s.subject, s.measure, s.period, s.soft_percent::bigint AS soft_percent,
                      CASE WHEN s.boost_until > $15 THEN greatest(s.amount, s.boost_amount) ELSE s.amount END AS cap,
                      CASE s.period WHEN 'total' THEN 'epoch' ELSE date_trunc(s.period, $15::timestamptz, s.zone) END AS starts_at
               FROM unnest($16::text[], $17::text[]) AS t (scope, subject) JOIN scope_limits s USING (scope, subject)
           ), changed AS MATERIALIZED (
               SELECT FROM known k FULL JOIN rules r USING (scope, subject, measure, period)
               WHERE (k.cap, k.soft_percent, k.starts_at) IS DISTINCT FROM (r.cap, r.soft_percent, r.starts_at) LIMIT 1
           ), locked AS MATERIALIZED (
               -- What stands there when the lock is had, not before.
               SELECT l.place, c.used, c.reserved FROM scope_counters c
               JOIN claims l USING (scope, subject, measure, period, starts_at) ORDER BY l.place FOR UPDATE OF c
           ), windows AS MATERIALIZED (
               SELECT l.place, k.used, k.reserved, k.place IS NULL AS is_new,
                      coalesce(l.amount > l.cap, false) OR coalesce(k.used + k.reserved + l.amount > l.cap, false) AS is_short
               FROM claims l LEFT JOIN locked k USING (place)
           ), blocked AS MATERIALIZED (
               SELECT FROM changed UNION ALL SELECT FROM windows WHERE is_new OR is_short
           ), taken AS (
               UPDATE scope_counters c SET reserved = c.reserved + l.amount, cap = l.cap, soft = l.soft FROM claims l
               WHERE (c.scope, c.subject, c.measure, c.period, c.starts_at) = (l.scope, l.subject, l.measure, l.period, l.starts_at)
                     AND NOT EXISTS (SELECT FROM blocked)
           ), held AS (
               INSERT INTO holds (call_id, scopes, subjects, measures, periods, starts, amounts, created_at, expires_at,
                                  replica_id)
               SELECT s.call_id, array_agg(l.scope), array_agg(l.subject), array_agg(l.measure), array_agg(l.period),
                      array_agg(l.starts_at), array_agg(s.amount), $15, s.expires_at, $18
               FROM unnest($11::uuid[], $12::timestamptz[], $13::bigint[], $14::bigint[]) AS s (call_id, expires_at, place, amount)
               JOIN claims l USING (place)
               WHERE NOT EXISTS (SELECT FROM blocked)
               GROUP BY s.call_id, s.expires_at
           )
           SELECT place, coalesce(used, 0) AS "used!", coalesce(reserved, 0) AS "reserved!", is_new AS "is_new!", is_short AS "is_short!"
           FROM windows
           UNION ALL SELECT NULL, 0, 0, false, false FROM changed"#,
        &(0..bounds.len()).map(number).collect::<Vec<_>>(),
        &texts(|bound| bound.scope.name()),
        &texts(|bound| &bound.subject),
        &texts(|bound| bound.kind.measure().name()),
        &texts(|bound| bound.kind.period().name()),
        &bounds.iter().map(|bound| bound.starts_at).collect::<Vec<_>>(),
        &amounts as &[Option<i64>],
        &bounds.iter().map(|bound| bound.cap).collect::<Vec<_>>() as &[Option<i64>],
        &bounds.iter().map(Bound::soft).collect::<Vec<_>>() as &[Option<i64>],
        &bounds.iter().map(|bound| bound.soft_percent).collect::<Vec<_>>(),
        &shares.iter().map(|(taking, ..)| taking.call.0).collect::<Vec<_>>(),
        &shares.iter().map(|(taking, ..)| taking.expires_at).collect::<Vec<_>>(),
        &shares.iter().map(|(_, place, _)| number(*place)).collect::<Vec<_>>(),
        &shares.iter().map(|(.., amount)| *amount).collect::<Vec<_>>(),
        now,
        &subjects.iter().map(|(scope, _)| scope.name().to_owned()).collect::<Vec<_>>(),
        &subjects.iter().map(|(_, subject)| subject.clone()).collect::<Vec<_>>(),
        replica
    )
    .fetch_all(db)
    .await?;
    let windows = rows.into_iter().map(|row| {
        let before = Before {
            place: usize::try_from(row.place?).ok()?,
            used: row.used,
            reserved: row.reserved,
        };
        let state = match row {
            _ if row.is_short => WindowState::Short,
            _ if row.is_new => WindowState::New,
            _ => WindowState::Enough,
        };
        Some((before, state))
    });
    Ok(windows.collect())
}

/// Makes rows of windows from which nobody has taken anything so far.
async fn open_windows<'a>(db: &mut PgConnection, bounds: impl Iterator<Item = &'a Bound>) -> Result<()> {
    let bounds: Vec<&Bound> = bounds.collect();
    let texts =
        |text: fn(&Bound) -> &str| -> Vec<String> { bounds.iter().map(|bound| text(bound).to_owned()).collect() };
    sqlx::query!(
        "INSERT INTO scope_counters (scope, subject, measure, period, starts_at)
         SELECT scope, subject, measure, period, starts_at
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[]) WITH ORDINALITY
              AS t (scope, subject, measure, period, starts_at, place) ORDER BY place
         ON CONFLICT DO NOTHING",
        &texts(|bound| bound.scope.name()),
        &texts(|bound| &bound.subject),
        &texts(|bound| bound.kind.measure().name()),
        &texts(|bound| bound.kind.period().name()),
        &bounds.iter().map(|bound| bound.starts_at).collect::<Vec<_>>()
    )
    .execute(db)
    .await?;
    Ok(())
}
