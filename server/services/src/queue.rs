//! The durable queue, as its runner sees it.

use std::time::Duration;

use domain::{BotId, ErrorCode, JobId};
pub use repositories::jobs::{Claimed, Room, Which};
use repositories::{
    PgConnection,
    counters::{self, Use},
    jobs, ledger,
};
use uuid::Uuid;

use crate::{Error, Services};

/// How long a worker may be silent before its jobs go to others. Renewed every third of it.
pub const LEASE: Duration = Duration::from_secs(9);

/// How a job ended.
#[derive(Clone, Debug)]
pub enum Ended {
    Done,
    /// Everything was sent: these are the message ids, from part 0 on.
    Delivered(Vec<i64>),
    /// Try again: after `after`, or with growing back-off. Becomes a dead letter when the attempts are used up.
    Retry {
        after: Option<Duration>,
        error: String,
    },
    /// Its handler panicked: tried again with growing back-off, but not often.
    Crashed {
        error: String,
    },
    /// Never try again; kept as a dead letter.
    Dead {
        error: String,
    },
    /// Given back unharmed by a worker that stops.
    Returned,
}

/// A job that has lost so many workers is given up: its conversation waits behind it. Many, since workers go away for reasons of their
/// own, again and again when somebody kills them, and nothing that was accepted may be lost by that.
pub const MOST_CRASHES: i32 = 25;
/// A panic is the job's own doing, so it counts for more.
pub const PANIC: i32 = 5;
/// From so many lost workers on a job is suspected, and waits longer before it may meet another one.
const SUSPECT: i32 = 5;
const LONGEST_SUSPICION: Duration = Duration::from_secs(15);

/// How long a finished job is kept, with the ids of its messages: people may edit what they wrote for two days, and the new answer
/// takes the place of the old one.
pub(crate) const DONE_KEPT_HOURS: i32 = 49;
/// Of a draft's id: the part of the answer, below the last bits of the job's id.
const PART_BITS: u32 = 6;
const JOB_MASK: i64 = 0xff_ffff;

/// Names the draft of one part of a job's answer: the same for every attempt, so that a draft goes on where a crash left it; never
/// zero, and not above 2³¹.
pub fn draft_id(job: JobId, part: usize) -> i64 {
    let job = i64::try_from(job.0.as_u128() & 0xff_ffff).unwrap_or(0);
    let part = i64::try_from(part % (1 << PART_BITS)).unwrap_or(0);
    1 << 30 | job << PART_BITS | part
}

/// Taking and ending jobs.
pub struct Queue(pub(crate) Services);

impl Queue {
    /// Takes what may run now; of the bots in `room` no more than there is room for.
    pub async fn claim(&self, worker: &str, limit: i64, which: Which, room: &[Room]) -> Result<Vec<Claimed>, Error> {
        let lease = LEASE.as_secs_f64();
        Ok(jobs::claim(&mut *self.0.db.acquire().await?, worker, limit, lease, which, room).await?)
    }

    /// Leaves jobs in hand to other workers, without waiting for their leases to run out.
    pub async fn hand_over(&self, tokens: &[Uuid]) -> Result<u64, Error> {
        Ok(jobs::hand_over(&mut *self.0.db.acquire().await?, tokens).await?)
    }

    /// Returns when this process has accepted work; a hint, not a promise.
    pub async fn work_arrived(&self) {
        self.0.work.notified().await;
    }

