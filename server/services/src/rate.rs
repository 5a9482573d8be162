//! Requests per minute, counted in Redis, so that all replicas count as one; without Redis a stricter local count.
//!
//! A user's messages are counted in a window that slides by the time at which each was written, since what waited through an outage is
//! not to be held against its sender. What many share (an API key, a bot, a model, the deployment) is paced by GCRA on Redis' own clock:
//! one number for each, however many requests there are.

mod local;
mod shared;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{ReservationId, UserId};
use redis::{Client, RedisError, Script, aio::ConnectionManager};

use self::local::{FEWEST_REPLICAS, Local, Share};
pub(crate) use self::shared::Shared;

const WINDOW: i64 = 60_000;

/// A conversation that is behind by more than this, after an outage, is counted apart from those that are not.
const KEPT: i64 = 10 * WINDOW;

/// One script over all keys, all or nothing: nothing is written before everything has been found to pass.
///
/// KEYS: the user's window, the mark of this call, then one for each paced rate. ARGV: call, time of arrival, limit of the window
/// (-1: none), window, how long is kept, then the limits of the paced rates; times in milliseconds.
///
/// In the window each member is a call, scored by when its message arrived. The message at `at` is admitted unless it would be one too
/// many in some minute: jobs of different conversations do not run in the order in which their messages came. A paced rate keeps the
/// time, in microseconds, at which all that was admitted would be through at an even pace; it may lie a minute ahead, and half a step or a second, whichever is less. A call that was
/// admitted before (a job run again) passes without being counted twice.
///
/// Answers which rate refuses, from 1 on (0: none), and when there is room again: of several the one that lasts longest.
const ADMIT: &str = r"
local call, at, limit, window, kept = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
-- Seconds; numbers of this size keep 64ths of a microsecond exactly, so that steps add up to a minute.
local base = 1790000000
local which, again = 0, 0
local function refuse(index, moment)
  if which == 0 or moment > again then which, again = index, moment end
end

local seen_before = limit < 0
if limit >= 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', at - kept))
  seen_before = redis.call('ZSCORE', KEYS[1], call)
end
if not seen_before then
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
      if limit == 0 or not newest then refuse(1, at + window) else refuse(1, tonumber(newest) + window) end
      break
    end
  end
end

local time = redis.call('TIME')
local now = (time[1] - base) * 1000000 + time[2]
local minute, through = window * 1000, {}
if #KEYS > 2 and redis.call('EXISTS', KEYS[2]) == 0 then
  for i = 3, #KEYS do
    local pace = tonumber(ARGV[i + 3])
    if pace == 0 then
      refuse(i - 1, base * 1000 + math.ceil((now + minute) / 1000))
    else
      local step = math.ceil(minute / pace * 64) / 64
      through[i] = math.max(tonumber(redis.call('GET', KEYS[i]) or now), now) + step
      local early = through[i] - now - minute
      if early > math.min(step / 2, 1000000) then refuse(i - 1, base * 1000 + math.ceil((now + early) / 1000)) end
    end
  end
end

if which == 0 then
  if not seen_before then
    redis.call('ZADD', KEYS[1], ARGV[2], call)
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
  end
  if next(through) then
    redis.call('SET', KEYS[2], '', 'PX', ARGV[4])
    for i, until_then in pairs(through) do
      redis.call('SET', KEYS[i], string.format('%.6f', until_then), 'PX', math.ceil((until_then - now) / 1000) + 1000)
    end
  end
end
return {which, again}
";

/// `base` of the script.
const BASE: i64 = 1_790_000_000;

fn count(local: &mut Local, call: ReservationId, at: i64, rates: &[Rate], replicas: u32, now: Instant) {
    for rate in rates {
        match rate {
            Rate::Window { user, .. } => local.count(*user, call, at),
            Rate::Paced { key, limit } => local.count_paced(
                key,
                Share {
                    limit: *limit,
                    replicas,
                },
                now,
            ),
        }
    }
}

