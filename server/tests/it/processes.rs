//! Processes that stop in good order, take over from each other, and share the work by roles.

use std::time::{Duration, Instant};

use test_support::{
    app::{PATIENCE, TOKEN, eventually},
    fake_telegram::User,
};

use crate::{anna, app, boris};

#[tokio::test]
async fn a_running_answer_is_completed_at_sigterm() {
    let mut app = app().start().await;
    let anna = anna();
    app.say(&anna, "a b c d e f g h i j k l m n o p q r s t[[chunks=20,150ms]]");
    app.answer_with(anna.id, "Echo: a b").await;
    let (status, took) = app.stop().await;
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    // Complete at the moment it ended.
    assert_eq!(
        app.said_by_bot(anna.id),
        ["Echo: a b c d e f g h i j k l m n o p q r s t"]
    );
    let jobs = app.sql("SELECT state, attempts FROM jobs").await;
    assert!(
        jobs.iter().all(|job| job["state"] == "done" && job["attempts"] == 1),
        "{jobs:?}"
    );
    // The lease was given back: a successor need not wait for it.
    let held = app.sql("SELECT lease_holder FROM bots WHERE lease_until > now()").await;
    assert!(held.is_empty(), "{held:?}");
    app.finish().await;
}

#[tokio::test]
async fn processes_whose_roles_ask_no_models_have_no_share_of_what_is_limited() {
    let app = app().without_bot().start().await;
    let mut replicas = Vec::new();
    for role in ["web", "worker", "intake", "scheduler"] {
        replicas.push(app.replica(&[], &["--roles", role]).await);
    }
    eventually(PATIENCE, "all say that they live", || async {
        let rows = app.sql("SELECT asks FROM api_replicas ORDER BY asks").await;
        let asks: Vec<bool> = rows.iter().filter_map(|row| row["asks"].as_bool()).collect();
        // With that of all roles.
        let expected = [false, false, true, true, true];
        (asks == expected).then_some(()).ok_or_else(|| format!("{asks:?}"))
    })
    .await;
    app.finish().await;
}

#[tokio::test]
async fn another_replica_goes_on_where_one_stops() {
    let mut app = app().start().await;
    let replica = app.replica(&[], &[]).await;
    let (anna, boris) = (anna(), boris());
    for number in 0..6 {
        app.say(&anna, &format!("message {number}[[chunks=5,100ms]]"));
    }
    app.answer_with(anna.id, "Echo: message 0").await;
    let (status, took) = app.stop().await;
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(20), "{took:?}");
    app.say(&boris, "и я");
    app.answer(boris.id, "Echo: и я").await;
    app.answer(anna.id, "Echo: message 5").await;
    app.idle().await;
    let expected: Vec<String> = (0..6).map(|number| format!("Echo: message {number}")).collect();
    assert_eq!(app.said_by_bot(anna.id), expected);
    assert_eq!(
        app.count("SELECT max(attempts)::bigint AS n FROM jobs").await,
        1,
        "a job was run twice"
    );
    drop(replica);
    app.finish().await;
}

/// The leases of the dead one run out by themselves.
#[tokio::test]
async fn another_replica_takes_over_from_one_that_was_killed() {
    let mut app = app().unlimited().start().await;
    let replica = app.replica(&[], &[]).await;
    let people: Vec<User> = (1..=5).map(|id| User::new(id, "Somebody")).collect();
    for number in 0..8 {
        for person in &people {
            app.say(person, &format!("message {number}[[chunks=5,50ms]]"));
        }
    }
    app.answer(1, "Echo: message 2").await;
    app.kill().await;
    let killed = Instant::now();
    // Somebody whose conversation nobody had in hand waits for the intake alone.
    app.say(&anna(), "hello");
    for person in &people {
        app.say(person, "message 8");
    }
    app.answer(anna().id, "Echo: hello").await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(10), "intake took {took:?} to go on");
    assert_eq!(app.telegram.counters().refused.get(&409), None, "conflicts");
    for person in &people {
        app.answer(person.id, "Echo: message 8").await;
    }
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(19), "it took {took:?} to go on");
    app.idle().await;
    let expected: Vec<String> = (0..9).map(|number| format!("Echo: message {number}")).collect();
    for person in &people {
        assert_eq!(app.said_by_bot(person.id), expected, "chat {}", person.id);
    }
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 46);
    assert_eq!(app.count("SELECT sum(reserved)::bigint AS n FROM counters").await, 0);
    assert!(replica.logs().contains("Polling for bot"));
    app.finish().await;
}

/// Frozen for good: what it had in hand is another's within 30 seconds, and its poll, which Telegram still sees, is not fought over.
#[tokio::test]
async fn another_replica_takes_over_from_one_that_is_frozen() {
    let mut app = app().unlimited().prepare().await;
    let mut frozen = app.replica(&[], &[]).await;
    app.wait_listening().await;
    app.start().await;
    let (anna, boris) = (anna(), boris());
    app.say(&anna, "wait [[chunks=12,700ms]]");
    app.answer_with(anna.id, "Echo").await;
    let who = "SELECT worker FROM jobs WHERE state = 'running'";
    let (listens, works) = (
        app.sql_one("SELECT lease_holder FROM bots WHERE transport = 'telegram'")
            .await,
        app.sql_one(who).await,
    );
    frozen.signal("STOP");
    let since = Instant::now();
    app.say(&boris, "привет");
    app.answer(boris.id, "Echo: привет").await;
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "intake took {:?}",
        since.elapsed()
    );
    assert_ne!(
        app.sql_one("SELECT lease_holder FROM bots WHERE transport = 'telegram'")
            .await,
        listens
    );
    app.idle_within(Duration::from_secs(30)).await;
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    println!("{works} had the job when {listens} was frozen");
    let expected = ["Echo: wait "];
    let said = app.said_by_bot(anna.id);
    assert_eq!(
        said.iter().map(|text| text.trim_end()).collect::<Vec<_>>(),
        expected.map(str::trim_end)
    );
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 2);
    // It wakes, sees that its time is over, and lets the other one listen.
    frozen.signal("CONT");
    frozen.wait_line("its intake ends here", PATIENCE).await.unwrap();
    app.say(&boris, "ещё раз");
    app.answer(boris.id, "Echo: ещё раз").await;
    let conflicts = app.telegram.counters().refused.get(&409).copied().unwrap_or(0);
    assert!(conflicts <= 2, "{conflicts} conflicts");
    assert_eq!(app.telegram.polls_open(TOKEN), 1);
    let fault = app.sql_one("SELECT fault FROM bots WHERE transport = 'telegram'").await;
    assert!(fault["fault"].is_null(), "{fault}");
    frozen.kill().await;
    app.finish().await;
}