    /// Ends a job. False when it was no longer ours: then nothing was changed.
    pub async fn end(&self, job: &Claimed, ended: Ended) -> Result<bool, Error> {
        let mut tx = self.0.db.begin().await?;
        let backoff;
        let end = match &ended {
            Ended::Done => jobs::End::Done,
            Ended::Delivered(ids) => jobs::End::Delivered(ids),
            Ended::Returned => jobs::End::Returned,
            Ended::Retry { after, error } if job.attempt < job.max_attempts => {
                backoff = after.map_or_else(
                    || back_off(job.attempt, rand::random()),
                    |after| spread(after, rand::random()),
                );
                jobs::End::Retry {
                    after_seconds: backoff.as_secs_f64(),
                    error,
                    crashes: 0,
                }
            }
            Ended::Crashed { error } if job.crashes + PANIC < MOST_CRASHES => {
                backoff = back_off(job.crashes / PANIC + 1, rand::random());
                jobs::End::Retry {
                    after_seconds: backoff.as_secs_f64(),
                    error,
                    crashes: PANIC,
                }
            }
            Ended::Retry { error, .. } | Ended::Crashed { error } | Ended::Dead { error } => jobs::End::Dead { error },
        };
        let died = match end {
            jobs::End::Dead { error } => Some(error),
            _ => None,
        };
        let Some(more) = jobs::end(&mut tx, job.id, job.token, job.lane.as_deref(), end).await? else {
            return Ok(false);
        };
        if let Some(error) = died {
            self.bury(&mut tx, job.id, Some(job.bot), error).await?;
        } else if job.attempt > 1 && matches!(ended, Ended::Done | Ended::Delivered(_)) {
            // An earlier attempt may have set a budget aside that this one had no use for.
            counters::settle(&mut tx, job.id.into(), Use::default(), self.0.now()).await?;
        }
        tx.commit().await.map_err(repositories::Error::from)?;
        if more {
            self.0.work.notify_one();
        }
        Ok(true)
    }

    /// What a dead letter leaves behind: its budget goes back, and staff can find the failure.
    async fn bury(&self, tx: &mut PgConnection, job: JobId, bot: Option<BotId>, error: &str) -> Result<(), Error> {
        metrics::counter!("botdeck_dead_letters_total").increment(1);
        counters::settle(tx, job.into(), Use::default(), self.0.now()).await?;
        let failure = ledger::Failure {
            at: self.0.now(),
            code: ErrorCode::Internal.as_str(),
            cause: Some(error),
            user: None,
            bot,
            conversation: None,
            job: Some(job),
        };
        Ok(ledger::insert_failure(tx, &failure).await?)
    }

    /// Prolongs the leases of the jobs in hand, as far as nothing hangs in them just now; returns those that are still ours.
    pub async fn renew(&self, tokens: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        Ok(jobs::renew(&mut *self.0.db.acquire().await?, tokens, LEASE.as_secs_f64()).await?)
    }

    /// Prolongs the leases of jobs for certain; returns those that are still ours.
    pub async fn heartbeat(&self, tokens: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        Ok(jobs::heartbeat(&mut *self.0.db.acquire().await?, tokens, LEASE.as_secs_f64()).await?)
    }

    /// Of the jobs in hand, those that somebody wants stopped.
    pub async fn cancelled(&self, tokens: &[Uuid]) -> Result<Vec<Uuid>, Error> {
        Ok(jobs::cancelled(&mut *self.0.db.acquire().await?, tokens).await?)
    }

    /// Asks whatever runs in the lane to stop, unless it was asked for after the job `stop`; false when nothing did.
    pub async fn cancel_lane(&self, lane: &str, stop: JobId) -> Result<bool, Error> {
        Ok(jobs::cancel_lane(&mut *self.0.db.acquire().await?, lane, stop).await? > 0)
    }

    /// Asks the answer shown by this draft to stop; false when it is not being made any more. Whoever presses too late does not
    /// mean the next answer.
    pub async fn cancel_draft(&self, lane: &str, draft: i64) -> Result<bool, Error> {
        let bits = i32::try_from((draft >> PART_BITS) & JOB_MASK).unwrap_or(0);
        Ok(jobs::cancel_ending_in(&mut *self.0.db.acquire().await?, lane, bits).await?)
    }

    /// Gives the jobs of workers that have gone away to others: at once a few times, since the worker is to blame as a rule, then
    /// with growing back-off. Returns how many. One that was lost [`MOST_CRASHES`] times is given out once more: not to be tried
    /// again, but so that its user can be told.
    pub async fn recover(&self) -> Result<u64, Error> {
        let lost = jobs::lost(&mut *self.0.db.acquire().await?, 1000).await?;
        let mut recovered = 0;
        for job in lost {
            match self.take_away(&job).await {
                Ok(taken) => recovered += u64::from(taken),
                // Whoever hangs with a lock keeps this one, for now, and not the others.
                Err(Error::Database(error)) if error.is_lock_timeout() => {
                    tracing::warn!(job.id = %job.id, "A lost job is locked by somebody");
                }
                Err(error) => return Err(error),
            }
        }
        if recovered > 0 {
            tracing::warn!(
                jobs = recovered,
                "{recovered} jobs of workers that went away are run again"
            );
            self.0.work.notify_one();
        }
        metrics::counter!("botdeck_jobs_recovered_total").increment(recovered);
        Ok(recovered)
    }

