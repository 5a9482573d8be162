use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{ErrorCode, JobId, LimitKind, ReservationId, UserId};
use futures::future::join_all;
use services::{Begin, LimitOwner, Minute, Rate, RateLimiter, Verdict};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{App, redis_url};

fn user() -> UserId {
    UserId(Uuid::now_v7())
}

fn job() -> JobId {
    JobId(Uuid::now_v7())
}

fn noon() -> DateTime<Utc> {
    "2026-05-03T12:00:00Z".parse().unwrap()
}

fn at(seconds: i64) -> DateTime<Utc> {
    noon() + TimeDelta::seconds(seconds)
}

async fn used(limiter: &RateLimiter, user: UserId) -> Option<i64> {
    limiter.minute(user, noon()).await.map(|minute| minute.used)
}

fn limiter(url: &str) -> Arc<RateLimiter> {
    Arc::new(RateLimiter::new(Some(url)).unwrap())
}

async fn admitted(limiters: &[Arc<RateLimiter>], user: UserId, jobs: &[JobId], limit: i64) -> usize {
    let calls = jobs
        .iter()
        .zip(limiters.iter().cycle())
        .map(|(job, limiter)| limiter.admit(user, *job, noon(), limit));
    join_all(calls)
        .await
        .into_iter()
        .filter(|verdict| *verdict == Verdict::Admitted)
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_over_two_replicas_pass_exactly_as_many_as_the_limit() {
    let replicas = [limiter(&redis_url()), limiter(&redis_url())];
    // A first call connects; it must not be what decides.
    for replica in &replicas {
        replica.ping().await.unwrap();
    }
    let (user, jobs) = (user(), (0..50).map(|_| job()).collect::<Vec<_>>());
    assert_eq!(admitted(&replicas, user, &jobs, 20).await, 20);
    assert_eq!(admitted(&replicas, user, &[job()], 20).await, 0);
    assert_eq!(used(&replicas[0], user).await, Some(20));
    // Jobs that are run again pass free, those refused before still do not.
    assert_eq!(admitted(&replicas, user, &jobs, 20).await, 20);
    assert_eq!(used(&replicas[1], user).await, Some(20));
    assert_eq!(
        admitted(&replicas, self::user(), &[job()], 1).await,
        1,
        "another user has a window of their own"
    );
}

#[tokio::test]
async fn a_refusal_says_when_the_oldest_message_leaves_the_window() {
    let limiter = limiter(&redis_url());
    limiter.ping().await.unwrap();
    let user = user();
    let admit = |seconds| limiter.admit(user, job(), at(seconds), 2);
    assert_eq!(limiter.minute(user, noon()).await.unwrap().resets_at, None);
    assert_eq!(admit(0).await, Verdict::Admitted);
    assert_eq!(admit(10).await, Verdict::Admitted);
    assert_eq!(admit(20).await, Verdict::Refused(at(60)));
    assert_eq!(
        limiter.minute(user, at(20)).await,
        Some(Minute {
            used: 2,
            resets_at: Some(at(60))
        })
    );
    // Who waits exactly so long is not turned away, and the minute slides on.
    assert_eq!(admit(60).await, Verdict::Admitted);
    assert_eq!(admit(65).await, Verdict::Refused(at(70)));
    assert_eq!(
        limiter.minute(user, at(65)).await,
        Some(Minute {
            used: 2,
            resets_at: Some(at(70))
        })
    );
    assert_eq!(
        limiter.admit(self::user(), job(), noon(), 0).await,
        Verdict::Refused(at(60)),
        "0 lets nothing through"
    );
}

/// After an outage everything is worked off at once: what counts is when people wrote.
#[tokio::test]
async fn a_backlog_is_counted_by_the_minutes_in_which_it_was_written() {
    let limiter = limiter(&redis_url());
    limiter.ping().await.unwrap();
    let user = user();
    for seconds in (0..600).step_by(31) {
        let verdict = limiter.admit(user, job(), at(seconds), 2).await;
        assert_eq!(verdict, Verdict::Admitted, "written after {seconds} s");
    }
    // In whatever order the conversations of one person are worked off, no minute has more than it may.
    let user = self::user();
    let (mut passed, mut jobs) = (Vec::new(), (0..60).collect::<Vec<i64>>());
    jobs.reverse();
    for seconds in jobs.into_iter().map(|n| n * 7 % 181) {
        if limiter.admit(user, job(), at(seconds), 3).await == Verdict::Admitted {
            passed.push(seconds);
        }
    }
    passed.sort_unstable();
    assert!(passed.len() >= 6, "{passed:?}");
    for four in passed.windows(4) {
        assert!(four[3] - four[0] >= 60, "{four:?} of {passed:?}");
    }
}

/// However Redis is missing, no message waits for it, and no more than half of the limit passes.
async fn stricter_without(url: &str) {
    let limiter = limiter(url);
    let user = user();
    let mut passed = 0;
    for _ in 0..8 {
        let started = Instant::now();
        passed += usize::from(limiter.admit(user, job(), noon(), 10).await == Verdict::Admitted);
        assert!(
            started.elapsed() < Duration::from_millis(400),
            "a message waited {:?}",
            started.elapsed()
        );
    }
    assert_eq!(passed, 5);
    assert!(!limiter.shared_is_up());
    assert!(limiter.ping().await.is_err());
    assert_eq!(
        limiter.minute(user, noon()).await,
        None,
        "nobody knows, which is not none"
    );
    let crowd: Vec<JobId> = (0..50).map(|_| job()).collect();
    let started = Instant::now();
    assert_eq!(admitted(&[limiter], self::user(), &crowd, 10).await, 5);
    assert!(
        started.elapsed() < Duration::from_millis(800),
        "fifty at once waited {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_redis_that_is_not_there_makes_the_limit_stricter_and_nobody_wait() {
    // A port that was just given back: nothing listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    stricter_without(&format!("redis://127.0.0.1:{port}")).await;
}

#[tokio::test]
async fn a_redis_that_hangs_makes_the_limit_stricter_and_nobody_wait() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    stricter_without(&format!("redis://{}", silent.local_addr().unwrap())).await;
}

/// So many of a dozen at once pass where all of them are within the limit.
pub(crate) async fn share_of_a_dozen(limiter: &RateLimiter) -> usize {
    let (user, mut passed) = (user(), 0);
    for _ in 0..12 {
        passed += usize::from(limiter.admit(user, job(), noon(), 12).await == Verdict::Admitted);
    }
    passed
}

#[tokio::test]
async fn without_redis_a_limit_is_shared_by_the_replicas_that_live() {
    let app = App::new().await;
    app.test
        .run("INSERT INTO api_replicas SELECT gen_random_uuid(), now() - interval '40 seconds' FROM generate_series(1, 5)")
        .await;
    // Those that ask no models take nothing.
    app.test
        .run("INSERT INTO api_replicas SELECT gen_random_uuid(), now() + interval '1 hour', false FROM generate_series(1, 5)")
        .await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let stop = CancellationToken::new();
    let of_living = "api_replicas WHERE asks AND alive_at > now() - interval '30 seconds'";
    for (others, shares) in [6, 6, 4, 3].into_iter().enumerate() {
        let replica = app.on_redis(&url);
        assert_eq!(share_of_a_dozen(replica.rate()).await, 6, "it has not looked yet");
        let (writing, stopped) = (replica.clone(), stop.clone());
        tokio::spawn(async move { writing.calls().write(true, stopped.cancelled_owned()).await });
        // It says that it lives, and hears how many do.
        let heard = async {
            while share_of_a_dozen(replica.rate()).await != shares
                || app.test.count(of_living).await <= i64::try_from(others).unwrap()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(20), heard).await;
        assert!(heard.is_ok(), "not {shares} of a dozen");
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_of_a_minute_are_bounded_from_the_first_question_on() {
    let app = App::new().await;
    app.rate().ping().await.unwrap();
    app.limit(LimitKind::MessagesPerMinute, 10).await;
    let jobs = app.jobs(7, 50, "hello").await;
    let begun = join_all(jobs.iter().map(|(job, incoming)| app.begin(job, incoming))).await;
    let asked = begun.iter().filter(|(_, begin)| matches!(begin, Begin::Ask(_))).count();
    assert_eq!(asked, 10);
    let Some(Begin::Refused(refusal)) = begun
        .iter()
        .map(|(_, begin)| begin)
        .find(|begin| matches!(begin, Begin::Refused(_)))
    else {
        panic!("nobody was refused")
    };
    let reached = refusal.limit.unwrap();
    let resets_at = reached.resets_at.unwrap();
    assert_eq!(
        (refusal.code, reached.kind, reached.amount),
        (ErrorCode::LimitMinute, LimitKind::MessagesPerMinute, 10)
    );
    // Redis keeps milliseconds.
    let exact = app.now() + TimeDelta::minutes(1);
    assert_eq!(resets_at.timestamp_millis(), exact.timestamp_millis());
    let bars = app.chats().usage(&begun[0].0).await.unwrap();
    assert_eq!(
        bars.iter()
            .find(|bar| bar.kind == LimitKind::MessagesPerMinute)
            .unwrap()
            .used,
        Some(10)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_many_share_is_paced_over_two_replicas_and_a_repeated_call_is_free() {
    let replicas = [limiter(&redis_url()), limiter(&redis_url())];
    for replica in &replicas {
        replica.ping().await.unwrap();
    }
    let rates = [
        Rate::Paced {
            key: format!("bot:{}", Uuid::now_v7()),
            limit: 7,
        },
        Rate::Paced {
            key: format!("deployment:{}", Uuid::now_v7()),
            limit: 1000,
        },
    ];
    let calls: Vec<ReservationId> = (0..50).map(|_| job().into()).collect();
    let ask = async |calls: &[ReservationId]| {
        let asked = calls.iter().zip(replicas.iter().cycle());
        join_all(asked.map(|(call, replica)| replica.admit_all(*call, noon(), &rates))).await
    };
    let first = ask(&calls).await;
    let passed: Vec<ReservationId> = calls
        .iter()
        .zip(&first)
        .filter(|(_, one)| one.is_ok())
        .map(|(call, _)| *call)
        .collect();
    assert_eq!(passed.len(), 7);
    for refused in first.iter().filter_map(|one| one.err()) {
        assert_eq!(refused.0, 0, "the wider one refused");
    }
    assert!(ask(&passed).await.iter().all(Result::is_ok));
    assert!(ask(&[job().into()]).await[0].is_err());
    // Room comes back at an even pace, not all at the end of the minute.
    let (_, again) = ask(&[job().into()]).await[0].unwrap_err();
    let wait = (again - DateTime::<Utc>::from(std::time::SystemTime::now())).num_milliseconds();
    assert!((0..=60_000 / 7 + 1).contains(&wait), "{wait} ms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_minutes_of_user_and_bot_are_taken_together_or_not_at_all() {
    let app = App::new().await;
    app.rate().ping().await.unwrap();
    app.limit(LimitKind::MessagesPerMinute, 5).await;
    app.limit_of(LimitOwner::Bot(app.bot), LimitKind::MessagesPerMinute, 8)
        .await;
    let begin = async |user: i64| {
        let jobs = app.jobs(user, 20, "hello").await;
        let begun = join_all(jobs.iter().map(|(job, incoming)| app.begin(job, incoming))).await;
        for (job, _) in &jobs {
            app.queue().end(job, services::Ended::Done).await.unwrap();
        }
        let asked = begun.iter().filter(|(_, begin)| matches!(begin, Begin::Ask(_))).count();
        let codes = begun.into_iter().filter_map(|(_, begin)| match begin {
            Begin::Refused(refusal) => Some(refusal.code),
            _ => None,
        });
        (asked, codes.collect::<std::collections::HashSet<_>>())
    };
    assert_eq!(begin(7).await, (5, [ErrorCode::LimitMinute].into()));
    // The fifteen that were refused have taken nothing of the bot's eight; nor do the next of the user's own five.
    assert_eq!(begin(8).await, (3, [ErrorCode::LimitBot].into()));
    assert_eq!(app.counter("messages").await, (0, 8));
}

/// A Redis that can be frozen.
pub(crate) struct OwnRedis {
    process: std::process::Child,
    dir: std::path::PathBuf,
}

impl OwnRedis {
    pub(crate) fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("botdeck-test-{}", Uuid::now_v7().simple()));
        std::fs::create_dir(&dir).unwrap();
        let process = std::process::Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"])
            .arg(&dir)
            .arg("--unixsocket")
            .arg(dir.join("redis.sock"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        Self { process, dir }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.dir.join("redis.sock").display())
    }

    pub(crate) fn signal(&self, signal: &str) {
        let kill = ["-s", signal, &self.process.id().to_string()];
        assert!(
            std::process::Command::new("kill")
                .args(kill)
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        // A frozen process can be killed, too.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_redis_is_frozen_nobody_waits_twice_and_soon_after_it_counts_for_all_again() {
    let redis = OwnRedis::start();
    let limiter = limiter(&redis.url());
    let began = Instant::now();
    while limiter.ping().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "Redis does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rates = [Rate::Paced {
        key: "deployment:".to_owned(),
        limit: 20,
    }];
    let timed = async || {
        let began = Instant::now();
        let passed = limiter.admit_all(job().into(), noon(), &rates).await.is_ok();
        (passed, began.elapsed())
    };
    for _ in 0..9 {
        assert!(timed().await.0 && limiter.shared_is_up());
    }

    redis.signal("STOP");
    let first = join_all((0..40).map(|_| timed())).await;
    let longest = first.iter().map(|(_, took)| *took).max().unwrap();
    assert!(longest < Duration::from_millis(250), "waited {longest:?}");
    let later = join_all((0..40).map(|_| timed())).await;
    let longest = later.iter().map(|(_, took)| *took).max().unwrap();
    assert!(
        longest < Duration::from_millis(50),
        "waited {longest:?} for what is known to be away"
    );
    let passed = first.iter().chain(&later).filter(|(passed, _)| *passed).count();
    assert_eq!(passed, 1, "half of the limit passes, before and after");
    assert!(!limiter.shared_is_up());

    redis.signal("CONT");
    let back = Instant::now();
    while !limiter.shared_is_up() {
        assert!(back.elapsed() < Duration::from_secs(2), "Redis is back, and not asked");
        timed().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
