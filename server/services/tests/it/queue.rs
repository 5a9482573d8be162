use std::time::Duration;

use services::{Claimed, Ended};

use crate::app::App;

/// Seconds until the job may run again, by the database's clock.
async fn wait_of(app: &App, job: &Claimed) -> f64 {
    app.test
        .one(&format!(
            "SELECT extract(epoch FROM run_at - now())::float8 FROM jobs WHERE id = '{}'",
            job.id
        ))
        .await
}

async fn due(app: &App) -> Claimed {
    app.test
        .run("UPDATE jobs SET run_at = now() WHERE state = 'ready'")
        .await;
    app.queue().claim("worker", 9, &[]).await.unwrap().remove(0)
}

fn retry(after: Option<Duration>) -> Ended {
    Ended::Retry {
        after,
        error: "busy".to_owned(),
    }
}

#[tokio::test]
async fn retries_wait_longer_each_time_and_end_as_a_dead_letter_that_frees_its_lane() {
    let app = App::new().await;
    let (mut job, _) = app.job(7, 7, "first").await;
    app.intake()
        .accept(app.bot, vec![app.update(7, 7, "second")])
        .await
        .unwrap();
    for attempt in 1..job.max_attempts {
        assert_eq!(job.attempt, attempt);
        assert!(app.queue().end(&job, retry(None)).await.unwrap());
        let whole = f64::from(1 << (attempt - 1)).min(300.0);
        let wait = wait_of(&app, &job).await;
        assert!(
            (whole * 0.75 - 0.5..=whole).contains(&wait),
            "{wait} s after attempt {attempt}"
        );
        let state = app.queue().state().await.unwrap();
        assert_eq!((state.waiting, state.dead), (2, 0));
        job = due(&app).await;
    }
    assert_eq!(job.attempt, job.max_attempts);
    assert!(app.queue().end(&job, retry(None)).await.unwrap());
    assert_eq!(app.queue().state().await.unwrap().dead, 1);
    assert_eq!(app.test.count("errors WHERE cause = 'busy'").await, 1);
    let next = due(&app).await;
    assert_eq!(
        (next.update["message"]["text"].as_str(), next.attempt),
        (Some("second"), 1)
    );
}

#[tokio::test]
async fn a_pause_that_was_asked_for_is_kept() {
    let app = App::new().await;
    let (job, _) = app.job(7, 7, "hello").await;
    assert!(
        app.queue()
            .end(&job, retry(Some(Duration::from_secs(77))))
            .await
            .unwrap()
    );
    let wait = wait_of(&app, &job).await;
    // Not less, and up to a quarter more: what was refused together does not come back together.
    assert!((76.0..=77.0 * 1.25).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_worker_that_goes_away_loses_its_jobs_to_others_and_dies_out_after_the_last_attempt() {
    let app = App::new().await;
    let (first, incoming) = app.job(7, 7, "hello").await;
    app.ask(&first, &incoming).await;
    assert_eq!(app.queue().recover().await.unwrap(), 0, "it lives");
    let mut tokens = vec![first.token];
    // The one beyond the last is to tell the user.
    for attempt in 2..=first.max_attempts + 1 {
        app.test
            .run("UPDATE jobs SET lease_until = now() - interval '1 ms'")
            .await;
        assert_eq!(app.queue().recover().await.unwrap(), 1);
        let job = app.queue().claim("another", 9, &[]).await.unwrap().remove(0);
        assert_eq!((job.id, job.attempt), (first.id, attempt));
        assert!(!app.queue().end(&first, Ended::Done).await.unwrap());
        assert!(app.queue().heartbeat(&tokens).await.unwrap().is_empty());
        tokens.push(job.token);
    }
    assert_eq!(app.counter("messages").await, (0, 1), "set aside once for all attempts");
    app.test
        .run("UPDATE jobs SET lease_until = now() - interval '1 ms'")
        .await;
    // Two replicas look at the same moment.
    let (one, two) = (app.queue(), app.replica(&app.secret).queue());
    let (one, two) = tokio::join!(one.recover(), two.recover());
    assert_eq!(one.unwrap() + two.unwrap(), 1);
    assert_eq!(app.queue().state().await.unwrap().dead, 1);
    assert_eq!(app.counter("messages").await, (0, 0));
}

#[tokio::test]
async fn what_is_given_back_counts_no_attempt() {
    let app = App::new().await;
    let (mut job, _) = app.job(7, 7, "hello").await;
    for _ in 0..2 * job.max_attempts {
        assert_eq!(job.attempt, 1);
        assert!(app.queue().end(&job, Ended::Returned).await.unwrap());
        job = app.queue().claim("worker", 9, &[]).await.unwrap().remove(0);
    }
}

#[tokio::test]
async fn who_waits_for_work_is_woken_when_it_is_accepted_or_the_next_of_a_lane_is_free() {
    let app = App::new().await;
    let soon = Duration::from_secs(10);
    let queue = app.queue();
    let woken = async { tokio::time::timeout(soon, queue.work_arrived()).await };
    let (woken, job) = tokio::join!(woken, app.job(7, 7, "hello"));
    woken.expect("nobody was woken by new work");
    let woken = async { tokio::time::timeout(soon, queue.work_arrived()).await };
    let (woken, ended) = tokio::join!(woken, queue.end(&job.0, Ended::Done));
    assert!(ended.unwrap());
    woken.expect("nobody was woken by the end of a job");
}

#[tokio::test]
async fn housekeeping_forgets_finished_work_and_old_sessions() {
    let app = App::new().await;
    let (job, _) = app.job(7, 7, "hello").await;
    assert!(app.queue().end(&job, Ended::Done).await.unwrap());
    app.test
        .run("INSERT INTO sessions VALUES ('old', '{}', now() - interval '1 s'), ('new', '{}', now() + interval '1 h')")
        .await;
    app.queue().tidy().await.unwrap();
    assert_eq!((app.test.count("jobs").await, app.test.count("sessions").await), (1, 1));
    app.test
        .run("UPDATE jobs SET finished_at = now() - interval '50 hours'")
        .await;
    app.queue().tidy().await.unwrap();
    assert_eq!(app.test.count("jobs").await, 0);
}
