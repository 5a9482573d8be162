//! The ledger summed up by hour and day. Complete up to a moment; what came after it is added from the ledger itself. A line that is
//! written later than that, but belongs before it, is noted by a trigger, and its hour is summed up anew.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{Money, Period};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::Result;

/// Bounds of the histograms, in milliseconds: about a quarter more from one to the next. Stored rows count by them, so they stay.
const BOUNDS: [i64; 30] = [
    50, 75, 100, 150, 200, 250, 300, 400, 500, 600, 800, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000, 6000, 8000,
    10_000, 12_500, 15_000, 20_000, 30_000, 45_000, 60_000, 90_000, 120_000,
];
const HOUR: TimeDelta = TimeDelta::hours(1);
const PLACES: usize = BOUNDS.len() + 1;

/// How many took less than each bound and no less than the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram([i64; PLACES]);

impl Histogram {
    fn add(&mut self, place: Option<i64>, n: i64) {
        let place = place.and_then(|place| usize::try_from(place).ok());
        if let Some(count) = place.and_then(|place| self.0.get_mut(place)) {
            *count += n;
        }
    }

    /// The time that `percent` of a hundred did not exceed, as near as the bounds tell; `None` of nothing.
    pub fn percentile(&self, percent: i64) -> Option<i64> {
        let total: i64 = self.0.iter().sum();
        let mut missing = (total * percent).div_euclid(100).max(1);
        for (place, &count) in self.0.iter().enumerate() {
            if missing > count {
                missing -= count;
                continue;
            }
            let low = place.checked_sub(1).map_or(0, |below| BOUNDS[below]);
            // Of what took longer than the last bound only that is known.
            let high = BOUNDS.get(place).copied().unwrap_or(low);
            return Some(low + (high - low) * missing / count);
        }
        None
    }
}

/// What was used from some moment on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub calls: i64,
    pub failed: i64,
    pub cache_hits: i64,
    pub tokens: i64,
    pub cost: Money,
    /// Of answers only: how long a failure took says nothing about them.
    pub felt: Histogram,
    pub first_token: Histogram,
}

/// Until when the roll-ups are complete.
pub async fn until(db: &mut PgConnection) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_scalar!("SELECT until FROM usage_rolled")
        .fetch_one(db)
        .await?)
}

/// Says that the hours that have ended by `closed` (the beginning of an hour) are about to be summed up: whoever writes a line of one
/// of them from now on notes it as late. Call inside a transaction of its own. Once an hour it waits for those who write at this moment
/// and may not know yet, and others wait behind it: for half a second at most, and then the error is a lock timeout.
pub async fn close(db: &mut PgConnection, closed: DateTime<Utc>) -> Result<()> {
    let closing = sqlx::query_scalar!("SELECT closing FROM usage_rolled FOR UPDATE")
        .fetch_one(&mut *db)
        .await?;
    // Never backwards, should a clock be.
    if closing.is_some_and(|closing| closing >= closed) {
        return Ok(());
    }
    for statement in [
        "SET LOCAL lock_timeout = '500ms'",
        "LOCK TABLE ONLY usage IN SHARE MODE",
    ] {
        sqlx::query(statement).execute(&mut *db).await?;
    }
    sqlx::query!("UPDATE usage_rolled SET closing = $1", closed)
        .execute(db)
        .await?;
    Ok(())
}

/// Sums up the next hour of those that [`close`] was told of, and its day as far as it is known. False when there was none left. Call
/// inside a transaction; whoever comes second waits and then goes on.
pub async fn roll_hour(db: &mut PgConnection) -> Result<bool> {
    let rolled = sqlx::query!("SELECT until, closing FROM usage_rolled FOR UPDATE")
        .fetch_one(&mut *db)
        .await?;
    let Some(closing) = rolled.closing.filter(|closing| Some(*closing) > rolled.until) else {
        return Ok(false);
    };
    let next = sqlx::query_scalar!(
        "SELECT date_trunc('hour', min(at), 'UTC') FROM usage WHERE at >= coalesce($1::timestamptz, '-infinity') AND at < $2",
        rolled.until,
        closing
    )
    .fetch_one(&mut *db)
    .await?;
    let end = next.map_or(closing, |hour| hour + HOUR);
    if let Some(hour) = next {
        sum_up_hours(db, hour, end).await?;
        sum_up_day(db, Period::Day.start(hour)).await?;
    }
    sqlx::query!("UPDATE usage_rolled SET until = $1", end)
        .execute(db)
        .await?;
    Ok(next.is_some())
}

