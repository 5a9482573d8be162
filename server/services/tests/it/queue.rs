use std::time::Duration;

use services::{Claimed, Ended, MOST_CRASHES, PANIC};

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
    app.queue()
        .claim("worker", 9, services::Which::All, &[])
        .await
        .unwrap()
        .remove(0)
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
        assert_eq!((job.attempt, job.crashes), (attempt, 0));
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
async fn a_worker_that_goes_away_loses_its_jobs_to_others_and_a_job_that_takes_too_many_down_is_given_up() {
    let app = App::new().await;
    let (first, incoming) = app.job(7, 7, "hello").await;
    app.ask(&first, &incoming).await;
    assert_eq!(app.queue().recover().await.unwrap(), 0, "it lives");
    let mut tokens = vec![first.token];
    // The one beyond the last is to tell the user.
    for crashes in 1..=MOST_CRASHES {
        app.test
            .run("UPDATE jobs SET lease_until = now() - interval '1 ms'")
            .await;
        assert_eq!(app.queue().recover().await.unwrap(), 1);
        // At once a few times; the job itself is suspected after that.
        let wait = wait_of(&app, &first).await;
        let whole = match crashes {
            ..=5 => 0.0,
            6..=9 => f64::from(1 << (crashes - 6)),
            _ => 15.0,
        };
        assert!((whole * 0.75 - 0.5..=whole).contains(&wait), "{wait} s after {crashes}");
        let job = due(&app).await;
        assert_eq!((job.id, job.attempt, job.crashes), (first.id, crashes + 1, crashes));
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
async fn a_job_that_panics_is_tried_five_times_with_growing_pauses() {
    let app = App::new().await;
    let (mut job, incoming) = app.job(7, 7, "hello").await;
    app.ask(&job, &incoming).await;
    let panic = || Ended::Crashed {
        error: "panic".to_owned(),
    };
    for panics in 1..MOST_CRASHES / PANIC {
        assert!(app.queue().end(&job, panic()).await.unwrap());
        let wait = wait_of(&app, &job).await;
        let whole = f64::from(1 << (panics - 1));
        assert!((whole * 0.75 - 0.5..=whole).contains(&wait), "{wait} s after {panics}");
        job = due(&app).await;
        assert_eq!(job.crashes, panics * PANIC);
    }
    assert!(app.queue().end(&job, panic()).await.unwrap());
    assert_eq!(app.queue().state().await.unwrap().dead, 1);
    assert_eq!(app.counter("messages").await, (0, 0));
    // Whoever puts it back means it to have all its chances again.
    let owner = app.owner().await;
    let retry = domain::views::jobs::JobAction::Retry;
    app.jobs_board().act(&owner, &[job.id], retry).await.unwrap();
    assert_eq!(due(&app).await.crashes, 0);
}

#[tokio::test]
async fn a_job_that_somebody_hangs_with_does_not_keep_the_lost_ones_of_others() {
    let app = App::new().await;
    let (held, _) = app.job(7, 7, "hello").await;
    let (lost, _) = app.job(8, 8, "hello").await;
    let mut frozen = app.test.begin().await.unwrap();
    assert!(
        repositories::jobs::hold(&mut frozen, held.id, held.token)
            .await
            .unwrap()
    );
    // Seen as lost before it was locked: the others do not wait for that either.
    app.test
        .run("UPDATE jobs SET lease_until = now() - interval '1 ms' WHERE lane LIKE '%/8/0'")
        .await;
    let begun = std::time::Instant::now();
    assert_eq!(app.queue().recover().await.unwrap(), 1);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(due(&app).await.id, lost.id);
}

#[tokio::test]
async fn what_an_earlier_attempt_set_aside_goes_back_when_the_job_has_no_use_for_it() {
    let app = App::new().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    app.ask(&job, &incoming).await;
    assert!(app.queue().end(&job, retry(None)).await.unwrap());
    assert_eq!(app.counter("messages").await, (0, 1));
    // Blocked meanwhile, say.
    let again = due(&app).await;
    assert!(app.queue().end(&again, Ended::Done).await.unwrap());
    assert_eq!(app.counter("messages").await, (0, 0));
}

#[tokio::test]
async fn what_is_given_back_counts_no_attempt() {
    let app = App::new().await;
    let (mut job, _) = app.job(7, 7, "hello").await;
    for _ in 0..2 * job.max_attempts {
        assert_eq!(job.attempt, 1);
        assert!(app.queue().end(&job, Ended::Returned).await.unwrap());
        job = app
            .queue()
            .claim("worker", 9, services::Which::All, &[])
            .await
            .unwrap()
            .remove(0);
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
    assert!(queue.end(&job.0, Ended::Done).await.unwrap());
    let in_vain = tokio::time::timeout(Duration::from_millis(50), queue.work_arrived()).await;
    assert!(in_vain.is_err(), "woken by the end of a job that nothing waited for");
    let (job, _) = app.job(7, 7, "hello").await;
    let next = app.update(7, 7, "and this");
    app.intake().accept(app.bot, vec![next]).await.unwrap();
    queue.work_arrived().await;
    let woken = async { tokio::time::timeout(soon, queue.work_arrived()).await };
    let (woken, ended) = tokio::join!(woken, queue.end(&job, Ended::Done));
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