/// What a pace has left where all that was admitted takes `ahead` more microseconds to be through.
fn left_of(limit: i64, ahead: i64) -> (i64, TimeDelta) {
    let (minute, ahead) = (WINDOW * 1000, ahead.max(0));
    if limit <= 0 {
        return (0, TimeDelta::microseconds(minute));
    }
    // As the script reckons: half a step or a second may be overdrawn. In i128, since a million times a large limit does not fit.
    let overdrawn = i128::from(minute).min(i128::from(limit) * 2_000_000);
    let halves = i128::from(minute - ahead) * i128::from(limit) * 2 + overdrawn;
    let left = halves.div_euclid(i128::from(minute) * 2).clamp(0, i128::from(limit));
    (i64::try_from(left).unwrap_or(limit), TimeDelta::microseconds(ahead))
}

/// A limit on requests per minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Of a user, by the time at which each message was written. At most one in a call.
    Window { user: UserId, limit: i64 },
    /// Of what many share.
    Paced { key: String, limit: i64 },
}

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

/// Counts requests per minute.
pub struct RateLimiter {
    shared: Option<Shared>,
    admit: Script,
    local: Mutex<Local>,
    /// That live and share a limit while each counts alone.
    replicas: Arc<AtomicU32>,
}

impl RateLimiter {
    /// Whether `url` can be read at all; nothing is asked.
    pub fn takes_url(url: &str) -> bool {
        Client::open(url).is_ok()
    }

    /// Needs no Redis to be there: it is connected to when first used, and again whenever it comes back.
    pub fn new(redis_url: Option<&str>) -> Result<Self, RedisError> {
        let shared = redis_url.map(Shared::new).transpose()?;
        Ok(Self {
            shared,
            admit: Script::new(ADMIT),
            local: Mutex::default(),
            replicas: Arc::new(AtomicU32::new(FEWEST_REPLICAS)),
        })
    }

    /// So many replicas that ask models live now, this one among them. While Redis is away each lets its share through.
    pub(crate) fn set_replicas(&self, live: u32) {
        self.replicas.store(live, Ordering::Relaxed);
    }

