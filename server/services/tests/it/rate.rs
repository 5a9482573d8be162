use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{ErrorCode, JobId, LimitKind, UserId};
use futures::future::join_all;
use services::{Begin, RateLimiter, Verdict};
use uuid::Uuid;

use crate::app::{App, redis_url};

fn user() -> UserId {
    UserId(Uuid::now_v7())
}

fn job() -> JobId {
    JobId(Uuid::now_v7())
}

fn limiter(url: &str) -> Arc<RateLimiter> {
    Arc::new(RateLimiter::new(Some(url)).unwrap())
}

async fn admitted(limiters: &[Arc<RateLimiter>], user: UserId, jobs: &[JobId], limit: i64) -> usize {
    let calls = jobs
        .iter()
        .zip(limiters.iter().cycle())
        .map(|(job, limiter)| limiter.admit(user, *job, limit));
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
    assert_eq!(replicas[0].used(user).await, 20);
    // Jobs that are run again pass free, those refused before still do not.
    assert_eq!(admitted(&replicas, user, &jobs, 20).await, 20);
    assert_eq!(replicas[1].used(user).await, 20);
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
    assert_eq!(limiter.admit(user, job(), 1).await, Verdict::Admitted);
    let Verdict::Refused(wait) = limiter.admit(user, job(), 1).await else {
        panic!("it was admitted")
    };
    assert!(
        (Duration::from_secs(50)..=Duration::from_secs(60)).contains(&wait),
        "{wait:?}"
    );
    assert!(
        matches!(limiter.admit(self::user(), job(), 0).await, Verdict::Refused(_)),
        "0 lets nothing through"
    );
}

/// However Redis is missing, no message waits for it, and no more than half of the limit passes.
async fn stricter_without(url: &str) {
    let limiter = limiter(url);
    let user = user();
    let mut passed = 0;
    for _ in 0..8 {
        let started = Instant::now();
        passed += usize::from(limiter.admit(user, job(), 10).await == Verdict::Admitted);
        assert!(
            started.elapsed() < Duration::from_millis(400),
            "a message waited {:?}",
            started.elapsed()
        );
    }
    assert_eq!(passed, 5);
    assert!(!limiter.shared_is_up());
    assert!(limiter.ping().await.is_err());
    assert_eq!(limiter.used(user).await, 0);
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
    let (kind, amount, resets_at) = refusal.limit.unwrap();
    assert_eq!(
        (refusal.code, kind, amount),
        (ErrorCode::LimitMinute, LimitKind::MessagesPerMinute, 10)
    );
    assert!(resets_at > app.now() && resets_at <= app.now() + chrono::TimeDelta::minutes(1));
    let bars = app.chats().usage(&begun[0].0).await.unwrap();
    assert_eq!(
        bars.iter()
            .find(|bar| bar.kind == LimitKind::MessagesPerMinute)
            .unwrap()
            .used,
        10
    );
}
