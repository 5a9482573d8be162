use std::time::{Duration, Instant};

use crate::deck::Deck;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_workers_answer_everybody_once_and_in_order() {
    let deck = Deck::new().await;
    let workers = [deck.worker("one"), deck.worker("two")];
    let mut people = Vec::new();
    for name in ["anna", "bob", "carl", "dora"] {
        people.push((name, deck.person(name).await));
    }
    for n in 0..5 {
        for (name, person) in &people {
            deck.say(person, &format!("{name} {n}")).await;
        }
    }
    deck.until("jobs WHERE state = 'done'", 20).await;
    for (name, person) in &people {
        let expected: Vec<String> = (0..5).map(|n| format!("Echo: {name} {n}")).collect();
        assert_eq!(deck.texts(person).await, expected);
        assert_eq!(deck.answers(person).await.len(), 5);
    }
    assert_eq!(deck.script.asked().len(), 20);
    assert_eq!(deck.test.count("usage").await, 20);
    assert_eq!(deck.test.count("jobs WHERE attempts <> 1").await, 0);
    for worker in workers {
        worker.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stop_cuts_a_running_answer_within_a_second_on_whichever_replica_and_bills_what_was_made() {
    let deck = Deck::new().await;
    let workers = [deck.worker("one"), deck.worker("two")];
    let anna = deck.person("anna").await;
    deck.say(&anna, "wait for me").await;
    deck.until(
        "browser_messages WHERE author = 'bot' AND body->>'text' LIKE 'Once upon%'",
        1,
    )
    .await;
    let asked = Instant::now();
    deck.say(&anna, "/stop").await;
    deck.until("usage WHERE finish = 'stopped'", 1).await;
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "it went on for {:?}",
        asked.elapsed()
    );
    deck.until("jobs WHERE state = 'done'", 2).await;
    assert!(deck.texts(&anna).await.iter().any(|text| text.starts_with("Once upon")));
    assert_eq!(
        deck.test
            .count("usage WHERE completion_tokens > 0 AND cost > 0 AND NOT reported")
            .await,
        1
    );
    assert_eq!(
        deck.test
            .count("counters WHERE measure = 'messages' AND used = 1 AND reserved = 0")
            .await,
        1
    );
    // The conversation goes on.
    deck.say(&anna, "hello").await;
    deck.until("jobs WHERE state = 'done'", 3).await;
    assert_eq!(deck.texts(&anna).await.last().unwrap(), "Echo: hello");
    for worker in workers {
        worker.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_worker_left_when_it_was_cut_off_is_answered_once_by_another_even_when_it_comes_back() {
    let deck = Deck::new().await;
    let anna = deck.person("anna").await;
    let first = deck.worker("first");
    deck.say(&anna, "wait for me").await;
    deck.say(&anna, "and then this").await;
    deck.until("browser_messages WHERE author = 'bot'", 1).await;
    // Nobody keeps its leases any more, but what it has begun still runs somewhere: a process that was frozen.
    first.task.abort();
    let _ = first.task.await;
    deck.test
        .run("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE state = 'running'")
        .await;

    let second = deck.worker("second");
    deck.until("jobs WHERE state = 'done'", 2).await;
    assert_eq!(deck.script.processes(), 3);
    deck.script.go_on();
    // The frozen one thaws, finds its lease lost, and lets go of what it has.
    deck.until_processes(2).await;
    assert_eq!(deck.texts(&anna).await, ["Echo: wait for me", "Echo: and then this"]);
    assert_eq!(deck.answers(&anna).await.len(), 2, "the answer stands there twice");
    assert_eq!(deck.script.asked(), ["wait for me", "wait for me", "and then this"]);
    assert_eq!(deck.test.count("usage").await, 2);
    assert_eq!(deck.test.count("messages WHERE author = 'bot'").await, 2);
    assert_eq!(deck.test.count("reservations").await, 0);
    assert_eq!(
        deck.test
            .count("counters WHERE measure = 'messages' AND used = 2 AND reserved = 0")
            .await,
        1
    );
    second.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_panic_in_a_job_is_that_jobs_failure_and_nobody_elses() {
    let deck = Deck::new().await;
    let (anna, bob) = (deck.person("anna").await, deck.person("bob").await);
    let worker = deck.worker("one");
    deck.say(&anna, "panic").await;
    deck.until("jobs WHERE state = 'ready' AND last_error LIKE 'panic:%'", 1)
        .await;
    deck.say(&bob, "hello").await;
    deck.until("jobs WHERE state = 'done'", 1).await;
    assert_eq!(deck.texts(&bob).await, ["Echo: hello"]);
    // After a few more it is kept as a dead letter, and the next message of its chat is answered.
    deck.say(&anna, "hello").await;
    deck.test
        .run("UPDATE jobs SET crashes = 20, run_at = now() WHERE state = 'ready'")
        .await;
    deck.until("jobs WHERE state = 'dead'", 1).await;
    deck.until("jobs WHERE state = 'done'", 2).await;
    // Staff see where it panicked, and not in what words: they may hold what somebody wrote.
    deck.until(
        "errors WHERE cause LIKE 'panic: %deck.rs:%' AND cause NOT LIKE '%as it was told%'",
        1,
    )
    .await;
    // And whoever waited for the first answer was told that there will be none.
    let texts = deck.texts(&anna).await;
    assert!(texts[0].contains("BD-INTERNAL"), "{texts:?}");
    assert_eq!(texts[1..], ["Echo: hello"]);
    assert_eq!(deck.test.count("reservations").await, 0);
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_that_is_asked_to_stop_finishes_what_runs_and_takes_nothing_more() {
    let deck = Deck::new().await;
    let (anna, bob) = (deck.person("anna").await, deck.person("bob").await);
    let worker = deck.worker("one");
    deck.say(&anna, "wait for me").await;
    deck.until_asked(1).await;
    worker.stop.cancel();
    // Its hands are free for two more, but it takes none once it has seen that it is to stop.
    deck.script.go_on();
    worker.task.await.unwrap();
    assert_eq!(deck.texts(&anna).await, ["Once upon"]);
    deck.say(&bob, "too late").await;
    assert_eq!(deck.test.count("jobs WHERE state = 'done'").await, 1);
    assert_eq!(deck.test.count("jobs WHERE state = 'ready' AND attempts = 0").await, 1);
    deck.worker("next").end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_does_not_end_in_time_goes_to_others_at_once() {
    let deck = Deck::new().await;
    let anna = deck.person("anna").await;
    let worker = deck.worker_with("one", |settings| settings.grace = Duration::from_millis(100));
    deck.say(&anna, "wait for me").await;
    deck.until_asked(1).await;
    worker.stop.cancel();
    worker.task.await.unwrap();
    // Not leased any more, and known as tried.
    assert_eq!(deck.test.count("jobs WHERE state = 'ready' AND attempts = 1").await, 1);
    let next = deck.worker("two");
    deck.until("jobs WHERE state = 'done'", 1).await;
    assert_eq!(deck.texts(&anna).await, ["Echo: wait for me"]);
    assert_eq!(deck.test.count("usage").await, 1);
    next.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_bot_does_not_get_all_hands() {
    let deck = Deck::new().await;
    let (anna, bob) = (deck.person("anna").await, deck.person("bob").await);
    deck.say(&anna, "wait for me").await;
    deck.say(&bob, "and me").await;
    // Both come in one go, and only one may run.
    let worker = deck.worker_with("one", |settings| settings.per_bot = 1);
    deck.until_asked(1).await;
    deck.until("jobs WHERE state = 'ready' AND attempts = 0", 1).await;
    assert_eq!(deck.test.count("jobs WHERE state = 'running'").await, 1);
    deck.script.go_on();
    deck.until("jobs WHERE state = 'done'", 2).await;
    worker.end().await;
}
