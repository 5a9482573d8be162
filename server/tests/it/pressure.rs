//! More than there are hands for: what overtakes still does, what is too much waits outside, and who is given up is told.

use std::time::Duration;

use test_support::{
    TestApp,
    app::{PATIENCE, TOKEN, eventually},
    fake_telegram::User,
};

use crate::{anna, app, boris};

const TOO_MANY: &str = "SELECT count(*) AS n FROM jobs WHERE state IN ('waiting', 'ready', 'running')";

async fn wait_for_running(app: &TestApp, wanted: i64) {
    eventually(PATIENCE, "so many jobs in hand", || async {
        let running = app
            .count("SELECT count(*) AS n FROM jobs WHERE state = 'running'")
            .await;
        if running == wanted {
            Ok(())
        } else {
            Err(running.to_string())
        }
    })
    .await;
}

/// The model hangs for everybody, and all hands are busy with that.
async fn stop_overtakes(workers: &str, per_bot: &str, people: i64) {
    let app = app()
        .with("BOTDECK_WORKERS", workers)
        .with("BOTDECK_BOT_WORKERS", per_bot)
        .start()
        .await;
    for person in 1..=people {
        app.say(
            &User::new(person, "Somebody").language("en"),
            "Hello [[chunks=2,60000ms]]",
        );
    }
    app.say(&anna(), "still waiting behind them");
    let in_hand = people.min(per_bot.parse().unwrap()).min(workers.parse().unwrap());
    wait_for_running(&app, in_hand).await;
    app.provider
        .wait_for(PATIENCE, |provider| (!provider.requests().is_empty()).then_some(()))
        .await
        .unwrap();
    // Stopping all of them makes room for Anna, whose question needs no waiting.
    for person in 1..=people {
        app.say(&User::new(person, "Somebody").language("en"), "/stop");
    }
    app.answer(anna().id, "Echo: still waiting behind them").await;
    app.idle().await;
    app.finish().await;
}

#[tokio::test]
async fn stop_needs_no_hand_of_the_bot_it_is_for() {
    stop_overtakes("8", "2", 3).await;
}

#[tokio::test]
async fn stop_needs_no_free_hand_at_all() {
    stop_overtakes("2", "2", 3).await;
}

#[tokio::test]
async fn a_pressed_button_does_not_wait_for_ever() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "Hello");
    let answer = app.answer(anna.id, "Echo: Hello").await;
    let query = app.telegram.press_button(TOKEN, &anna, answer.id, "whatever");
    let answered = app
        .telegram
        .wait_for(PATIENCE, |telegram| telegram.callback_answer(TOKEN, &query));
    answered.await.unwrap();
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: Hello"]);
    app.finish().await;
}

/// One question holds its conversation up, so that the others wait in the queue.
async fn hold_up(app: &TestApp, limit: i64) {
    let boris = boris();
    app.say(&boris, "wait [[chunks=2,60000ms]]");
    for number in 1..limit {
        app.say(&boris, &format!("question {number}"));
    }
    eventually(PATIENCE, "a full queue", || async {
        let open = app.count(TOO_MANY).await;
        if open >= limit { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
    eventually(PATIENCE, "the process to have seen that", || async {
        let metrics = app.visitor().get("/metrics").await.body;
        let held = metrics.lines().find(|line| line.starts_with("botdeck_bots_held_back "));
        if held == Some("botdeck_bots_held_back 1") {
            Ok(())
        } else {
            // Whether there is room is looked at when something comes.
            app.say(&boris, "one more");
            Err(format!("{held:?}"))
        }
    })
    .await;
}

async fn what_is_too_much_waits_with_telegram(app: TestApp) {
    const LIMIT: i64 = 5;
    hold_up(&app, LIMIT).await;
    let anna = anna();
    app.say(&anna, "Hello");
    let stored = app.count(TOO_MANY).await;
    // Longer than it is believed how full the queue is.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(
        app.count(TOO_MANY).await,
        stored,
        "more was taken than there is room for"
    );
    assert!(!app.telegram.pending_updates(TOKEN).is_empty());
    assert!(app.said_by_bot(anna.id).is_empty());
    // Room again: the one that holds all up is stopped, as staff or another replica might.
    app.sql_execute("UPDATE jobs SET cancel_requested = true WHERE state = 'running'")
        .await;
    app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: Hello"]);
    let asked = app.count("SELECT count(*) AS n FROM updates").await;
    let done = app
        .count("SELECT count(*) AS n FROM jobs WHERE state = 'done' AND attempts = 1")
        .await;
    assert_eq!(done, asked);
    app.finish().await;
}

#[tokio::test]
async fn a_full_queue_pauses_polling() {
    let app = app()
        .unlimited()
        .with("BOTDECK_QUEUE_LIMIT", "5")
        .polling()
        .start()
        .await;
    what_is_too_much_waits_with_telegram(app).await;
}

#[tokio::test]
async fn a_full_queue_refuses_deliveries_for_now() {
    let app = app()
        .unlimited()
        .with("BOTDECK_QUEUE_LIMIT", "5")
        .webhook()
        .start()
        .await;
    what_is_too_much_waits_with_telegram(app).await;
}

#[tokio::test]
async fn one_whose_workers_all_went_away_is_told_so() {
    let mut app = app().start().await;
    let anna = anna();
    app.say(&anna, "Hello [[chunks=2,60000ms]]");
    wait_for_running(&app, 1).await;
    app.provider
        .wait_for(PATIENCE, |provider| (!provider.requests().is_empty()).then_some(()))
        .await
        .unwrap();
    app.kill().await;
    // As after so many of them.
    app.sql_execute("UPDATE jobs SET attempts = max_attempts, lease_until = now() WHERE state = 'running'")
        .await;
    // Somebody may be there before; the question is not asked again.
    let asked = app.provider.requests().len();
    app.spawn();
    app.wait_ready().await;
    app.sql_execute("UPDATE bots SET lease_until = now()").await;
    app.answer_with(anna.id, "BD-INTERNAL").await;
    app.idle().await;
    assert_eq!(app.provider.requests().len(), asked);
    let job = app.sql_one("SELECT state, last_error FROM jobs").await;
    assert_eq!(job["state"], "dead");
    assert_eq!(job["last_error"], "all workers that tried went away");
    let reserved = app.sql("SELECT * FROM counters WHERE used <> 0 OR reserved <> 0").await;
    assert!(reserved.is_empty(), "{reserved:?}");
    app.say(&anna, "And now?");
    app.answer(anna.id, "Echo: And now?").await;
    app.finish().await;
}