/// Staff's browser is at one replica, and another one listens.
#[tokio::test]
async fn what_staff_change_on_one_replica_takes_effect_on_the_one_that_listens() {
    const FRESH: &str = "123456:AAfresh-token_from_the_same_father_22";
    let mut app = app().webhook().prepare().await;
    let mut other = app.replica(&[], &[]).await;
    app.wait_listening().await;
    app.start().await;
    let (anna, bot) = (anna(), app.bot_id().await);
    let owner = app.sign_in("owner").await;
    let change = async |what: &str, fields: &[(&str, &str)]| {
        let fields = [&[("id", bot.as_str())], fields].concat();
        let page = owner.post(&format!("/api/fn/bots/{what}"), &fields).await;
        assert!(page.status.is_success(), "{}: {}", page.status, page.body);
    };
    change("enabled", &[("enabled", "false")]).await;
    eventually(PATIENCE, "nobody listens", || async {
        match app.telegram.webhook_url(TOKEN) {
            None => Ok(()),
            Some(url) => Err(url),
        }
    })
    .await;
    app.say(&anna, "one");
    change("enabled", &[("enabled", "true")]).await;
    app.answer(anna.id, "Echo: one").await;
    change("mode", &[("mode", "polling")]).await;
    app.telegram
        .wait_for(PATIENCE, |telegram| (telegram.polls_open(TOKEN) == 1).then_some(()))
        .await
        .unwrap();
    app.say(&anna, "two");
    app.answer(anna.id, "Echo: two").await;
    change("mode", &[("mode", "webhook")]).await;
    app.telegram
        .wait_for(PATIENCE, |telegram| telegram.webhook_url(TOKEN))
        .await
        .unwrap();
    app.say(&anna, "three");
    app.answer(anna.id, "Echo: three").await;
    app.idle().await;
    app.telegram.renew_token(TOKEN, FRESH);
    change("token", &[("token", FRESH)]).await;
    app.telegram.send_text(FRESH, &anna, "four");
    app.telegram
        .wait_message(FRESH, anna.id, PATIENCE, |message| message.text == "Echo: four")
        .await
        .unwrap();
    other.kill().await;
}

#[tokio::test]
async fn a_taken_address_is_said_in_words() {
    let app = app().start().await;
    let addr = app.base.replace("http://", "");
    let ended = app.cli_with(&[("BOTDECK_ADDR", &addr)], &["serve"], "").await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains(&addr) && ended.stderr.contains("BOTDECK_ADDR"),
        "{ended:?}"
    );
    app.finish().await;
}

#[tokio::test]
async fn only_one_replica_polls() {
    let app = app().start().await;
    let replica = app.replica(&[], &[]).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let conflicts = app.telegram.counters().refused.get(&409).copied();
    assert_eq!(conflicts, None, "two replicas polled");
    assert_eq!(app.telegram.polls_open(TOKEN), 1);
    assert!(!replica.logs().contains("Polling for bot"), "{}", replica.logs());
    app.finish().await;
}

#[tokio::test]
async fn roles_split_over_two_processes_answer_together() {
    let app = app().roles("web,intake").start().await;
    let anna = anna();
    app.say(&anna, "Hello");
    app.telegram
        .wait_for(PATIENCE, |telegram| {
            telegram.pending_updates(TOKEN).is_empty().then_some(())
        })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(app.said_by_bot(anna.id).is_empty(), "a process without the role worked");
    let worker = app.replica(&[], &["--roles", "worker,scheduler"]).await;
    app.answer(anna.id, "Echo: Hello").await;
    app.say(&anna, "stop me[[tokens=100]][[chunks=100,100ms]]");
    app.answer_with(anna.id, "word1").await;
    app.say(&anna, "/stop");
    app.answer(anna.id, "Stopped.").await;
    app.idle().await;
    assert_eq!(app.visitor().page("/setup").await.status, 200);
    assert!(!worker.logs().contains("panicked at"));
    app.finish().await;
}

#[tokio::test]
async fn a_worker_serves_no_pages() {
    let app = app().roles("worker,intake").start().await;
    let visitor = app.visitor();
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 404),
        ("/sign-in", 404),
    ] {
        assert_eq!(visitor.page(path).await.status, status, "{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn two_replicas_may_start_together_on_an_empty_database() {
    let app = app().prepare().await;
    let (one, two) = tokio::join!(app.replica(&[], &[]), app.replica(&[], &[]));
    app.wait_listening().await;
    let anna = anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    assert_eq!(
        app.count("SELECT count(*) AS n FROM bots WHERE transport = 'telegram'")
            .await,
        1
    );
    drop((one, two));
    app.finish().await;
}
