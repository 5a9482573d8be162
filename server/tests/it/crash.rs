//! Kill -9 at random moments under load: nothing lost, nothing answered or billed twice.
//!
//! `BOTDECK_CRASH_SEED` repeats a run's moments. A killed process's leases (9 s) are let run out at once in the database, as if
//! that time had passed: nobody who could still use them is alive. Every seventh kill waits for them to run out by themselves.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use test_support::{
    TestApp,
    app::{PATIENCE, TOKEN, eventually},
    fake_telegram::{Fault, User},
};

use crate::app;

const KILLS: u64 = 20;
const PEOPLE: i64 = 10;
const MESSAGES: usize = 30;

/// What a person writes as their message number `number`, and what stands in the chat in the end. Most answers come at once,
/// every third is streamed, and one in ten long enough for a preview.
fn message(person: i64, number: usize) -> (String, String) {
    let words = format!("person {person} message {number} and some more words");
    let pace = match (number + usize::try_from(person).unwrap()) % 10 {
        0 => "[[chunks=9,120ms]]",
        3 | 6 | 9 => "[[chunks=5,50ms]]",
        _ => "",
    };
    (format!("{words}{pace}"), format!("Echo: {words}"))
}

async fn crash(mut app: TestApp) {
    let seed = std::env::var("BOTDECK_CRASH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("BOTDECK_CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let people: Vec<User> = (1..=PEOPLE).map(|id| User::new(id, "Somebody")).collect();
    let mut written = vec![0_usize; people.len()];
    let total = people.len() * MESSAGES;
    for kill in 1..=KILLS {
        // Enough for a start now and then, so that no job is struck down by all of its attempts.
        let least = if kill % 3 == 0 { 2800 } else { 200 };
        let moment = Duration::from_millis(random.random_range(least..4000));
        // What is left is spread evenly over the kills that are left; half of it comes in the last moments before this one.
        let left = total - written.iter().sum::<usize>();
        let due = left.div_ceil(usize::try_from(KILLS - kill + 1).unwrap());
        let mut pauses: Vec<Duration> = (0..due)
            .map(|nth| {
                if nth % 2 == 0 {
                    moment.saturating_sub(Duration::from_millis(random.random_range(0..400)))
                } else {
                    Duration::ZERO
                }
            })
            .collect();
        pauses.sort();
        let started = tokio::time::Instant::now();
        for pause in pauses {
            tokio::time::sleep_until(started + pause).await;
            let at = loop {
                let at = random.random_range(0..people.len());
                if written[at] < MESSAGES {
                    break at;
                }
            };
            app.say(&people[at], &message(people[at].id, written[at]).0);
            written[at] += 1;
        }
        tokio::time::sleep_until(started + moment).await;
        app.kill().await;
        let over: usize = people.iter().map(|person| answers(&app, person.id).len()).sum();
        println!(
            "kill {kill} after {moment:?}: {} written, {over} messages of the bot",
            written.iter().sum::<usize>()
        );
        if kill % 7 != 0 {
            app.sql_execute("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE state = 'running'")
                .await;
            app.sql_execute("UPDATE bots SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL")
                .await;
        }
        app.spawn();
    }
    eventually(Duration::from_secs(90), "all is answered", || async {
        let open = app
            .count("SELECT count(*) AS n FROM jobs WHERE state NOT IN ('done', 'dead', 'discarded')")
            .await;
        let stored = app.count("SELECT count(*) AS n FROM updates").await;
        if open == 0 && stored >= i64::try_from(total).unwrap() {
            Ok(())
        } else {
            Err(format!("{stored} of {total} updates stored, {open} jobs open"))
        }
    })
    .await;

    let mut faults = Vec::new();
    for person in &people {
        let expected: Vec<String> = (0..MESSAGES).map(|number| message(person.id, number).1).collect();
        let said = answers(&app, person.id);
        for (number, text) in expected.iter().enumerate() {
            let copies = said.iter().filter(|(_, said)| said == text).count();
            if copies != 1 {
                faults.push(format!("person {} message {number} has {copies} answers", person.id));
            }
        }
        for (id, text) in said.iter().filter(|(_, text)| !expected.contains(text)) {
            faults.push(format!(
                "person {} got something else in message {id}: {text:?}",
                person.id
            ));
        }
        let order: Vec<&String> = said
            .iter()
            .map(|(_, text)| text)
            .filter(|text| expected.contains(text))
            .collect();
        if faults.is_empty() && order.iter().zip(&expected).any(|(said, expected)| *said != expected) {
            faults.push(format!("person {} was answered out of order: {order:?}", person.id));
        }
    }
    for (what, query, expected) in [
        ("ledger rows", "SELECT count(*) AS n FROM usage", total),
        (
            "messages billed",
            "SELECT sum(used)::bigint AS n FROM counters WHERE measure = 'messages'",
            total,
        ),
        ("left reserved", "SELECT sum(reserved)::bigint AS n FROM counters", 0),
        ("reservations", "SELECT count(*) AS n FROM reservations", 0),
        ("dead letters", "SELECT count(*) AS n FROM jobs WHERE state = 'dead'", 0),
        ("jobs", "SELECT count(*) AS n FROM jobs", total),
        (
            "questions kept",
            "SELECT count(*) AS n FROM messages WHERE author = 'user'",
            total,
        ),
        (
            "answers kept",
            "SELECT count(*) AS n FROM messages WHERE author = 'bot'",
            total,
        ),
        ("errors", "SELECT count(*) AS n FROM errors", 0),
    ] {
        let found = app.count(query).await;
        if found != i64::try_from(expected).unwrap() {
            faults.push(format!("{found} {what} instead of {expected}"));
        }
    }
    let tokens = "SELECT (SELECT sum(used) FROM counters WHERE measure = 'tokens')
        = (SELECT sum(prompt_tokens + completion_tokens) FROM usage) AS same";
    if app.sql_one(tokens).await["same"] != true {
        faults.push("counters and ledger differ in tokens".to_owned());
    }
    let again = app.count("SELECT count(*) AS n FROM jobs WHERE attempts > 1").await;
    let most = app.count("SELECT max(attempts)::bigint AS n FROM jobs").await;
    // A message that is looked for is edited to what it says already: Telegram calls that "not modified".
    let edits = app.telegram.calls_of("editMessageText").into_iter();
    let found = edits.filter(|call| {
        call.description
            .as_deref()
            .is_some_and(|why| why.contains("not modified"))
    });
    println!(
        "{KILLS} kills: {again} of {total} jobs were run again, {most} times at most; the model was asked {} times; {} answers \
         stood in their chat already and were found there",
        app.provider.totals().requests,
        found.count()
    );
    assert!(again > 0, "no kill met a running job");
    for fault in &faults {
        println!("FAULT {fault}");
    }
    assert!(
        faults.is_empty(),
        "seed {seed}: {} faults, the first: {}",
        faults.len(),
        faults[0]
    );
    app.finish().await;
}

/// The bot's messages in a chat, by id.
fn answers(app: &TestApp, chat: i64) -> Vec<(i64, String)> {
    let messages = app.telegram.messages(TOKEN, chat).into_iter();
    messages
        .filter(|message| message.from_bot)
        .map(|message| (message.id, message.text))
        .collect()
}

#[tokio::test]
async fn polling_survives_twenty_kills() {
    crash(app().unlimited().polling().start().await).await;
}

#[tokio::test]
async fn webhook_survives_twenty_kills() {
    crash(app().unlimited().webhook().start().await).await;
}

/// One message, a kill at a chosen moment, a restart: the answer must stand in the chat once, and be billed once.
async fn one_kill(app: &mut TestApp, question: &str) {
    app.kill().await;
    app.sql_execute("DROP TRIGGER IF EXISTS slow ON deliveries").await;
    app.sql_execute("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE state = 'running'")
        .await;
    app.sql_execute("UPDATE bots SET lease_until = now()").await;
    app.start().await;
    app.idle().await;
    let answer = format!("Echo: {}", question.split("[[").next().unwrap());
    assert_eq!(app.said_by_bot(crate::anna().id), [answer]);
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 1);
    assert_eq!(app.count("SELECT sum(reserved)::bigint AS n FROM counters").await, 0);
    let job = app.sql_one("SELECT state, attempts FROM jobs").await;
    assert_eq!((&job["state"], &job["attempts"]), (&"done".into(), &2.into()));
}