/// Sums up anew an hour into which lines came late, and its day. Of days before `kept` (the beginning of one) no hours are kept: of
/// such a day all are summed up. False when there was none. Call inside a transaction; whoever comes second waits and then goes on.
pub async fn roll_late(db: &mut PgConnection, kept: DateTime<Utc>) -> Result<bool> {
    let until = sqlx::query_scalar!("SELECT until FROM usage_rolled FOR UPDATE")
        .fetch_one(&mut *db)
        .await?;
    let late = sqlx::query_scalar!("SELECT min(hour) FROM usage_late WHERE hour < $1", until)
        .fetch_one(&mut *db)
        .await?;
    let Some(hour) = late else { return Ok(false) };
    let day = Period::Day.start(hour);
    if day < kept {
        sum_up_hours(db, day, day + TimeDelta::days(1)).await?;
    } else {
        sum_up_hours(db, hour, hour + HOUR).await?;
    }
    sum_up_day(db, day).await?;
    Ok(true)
}

/// Replaces what was said of the hours from `from` to `to`, so that doing it again is harmless.
async fn sum_up_hours(db: &mut PgConnection, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<()> {
    // First, since with a note its line is seen: what is noted later is left for the next time.
    sqlx::query!("DELETE FROM usage_late WHERE hour >= $1 AND hour < $2", from, to)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "DELETE FROM usage_hours WHERE starts_at >= $1 AND starts_at < $2",
        from,
        to
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "WITH calls AS MATERIALIZED (
             SELECT date_trunc('hour', at, 'UTC') AS hour, coalesce(bot_id, $3) AS bot_id, coalesce(api_key_id, $3) AS api_key_id, model,
                    finish = 'failed' AS failed, cache <> '' AS hit, prompt_tokens, completion_tokens, cached_tokens, cost,
                    CASE WHEN finish <> 'failed' THEN width_bucket(felt_ms, $4::bigint[]) END AS felt,
                    CASE WHEN finish <> 'failed' THEN width_bucket(first_token_ms, $4) END AS first_token
             FROM usage WHERE at >= $1 AND at < $2
         ), sums AS (
             SELECT hour, bot_id, api_key_id, model, count(*) AS calls, count(*) FILTER (WHERE failed) AS failed,
                    count(*) FILTER (WHERE hit) AS hits, sum(prompt_tokens)::bigint AS prompt, sum(completion_tokens)::bigint AS completion,
                    sum(cached_tokens)::bigint AS cached, sum(cost)::bigint AS cost
             FROM calls GROUP BY 1, 2, 3, 4
         ), felt AS (
             SELECT hour, bot_id, api_key_id, model, felt AS place, count(*) AS n FROM calls GROUP BY 1, 2, 3, 4, 5
         ), first_token AS (
             SELECT hour, bot_id, api_key_id, model, first_token AS place, count(*) AS n FROM calls GROUP BY 1, 2, 3, 4, 5
         )
         INSERT INTO usage_hours (starts_at, bot_id, api_key_id, model, calls, failed, cache_hits, prompt_tokens, completion_tokens,
                                  cached_tokens, cost, felt, first_token)
         SELECT s.hour, s.bot_id, s.api_key_id, s.model, s.calls, s.failed, s.hits, s.prompt, s.completion, s.cached, s.cost,
                array_agg(coalesce(f.n, 0) ORDER BY p.place), array_agg(coalesce(t.n, 0) ORDER BY p.place)
         FROM sums s CROSS JOIN generate_series(0, cardinality($4)) AS p (place)
         LEFT JOIN felt f ON (f.hour, f.bot_id, f.api_key_id, f.model, f.place) = (s.hour, s.bot_id, s.api_key_id, s.model, p.place)
         LEFT JOIN first_token t ON (t.hour, t.bot_id, t.api_key_id, t.model, t.place) = (s.hour, s.bot_id, s.api_key_id, s.model, p.place)
         GROUP BY s.hour, s.bot_id, s.api_key_id, s.model, s.calls, s.failed, s.hits, s.prompt, s.completion, s.cached, s.cost",
        from,
        to,
        Uuid::nil(),
        &BOUNDS[..]
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn sum_up_day(db: &mut PgConnection, day: DateTime<Utc>) -> Result<()> {
    sqlx::query!("DELETE FROM usage_days WHERE starts_at = $1", day)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "WITH hours AS MATERIALIZED (
             SELECT * FROM usage_hours WHERE starts_at >= $1 AND starts_at < $1::timestamptz + interval '1 day'
         ), places AS (
             SELECT h.bot_id, h.api_key_id, h.model, p.place, sum(p.felt)::bigint AS felt, sum(p.first_token)::bigint AS first_token
             FROM hours h CROSS JOIN unnest(h.felt, h.first_token) WITH ORDINALITY AS p (felt, first_token, place) GROUP BY 1, 2, 3, 4
         ), histograms AS (
             SELECT bot_id, api_key_id, model, array_agg(felt ORDER BY place) AS felt, array_agg(first_token ORDER BY place) AS first_token
             FROM places GROUP BY 1, 2, 3
         )
         INSERT INTO usage_days (starts_at, bot_id, api_key_id, model, calls, failed, cache_hits, prompt_tokens, completion_tokens,
                                 cached_tokens, cost, felt, first_token)
         SELECT $1, bot_id, api_key_id, model, sum(calls), sum(failed), sum(cache_hits), sum(prompt_tokens), sum(completion_tokens),
                sum(cached_tokens), sum(cost), g.felt, g.first_token
         FROM hours JOIN histograms g USING (bot_id, api_key_id, model) GROUP BY bot_id, api_key_id, model, g.felt, g.first_token",
        day
    )
    .execute(db)
    .await?;
    Ok(())
}

