//! The way in, by polling and by webhook: nothing is lost, nothing is taken twice.

use std::time::Duration;

use serde_json::json;
use test_support::{
    app::{PATIENCE, TOKEN, Visitor, eventually},
    fake_telegram::Fault,
};

use crate::{anna, app, boris};

#[tokio::test]
async fn polling_answers_a_text() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: Hello"]);
    let polls = app.telegram.calls_of("getUpdates");
    let allowed = polls[0].params["allowed_updates"].as_array().unwrap();
    for kind in ["message", "edited_message", "callback_query", "my_chat_member"] {
        assert!(allowed.contains(&json!(kind)), "{kind} is not asked for: {allowed:?}");
    }
    app.finish().await;
}

#[tokio::test]
async fn polling_confirms_only_what_is_committed() {
    let mut app = app().start().await;
    let anna = anna();
    app.say(&anna, "first");
    app.answer(anna.id, "Echo: first").await;
    // Nothing can be committed to `updates` while this is held.
    let mut held = app.db.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE updates IN EXCLUSIVE MODE")
        .execute(&mut *held)
        .await
        .unwrap();
    app.say(&anna, "second");
    eventually(PATIENCE, "intake waits for the lock", || async {
        let waiting = app
            .sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
            .await;
        if waiting.is_empty() {
            Err("nobody waits".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        app.telegram.pending_updates(TOKEN).len(),
        1,
        "confirmed before it was committed"
    );
    // Killed at this very point, it comes again.
    app.kill().await;
    held.rollback().await.unwrap();
    assert_eq!(app.telegram.pending_updates(TOKEN).len(), 1);
    app.sql_execute("UPDATE bots SET lease_until = now()").await;
    app.start().await;
    app.answer(anna.id, "Echo: second").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: first", "Echo: second"]);
    assert!(app.telegram.pending_updates(TOKEN).is_empty());
    app.finish().await;
}

#[tokio::test]
async fn polling_survives_lost_answers_and_conflicts() {
    let app = app().start().await;
    let anna = anna();
    for (number, fault) in [
        Fault::DropAfterHandling,
        Fault::DropBeforeHandling,
        Fault::Status(502, "Bad Gateway".into()),
        Fault::RetryAfter(1),
        Fault::Status(409, "Conflict: terminated by other getUpdates request".into()),
    ]
    .into_iter()
    .enumerate()
    {
        app.telegram.fail_next("getUpdates", 1, fault);
        app.say(&anna, &format!("message {number}"));
        app.answer(anna.id, &format!("Echo: message {number}")).await;
    }
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id).len(), 5);
    app.finish().await;
}

#[tokio::test]
async fn a_webhook_that_somebody_else_sets_is_taken_back() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "before");
    app.answer(anna.id, "Echo: before").await;
    let set = format!("{}/bot{TOKEN}/setWebhook", app.telegram.url());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client
        .post(set)
        .json(&json!({"url": "http://127.0.0.1:9/elsewhere"}))
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success());
    app.say(&anna, "after");
    app.answer(anna.id, "Echo: after").await;
    assert_eq!(app.telegram.webhook_url(TOKEN), None);
    app.finish().await;
}

