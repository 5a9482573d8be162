//! Messages per minute: a sliding window in Redis, so that all replicas count as one; without Redis a stricter local count.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{JobId, UserId};
use redis::{
    Client, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

const WINDOW: i64 = 60_000;

/// A conversation that is behind by more than this, after an outage, is counted apart from those that are not.
const KEPT: i64 = 10 * WINDOW;

/// No message waits longer than this for Redis; it is speed, not truth.
const PATIENCE: Duration = Duration::from_millis(100);

/// Each member is a job, scored by when its message arrived, in milliseconds. A member that is there already (a job run again)
/// passes without being counted twice. The message at `at` is admitted unless it would be one too many in some minute: jobs of
/// different conversations do not run in the order in which their messages came. Answers -1 when admitted, otherwise when there
/// is room again.
const ADMIT: &str = r"
local job, at, limit, window, kept = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', at - kept))
if redis.call('ZSCORE', KEYS[1], job) then return -1 end
local from, to = string.format('(%.0f', at - window), string.format('(%.0f', at + window)
local found = redis.call('ZRANGEBYSCORE', KEYS[1], from, to, 'WITHSCORES')
local near, place = {}, 0
for i = 2, #found, 2 do
  local seen = tonumber(found[i])
  if place == 0 and seen > at then
    place = #near + 1
    near[place] = at
  end
  near[#near + 1] = seen
end
if place == 0 then
  place = #near + 1
  near[place] = at
end
for first = math.max(1, place - limit), place do
  local last = near[first + limit]
  if last and last - near[first] < window then
    local newest = redis.call('ZREVRANGE', KEYS[1], limit - 1, limit - 1, 'WITHSCORES')[2]
    if limit == 0 or not newest then return at + window end
    return tonumber(newest) + window
  end
end
redis.call('ZADD', KEYS[1], ARGV[2], job)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return -1
";

/// Whether a message may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Admitted,
    /// When the next one may.
    Refused(DateTime<Utc>),
}

/// What of a user's minute is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    pub used: i64,
    /// When the oldest of these messages leaves the minute; `None` when there are none.
    pub resets_at: Option<DateTime<Utc>>,
}

/// Counts messages per minute, by the time at which each arrived: what waited through an outage is not held against its sender.
pub struct RateLimiter {
    shared: Option<ConnectionManager>,
    up: AtomicBool,
    admit: Script,
    local: Mutex<HashMap<UserId, Vec<(i64, JobId)>>>,
}

impl RateLimiter {
    /// Whether `url` can be read at all; nothing is asked.
    pub fn takes_url(url: &str) -> bool {
        Client::open(url).is_ok()
    }

