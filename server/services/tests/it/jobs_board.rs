use domain::{
    JobId, LimitKind, Permission, Role,
    views::jobs::{JobAction, JobList, JobQuery, JobRow},
};
use serde_json::json;
use services::{Actor, Claimed, Ended, Error, Incoming};

use crate::app::{App, complete, rich};

async fn read(app: &App, actor: &Actor, list: JobList) -> Vec<JobRow> {
    let query = JobQuery {
        list,
        bot: None,
        words: "".parse().unwrap(),
        after: None,
    };
    app.jobs_board().list(actor, query).await.unwrap().rows
}

/// The next job of whatever is ready, which then dies of `error`.
async fn die(app: &App, job: &Claimed, error: &str) {
    let ended = Ended::Dead {
        error: error.to_owned(),
    };
    assert!(app.queue().end(job, ended).await.unwrap());
}

async fn dead(app: &App, user: i64, text: &str, error: &str) -> (Claimed, Incoming) {
    let (job, incoming) = app.job(user, user, text).await;
    die(app, &job, error).await;
    (job, incoming)
}

async fn retry(app: &App, actor: &Actor, ids: &[JobId]) -> (i64, i64) {
    let done = app.jobs_board().act(actor, ids, JobAction::Retry).await.unwrap();
    (done.changed, done.left)
}

async fn discard(app: &App, actor: &Actor, ids: &[JobId]) -> (i64, i64) {
    let done = app.jobs_board().act(actor, ids, JobAction::Discard).await.unwrap();
    (done.changed, done.left)
}

async fn claim(app: &App) -> Vec<Claimed> {
    app.queue().claim("worker", 9, services::Which::All, &[]).await.unwrap()
}

fn text(job: &Claimed) -> &str {
    job.update["message"]["text"].as_str().unwrap()
}

#[tokio::test]
async fn a_retried_job_goes_behind_what_its_lane_holds_and_counts_as_tried() {
    let app = App::new().await;
    let owner = app.owner().await;
    let (first, _) = dead(&app, 7, "first", "it broke").await;
    let updates = ["second", "third"].map(|text| app.update(7, 7, text));
    app.intake().accept(app.bot, updates.to_vec()).await.unwrap();

    assert_eq!(retry(&app, &owner, &[first.id]).await, (1, 0));
    let mut order = Vec::new();
    loop {
        let mut ready = claim(&app).await;
        let Some(job) = ready.pop() else { break };
        assert!(ready.is_empty(), "two of one lane at once");
        order.push((text(&job).to_owned(), job.attempt));
        assert!(app.queue().end(&job, Ended::Done).await.unwrap());
    }
    // Its attempt is the second: whoever delivers looks for what the first may have sent.
    let expected = [("second", 1), ("third", 1), ("first", 2)].map(|(text, attempt)| (text.to_owned(), attempt));
    assert_eq!(order, expected);
    assert_eq!(app.jobs_board().board(&owner).await.unwrap().dead, 0);
}

#[tokio::test]
async fn in_a_free_lane_a_retried_job_runs_at_once_and_many_of_one_lane_run_one_after_another() {
    let app = App::new().await;
    let owner = app.owner().await;
    let mut ids = Vec::new();
    for word in ["a", "b", "c"] {
        ids.push(dead(&app, 7, word, "it broke").await.0.id);
    }
    let (button, _) = dead(&app, 8, "/stop", "it broke").await;
    assert!(button.overtakes);
    ids.push(button.id);
    // In whatever order they were ticked, and one of them twice.
    ids.reverse();
    ids.push(button.id);
    assert_eq!(retry(&app, &owner, &ids).await, (4, 0));
    let states = app
        .test
        .column::<String>("SELECT state FROM jobs WHERE priority > 1 ORDER BY seq")
        .await;
    assert_eq!(states, ["ready", "waiting", "waiting"]);
    let mut order = Vec::new();
    loop {
        let ready = claim(&app).await;
        if ready.is_empty() {
            break;
        }
        assert!(ready.iter().filter(|job| !job.overtakes).count() <= 1);
        for job in ready {
            order.push(text(&job).to_owned());
            assert!(app.queue().end(&job, Ended::Done).await.unwrap());
        }
    }
    assert_eq!(order, ["/stop", "a", "b", "c"]);
}

