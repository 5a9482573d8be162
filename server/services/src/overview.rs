//! The figures of today.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use domain::{Period, views::Overview};
use repositories::{bots, jobs, ledger, rollups};

use crate::{Actor, Error, Services};

/// An hour is summed up this long after its end: what was under way then is written by now.
const CLOSED_AFTER: TimeDelta = TimeDelta::minutes(5);
/// Hours are kept for as long as any range of the overview reaches; days for as long as there are.
const HOURS_KEPT: TimeDelta = TimeDelta::days(92);
/// Of one turn.
const HOURS_AT_ONCE: usize = 24;

/// The overview page.
pub struct OverviewService(pub(crate) Services);

impl OverviewService {
    /// Sums up the hours that have ended, and anew those into which lines came late: a few of them, so that nobody waits for long. True
    /// when there may be more. Safe on every replica at once.
    pub async fn roll_up(&self) -> Result<bool, Error> {
        let closed = self.0.now() - CLOSED_AFTER;
        let closed = closed.duration_trunc(TimeDelta::hours(1)).unwrap_or(closed);
        let kept = Period::Day.start(closed - HOURS_KEPT);
        self.close(closed).await?;
        for _ in 0..HOURS_AT_ONCE {
            let mut tx = self.0.db.begin().await?;
            let more = rollups::roll_hour(&mut tx).await? || rollups::roll_late(&mut tx, kept).await?;
            tx.commit().await.map_err(repositories::Error::from)?;
            if !more {
                rollups::prune_hours(&mut *self.0.db.acquire().await?, kept).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn close(&self, closed: DateTime<Utc>) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        match rollups::close(&mut tx, closed).await {
            // Somebody has been writing for long; what was closed before can be summed up all the same.
            Err(error) if error.is_lock_timeout() => {
                tracing::debug!("The ledger is too busy to close an hour; it is tried again");
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(()) => Ok(tx.commit().await.map_err(repositories::Error::from)?),
        }
    }

    /// Drops the months of the ledger that are older than it is to be kept and are summed up.
    pub async fn forget_old_usage(&self) -> Result<(), Error> {
        let dropped = self.0.db.drop_old_usage(self.0.now(), self.0.usage_months).await?;
        if dropped > 0 {
            tracing::info!(months = dropped, "Dropped {dropped} months of the ledger");
        }
        Ok(())
    }

    pub async fn today(&self, _actor: &Actor) -> Result<Overview, Error> {
        let now = self.0.now();
        let (day, month) = (Period::Day.start(now), Period::Month.start(now));
        let mut db = self.0.db.acquire().await?;
        let totals = ledger::totals(&mut db, day, month).await?;
        Ok(Overview {
            now,
            messages: totals.messages,
            active_users: totals.active_users,
            tokens: totals.used.tokens,
            cost: totals.used.cost,
            cost_month: totals.cost_month,
            p50_ms: totals.used.felt.percentile(50),
            p95_ms: totals.used.felt.percentile(95),
            errors: totals.errors,
            hours: ledger::hours(&mut db, now).await?,
            errors_by_code: ledger::failures_by_code(&mut db, day).await?,
            queue: jobs::queue_state(&mut db).await?,
            bots: bots::rows(&mut db, day, &self.0.gateway.default_model().name).await?,
            redis_up: self.0.rate.shared_is_up(),
        })
    }
}
