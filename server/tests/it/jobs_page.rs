//! What staff do with jobs that failed, seen from the chat.

use test_support::{
    app::{PATIENCE, eventually},
    fake_telegram::Fault,
};

use crate::{anna, app, boris};

/// A refusal for which there is no remedy.
fn weird() -> Fault {
    Fault::Status(400, "Bad Request: MESSAGE_IS_WEIRD".into())
}

#[tokio::test]
async fn a_retried_dead_letter_is_answered_once_and_billed_once() {
    let app = app().start().await;
    let anna = anna();
    // The answer is made and billed, and cannot be sent.
    app.telegram.fail_next("sendMessage", 1, weird());
    app.say(&anna, "Hello");
    app.answer_with(anna.id, "BD-INTERNAL").await;
    app.idle().await;
    let job = app.sql_one("SELECT id, state FROM jobs").await;
    assert_eq!(job["state"], "dead");
    let id = job["id"].as_str().unwrap();

    let support = app.sign_in("support").await;
    let page = support.page("/jobs").await;
    assert!(
        page.body.contains("MESSAGE_IS_WEIRD") && page.body.contains(id),
        "{}",
        page.body
    );
    assert!(!page.body.contains("Hello"), "the page shows what was written");
    let fields = [("ids[]", id), ("action", "retry")];
    assert_eq!(support.post("/api/fn/jobs/act", &fields).await.status, 403);
    let owner = app.sign_in("owner").await;
    let done = owner.post("/api/fn/jobs/act", &fields).await;
    assert_eq!((done.status.as_u16(), &done.json()["changed"]), (200, &1.into()));
    app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    // The apology has gone.
    assert_eq!(app.said_by_bot(anna.id), ["Echo: Hello"]);
    assert_eq!(app.provider.totals().requests, 1, "the model was asked again");
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 1);
    assert_eq!(app.count("SELECT count(*) AS n FROM reservations").await, 0);
    let trail = app
        .sql_one("SELECT actor, target_id FROM audit WHERE action = 'job.retry'")
        .await;
    assert_eq!(trail["target_id"], id);
    // A second press finds nothing to do.
    let again = owner.post("/api/fn/jobs/act", &fields).await;
    assert_eq!(
        (&again.json()["changed"], &again.json()["left"]),
        (&0.into(), &1.into())
    );
    // One that is given up is counted.
    app.telegram.fail_next("sendMessage", 1, weird());
    app.say(&anna, "and this");
    app.answer_with(anna.id, "BD-INTERNAL").await;
    app.idle().await;
    let job = app.sql_one("SELECT id FROM jobs WHERE state = 'dead'").await;
    let fields = [("ids[]", job["id"].as_str().unwrap()), ("action", "discard")];
    assert_eq!(owner.post("/api/fn/jobs/act", &fields).await.json()["changed"], 1);
    let page = app.visitor().get("/metrics").await.body;
    assert!(page.contains("botdeck_jobs_discarded_total 1"), "{page}");
    app.finish().await;
}

#[tokio::test]
async fn a_whole_page_can_be_chosen_by_a_plain_form() {
    let app = app().start().await;
    for person in [anna(), boris()] {
        // The apology fails as well.
        app.telegram.fail_next("sendMessage", 2, weird());
        app.say(&person, "/help");
        app.idle().await;
    }
    let ids: Vec<String> = app
        .sql("SELECT id FROM jobs WHERE state = 'dead' ORDER BY seq")
        .await
        .iter()
        .map(|job| job["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 2);
    let mut fields = vec![("all", "true"), ("action", "retry")];
    fields.extend(ids.iter().map(|id| ("page[]", id.as_str())));
    let owner = app.sign_in("owner").await;
    let sent = owner.submit("/api/fn/jobs/act", &fields).await;
    assert!(sent.status.is_redirection() || sent.status.is_success(), "{sent:?}");
    app.idle().await;
    assert_eq!(
        app.count("SELECT count(*) AS n FROM jobs WHERE state = 'dead'").await,
        0
    );
    app.finish().await;
}

#[tokio::test]
async fn dead_letters_retries_and_the_lag_of_each_bot_are_measured() {
    let app = app().start().await;
    app.telegram.fail_next("sendMessage", 1, weird());
    app.telegram.fail_next("sendMessage", 1, Fault::RetryAfter(1));
    app.say(&anna(), "/help");
    app.say(&boris(), "/help");
    app.idle().await;
    let bot = app.bot_id().await;
    let wanted = [
        "botdeck_dead_letters_total 1".to_owned(),
        "botdeck_queue_depth{state=\"dead\"} 1".to_owned(),
        "botdeck_queue_retrying 0".to_owned(),
        format!("botdeck_bot_enabled{{bot=\"{bot}\"}} 1"),
        format!("botdeck_bot_up{{bot=\"{bot}\"}} 1"),
        format!("botdeck_bot_lease_held{{bot=\"{bot}\"}} 1"),
        format!("botdeck_bot_last_update_timestamp_seconds{{bot=\"{bot}\"}} 1"),
        format!("botdeck_bot_lag_seconds{{bot=\"{bot}\"}} 0"),
        format!("botdeck_flood_waits_total{{bot=\"{bot}\"}} 1"),
    ];
    let visitor = app.visitor();
    eventually(PATIENCE, "the measurements", || async {
        let metrics = visitor.get("/metrics").await.body;
        match wanted.iter().find(|line| !metrics.contains(line.as_str())) {
            None => Ok(()),
            Some(line) => Err(format!("{line} is not in\n{metrics}")),
        }
    })
    .await;
    eventually(PATIENCE, "the flood wait on the page of bots", || async {
        match app
            .count("SELECT coalesce(sum(waits), 0)::bigint AS n FROM flood_waits")
            .await
        {
            1 => Ok(()),
            other => Err(format!("{other} flood waits")),
        }
    })
    .await;
    app.finish().await;
}
