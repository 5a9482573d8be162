//! Budgets of calls that no job stands behind, for as many of them as there are at the moment: the counters of a key that many calls
//! share are locked once for all of them, and for no longer than one statement takes.

use chrono::{DateTime, Utc};
use domain::ReservationId;
use sqlx::PgConnection;

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

/// Sets aside what all these calls take, and notes it of each, so that it can be settled; or nothing of any. Returns the places of bounds
/// that have not enough left. Not for windows in `counters`, those that every user has; call outside of a transaction.
///
/// The commit does not wait for the disk: what a crash of the database takes back was reserved and noted in the same moment, so both are
/// gone, and the call counts by what it used when its line is written.
pub async fn take(
    db: &mut PgConnection,
    bounds: &[Bound],
    takings: &[Taking],
    now: DateTime<Utc>,
) -> Result<Vec<usize>> {
    let claims = sums(bounds.len(), takings);
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    loop {
        let missing = take_what_is_there(db, bounds, &claims, takings, now).await?;
        let (new, short): (Vec<_>, Vec<_>) = missing.into_iter().partition(|(_, is_new)| *is_new);
        if new.is_empty() || !short.is_empty() {
            return Ok(short.into_iter().map(|(place, _)| place).collect());
        }
        open_windows(db, new.iter().filter_map(|(place, _)| bounds.get(*place))).await?;
    }
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

/// Takes from windows that were taken from before. Returns which have not enough left, or are not there yet (true).
async fn take_what_is_there(
    db: &mut PgConnection,
    bounds: &[Bound],
    claims: &[(usize, i64)],
    takings: &[Taking],
    now: DateTime<Utc>,
) -> Result<Vec<(usize, bool)>> {
    let claims: Vec<(usize, &Bound, i64)> = claims
        .iter()
        .filter_map(|(place, amount)| Some((*place, bounds.get(*place)?, *amount)))
        .collect();
    let texts = |text: fn(&Bound) -> &str| -> Vec<String> {
        claims.iter().map(|(_, bound, _)| text(bound).to_owned()).collect()
    };
    let shares: Vec<(&Taking, usize, i64)> = takings
        .iter()
        .flat_map(|taking| {
            taking
                .shares
                .iter()
                .map(move |(place, amount)| (taking, *place, *amount))
        })
        .collect();
    let number = |place: usize| i64::try_from(place).unwrap_or(i64::MAX);
    let rows = sqlx::query!(
        r#"WITH claims AS MATERIALIZED (
               SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[],
                                    $8::bigint[], $9::bigint[])
                      AS t (place, scope, subject, measure, period, starts_at, amount, cap, soft)
               -- For this statement alone, which is a transaction of its own.
               WHERE (SELECT set_config('synchronous_commit', 'off', true)) = 'off'
           ), locked AS MATERIALIZED (
               -- What stands there when the lock is had, not before.
               SELECT l.place, c.used + c.reserved AS taken FROM scope_counters c
               JOIN claims l USING (scope, subject, measure, period, starts_at) ORDER BY l.place FOR UPDATE OF c
           ), missing AS MATERIALIZED (
               SELECT l.place, k.place IS NULL AND coalesce(l.amount <= l.cap, true) AS is_new
               FROM claims l LEFT JOIN locked k USING (place)
               WHERE k.place IS NULL OR k.taken + l.amount > l.cap
           ), taken AS (
               UPDATE scope_counters c SET reserved = c.reserved + l.amount, cap = l.cap, soft = l.soft FROM claims l
               WHERE (c.scope, c.subject, c.measure, c.period, c.starts_at) = (l.scope, l.subject, l.measure, l.period, l.starts_at)
                     AND NOT EXISTS (SELECT FROM missing)
           ), held AS (
               INSERT INTO holds (call_id, scopes, subjects, measures, periods, starts, amounts, created_at, expires_at)
               SELECT s.call_id, array_agg(l.scope), array_agg(l.subject), array_agg(l.measure), array_agg(l.period),
                      array_agg(l.starts_at), array_agg(s.amount), $14, s.expires_at
               FROM unnest($10::uuid[], $11::timestamptz[], $12::bigint[], $13::bigint[]) AS s (call_id, expires_at, place, amount)
               JOIN claims l USING (place)
               WHERE NOT EXISTS (SELECT FROM missing)
               GROUP BY s.call_id, s.expires_at
           )
           SELECT place AS "place!", is_new AS "is_new!" FROM missing"#,
        &claims.iter().map(|(place, ..)| number(*place)).collect::<Vec<_>>(),
        &texts(|bound| bound.scope.name()),
        &texts(|bound| &bound.subject),
        &texts(|bound| bound.kind.measure().name()),
        &texts(|bound| bound.kind.period().name()),
        &claims.iter().map(|(_, bound, _)| bound.starts_at).collect::<Vec<_>>(),
        &claims.iter().map(|(.., amount)| *amount).collect::<Vec<_>>(),
        &claims.iter().map(|(_, bound, _)| bound.cap).collect::<Vec<_>>() as &[Option<i64>],
        &claims.iter().map(|(_, bound, _)| bound.soft()).collect::<Vec<_>>() as &[Option<i64>],
        &shares.iter().map(|(taking, ..)| taking.call.0).collect::<Vec<_>>(),
        &shares.iter().map(|(taking, ..)| taking.expires_at).collect::<Vec<_>>(),
        &shares.iter().map(|(_, place, _)| number(*place)).collect::<Vec<_>>(),
        &shares.iter().map(|(.., amount)| *amount).collect::<Vec<_>>(),
        now
    )
    .fetch_all(db)
    .await?;
    let place = |place: i64| usize::try_from(place).ok();
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((place(row.place)?, row.is_new)))
        .collect())
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