#[tokio::test]
async fn unknown_kinds_are_kept_and_do_not_stop_what_follows() {
    let app = app().start().await;
    let anna = anna();
    let push = |update| app.telegram.push_update(TOKEN, update);
    push(json!({"novelty": {"x": 1, "chat": {"id": 5}}}));
    push(json!({"message": {"what": "is this"}}));
    push(json!({"message": {"message_id": 5, "chat": {"id": 9, "type": "hologram"}, "date": 1}}));
    push(json!({"callback_query": {"id": "1", "data": "x"}}));
    push(json!({"my_chat_member": 5}));
    push(json!({"unheard_of": null}));
    app.say(&anna, "and now?");
    app.answer(anna.id, "Echo: and now?").await;
    app.idle().await;
    let kinds: Vec<String> = app
        .sql("SELECT kind FROM updates ORDER BY update_id")
        .await
        .iter()
        .map(|row| row["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    assert_eq!(kinds[0], "novelty");
    assert_eq!(
        app.count("SELECT count(*) AS n FROM jobs WHERE state = 'dead'").await,
        0
    );
    assert_eq!(app.provider.requests().len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_nul_character_does_not_block_the_queue() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "a\0b");
    app.say(&anna, "next");
    app.answer(anna.id, "Echo: next").await;
    app.answer(anna.id, "Echo: ab").await;
    app.finish().await;
}

#[tokio::test]
async fn a_webhook_is_registered_and_answers() {
    let app = app().webhook().start().await;
    let anna = anna();
    let bot = app.bot_id().await;
    assert_eq!(
        app.telegram.webhook_url(TOKEN),
        Some(format!("{}/telegram/{bot}", app.base))
    );
    let call = &app.telegram.calls_of("setWebhook")[0];
    assert!(call.params["secret_token"].as_str().unwrap().len() >= 32);
    let allowed = call.params["allowed_updates"].as_array().unwrap();
    assert!(allowed.contains(&json!("message")) && allowed.contains(&json!("my_chat_member")));
    assert!(
        call.params["max_connections"]
            .as_i64()
            .is_some_and(|most| (1..=100).contains(&most))
    );
    assert!(call.params.get("drop_pending_updates").is_none_or(|drop| drop == false));
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    assert!(app.telegram.calls_of("getUpdates").is_empty());
    app.finish().await;
}

#[tokio::test]
async fn a_webhook_that_telegram_puts_off_is_told_to_staff_and_registered_in_time() {
    let app = app().webhook().start().await;
    let (owner, bot, anna) = (app.sign_in("owner").await, app.bot_id().await, anna());
    let before = app.telegram.calls_of("setWebhook").len();
    app.telegram.fail_next("setWebhook", 2, Fault::RetryAfter(3));
    let restarted = owner.post("/api/fn/bots/restart", &[("id", &bot)]).await;
    assert_eq!(restarted.status, 200, "{restarted:?}");
    eventually(PATIENCE, "the wait on the page of bots", || async {
        let page = owner.page("/bots").await.body;
        let told = page.contains("Telegram asks to wait for 3 s");
        if told { Ok(()) } else { Err(page) }
    })
    .await;
    eventually(PATIENCE, "the page to be without a fault", || async {
        let page = owner.page("/bots").await.body;
        let told = page.contains("Telegram asks to wait for");
        if told { Err(page) } else { Ok(()) }
    })
    .await;
    let calls = app.telegram.calls_of("setWebhook").split_off(before);
    assert_eq!(calls.len(), 3, "{calls:?}");
    for pair in calls.windows(2) {
        let waited = pair[1].at.duration_since(pair[0].at).unwrap();
        assert!(waited >= Duration::from_secs(3), "asked again after {waited:?}");
    }
    let waits = "SELECT coalesce(sum(waits), 0)::bigint AS n FROM flood_waits";
    eventually(PATIENCE, "both waits to be counted", || async {
        match app.count(waits).await {
            2 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    app.finish().await;
}

#[tokio::test]
async fn a_webhook_without_the_secret_stores_nothing() {
    let app = app().webhook().start().await;
    let bot = app.bot_id().await;
    let path = format!("{}/telegram/{bot}", app.base);
    let update = json!({"update_id": 1, "message": {"message_id": 1, "date": 1, "text": "let me in",
        "chat": {"id": 5, "type": "private", "first_name": "E"}, "from": {"id": 5, "is_bot": false, "first_name": "E"}}});
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let right = app.telegram.calls_of("setWebhook")[0].params["secret_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let longer = format!("{right}x");
    for secret in [None, Some(""), Some("wrong"), Some(&right[1..]), Some(&longer)] {
        let mut request = client.post(&path).json(&update);
        if let Some(secret) = secret {
            request = request.header("X-Telegram-Bot-Api-Secret-Token", secret);
        }
        assert_eq!(request.send().await.unwrap().status(), 401, "{secret:?}");
    }
    // The secret of one bot opens no other, and bodies that are no updates are refused.
    let post = |path: String, body: &'static str| {
        client
            .post(path)
            .header("X-Telegram-Bot-Api-Secret-Token", &right)
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let other = format!("{}/telegram/01930000-0000-7000-8000-0000000000b0", app.base);
    assert_eq!(post(other, "{\"update_id\": 1}").await.unwrap().status(), 401);
    assert_eq!(
        post(format!("{}/telegram/nobody", app.base), "{}")
            .await
            .unwrap()
            .status(),
        404
    );
    for body in ["", "[]", "{\"message\": {}}", "nonsense"] {
        assert_eq!(post(path.clone(), body).await.unwrap().status(), 400, "{body:?}");
    }
    assert_eq!(app.count("SELECT count(*) AS n FROM updates").await, 0);
    let metrics = Visitor::new(&app.base).get("/metrics").await.body;
    assert!(metrics.contains("botdeck_webhook_refused_total 6"), "{metrics}");
    app.finish().await;
}

/// Whatever a delivery says of its type, it is read; and the secret is compared in a way that does not tell how much of it was right.
#[tokio::test]
async fn a_delivery_is_known_by_its_secret_and_not_by_its_content_type() {
    let app = app().webhook().start().await;
    let (bot, anna) = (app.bot_id().await, anna());
    let secret = app.telegram.calls_of("setWebhook")[0].params["secret_token"].clone();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let types = [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/json; charset=utf-8"),
    ];
    app.say(&anna, "Hello");
    for (number, content_type) in (1001..).zip(types) {
        let update = json!({"update_id": number, "message": {"message_id": number, "date": 1, "text": format!("number {number}"),
            "chat": {"id": anna.id, "type": "private", "first_name": "Anna"}, "from": {"id": anna.id, "is_bot": false, "first_name": "Anna"}}});
        let mut request = client
            .post(format!("{}/telegram/{bot}", app.base))
            .header("X-Telegram-Bot-Api-Secret-Token", secret.as_str().unwrap())
            .body(update.to_string());
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        assert_eq!(request.send().await.unwrap().status(), 200, "{content_type:?}");
    }
    app.idle().await;
    assert_eq!(app.provider.requests().len(), 5);
    app.finish().await;
    let source = include_str!("../../src/web/webhook.rs");
    let (before, after) = source.split_once("given.ct_eq(wanted.").unwrap();
    assert!(
        !before.contains("from_request("),
        "the body is read before the secret is checked"
    );
    assert!(after.contains("from_request(") && !source.contains("== wanted") && !source.contains("given =="));
}

#[tokio::test]
async fn deliveries_repeated_at_once_in_several_conversations_change_nothing() {
    let app = app().webhook().start().await;
    app.telegram.duplicate_deliveries(4);
    let people = [anna(), boris()];
    for person in &people {
        app.say(person, "a long one, please [[chunks=100,200ms]]");
    }
    for person in &people {
        app.answer_with(person.id, "Echo:").await;
        app.say(person, "/stop");
    }
    app.idle().await;
    for person in &people {
        let said = app.said_by_bot(person.id);
        assert_eq!(said.len(), 2, "an answer and a word about its end: {said:?}");
        let stopped = said.iter().filter(|text| text.contains("⏹"));
        assert_eq!(stopped.count(), 1, "{said:?}");
    }
    assert_eq!(app.provider.requests().len(), 2);
    assert_eq!(app.count("SELECT count(*) AS n FROM updates").await, 4);
    assert_eq!(app.count("SELECT count(*) AS n FROM jobs").await, 4);
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 2);
    let deliveries = app.telegram.deliveries(TOKEN);
    assert_eq!(deliveries.len(), 20);
    assert!(
        deliveries.iter().all(|delivery| delivery.status == Some(200)),
        "{deliveries:?}"
    );
    app.finish().await;
}

#[tokio::test]
async fn deliveries_repeated_by_a_webhook_are_answered_once() {
    let app = app().webhook().start().await;
    let anna = anna();
    app.telegram.duplicate_deliveries(2);
    let expected: Vec<String> = (0..5).map(|number| format!("Echo: message {number}")).collect();
    for number in 0..5 {
        app.say(&anna, &format!("message {number}"));
    }
    app.answer(anna.id, "Echo: message 4").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), expected);
    assert_eq!(app.provider.requests().len(), 5);
    let deliveries = app.telegram.deliveries(TOKEN);
    assert_eq!(deliveries.len(), 15);
    assert!(
        deliveries.iter().all(|delivery| delivery.status == Some(200)),
        "{deliveries:?}"
    );
    app.finish().await;
}

#[tokio::test]
async fn a_webhook_answers_503_while_nothing_can_be_stored() {
    let app = app().webhook().start().await;
    let anna = anna();
    app.db.take_away().await;
    app.say(&anna, "are you there?");
    app.telegram
        .wait_for(PATIENCE, |telegram| {
            (telegram.deliveries(TOKEN).len() >= 2).then_some(())
        })
        .await
        .unwrap();
    let refused = app.telegram.deliveries(TOKEN);
    assert!(
        refused
            .iter()
            .all(|delivery| delivery.status.is_some_and(|status| status >= 500)),
        "{refused:?}"
    );
    app.db.give_back().await;
    app.answer(anna.id, "Echo: are you there?").await;
    app.finish().await;
}

/// Whoever cannot renew its lease does not know whether another replica listens by now.
#[tokio::test]
async fn a_replica_without_the_database_stops_polling_when_its_lease_is_over() {
    let app = app().polling().start().await;
    let anna = anna();
    app.db.take_away().await;
    // Its lease is for six seconds.
    eventually(PATIENCE, "nobody polls", || async {
        match app.telegram.polls_open(TOKEN) {
            0 => Ok(()),
            open => Err(open.to_string()),
        }
    })
    .await;
    assert!(app.logs().contains("its intake ends here"));
    app.say(&anna, "are you there?");
    app.db.give_back().await;
    app.answer(anna.id, "Echo: are you there?").await;
    app.finish().await;
}

/// The living come before those who look for the jobs of the dead.
#[tokio::test]
async fn an_outage_longer_than_a_lease_takes_no_job_from_a_living_worker() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "a story[[tokens=30]][[chunks=30,600ms]]");
    app.answer_with(anna.id, "word1").await;
    app.db.take_away().await;
    tokio::time::sleep(Duration::from_millis(9500)).await;
    app.db.give_back().await;
    app.answer_with(anna.id, "word30").await;
    app.idle().await;
    let job = app.sql_one("SELECT attempts, crashes, state FROM jobs").await;
    assert_eq!((&job["attempts"], &job["crashes"]), (&1.into(), &0.into()), "{job}");
    assert_eq!(app.provider.requests().len(), 1);
    app.finish().await;
}