    /// For others who share something by as many.
    pub(crate) fn replicas(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.replicas)
    }

    /// Counts one message of a user that arrived at `at`, unless `limit` a minute are used up. The same call again passes free.
    pub async fn admit(&self, user: UserId, call: impl Into<ReservationId>, at: DateTime<Utc>, limit: i64) -> Verdict {
        let rates = [Rate::Window { user, limit }];
        match self.admit_all(call.into(), at, &rates).await {
            Ok(()) => Verdict::Admitted,
            Err((_, again)) => Verdict::Refused(again),
        }
    }

    /// Counts a call on all rates or on none. The same call again passes free. Refused: by which of them, and when there is room
    /// again.
    pub async fn admit_all(
        &self,
        call: ReservationId,
        at: DateTime<Utc>,
        rates: &[Rate],
    ) -> Result<(), (usize, DateTime<Utc>)> {
        if rates.is_empty() {
            return Ok(());
        }
        let at = at.timestamp_millis();
        if let Some(shared) = self.shared.as_ref().filter(|shared| !shared.is_away()) {
            match shared
                .patiently(self.ask(shared.connection.clone(), call, at, rates))
                .await
            {
                Some((0, _)) => {
                    self.count_locally(call, at, rates);
                    return Ok(());
                }
                Some((which, again)) => return Err((place(rates, which), moment(again))),
                None => {}
            }
        }
        self.admit_locally(call, at, rates)
    }

    async fn ask(
        &self,
        mut connection: ConnectionManager,
        call: ReservationId,
        at: i64,
        rates: &[Rate],
    ) -> Result<(usize, i64), RedisError> {
        let window = rates.iter().find_map(|rate| match rate {
            Rate::Window { user, limit } => Some((key(*user), (*limit).max(0))),
            Rate::Paced { .. } => None,
        });
        let (window, limit) = window.unwrap_or_else(|| ("botdeck:rate:none".to_owned(), -1));
        let mut script = self.admit.key(window);
        script.key(format!("botdeck:rate:call:{call}"));
        script.arg(call.to_string()).arg(at).arg(limit).arg(WINDOW).arg(KEPT);
        for rate in rates {
            if let Rate::Paced { key, limit } = rate {
                script.key(paced_key(key)).arg((*limit).max(0));
            }
        }
        script.invoke_async(&mut connection).await
    }

    /// A share of each limit: several replicas count apart from each other, and none must be generous.
    fn admit_locally(&self, call: ReservationId, at: i64, rates: &[Rate]) -> Result<(), (usize, DateTime<Utc>)> {
        let now = Instant::now();
        let replicas = self.replicas.load(Ordering::Relaxed).max(FEWEST_REPLICAS);
        let share = |limit: i64| Share { limit, replicas };
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = rates.iter().enumerate().filter_map(|(place, rate)| {
            let again = match rate {
                Rate::Window { user, limit } => local.window(*user, call, at, share(*limit)),
                Rate::Paced { key, limit } => local.pace(key, at, share(*limit), now),
            };
            again.map(|again| (place, moment(again)))
        });
        let refused: Option<(usize, DateTime<Utc>)> = refused.max_by_key(|(_, again)| *again);
        if let Some(refused) = refused {
            return Err(refused);
        }
        count(&mut local, call, at, rates, replicas, now);
        Ok(())
    }

    /// What Redis let through is counted here as well: when it goes away, a minute that was used up stays so.
    fn count_locally(&self, call: ReservationId, at: i64, rates: &[Rate]) {
        let replicas = self.replicas.load(Ordering::Relaxed).max(FEWEST_REPLICAS);
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut local, call, at, rates, replicas, Instant::now());
    }

    /// How many more calls a rate takes now, and how long until it takes all again; `None` when Redis is not there, or for a user's
    /// window, of which [`RateLimiter::minute`] tells.
    pub async fn left(&self, rate: &Rate) -> Option<(i64, TimeDelta)> {
        let Rate::Paced { key, limit } = rate else { return None };
        let shared = self.shared.as_ref().filter(|shared| !shared.is_away())?;
        let mut connection = shared.connection.clone();
        let call = async {
            redis::pipe()
                .cmd("TIME")
                .cmd("GET")
                .arg(paced_key(key))
                .query_async::<((i64, i64), Option<f64>)>(&mut connection)
                .await
        };
        let ((seconds, micros), through) = shared.patiently(call).await?;
        let now = (seconds - BASE) * 1_000_000 + micros;
        Some(left_of(*limit, through.map_or(0, |through| through as i64 - now)))
    }

    /// Forgets what has been used of the minute.
    pub async fn forget(&self, rate: &Rate) {
        let key = {
            let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
            match rate {
                Rate::Window { user, .. } => {
                    local.forget(*user);
                    key(*user)
                }
                Rate::Paced { key, .. } => {
                    local.forget_pace(key);
                    paced_key(key)
                }
            }
        };
        let Some(shared) = self.shared.as_ref().filter(|shared| !shared.is_away()) else {
            return;
        };
        let mut connection = shared.connection.clone();
        let call = async move { redis::cmd("DEL").arg(key).query_async::<i64>(&mut connection).await };
        shared.patiently(call).await;
    }

    /// Messages of the user in the minute before `now`, for people to see; `None` when Redis is not there: nobody knows then what
    /// other replicas have counted.
    pub async fn minute(&self, user: UserId, now: DateTime<Utc>) -> Option<Minute> {
        let shared = self.shared.as_ref().filter(|shared| !shared.is_away())?;
        let mut connection = shared.connection.clone();
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
        let seen = shared.patiently(call).await?;
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
        let mut connection = shared.connection.clone();
        let call = async {
            let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
            Ok::<_, RedisError>(info)
        };
        let answer = tokio::time::timeout(Duration::from_secs(1), call).await;
        shared.note(matches!(answer, Ok(Ok(_))));
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

    /// For others who keep something in the same Redis, and need not wait where somebody waits for it in vain.
    pub(crate) fn shared(&self) -> Option<Shared> {
        self.shared.clone()
    }

    /// As of the last call.
    pub fn shared_is_up(&self) -> bool {
        self.shared.as_ref().is_some_and(Shared::is_up)
    }
}

