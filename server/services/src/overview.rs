//! The figures of today.

use domain::{Period, views::Overview};
use repositories::{bots, jobs, ledger};

use crate::{Actor, Error, Services};

/// The overview page.
pub struct OverviewService(pub(crate) Services);

impl OverviewService {
    pub async fn today(&self, _actor: &Actor) -> Result<Overview, Error> {
        let now = self.0.now();
        let (day, month) = (Period::Day.start(now), Period::Month.start(now));
        let mut db = self.0.db.acquire().await?;
        let totals = ledger::totals(&mut db, day, month).await?;
        Ok(Overview {
            now,
            messages: totals.messages,
            active_users: totals.active_users,
            tokens: totals.tokens,
            cost: totals.cost,
            cost_month: totals.cost_month,
            p50_ms: totals.p50_ms,
            p95_ms: totals.p95_ms,
            errors: totals.errors,
            hours: ledger::hours(&mut db, now).await?,
            errors_by_code: ledger::failures_by_code(&mut db, day).await?,
            queue: jobs::queue_state(&mut db).await?,
            bots: bots::rows(&mut db, day, &self.0.gateway.default_model().name).await?,
            redis_up: self.0.rate.shared_is_up(),
        })
    }
}