#[tokio::test]
async fn a_dead_job_gave_its_budget_back_and_sets_it_aside_anew_when_it_is_retried() {
    let app = App::new().await;
    app.limit(LimitKind::MessagesPerDay, 1).await;
    let owner = app.owner().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    app.ask(&job, &incoming).await;
    assert_eq!(app.counter("messages").await, (0, 1));
    die(&app, &job, "it broke").await;
    assert_eq!(app.counter("messages").await, (0, 0));

    assert_eq!(retry(&app, &owner, &[job.id]).await, (1, 0));
    let again = claim(&app).await.remove(0);
    assert_eq!((again.id, again.attempt), (job.id, 2));
    let (known, question) = app.ask(&again, &incoming).await;
    assert_eq!(app.counter("messages").await, (0, 1));
    let answer = complete("hi", 10, 10);
    let settled = app
        .chats()
        .settle(&again, &incoming, &known, &question, &answer, &[rich("hi")])
        .await;
    assert!(settled.unwrap());
    assert!(app.queue().end(&again, Ended::Delivered(vec![5])).await.unwrap());
    assert_eq!(app.counter("messages").await, (1, 0));
    assert_eq!(
        (app.test.count("usage").await, app.test.count("reservations").await),
        (1, 0)
    );
}

#[tokio::test]
async fn an_answer_that_was_billed_before_its_job_died_is_only_delivered_by_the_retry() {
    let app = App::new().await;
    let owner = app.owner().await;
    let (job, incoming) = app.job(7, 7, "hello").await;
    let (known, question) = app.ask(&job, &incoming).await;
    let answer = complete("hi", 10, 10);
    let settled = app
        .chats()
        .settle(&job, &incoming, &known, &question, &answer, &[rich("hi")])
        .await;
    assert!(settled.unwrap());
    let spent = app.counter("tokens").await;
    die(&app, &job, "chat not found").await;
    retry(&app, &owner, &[job.id]).await;
    let again = claim(&app).await.remove(0);
    assert!(again.attempt > 1);
    // What the runtime looks at before it asks a model: the answer is there, and was not known to have arrived.
    let parts = app.chats().parts(again.id).await.unwrap();
    assert_eq!(parts.len(), 1);
    assert!(parts[0].body.is_some() && parts[0].message_id.is_none());
    assert_eq!((app.counter("tokens").await, app.test.count("usage").await), (spent, 1));
}

#[tokio::test]
async fn a_discarded_job_runs_no_more_is_kept_for_a_month_and_can_be_put_back() {
    let app = App::new().await;
    let owner = app.owner().await;
    let (first, _) = dead(&app, 7, "first", "it broke").await;
    let (second, _) = dead(&app, 7, "second", "it broke").await;
    assert_eq!(discard(&app, &owner, &[first.id, second.id]).await, (2, 0));
    assert!(claim(&app).await.is_empty());
    assert_eq!(discard(&app, &owner, &[first.id]).await, (0, 1), "it is done already");
    let board = app.jobs_board().board(&owner).await.unwrap();
    assert_eq!((board.dead, board.discarded), (0, 2));
    let row = read(&app, &owner, JobList::Discarded).await.remove(0);
    assert!(row.ended.is_some() && row.discarded.is_some());

    assert_eq!(retry(&app, &owner, &[second.id]).await, (1, 0));
    assert_eq!(claim(&app).await[0].id, second.id);

    let keep =
        |days: i32| format!("UPDATE jobs SET discarded_at = now() - interval '{days} days' WHERE state = 'discarded'");
    app.test.run(&keep(29)).await;
    app.queue().tidy().await.unwrap();
    assert_eq!(app.test.count("jobs WHERE state = 'discarded'").await, 1);
    app.test.run(&keep(31)).await;
    app.queue().tidy().await.unwrap();
    assert_eq!(app.test.count("jobs WHERE state = 'discarded'").await, 0);
}