    /// Needs no Redis to be there: it is connected to when first used, and again whenever it comes back.
    pub fn new(redis_url: Option<&str>) -> Result<Self, RedisError> {
        let shared = redis_url
            .map(|url| {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(Duration::from_millis(500)))
                    .set_response_timeout(Some(PATIENCE))
                    .set_number_of_retries(1)
                    .set_max_delay(Duration::from_millis(500));
                ConnectionManager::new_lazy_with_config(Client::open(url)?, config)
            })
            .transpose()?;
        Ok(Self {
            up: AtomicBool::new(false),
            shared,
            admit: Script::new(ADMIT),
            local: Mutex::default(),
        })
    }

    /// Counts the message that `job` answers and that arrived at `at`, unless `limit` a minute are used up. The same job again
    /// passes free.
    pub async fn admit(&self, user: UserId, job: JobId, at: DateTime<Utc>, limit: i64) -> Verdict {
        let at = at.timestamp_millis();
        if let Some(shared) = &self.shared {
            let mut connection = shared.clone();
            let mut call = self.admit.key(key(user));
            let call = call.arg(job.to_string()).arg(at).arg(limit).arg(WINDOW).arg(KEPT);
            match tokio::time::timeout(PATIENCE, call.invoke_async::<i64>(&mut connection)).await {
                Ok(Ok(again)) => {
                    self.note(true);
                    return if again < 0 {
                        Verdict::Admitted
                    } else {
                        Verdict::Refused(moment(again))
                    };
                }
                Ok(Err(_)) | Err(_) => self.note(false),
            }
        }
        self.admit_locally(user, job, at, limit)
    }

    /// Half of the limit, at least one: several replicas count apart from each other, and none must be generous.
    fn admit_locally(&self, user: UserId, job: JobId, at: i64, limit: i64) -> Verdict {
        let limit = if limit <= 0 {
            0
        } else {
            usize::try_from((limit / 2).max(1)).unwrap_or(usize::MAX)
        };
        let mut windows = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() > 10_000 {
            windows.retain(|_, seen| seen.last().is_some_and(|(last, _)| at - last < KEPT));
        }
        // Sorted by time.
        let seen = windows.entry(user).or_default();
        seen.retain(|(then, _)| at - then < KEPT);
        if seen.iter().any(|(_, known)| *known == job) {
            return Verdict::Admitted;
        }
        let place = seen.partition_point(|(then, _)| *then <= at);
        seen.insert(place, (at, job));
        let one_too_many = (place.saturating_sub(limit)..=place).any(|first| {
            let ends = first.checked_add(limit).and_then(|last| seen.get(last));
            ends.zip(seen.get(first))
                .is_some_and(|((last, _), (first, _))| last - first < WINDOW)
        });
        if !one_too_many {
            return Verdict::Admitted;
        }
        seen.remove(place);
        let newest = seen
            .iter()
            .rev()
            .nth(limit.wrapping_sub(1))
            .map_or(at, |(then, _)| *then);
        Verdict::Refused(moment(newest + WINDOW))
    }

    /// Messages of the user in the minute before `now`, for people to see; `None` when Redis is not there: nobody knows then what
    /// other replicas have counted.
    pub async fn minute(&self, user: UserId, now: DateTime<Utc>) -> Option<Minute> {
        let mut connection = self.shared.clone()?;
        let since = now.timestamp_millis() - WINDOW;
        let call = async {
            // Replicas' clocks differ a little: what seems to come from the future counts.
            redis::cmd("ZRANGEBYSCORE")
                .arg(key(user))
                .arg(format!("({since}"))
                .arg("+inf")
                .arg("WITHSCORES")
                .query_async::<Vec<(String, i64)>>(&mut connection)
                .await
        };
        let seen = tokio::time::timeout(PATIENCE, call).await.ok()?.ok()?;
        Some(Minute {
            used: i64::try_from(seen.len()).unwrap_or(i64::MAX),
            resets_at: seen.first().map(|(_, oldest)| moment(oldest + WINDOW)),
        })
    }

    /// Asks Redis, for readiness, `doctor` and the overview; the answer is its version.
    pub async fn ping(&self) -> Result<String, String> {
        let Some(shared) = &self.shared else {
            return Err("REDIS_URL is not set".to_owned());
        };
        let mut connection = shared.clone();
        let call = async {
            let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
            Ok::<_, RedisError>(info)
        };
        let answer = tokio::time::timeout(Duration::from_secs(1), call).await;
        self.note(matches!(answer, Ok(Ok(_))));
        match answer {
            Ok(Ok(info)) => {
                let version = info
                    .lines()
                    .find_map(|line| line.strip_prefix("redis_version:"))
                    .unwrap_or("unknown version");
                Ok(version.trim().to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer within a second".to_owned()),
        }
    }

    /// For others who count in the same Redis.
    pub(crate) fn connection(&self) -> Option<ConnectionManager> {
        self.shared.clone()
    }

    /// As of the last call.
    pub fn shared_is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    fn note(&self, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) != up {
            if up {
                tracing::info!("Redis is reached; limits per minute are counted for all replicas together");
            } else {
                tracing::warn!("Redis is not reached; limits per minute fall back to a stricter local count");
            }
        }
        metrics::gauge!("botdeck_redis_up").set(if up { 1.0 } else { 0.0 });
    }
}

fn key(user: UserId) -> String {
    format!("botdeck:rate:{user}")
}

fn moment(millis: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> DateTime<Utc> {
        moment(1_780_000_000_000)
    }

    fn jobs() -> Vec<JobId> {
        (0..12).map(|_| JobId(uuid::Uuid::now_v7())).collect()
    }

    #[tokio::test]
    async fn without_redis_half_of_the_limit_passes_and_a_repeated_job_is_free() {
        let limiter = RateLimiter::new(None).unwrap();
        let user = UserId(uuid::Uuid::now_v7());
        let jobs = jobs();
        for job in &jobs[..5] {
            assert_eq!(limiter.admit(user, *job, noon(), 10).await, Verdict::Admitted);
        }
        assert_eq!(limiter.admit(user, jobs[0], noon(), 10).await, Verdict::Admitted);
        let later = noon() + TimeDelta::seconds(20);
        let again = Verdict::Refused(noon() + TimeDelta::seconds(60));
        assert_eq!(limiter.admit(user, jobs[5], later, 10).await, again);
        let other = UserId(uuid::Uuid::now_v7());
        assert!(matches!(
            limiter.admit(other, jobs[6], noon(), 0).await,
            Verdict::Refused(_)
        ));
        assert_eq!(
            limiter.minute(user, noon()).await,
            None,
            "not known, which is not the same as none"
        );
    }

    #[tokio::test]
    async fn without_redis_it_is_the_time_of_arrival_that_counts_too() {
        let limiter = RateLimiter::new(None).unwrap();
        let user = UserId(uuid::Uuid::now_v7());
        let at = |seconds| noon() + TimeDelta::seconds(seconds);
        let jobs = jobs();
        // Two may pass. They arrived 40 seconds apart, which is always allowed, and are run from the last to the first.
        for (job, seconds) in jobs.iter().zip([200, 160, 120, 80, 40, 0]) {
            assert_eq!(
                limiter.admit(user, *job, at(seconds), 4).await,
                Verdict::Admitted,
                "{seconds}"
            );
        }
        assert!(matches!(
            limiter.admit(user, jobs[6], at(100), 4).await,
            Verdict::Refused(_)
        ));
        assert_eq!(limiter.admit(user, jobs[7], at(240), 4).await, Verdict::Admitted);
        assert_eq!(
            limiter.admit(user, jobs[8], at(250), 4).await,
            Verdict::Refused(at(260))
        );
    }
}
