//! More than there are hands for: what overtakes still does, what is too much waits outside, and who is given up is told.

use std::{cell::Cell, time::Duration};

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
async fn what_telegram_holds_back_is_measured_and_shown() {
    // Nobody answers, so the queue is full at once.
    let app = app()
        .unlimited()
        .with("BOTDECK_QUEUE_LIMIT", "1")
        .roles("web,intake,scheduler")
        .start()
        .await;
    let (owner, bot, anna) = (app.sign_in("owner").await, app.bot_id().await, anna());
    let measured = |updates: i64| {
        let (owner, line) = (
            &owner,
            format!("botdeck_bot_pending_updates{{bot=\"{bot}\"}} {updates}"),
        );
        async move {
            let metrics = owner.get("/metrics").await.body;
            let found = metrics.lines().any(|found| found == line);
            if found {
                Ok(())
            } else {
                Err(format!("{line} is not in\n{metrics}"))
            }
        }
    };
    let asked = Cell::new(0_i64);
    // What is stored but not confirmed yet still waits, as far as Telegram knows.
    let waiting = || i64::try_from(app.telegram.pending_updates(TOKEN).len()).unwrap();
    // Telegram is asked every ten seconds, and the bots are measured every five.
    eventually(PATIENCE * 2, "what waits", || async {
        match waiting() {
            0 => {
                // Whether there is room is looked at when something comes.
                asked.set(asked.get() + 1);
                app.say(&anna, &format!("message {}", asked.get()));
                Err("nothing waits".to_owned())
            }
            updates => measured(updates).await,
        }
    })
    .await;
    let board = owner.get("/api/fn/bots/list").await.json();
    let shown = board["bots"]
        .as_array()
        .unwrap()
        .iter()
        .find(|bot| bot["pending"].is_array());
    assert_eq!(shown.unwrap()["pending"][0], waiting(), "{board}");
    let worker = app.replica(&[], &["--roles", "worker"]).await;
    app.answer(anna.id, &format!("Echo: message {}", asked.get())).await;
    eventually(PATIENCE * 2, "nothing any more", || measured(0)).await;
    drop(worker);
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

/// It is not the first in Telegram's row, and what is before it stays there.
#[tokio::test]
async fn stop_passes_a_full_queue_that_is_polled_for() {
    const LIMIT: i64 = 10;
    let app = app()
        .unlimited()
        .with("BOTDECK_QUEUE_LIMIT", &LIMIT.to_string())
        .polling()
        .start()
        .await;
    let (anna, boris) = (anna(), boris());
    app.say(&anna, "wait [[chunks=2,60000ms]]");
    wait_for_running(&app, 1).await;
    for number in 0..LIMIT {
        app.say(&anna, &format!("question {number}"));
    }
    eventually(PATIENCE, "polling that pauses", || async {
        if app.logs().contains("its updates are left with Telegram") {
            Ok(())
        } else {
            // Whether there is room is looked at when something comes.
            tokio::time::sleep(Duration::from_millis(300)).await;
            app.say(&anna, "one more");
            Err(app.count(TOO_MANY).await.to_string())
        }
    })
    .await;
    app.say(&boris, "привет");
    app.say(&anna, "/stop");
    app.answer(anna.id, "Stopped.").await;
    // Once the queue is shorter the rest is taken, and `/stop` is not done again.
    app.answer(boris.id, "Echo: привет").await;
    assert_eq!(
        app.said_by_bot(anna.id)
            .iter()
            .filter(|text| *text == "Stopped.")
            .count(),
        1
    );
    app.finish().await;
}

/// All hands are busy, and somebody else has pressed too often.
#[tokio::test]
async fn a_payment_is_refused_in_words_before_it_is_made() {
    let app = app().with("BOTDECK_WORKERS", "1").start().await;
    let (anna, boris) = (anna(), boris());
    app.say(&anna, "wait [[chunks=2,60000ms]]");
    wait_for_running(&app, 1).await;
    for (person, words) in [(&anna, "takes no payments"), (&boris, "не принимает платежи")] {
        let query = app.telegram.check_out(TOKEN, person);
        let answered = app
            .telegram
            .wait_for(PATIENCE, |telegram| telegram.checkout_answer(TOKEN, &query));
        let answer = answered.await.unwrap();
        assert!(!answer.ok);
        assert!(answer.error_message.unwrap().contains(words));
    }
    eventually(PATIENCE, "both jobs are over", || async {
        match app.count("SELECT count(*) AS n FROM jobs WHERE state = 'done'").await {
            2 => Ok(()),
            done => Err(done.to_string()),
        }
    })
    .await;
    app.finish().await;
}

#[tokio::test]
async fn a_payment_that_came_all_the_same_is_shown_to_staff() {
    let app = app().with("BOTDECK_WORKERS", "1").start().await;
    let anna = anna();
    app.say(&anna, "wait [[chunks=2,60000ms]]");
    wait_for_running(&app, 1).await;
    app.telegram.push_update(
        TOKEN,
        serde_json::json!({"message": {
            "message_id": 4000, "date": 1_795_378_000, "from": {"id": anna.id, "is_bot": false, "first_name": "Anna"},
            "chat": {"id": anna.id, "type": "private", "first_name": "Anna"},
            "successful_payment": {"currency": "XTR", "total_amount": 100, "invoice_payload": "coffee",
                "telegram_payment_charge_id": "charge-1", "provider_payment_charge_id": "1"},
        }}),
    );
    eventually(PATIENCE, "a dead letter", || async {
        let dead = app.sql("SELECT last_error FROM jobs WHERE state = 'dead'").await;
        if dead.len() == 1 {
            Ok(())
        } else {
            Err(format!("{dead:?}"))
        }
    })
    .await;
    let errors = app.sql("SELECT cause FROM errors").await;
    assert_eq!(errors.len(), 1);
    let cause = errors[0]["cause"].as_str().unwrap();
    assert!(cause.contains("100 \"XTR\"") && cause.contains("charge-1"), "{cause}");
    assert!(app.sign_in("owner").await.page("/jobs").await.body.contains("charge-1"));
    // Whoever has paid reads no apology for something else.
    assert!(!app.said_by_bot(anna.id).iter().any(|text| text.contains("BD-")));
    app.finish().await;
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
    app.sql_execute("UPDATE jobs SET crashes = 24, lease_until = now() WHERE state = 'running'")
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
    assert_eq!(job["last_error"], "too many workers that tried went away");
    let reserved = app.sql("SELECT * FROM counters WHERE used <> 0 OR reserved <> 0").await;
    assert!(reserved.is_empty(), "{reserved:?}");
    app.say(&anna, "And now?");
    app.answer(anna.id, "Echo: And now?").await;
    app.finish().await;
}
