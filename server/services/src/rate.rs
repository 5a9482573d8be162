//! Messages per minute: a sliding window in Redis, so that all replicas count as one; without Redis a stricter local count.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{JobId, UserId};
use redis::{
    Client, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

const WINDOW: Duration = Duration::from_secs(60);

/// No message waits longer than this for Redis; it is speed, not truth.
const PATIENCE: Duration = Duration::from_millis(100);

/// Counts on Redis' own clock. A member that is there already (a job run again) passes without being counted twice.
/// Answers -1 when admitted, otherwise the milliseconds until the oldest one leaves the window.
const ADMIT: &str = r"
local now = redis.call('TIME'); now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return -1 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
  if not oldest then return tonumber(ARGV[3]) end
  return math.max(1, oldest + ARGV[3] - now)
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return -1
";

/// Whether a message may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Admitted,
    /// Time until the next one may.
    Refused(Duration),
}

/// Counts messages per minute.
pub struct RateLimiter {
    shared: Option<ConnectionManager>,
    up: AtomicBool,
    admit: Script,
    local: Mutex<HashMap<UserId, VecDeque<(Instant, JobId)>>>,
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

    /// Counts the message that `job` answers, unless `limit` a minute are used up. The same job again passes free.
    pub async fn admit(&self, user: UserId, job: JobId, limit: i64) -> Verdict {
        if let Some(shared) = &self.shared {
            let mut connection = shared.clone();
            let mut call = self.admit.key(key(user));
            let call = call.arg(job.to_string()).arg(limit).arg(millis(WINDOW));
            match tokio::time::timeout(PATIENCE, call.invoke_async::<i64>(&mut connection)).await {
                Ok(Ok(wait)) => {
                    self.note(true);
                    return if wait < 0 {
                        Verdict::Admitted
                    } else {
                        Verdict::Refused(Duration::from_millis(wait.unsigned_abs()))
                    };
                }
                Ok(Err(_)) | Err(_) => self.note(false),
            }
        }
        self.admit_locally(user, job, limit)
    }

    /// Half of the limit, at least one: several replicas count apart from each other, and none must be generous.
    fn admit_locally(&self, user: UserId, job: JobId, limit: i64) -> Verdict {
        let limit = if limit <= 0 {
            0
        } else {
            usize::try_from((limit / 2).max(1)).unwrap_or(usize::MAX)
        };
        let now = Instant::now();
        let mut windows = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() > 10_000 {
            windows.retain(|_, window| window.back().is_some_and(|(at, _)| now - *at < WINDOW));
        }
        let window = windows.entry(user).or_default();
        while window.front().is_some_and(|(at, _)| now - *at >= WINDOW) {
            window.pop_front();
        }
        if window.iter().any(|(_, seen)| *seen == job) {
            return Verdict::Admitted;
        }
        if window.len() >= limit {
            return Verdict::Refused(
                window
                    .front()
                    .map_or(WINDOW, |(at, _)| WINDOW.saturating_sub(now - *at)),
            );
        }
        window.push_back((now, job));
        Verdict::Admitted
    }

    /// Messages of the user in the last minute, for staff to see; 0 when Redis is not there.
    pub async fn used(&self, user: UserId) -> i64 {
        let Some(shared) = &self.shared else { return 0 };
        let mut connection = shared.clone();
        let call = async {
            let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await?;
            let since = seconds * 1000 + micros / 1000 - millis(WINDOW);
            redis::cmd("ZCOUNT")
                .arg(key(user))
                .arg(since)
                .arg("+inf")
                .query_async::<i64>(&mut connection)
                .await
        };
        tokio::time::timeout(PATIENCE, call)
            .await
            .ok()
            .and_then(Result::ok)
            .unwrap_or(0)
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

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_redis_half_of_the_limit_passes_and_a_repeated_job_is_free() {
        let limiter = RateLimiter::new(None).unwrap();
        let user = UserId(uuid::Uuid::now_v7());
        let jobs: Vec<JobId> = (0..10).map(|_| JobId(uuid::Uuid::now_v7())).collect();
        for job in &jobs[..5] {
            assert_eq!(limiter.admit(user, *job, 10).await, Verdict::Admitted);
        }
        assert_eq!(limiter.admit(user, jobs[0], 10).await, Verdict::Admitted);
        assert!(matches!(limiter.admit(user, jobs[5], 10).await, Verdict::Refused(wait) if wait <= WINDOW));
        assert!(matches!(
            limiter.admit(UserId(uuid::Uuid::now_v7()), jobs[6], 0).await,
            Verdict::Refused(_)
        ));
    }
}