    /// False when its worker has come back.
    async fn take_away(&self, job: &jobs::Lost) -> Result<bool, Error> {
        let mut tx = self.0.db.begin().await?;
        let error = "the worker went away";
        let dies = job.crashes >= MOST_CRASHES;
        let wait = match job.crashes {
            ..SUSPECT => Duration::ZERO,
            crashes => back_off(crashes - SUSPECT + 1, rand::random()).min(LONGEST_SUSPICION),
        };
        let end = if dies {
            jobs::End::Dead { error }
        } else {
            jobs::End::Retry {
                after_seconds: wait.as_secs_f64(),
                error,
                crashes: 1,
            }
        };
        let ended = jobs::end(&mut tx, job.id, job.token, job.lane.as_deref(), end).await?;
        if ended.is_none() {
            return Ok(false);
        }
        if dies {
            self.bury(&mut tx, job.id, None, error).await?;
        }
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(true)
    }

    /// Daily and hourly housekeeping: partitions ahead, finished jobs, old sessions and failed sign-ins, forgotten reservations.
    pub async fn tidy(&self) -> Result<(), Error> {
        self.0.db.ensure_partitions().await?;
        let mut db = self.0.db.acquire().await?;
        while jobs::prune(&mut db, DONE_KEPT_HOURS).await? > 0 {}
        while repositories::job_pages::prune_discarded(&mut db, 30).await? > 0 {}
        repositories::bot_pages::prune_flood_waits(&mut db).await?;
        repositories::sessions::delete_expired(&mut db).await?;
        repositories::staff::tidy_failures(&mut db).await?;
        self.0.limits().give_back().await?;
        while counters::prune(&mut db).await? {}
        Ok(())
    }

    pub async fn state(&self) -> Result<domain::views::QueueState, Error> {
        Ok(jobs::queue_state(&mut *self.0.db.acquire().await?).await?)
    }
}

/// 1 s, 2 s, 4 s… up to five minutes, each shortened by up to a quarter so that failures do not march in step.
fn back_off(attempt: i32, jitter: u16) -> Duration {
    let doublings = u32::try_from(attempt.max(1) - 1).unwrap_or(0).min(16);
    let whole = Duration::from_secs((1_u64 << doublings).min(300));
    whole - whole.mul_f64(0.25 * f64::from(jitter) / f64::from(u16::MAX))
}

/// Never less than was asked for, and up to a quarter more, so that what was refused together does not come back together.
fn spread(after: Duration, jitter: u16) -> Duration {
    after + after.mul_f64(0.25 * f64::from(jitter) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_named_by_its_job_and_part() {
        let job = |last: u128| JobId(Uuid::from_u128((7 << 64) | last));
        assert_eq!(draft_id(job(0), 0), 1 << 30, "never zero");
        assert!(draft_id(job(u128::from(u64::MAX)), 999) < 1 << 31);
        assert_ne!(draft_id(job(5), 0), draft_id(job(5), 1));
        assert_ne!(draft_id(job(5), 0), draft_id(job(6), 0));
        assert_eq!((draft_id(job(0x12_3456), 9) >> PART_BITS) & JOB_MASK, 0x12_3456);
    }

    #[test]
    fn back_off_grows_and_is_bounded() {
        assert_eq!(back_off(1, 0), Duration::from_secs(1));
        assert_eq!(back_off(4, 0), Duration::from_secs(8));
        assert_eq!(back_off(99, 0), Duration::from_secs(300));
        assert_eq!(back_off(1, u16::MAX), Duration::from_millis(750));
        assert_eq!(spread(Duration::from_secs(4), 0), Duration::from_secs(4));
        assert_eq!(spread(Duration::from_secs(4), u16::MAX), Duration::from_secs(5));
    }
}