/// The place among `rates` of the one that the script names: the window is its first.
fn place(rates: &[Rate], which: usize) -> usize {
    let is_window = |rate: &Rate| matches!(rate, Rate::Window { .. });
    let place = if which == 1 {
        rates.iter().position(is_window)
    } else {
        let paced = rates.iter().enumerate().filter(|(_, rate)| !is_window(rate));
        paced.map(|(place, _)| place).nth(which.saturating_sub(2))
    };
    place.unwrap_or(0)
}

fn key(user: UserId) -> String {
    format!("botdeck:rate:{user}")
}

fn paced_key(key: &str) -> String {
    format!("botdeck:rate:{key}")
}

fn moment(millis: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::milliseconds(millis)
}

#[cfg(test)]
mod tests {
    use domain::JobId;

    use super::*;

    fn noon() -> DateTime<Utc> {
        moment(1_780_000_000_000)
    }

    fn jobs() -> Vec<JobId> {
        (0..12).map(|_| JobId(uuid::Uuid::now_v7())).collect()
    }

    #[test]
    fn what_a_pace_has_left_is_reckoned_as_the_script_does() {
        let seconds = |n: i64| n * 1_000_000;
        assert_eq!(left_of(6, 0), (6, TimeDelta::zero()));
        assert_eq!(left_of(6, -5), (6, TimeDelta::zero()));
        // After one of six in a minute, ten seconds are taken.
        assert_eq!(left_of(6, seconds(10)), (5, TimeDelta::seconds(10)));
        assert_eq!(left_of(6, seconds(60)), (0, TimeDelta::seconds(60)));
        assert_eq!(left_of(6, seconds(51)).0, 1, "a second may be overdrawn");
        assert_eq!(left_of(6, seconds(52)).0, 0);
        assert_eq!(left_of(120, seconds(60) - 250_000).0, 1, "half a step may be overdrawn");
        assert_eq!(left_of(1, seconds(58)).0, 0, "one a minute is not two");
        assert_eq!(left_of(0, 0), (0, TimeDelta::seconds(60)));
        assert_eq!(left_of(i64::MAX, 0).0, i64::MAX);
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
    async fn without_redis_half_of_what_many_share_passes_all_or_nothing() {
        let limiter = RateLimiter::new(None).unwrap();
        let user = UserId(uuid::Uuid::now_v7());
        let rates = |key: &str, bot: i64, deck: i64| {
            [
                Rate::Window { user, limit: 100 },
                Rate::Paced {
                    key: key.to_owned(),
                    limit: bot,
                },
                Rate::Paced {
                    key: "deck".to_owned(),
                    limit: deck,
                },
            ]
        };
        let ask = async |rates: [Rate; 3]| {
            limiter
                .admit_all(JobId(uuid::Uuid::now_v7()).into(), noon(), &rates)
                .await
        };
        for _ in 0..3 {
            assert_eq!(ask(rates("bot", 6, 100)).await, Ok(()));
        }
        for _ in 0..60 {
            let (which, again) = ask(rates("bot", 6, 100)).await.unwrap_err();
            assert_eq!(which, 1);
            assert!(again > noon() && again <= noon() + TimeDelta::seconds(21), "{again}");
        }
        // What was refused by one has taken nothing of the others: 47 of 50 are left.
        for n in 0..47 {
            assert_eq!(ask(rates("other", 1000, 100)).await, Ok(()), "{n}");
        }
        assert!(ask(rates("other", 1000, 100)).await.is_err());
        assert!(ask(rates("third", 0, 1_000_000)).await.is_err());
    }

    #[tokio::test]
    async fn without_redis_replicas_share_a_limit_and_less_than_one_a_minute_is_spaced() {
        let limiter = RateLimiter::new(None).unwrap();
        let passed = async |limit: i64, spacing: TimeDelta| {
            let (user, mut passed) = (UserId(uuid::Uuid::now_v7()), 0);
            for job in jobs() {
                let at = noon() + spacing * passed;
                passed += i32::from(limiter.admit(user, job, at, limit).await == Verdict::Admitted);
            }
            passed
        };
        let at_once = TimeDelta::zero();
        assert_eq!(
            (passed(8, at_once).await, passed(1, at_once).await),
            (4, 1),
            "nobody was counted yet"
        );
        limiter.set_replicas(1);
        assert_eq!(passed(8, at_once).await, 4, "another one may have come");
        limiter.set_replicas(4);
        assert_eq!((passed(8, at_once).await, passed(9, at_once).await), (2, 2));
        assert_eq!(passed(0, at_once).await, 0);
        // A limit of two on four replicas is one each in two minutes; of one in an hour on sixty, one an hour.
        for (limit, replicas, seconds) in [(2, 4, 120), (3, 4, 80), (1, 60, 3600)] {
            limiter.set_replicas(replicas);
            assert_eq!(
                passed(limit, TimeDelta::seconds(seconds)).await,
                12,
                "{limit} on {replicas}"
            );
            assert_eq!(
                passed(limit, TimeDelta::seconds(seconds - 1)).await,
                1,
                "{limit} on {replicas}"
            );
        }
        let key = "bot".to_owned();
        let paced = [Rate::Paced { key, limit: 1 }];
        let ask = async || {
            limiter
                .admit_all(JobId(uuid::Uuid::now_v7()).into(), noon(), &paced)
                .await
        };
        limiter.set_replicas(4);
        assert_eq!(ask().await, Ok(()));
        let (_, again) = ask().await.unwrap_err();
        let wait = again - noon();
        assert!(
            wait > TimeDelta::seconds(230) && wait <= TimeDelta::seconds(241),
            "{wait}"
        );
    }

    /// The clock stands still but for what is waited for, so a slow machine changes nothing.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_silent_redis_for_more_than_a_tenth_of_a_second() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", silent.local_addr().unwrap());
        let user = UserId(uuid::Uuid::now_v7());
        let window = Rate::Window { user, limit: 10 };
        let pace = Rate::Paced {
            key: "bot".to_owned(),
            limit: 10,
        };
        let rates = [window.clone(), pace.clone()];
        let call = || JobId(uuid::Uuid::now_v7()).into();
        for first in 0..4 {
            let limiter = RateLimiter::new(Some(&url)).unwrap();
            let began = tokio::time::Instant::now();
            match first {
                0 => assert_eq!(limiter.admit_all(call(), noon(), &rates).await, Ok(())),
                1 => assert_eq!(limiter.left(&pace).await, None),
                2 => assert_eq!(limiter.minute(user, noon()).await, None),
                _ => limiter.forget(&window).await,
            }
            // Whoever comes next waits no more, nor does the same request for what else it asks.
            assert_eq!(limiter.admit_all(call(), noon(), &rates).await, Ok(()));
            assert_eq!(limiter.left(&pace).await, None);
            let waited = began.elapsed();
            // The clock of timers has whole milliseconds.
            let tenth = Duration::from_millis(100)..=Duration::from_millis(101);
            assert!(tenth.contains(&waited), "{first}: {waited:?}");
        }
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