#[tokio::test]
async fn each_retried_or_discarded_job_has_its_row_in_the_trail() {
    let app = App::new().await;
    let owner = app.owner().await;
    let (first, _) = dead(&app, 7, "first", "it broke").await;
    let (second, _) = dead(&app, 8, "second", "it broke").await;
    retry(&app, &owner, &[first.id]).await;
    discard(&app, &owner, &[second.id]).await;
    let rows: Vec<serde_json::Value> = app
        .test
        .column(
            "SELECT jsonb_build_array(action, target_id, target_name, before, after) FROM audit WHERE action LIKE 'job.%' ORDER BY id",
        )
        .await;
    let before = json!({ "state": "dead", "attempts": 1, "error": "it broke" });
    let row = |action: &str, job: &Claimed, state: &str| json!([action, job.id, "message · Bot", before, { "state": state, "attempts": 1, "error": "it broke" }]);
    assert_eq!(
        rows,
        [
            row("job.retry", &first, "ready"),
            row("job.discard", &second, "discarded")
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn staff_who_retry_the_same_jobs_at_once_change_each_of_them_once() {
    let app = App::new().await;
    let owner = app.owner().await;
    let mut ids = Vec::new();
    for user in 0..20 {
        ids.push(dead(&app, user / 2, "hello", "it broke").await.0.id);
    }
    let backwards: Vec<JobId> = ids.iter().rev().copied().collect();
    let all = futures::future::join_all((0..4).map(|n| {
        let (jobs, owner) = (app.jobs_board(), owner.clone());
        let ids = if n % 2 == 0 { &ids } else { &backwards };
        async move { jobs.act(&owner, ids, JobAction::Retry).await.unwrap().changed }
    }))
    .await;
    assert_eq!(all.iter().sum::<i64>(), 20, "{all:?}");
    assert_eq!(app.test.count("audit WHERE action = 'job.retry'").await, 20);
    let busy = app
        .test
        .count("(SELECT lane FROM jobs WHERE state IN ('ready', 'running') GROUP BY lane HAVING count(*) > 1) AS twice")
        .await;
    assert_eq!(busy, 0, "two of a lane may run");
    assert_eq!(app.test.count("jobs WHERE state = 'ready'").await, 10);
}

#[tokio::test]
async fn a_job_that_waits_for_its_next_attempt_gets_it_at_once() {
    let app = App::new().await;
    let owner = app.owner().await;
    let (job, _) = app.job(7, 7, "hello").await;
    let later = Ended::Retry {
        after: Some(std::time::Duration::from_secs(300)),
        error: "busy".to_owned(),
    };
    assert!(app.queue().end(&job, later).await.unwrap());
    assert!(claim(&app).await.is_empty());
    let row = read(&app, &owner, JobList::Retrying).await.remove(0);
    assert_eq!((row.id, row.error.as_deref(), row.attempts), (job.id, Some("busy"), 1));
    assert_eq!(retry(&app, &owner, &[job.id]).await, (1, 0));
    let again = claim(&app).await.remove(0);
    assert_eq!(again.attempt, 2, "its attempts go on");
    // What runs is nobody's to retry.
    assert_eq!(retry(&app, &owner, &[job.id]).await, (0, 1));
}

#[tokio::test]
async fn lists_go_on_by_key_and_are_narrowed_by_bot_and_words() {
    let app = App::new().await;
    let owner = app.owner().await;
    for n in 0..60 {
        let error = if n % 2 == 0 { "Chat not found" } else { "100% timeout" };
        dead(&app, 7, "hello", error).await;
    }
    let query = |words: &str, after: Option<String>| JobQuery {
        list: JobList::Dead,
        bot: Some(app.bot),
        words: words.parse().unwrap(),
        after,
    };
    let first = app.jobs_board().list(&owner, query("", None)).await.unwrap();
    let second = app
        .jobs_board()
        .list(&owner, query("", first.next.clone()))
        .await
        .unwrap();
    assert_eq!((first.rows.len(), second.rows.len(), second.next), (50, 10, None));
    let times: Vec<_> = first.rows.iter().chain(&second.rows).map(|job| job.ended).collect();
    assert!(times.windows(2).all(|pair| pair[0] >= pair[1]), "newest first");
    let ids: std::collections::BTreeSet<_> = first.rows.iter().chain(&second.rows).map(|job| job.id).collect();
    assert_eq!(ids.len(), 60);
    for (words, found) in [("chat NOT", 30), ("100%", 30), ("1_0", 0)] {
        let rows = app.jobs_board().list(&owner, query(words, None)).await.unwrap().rows;
        assert_eq!(rows.len(), found, "{words}");
    }
    let elsewhere = JobQuery {
        bot: Some(crate::app::PLAYGROUND),
        ..query("", None)
    };
    assert!(app.jobs_board().list(&owner, elsewhere).await.unwrap().rows.is_empty());
    let bad = app.jobs_board().list(&owner, query("", Some("x".to_owned()))).await;
    assert!(matches!(bad, Err(Error::Invalid(_))), "{bad:?}");
}

#[tokio::test]
async fn the_board_tells_waiting_ready_running_and_finished_apart() {
    let app = App::new().await;
    let owner = app.owner().await;
    app.talk(1, "one", "two").await;
    let (running, _) = app.job(7, 7, "runs").await;
    let updates = [(7, "behind"), (7, "behind that"), (8, "ready")].map(|(user, text)| app.update(user, user, text));
    app.intake().accept(app.bot, updates.to_vec()).await.unwrap();
    let board = app.jobs_board().board(&owner).await.unwrap();
    assert_eq!(
        (board.waiting, board.ready, board.running, board.retrying, board.dead),
        (2, 1, 1, 0, 0)
    );
    assert_eq!((board.last_minute, board.minutes.len()), (1, 60));
    assert_eq!(board.minutes.iter().map(|minute| minute.done).sum::<i64>(), 1);
    assert!(board.oldest_ms.is_some_and(|ms| ms >= 0));
    let held = board.in_hand[0].held.clone().unwrap();
    assert_eq!((board.in_hand[0].id, held.worker.as_str()), (running.id, "worker"));
    assert!(
        held.since.is_some() && (1..=9000).contains(&held.lease_left_ms),
        "{held:?}"
    );
    let waiting = read(&app, &owner, JobList::Waiting).await;
    assert_eq!(
        waiting.iter().map(|job| job.is_behind).collect::<Vec<_>>(),
        [true, true, false]
    );
}

#[tokio::test]
async fn what_people_wrote_is_not_shown_and_who_they_are_only_to_those_who_may_know() {
    let app = App::new().await;
    app.user(7).await;
    dead(&app, 7, "a very private question", "it broke").await;
    let support = app.staff(Role::Support).await;
    let support = app.actor(support, Permission::ReadJobs).await.unwrap();
    let row = read(&app, &support, JobList::Dead).await.remove(0);
    assert_eq!(row.user.as_ref().map(|user| user.name.as_str()), Some("Person 7"));
    assert!(row.conversation.is_some());
    assert!(row.payload.contains("text: \"…\" 23"), "{}", row.payload);
    assert!(!serde_json::to_string(&row).unwrap().contains("private question"));

    let viewer = app.staff(Role::Viewer).await;
    let refused = app.actor(viewer, Permission::ReadJobs).await;
    assert!(matches!(refused, Err(Error::Forbidden(Permission::ReadJobs))));
    // A reader with the figures only: no name, no way to the texts.
    let viewer = app.actor(viewer, Permission::ReadOverview).await.unwrap();
    let row = read(&app, &viewer, JobList::Dead).await.remove(0);
    assert_eq!((row.user, row.conversation), (None, None));
}

#[tokio::test]
async fn nothing_chosen_and_too_much_are_refused() {
    let app = App::new().await;
    let owner = app.owner().await;
    let many: Vec<JobId> = (0..201).map(|_| JobId(uuid::Uuid::now_v7())).collect();
    for ids in [&[], &many[..]] {
        let refused = app.jobs_board().act(&owner, ids, JobAction::Retry).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(retry(&app, &owner, &many[..200]).await, (0, 200));
}

#[tokio::test]
async fn a_job_that_waits_for_its_next_attempt_can_be_given_up_and_its_conversation_goes_on() {
    let app = App::new().await;
    let owner = app.owner().await;
    let (job, incoming) = app.job(7, 7, "poison").await;
    app.intake()
        .accept(app.bot, vec![app.update(7, 7, "hello"), app.update(7, 7, "and more")])
        .await
        .unwrap();
    app.ask(&job, &incoming).await;
    assert_eq!(discard(&app, &owner, &[job.id]).await, (0, 1), "it runs");
    let later = Ended::Retry {
        after: Some(std::time::Duration::from_secs(300)),
        error: "busy".to_owned(),
    };
    assert!(app.queue().end(&job, later).await.unwrap());
    assert!(claim(&app).await.is_empty(), "the lane was overtaken");
    assert_eq!(discard(&app, &owner, &[job.id]).await, (1, 0));
    assert_eq!(app.counter("messages").await, (0, 0), "its budget is kept");
    let row = read(&app, &owner, JobList::Discarded).await.remove(0);
    assert!(row.id == job.id && row.ended.is_some());
    let next = claim(&app).await;
    assert_eq!(next.len(), 1);
    assert_eq!(text(&next[0]), "hello");
    let before: serde_json::Value = app
        .test
        .one("SELECT before FROM audit WHERE action = 'job.discard'")
        .await;
    assert_eq!(before, json!({ "state": "ready", "attempts": 1, "error": "busy" }));
    // A dead letter of the lane is given up later: that lets nothing more run.
    die(&app, &next[0], "it broke").await;
    let last = claim(&app).await.remove(0);
    assert_eq!(discard(&app, &owner, &[next[0].id]).await, (1, 0));
    assert!(claim(&app).await.is_empty());
    assert_eq!(text(&last), "and more");
}
