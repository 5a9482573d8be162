//! The figures of today.

use chrono::{DurationRound, TimeDelta};
use domain::{Period, views::Overview};
use repositories::{bots, jobs, ledger, rollups};

use crate::{Actor, Error, Services};

/// An hour is summed up this long after its end: what was under way then is written by now.
const CLOSED_AFTER: TimeDelta = TimeDelta::minutes(5);
/// Hours are kept for as long as any range of the overview reaches; days for as long as there are.
const HOURS_KEPT: TimeDelta = TimeDelta::days(92);

/// The overview page.
pub struct OverviewService(pub(crate) Services);

impl OverviewService {
    /// Sums up the hours that have ended. Safe on every replica at once.
    pub async fn roll_up(&self) -> Result<(), Error> {
        let closed = self.0.now() - CLOSED_AFTER;
        let closed = closed.duration_trunc(TimeDelta::hours(1)).unwrap_or(closed);
        loop {
            let mut tx = self.0.db.begin().await?;
            let more = rollups::roll_hour(&mut tx, closed).await?;
            tx.commit().await.map_err(repositories::Error::from)?;
            if !more {
                break;
            }
        }
        rollups::prune_hours(&mut *self.0.db.acquire().await?, closed - HOURS_KEPT).await?;
        Ok(())
    }

    /// Drops the months of the ledger that are older than it is to be kept.
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