const STREAMED: &str = "a b c d e f g h i j k l m n o p q r s t[[chunks=20,120ms]]";

/// From now on whatever is to be noted about a sent message takes for ever.
async fn forget_to_note(app: &TestApp) {
    app.sql_execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END'",
    )
    .await;
    app.sql_execute("CREATE TRIGGER slow BEFORE UPDATE ON deliveries FOR EACH ROW WHEN (OLD.message_id IS DISTINCT FROM NEW.message_id) EXECUTE FUNCTION slow()")
        .await;
}

async fn cut_sleepers(app: &TestApp) {
    app.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()")
        .await;
}

#[tokio::test]
async fn killed_after_a_preview_was_sent_and_before_it_was_noted() {
    let mut app = app().start().await;
    forget_to_note(&app).await;
    let anna = crate::anna();
    app.say(&anna, STREAMED);
    app.answer_with(anna.id, "Echo: a").await;
    app.kill().await;
    cut_sleepers(&app).await;
    one_kill(&mut app, STREAMED).await;
    app.finish().await;
}

#[tokio::test]
async fn killed_after_the_answer_was_sent_and_before_it_was_noted() {
    let mut app = app().start().await;
    forget_to_note(&app).await;
    let anna = crate::anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    app.kill().await;
    cut_sleepers(&app).await;
    one_kill(&mut app, "Hello").await;
    assert_eq!(app.provider.totals().requests, 1, "the model was asked again");
    app.finish().await;
}