/// From when on the ledger itself has to be asked for what was used since then: where the roll-ups end.
pub async fn live(db: &mut PgConnection, since: DateTime<Utc>) -> Result<DateTime<Utc>> {
    Ok(until(db).await?.map_or(since, |until| until.max(since)))
}

/// What was used from `since` (the beginning of an hour) on.
pub async fn sums(db: &mut PgConnection, since: DateTime<Utc>) -> Result<Sums> {
    let live = live(db, since).await?;
    let row = sqlx::query!(
        r#"SELECT sum(calls)::bigint AS calls, sum(failed)::bigint AS failed, sum(cache_hits)::bigint AS hits,
                  sum(prompt_tokens + completion_tokens)::bigint AS tokens, sum(cost)::bigint AS cost
           FROM (SELECT calls, failed, cache_hits, prompt_tokens, completion_tokens, cost FROM usage_hours
                 WHERE starts_at >= $1 AND starts_at < $2
                 UNION ALL
                 SELECT 1, (finish = 'failed')::int, (cache <> '')::int, prompt_tokens, completion_tokens, cost FROM usage WHERE at >= $2) AS used"#,
        since,
        live
    )
    .fetch_one(&mut *db)
    .await?;
    let places = sqlx::query!(
        r#"SELECT place AS "place!", sum(felt)::bigint AS "felt!", sum(first_token)::bigint AS "first_token!"
           FROM (SELECT p.place - 1 AS place, p.felt, p.first_token
                 FROM usage_hours h CROSS JOIN unnest(h.felt, h.first_token) WITH ORDINALITY AS p (felt, first_token, place)
                 WHERE h.starts_at >= $1 AND h.starts_at < $2
                 UNION ALL
                 SELECT width_bucket(felt_ms, $3::bigint[]), 1, 0 FROM usage WHERE at >= $2 AND finish <> 'failed'
                 UNION ALL
                 SELECT width_bucket(first_token_ms, $3), 0, 1 FROM usage
                 WHERE at >= $2 AND finish <> 'failed' AND first_token_ms IS NOT NULL) AS counted
           GROUP BY place"#,
        since,
        live,
        &BOUNDS[..]
    )
    .fetch_all(db)
    .await?;
    let mut sums = Sums {
        calls: row.calls.unwrap_or(0),
        failed: row.failed.unwrap_or(0),
        cache_hits: row.hits.unwrap_or(0),
        tokens: row.tokens.unwrap_or(0),
        cost: Money::from_nanos(row.cost.unwrap_or(0)),
        ..Sums::default()
    };
    for row in places {
        sums.felt.add(Some(row.place), row.felt);
        sums.first_token.add(Some(row.place), row.first_token);
    }
    Ok(sums)
}

/// What was spent from `since` (the beginning of a day) on.
pub async fn spent(db: &mut PgConnection, since: DateTime<Utc>) -> Result<Money> {
    let live = live(db, since).await?;
    let cost = sqlx::query_scalar!(
        r#"SELECT (coalesce((SELECT sum(cost) FROM usage_days WHERE starts_at >= $1 AND starts_at < date_trunc('day', $2::timestamptz, 'UTC')), 0)
                 + coalesce((SELECT sum(cost) FROM usage_hours
                             WHERE starts_at >= greatest($1, date_trunc('day', $2, 'UTC')) AND starts_at < $2), 0)
                 + coalesce((SELECT sum(cost) FROM usage WHERE at >= $2), 0))::bigint AS "cost!""#,
        since,
        live
    )
    .fetch_one(db)
    .await?;
    Ok(Money::from_nanos(cost))
}

/// Forgets the hours before `kept` (the beginning of a day), which interest nobody any more; days stay. A day that is not summed up to
/// its end keeps its hours until then, since it is made of them.
pub async fn prune_hours(db: &mut PgConnection, kept: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM usage_hours WHERE starts_at < least($1, (SELECT date_trunc('day', until, 'UTC') FROM usage_rolled))",
        kept
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_the_bounds() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), None);
        // A hundred answers of 400 to 500 ms, then four that took longer than anything.
        histogram.add(Some(8), 100);
        assert_eq!(histogram.percentile(50), Some(450));
        assert_eq!(histogram.percentile(95), Some(495));
        histogram.add(Some(30), 10);
        assert_eq!(histogram.percentile(95), Some(120_000));
        histogram.add(None, 5);
        histogram.add(Some(31), 5);
        assert_eq!(histogram.percentile(50), Some(455));
    }
}