#[tokio::test]
async fn killed_after_the_answer_was_stored_and_before_it_was_sent() {
    let mut app = app().start().await;
    let anna = crate::anna();
    app.telegram.fail_next("sendMessage", 1, Fault::Delay(30_000));
    app.say(&anna, "Hello");
    eventually(PATIENCE, "the answer is stored", || async {
        if app.count("SELECT count(*) AS n FROM usage").await == 1 {
            Ok(())
        } else {
            Err("no ledger row".to_owned())
        }
    })
    .await;
    one_kill(&mut app, "Hello").await;
    assert_eq!(app.provider.totals().requests, 1, "the model was asked again");
    app.finish().await;
}

#[tokio::test]
async fn killed_while_an_answer_was_streamed() {
    let mut app = app().start().await;
    let anna = crate::anna();
    app.say(&anna, STREAMED);
    app.answer_with(anna.id, "Echo: a b c d e f g h").await;
    one_kill(&mut app, STREAMED).await;
    app.finish().await;
}

/// Sixty messages wait in the chat when the answer to the first is lost: it must be found behind them.
#[tokio::test]
async fn a_lost_answer_is_found_behind_many_waiting_messages() {
    let mut app = app().unlimited().start().await;
    forget_to_note(&app).await;
    let anna = crate::anna();
    let expected: Vec<String> = (0..60).map(|number| format!("Echo: message {number}")).collect();
    for number in 0..60 {
        app.say(&anna, &format!("message {number}"));
    }
    app.answer(anna.id, &expected[0]).await;
    app.kill().await;
    cut_sleepers(&app).await;
    app.sql_execute("DROP TRIGGER IF EXISTS slow ON deliveries").await;
    app.sql_execute("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE state = 'running'")
        .await;
    app.sql_execute("UPDATE bots SET lease_until = now()").await;
    app.start().await;
    app.answer(anna.id, &expected[59]).await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), expected);
    app.finish().await;
}

async fn restart(app: &mut TestApp) {
    app.kill().await;
    app.sql_execute("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE state = 'running'")
        .await;
    app.sql_execute("UPDATE bots SET lease_until = now()").await;
    app.start().await;
}

#[tokio::test]
async fn killed_while_an_edited_question_was_answered_anew() {
    let mut app = app().start().await;
    let anna = crate::anna();
    let asked = app.say(&anna, "Hello");
    let first = app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    app.telegram.edit_text(TOKEN, &anna, asked, STREAMED);
    app.provider
        .wait_for(PATIENCE, |provider| (provider.requests().len() == 2).then_some(()))
        .await
        .unwrap();
    restart(&mut app).await;
    let second = app
        .answer(anna.id, "Echo: a b c d e f g h i j k l m n o p q r s t")
        .await;
    app.idle().await;
    assert_eq!(second.id, first.id);
    assert_eq!(app.said_by_bot(anna.id).len(), 1);
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 2);
    assert_eq!(app.count("SELECT sum(reserved)::bigint AS n FROM counters").await, 0);
    app.finish().await;
}

/// What somebody wanted stopped stays stopped, and is billed once, as far as it went.
#[tokio::test]
async fn killed_while_an_answer_was_being_stopped() {
    let mut app = app().start().await;
    let anna = crate::anna();
    app.say(&anna, STREAMED);
    app.answer_with(anna.id, "Echo: a b c").await;
    app.say(&anna, "/stop");
    eventually(PATIENCE, "the wish to stop", || async {
        match app.count("SELECT count(*) AS n FROM jobs WHERE cancel_requested").await {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    restart(&mut app).await;
    app.say(&anna, "next");
    app.answer(anna.id, "Echo: next").await;
    app.idle().await;
    let said = app.said_by_bot(anna.id);
    assert!(
        !said
            .iter()
            .any(|text| text.starts_with("Echo: a b c d e f g h i j k l m n o p q r s t")),
        "{said:?}"
    );
    assert_eq!(said.iter().filter(|text| text.contains('⏹')).count(), 1, "{said:?}");
    assert_eq!(
        app.count("SELECT count(*) AS n FROM usage WHERE finish = 'stopped'")
            .await,
        1
    );
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 2);
    assert_eq!(app.count("SELECT sum(reserved)::bigint AS n FROM counters").await, 0);
    app.finish().await;
}
