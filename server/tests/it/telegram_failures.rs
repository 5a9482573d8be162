//! When Telegram fails: every answer arrives, exactly once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_support::{
    TestApp,
    app::{BOT_NAME, PATIENCE, TOKEN, eventually},
    fake_telegram::{Fault, Group, User},
};

use crate::{anna, app, boris};

/// What somebody else does with the bot's token.
async fn call(app: &TestApp, method: &str, params: Value) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/bot{TOKEN}/{method}", app.telegram.url());
    let answer = client.post(url).json(&params).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["ok"], true, "{answer}");
    answer["result"].clone()
}

/// Edits of messages that are not there, or not the bot's: guesses that Telegram refuses.
fn illegal_edits(app: &TestApp) -> usize {
    let edits = app.telegram.calls_of("editMessageText").into_iter();
    edits
        .filter(|call| {
            call.description
                .as_deref()
                .is_some_and(|why| !why.contains("not modified"))
        })
        .count()
}

/// A long text that is streamed for about two seconds.
const STREAMED: &str = "a b c d e f g h i j k l m n o p q r s t[[chunks=20,120ms]]";
const STREAMED_ANSWER: &str = "Echo: a b c d e f g h i j k l m n o p q r s t";

#[tokio::test]
async fn retry_after_is_obeyed() {
    let app = app().start().await;
    let anna = anna();
    app.telegram.fail_next("sendMessage", 1, Fault::RetryAfter(2));
    let asked = Instant::now();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    assert!(asked.elapsed() >= Duration::from_secs(2));
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: Hello"]);
    assert_eq!(app.count("SELECT max(attempts)::bigint AS n FROM jobs").await, 1);
    app.finish().await;
}

#[tokio::test]
async fn a_chat_that_takes_one_call_a_second_gets_everything_in_order() {
    let app = app().start().await;
    let anna = anna();
    app.telegram.flood(None, 1, Duration::from_secs(1));
    app.say(&anna, STREAMED);
    app.say(&anna, "two");
    app.say(&anna, "three");
    app.answer(anna.id, "Echo: three").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), [STREAMED_ANSWER, "Echo: two", "Echo: three"]);
    app.finish().await;
}

#[tokio::test]
async fn a_failed_send_arrives_exactly_once() {
    let app = app().start().await;
    let anna = anna();
    let mut expected = Vec::new();
    for (number, fault) in [
        Fault::Status(502, "Bad Gateway".into()),
        Fault::Status(500, "Internal Server Error".into()),
        Fault::DropBeforeHandling,
        Fault::DropAfterHandling,
        Fault::StatusAfterHandling(502),
        Fault::StatusAfterHandling(500),
        Fault::Delay(500),
        // Something in between has answered for Telegram.
        Fault::Html(502),
        Fault::Html(503),
        Fault::Html(200),
        Fault::Html(403),
        Fault::Html(429),
    ]
    .into_iter()
    .enumerate()
    {
        app.telegram.fail_next("sendMessage", 1, fault.clone());
        app.say(&anna, &format!("message {number}"));
        expected.push(format!("Echo: message {number}"));
        app.answer(anna.id, &expected[number]).await;
        app.idle().await;
        assert_eq!(app.said_by_bot(anna.id), expected, "{fault:?}");
    }
    assert_eq!(app.provider.totals().requests, 12, "the model was asked again");
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 12);
    app.finish().await;
}

/// The ids that were tried in vain are those that it may get afterwards.
#[tokio::test]
async fn a_message_lost_after_a_search_in_vain_is_found() {
    let app = app().start().await;
    let anna = anna();
    let refused = Fault::Status(500, "Internal Server Error".into());
    app.telegram.fail_next("sendMessage", 1, refused);
    app.telegram.fail_next("sendMessage", 1, Fault::DropAfterHandling);
    app.say(&anna, "hello");
    app.answer(anna.id, "Echo: hello").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: hello"]);
    app.finish().await;
}

/// An answer is lost, and the reply to `/stop` is sent while it is looked for; the id of that is noted only after so many seconds.
async fn a_stop_beside_a_search(app: &TestApp, noted_after: f32) {
    for statement in [
        &format!(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF (SELECT payload->'message'->>'text' = '/stop' FROM updates WHERE id = NEW.job_id)
             THEN PERFORM pg_sleep({noted_after}); END IF;
             RETURN NEW;
         END $$"
        ),
        "CREATE TRIGGER slow BEFORE UPDATE ON deliveries FOR EACH ROW
             WHEN (OLD.message_id IS DISTINCT FROM NEW.message_id) EXECUTE FUNCTION slow()",
    ] {
        app.sql_execute(statement).await;
    }
    app.telegram.fail_next("sendMessage", 1, Fault::DropBeforeHandling);
    app.say(&anna(), "hello");
    app.telegram
        .wait_for(PATIENCE, |telegram| {
            (!telegram.calls_of("sendMessage").is_empty()).then_some(())
        })
        .await
        .unwrap();
    app.say(&anna(), "/stop");
}

/// What messages were changed to say.
fn changes(app: &TestApp) -> Vec<String> {
    let edits = app.telegram.calls_of("editMessageText");
    let edits = edits.iter().filter(|call| call.status == Some(200));
    edits
        .filter_map(|call| Some(call.params["text"].as_str()?.to_owned()))
        .collect()
}

/// The reply to `/stop` is sent beside the search for an answer, and its id is noted a moment later: it is not taken for the answer.
#[tokio::test]
async fn what_is_sent_beside_a_search_keeps_its_own_text() {
    let app = app().start().await;
    a_stop_beside_a_search(&app, 7.0).await;
    app.answer(anna().id, "Echo: hello").await;
    app.idle().await;
    let mut said = app.said_by_bot(anna().id);
    said.sort_unstable();
    assert_eq!(said, ["Echo: hello", "Stopped."]);
    // It was overwritten, and changed back.
    assert_eq!(changes(&app), ["Echo: hello", "Stopped."]);
    app.finish().await;
}

/// As before, and the worker that has overwritten it is killed before it has changed it back.
#[tokio::test]
async fn what_a_killed_search_has_overwritten_gets_its_text_back() {
    let mut app = app().start().await;
    a_stop_beside_a_search(&app, 2.2).await;
    eventually(PATIENCE, "the reply is overwritten, and noted", || async {
        let noted = "SELECT count(*) AS n FROM deliveries WHERE message_id IS NOT NULL";
        let seen = (changes(&app), app.count(noted).await);
        if seen.1 > 0 && seen.0.iter().any(|text| text == "Echo: hello") {
            return Ok(());
        }
        Err(format!("{seen:?}"))
    })
    .await;
    app.restart().await;
    app.answer(anna().id, "Echo: hello").await;
    app.idle().await;
    let mut said = app.said_by_bot(anna().id);
    said.sort_unstable();
    assert_eq!(said, ["Echo: hello", "Stopped."]);
    app.finish().await;
}

#[tokio::test]
async fn a_reply_to_a_command_arrives_exactly_once() {
    let app = app().start().await;
    let anna = anna();
    for fault in [
        Fault::DropBeforeHandling,
        Fault::DropAfterHandling,
        Fault::Status(502, "Bad Gateway".into()),
    ] {
        app.telegram.fail_next("sendMessage", 1, fault.clone());
        let before = app.said_by_bot(anna.id).len();
        let asked = app.say(&anna, "/help");
        app.reply(anna.id, asked).await;
        assert_eq!(app.said_by_bot(anna.id).len(), before + 1, "{fault:?}");
    }
    app.finish().await;
}

/// A streamed answer while a method fails so many times. Mostly waiting, so it is done for all faults side by side.
async fn streamed_despite(method: &'static str, times: u32, fault: Fault) {
    let app = app().start().await;
    let anna = anna();
    app.telegram.fail_next(method, times, fault.clone());
    app.say(&anna, STREAMED);
    app.answer(anna.id, STREAMED_ANSWER).await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), [STREAMED_ANSWER], "{method} {fault:?}");
    app.finish().await;
}

#[tokio::test]
async fn a_lost_preview_is_found_again() {
    tokio::join!(
        streamed_despite("sendMessage", 1, Fault::DropAfterHandling),
        streamed_despite("sendMessage", 1, Fault::DropBeforeHandling),
        streamed_despite("sendMessage", 1, Fault::Status(502, "Bad Gateway".into())),
        streamed_despite("sendMessage", 1, Fault::RetryAfter(1)),
        streamed_despite("sendMessage", 1, Fault::Html(502)),
    );
}

/// None of the ids is known when the search for all of them begins, as after the kill of a busy replica. Of more than that some are
/// sent twice: a search ends after sixteen edits.
async fn twelve_lost_at_once(in_one_row: bool) {
    let app = app().start().await;
    if in_one_row {
        app.telegram.number_in_one_row(TOKEN);
    }
    let people: Vec<User> = (1..=12).map(|id| User::new(id, "Somebody")).collect();
    app.telegram.fail_next("sendMessage", 12, Fault::DropAfterHandling);
    for person in &people {
        // All questions are there before the first answer.
        app.say(person, &format!("of {}[[delay=400]]", person.id));
    }
    app.idle().await;
    for person in &people {
        assert_eq!(app.said_by_bot(person.id), [format!("Echo: of {}", person.id)]);
    }
    app.finish().await;
}

#[tokio::test]
async fn twelve_messages_lost_at_once_are_all_found_again() {
    tokio::join!(twelve_lost_at_once(true), twelve_lost_at_once(false));
}

/// With 300 questions behind it, nothing but the moment of its sending says where the first answer is to be looked for.
#[tokio::test]
async fn a_message_lost_in_a_backlog_is_found_again() {
    let mut app = app().prepare().await;
    app.telegram.number_in_one_row(TOKEN);
    let people: Vec<User> = (1..=300).map(|id| User::new(id, "Somebody")).collect();
    for person in &people {
        app.telegram.send_text(TOKEN, person, &format!("of {}", person.id));
    }
    app.telegram.fail_next("sendMessage", 5, Fault::DropAfterHandling);
    app.start().await;
    app.idle().await;
    for person in &people {
        assert_eq!(app.said_by_bot(person.id), [format!("Echo: of {}", person.id)]);
    }
    app.finish().await;
}

/// The chat takes twenty calls a minute, the search's own included, and others go on writing there.
#[tokio::test]
async fn a_message_lost_in_a_busy_group_is_found_again() {
    let app = app().start().await;
    let (anna, group) = (anna(), Group::new(-1_000_000_000_500, "Friends"));
    app.telegram.flood(Some(group.id), 20, Duration::from_secs(60));
    for (fault, word) in [
        (Fault::DropAfterHandling, "sent"),
        (Fault::DropBeforeHandling, "not sent"),
    ] {
        app.telegram.fail_next("sendMessage", 1, fault);
        let text = format!("@{BOT_NAME} {word}[[delay=500]]");
        app.telegram.send_in_group(TOKEN, &group, &anna, &text);
        for _ in 0..3 {
            app.telegram.send_in_group(TOKEN, &group, &boris(), "among ourselves");
        }
        app.answer(group.id, &format!("Echo: {word}")).await;
        app.idle().await;
    }
    assert_eq!(app.said_by_bot(group.id), ["Echo: sent", "Echo: not sent"]);
    assert!(illegal_edits(&app) <= 16);
    assert_eq!(app.telegram.flood_violations(), 0);
    app.finish().await;
}

#[tokio::test]
async fn an_answer_does_not_wait_for_a_chat_action_that_hangs() {
    let app = app().start().await;
    let anna = anna();
    app.telegram.fail_next("sendChatAction", 1, Fault::Delay(9000));
    let asked = Instant::now();
    app.say(&anna, "hm[[delay=1000]]");
    app.answer(anna.id, "Echo: hm").await;
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    app.finish().await;
}

#[tokio::test]
async fn failing_chat_actions_do_not_cost_the_answer() {
    for fault in [
        Fault::RetryAfter(1),
        Fault::Status(502, "Bad Gateway".into()),
        Fault::Status(400, "Bad Request: message thread not found".into()),
        Fault::DropBeforeHandling,
        Fault::Html(200),
    ] {
        let app = app().start().await;
        let anna = anna();
        app.telegram.fail_next("sendChatAction", 1, fault.clone());
        app.say(&anna, "hm[[delay=700]]");
        app.answer(anna.id, "Echo: hm").await;
        app.idle().await;
        assert_eq!(app.said_by_bot(anna.id), ["Echo: hm"], "{fault:?}");
        assert_eq!(app.telegram.calls_of("sendChatAction").len(), 1, "{fault:?}");
        app.finish().await;
    }
}

#[tokio::test]
async fn failed_edits_do_not_cost_the_answer() {
    tokio::join!(
        streamed_despite("editMessageText", 2, Fault::DropAfterHandling),
        streamed_despite("editMessageText", 2, Fault::DropBeforeHandling),
        streamed_despite("editMessageText", 2, Fault::Status(502, "Bad Gateway".into())),
        streamed_despite("editMessageText", 2, Fault::RetryAfter(1)),
        streamed_despite("editMessageText", 2, Fault::Html(502)),
    );
}

#[tokio::test]
async fn an_answer_whose_preview_was_deleted_still_arrives() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, STREAMED);
    let preview = app.answer_with(anna.id, "Echo: a").await;
    call(
        &app,
        "deleteMessage",
        json!({"chat_id": anna.id, "message_id": preview.id}),
    )
    .await;
    app.answer(anna.id, STREAMED_ANSWER).await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), [STREAMED_ANSWER]);
    app.finish().await;
}

#[tokio::test]
async fn an_outage_of_telegram_is_waited_out() {
    let app = app().start().await;
    let anna = anna();
    // Longer than all pauses of one attempt: the job is put off and comes back.
    app.telegram
        .fail_next("sendMessage", 5, Fault::Status(503, "Service Unavailable".into()));
    app.say(&anna, "Hello");
    app.say(&anna, "and more");
    app.answer(anna.id, "Echo: and more").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: Hello", "Echo: and more"]);
    assert_eq!(app.provider.totals().requests, 2, "the answer was made twice");
    assert_eq!(illegal_edits(&app), 0, "what was certainly not sent was looked for");
    app.finish().await;
}

#[tokio::test]
async fn a_long_outage_of_telegram_is_waited_for_longer_and_longer() {
    let app = app().start().await;
    let anna = anna();
    // Four calls an attempt; two attempts fail.
    app.telegram
        .fail_next("sendMessage", 8, Fault::Status(503, "Service Unavailable".into()));
    app.say(&anna, "Hello");
    let put_off = |attempt: i64| {
        let app = &app;
        async move {
            eventually(PATIENCE, "the job is put off", || async {
                let jobs = app
                    .sql("SELECT state, attempts, extract(epoch FROM run_at - now())::float8 AS wait FROM jobs")
                    .await;
                let Some(job) = jobs.first() else {
                    return Err("no job yet".to_owned());
                };
                let wait = job["wait"].as_f64().unwrap();
                if job["state"] == "ready" && job["attempts"] == attempt && wait > 0.0 {
                    Ok(wait)
                } else {
                    Err(job.to_string())
                }
            })
            .await
        }
    };
    assert!(put_off(1).await <= 5.0 * 1.25);
    app.sql_execute("UPDATE jobs SET attempts = 4, run_at = now()").await;
    let wait = put_off(5).await;
    assert!(
        wait > 60.0,
        "the fifth attempt was followed by a pause of {wait} s only"
    );
    app.sql_execute("UPDATE jobs SET run_at = now()").await;
    app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: Hello"]);
    assert_eq!(app.provider.totals().requests, 1);
    app.finish().await;
}

#[tokio::test]
async fn a_revoked_token_is_shown_to_staff_and_the_rest_goes_on() {
    let app = app().start().await;
    app.telegram.revoke(TOKEN);
    // An open poll ends with the revocation.
    app.say(&anna(), "nobody hears this");
    eventually(PATIENCE, "the fault is shown", || async {
        let bot = app.sql_one("SELECT fault FROM bots WHERE transport = 'telegram'").await;
        match bot["fault"].as_str() {
            Some(fault) if fault.contains("token") => Ok(()),
            _ => Err(bot.to_string()),
        }
    })
    .await;
    assert!(app.cli(&["bot", "list"]).await.ok().stdout.contains("token"));
    assert_eq!(app.visitor().get("/readyz").await.status, 200);
    app.finish().await;
}

/// A refusal for which there is no remedy.
fn weird() -> Fault {
    Fault::Status(400, "Bad Request: MESSAGE_IS_WEIRD".into())
}

const SORRY: &str = "Something went wrong on my side. It has been noted. Ask again; if it happens again, send the code to the \
    people who run this bot.\nBD-INTERNAL";

#[tokio::test]
async fn whose_message_became_a_dead_letter_is_told_once() {
    let app = app().start().await;
    let (anna, boris) = (anna(), boris());
    app.telegram.fail_next("sendMessage", 1, weird());
    app.say(&anna, "Hello");
    app.answer(anna.id, SORRY).await;
    app.idle().await;
    let job = app.sql_one("SELECT id, state, last_error FROM jobs").await;
    assert_eq!(job["state"], "dead");
    assert!(job["last_error"].as_str().unwrap().contains("WEIRD"), "{job}");
    // The code leads staff to the cause.
    let error = app.sql_one("SELECT code, cause, job_id FROM errors").await;
    assert_eq!((&error["code"], &error["job_id"]), (&"BD-INTERNAL".into(), &job["id"]));
    // In the language of the reader; and the conversation goes on.
    app.telegram.fail_next("sendMessage", 1, weird());
    app.say(&boris, "привет");
    let told = app.answer_with(boris.id, "BD-INTERNAL").await;
    assert!(told.text.contains("что-то сломалось"), "{}", told.text);
    app.say(&anna, "again");
    app.answer(anna.id, "Echo: again").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), [SORRY, "Echo: again"]);
    assert_eq!(app.said_by_bot(boris.id).len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn that_a_message_is_given_up_is_said_with_a_single_call() {
    let app = app().start().await;
    let anna = anna();
    // The reply to a command has no looks to do without: it is tried once, and its failing is told once, which fails as well.
    app.telegram.fail_next("sendMessage", 100, weird());
    app.say(&anna, "/new");
    app.idle().await;
    assert_eq!(app.telegram.calls_of("sendMessage").len(), 2);
    assert_eq!(app.said_by_bot(anna.id), [""; 0]);
    app.finish().await;
}

/// What is put back long after its time may stand among messages whose ids are forgotten: none of them is to be written over.
#[tokio::test]
async fn a_dead_letter_tried_again_after_the_others_were_pruned_overwrites_none() {
    // With and without a note that it was not sent.
    for certain in [true, false] {
        let app = app().start().await;
        let anna = anna();
        app.telegram.fail_next("sendMessage", 1, weird());
        app.say(&anna, "first");
        app.answer(anna.id, SORRY).await;
        app.say(&anna, "second");
        app.answer(anna.id, "Echo: second").await;
        app.idle().await;
        assert_eq!(
            app.count("SELECT count(*) AS n FROM deliveries WHERE maybe_sent").await,
            2
        );
        if !certain {
            app.sql_execute("UPDATE deliveries SET maybe_sent = true").await;
            app.sql_execute("UPDATE jobs SET created_at = now() - interval '3 days'")
                .await;
        }
        app.sql_execute("DELETE FROM jobs WHERE state = 'done'").await;
        app.sql_execute(
            "UPDATE jobs SET state = 'ready', attempts = 1, run_at = now(), finished_at = NULL WHERE state = 'dead'",
        )
        .await;
        app.answer(anna.id, "Echo: first").await;
        app.idle().await;
        assert_eq!(app.said_by_bot(anna.id), ["Echo: second", "Echo: first"]);
        assert_eq!(app.telegram.calls_of("editMessageText").len(), 0, "certain: {certain}");
        app.finish().await;
    }
}

/// What was sent anew may have an id that was free when it was looked for before: each sending is looked for, each id once.
#[tokio::test]
async fn each_sending_is_looked_for_once_and_each_search_has_an_end() {
    let app = app().start().await;
    let anna = anna();
    // Not sent, twice in each of two attempts; nobody knows.
    app.telegram
        .fail_next("sendMessage", 4, Fault::Status(502, "Bad Gateway".into()));
    app.say(&anna, "Hello");
    for attempt in 1..=2 {
        eventually(PATIENCE, "the job is put off", || async {
            let query = format!("SELECT count(*) AS n FROM jobs WHERE state = 'ready' AND attempts = {attempt}");
            match app.count(&query).await {
                1 => Ok(()),
                _ => Err("not yet".to_owned()),
            }
        })
        .await;
        app.sql_execute("UPDATE jobs SET run_at = now()").await;
    }
    app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: Hello"]);
    let mut guesses: Vec<i64> = app
        .telegram
        .calls_of("editMessageText")
        .iter()
        .map(|call| call.params["message_id"].as_i64().unwrap())
        .collect();
    guesses.sort_unstable();
    let searches = guesses.chunk_by(|one, other| one == other).map(<[i64]>::len).max();
    assert!(
        searches.is_some_and(|most| most <= 4),
        "an id was tried twice in one search: {guesses:?}"
    );
    assert!((5..=4 * 16).contains(&guesses.len()), "{guesses:?}");
    app.finish().await;
}

#[tokio::test]
async fn an_answer_whose_last_edit_is_refused_arrives_as_a_new_message() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, STREAMED);
    app.answer_with(anna.id, "Echo: a").await;
    app.telegram.fail_next("editMessageText", 100, weird());
    app.answer(anna.id, STREAMED_ANSWER).await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id).pop().unwrap(), STREAMED_ANSWER);
    assert_eq!(app.sql_one("SELECT state FROM jobs").await["state"], "done");
    app.finish().await;
}

/// The edit that nobody answers is a preview's: the answer waits for it two seconds at most, and is billed before.
#[tokio::test]
async fn an_answer_does_not_wait_for_a_preview_that_hangs() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, STREAMED);
    app.answer_with(anna.id, "Echo: a").await;
    let asked = Instant::now();
    app.telegram.fail_next("editMessageText", 1, Fault::Delay(9000));
    app.answer(anna.id, STREAMED_ANSWER).await;
    assert!(asked.elapsed() < Duration::from_secs(7), "{:?}", asked.elapsed());
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), [STREAMED_ANSWER]);
    app.finish().await;
}

/// A message that was shown growing is full, and Telegram wants a pause before it gets its final form. The answer is settled all
/// the same, before the pause is over.
#[tokio::test]
async fn an_answer_is_settled_while_its_preview_is_paused() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "[[tokens=700]][[chunks=40,100ms]]");
    app.answer_with(anna.id, "word1 word2").await;
    app.telegram.fail_next("editMessageText", 1, Fault::RetryAfter(8));
    let asked = Instant::now();
    eventually(PATIENCE, "the answer is settled", || async {
        match app.count("SELECT count(*) AS n FROM usage").await {
            1 => Ok(()),
            none => Err(none.to_string()),
        }
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    app.answer_with(anna.id, "word700").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id).len(), 2);
    app.finish().await;
}

#[tokio::test]
async fn whose_message_was_tried_too_often_is_told_once() {
    let app = app().start().await;
    let anna = anna();
    let out_of_service = || Fault::Status(503, "Service Unavailable".into());
    app.telegram.fail_next("sendMessage", 4, out_of_service());
    app.say(&anna, "Hello");
    eventually(PATIENCE, "the job is put off", || async {
        let jobs = app
            .sql("SELECT state FROM jobs WHERE state = 'ready' AND attempts = 1")
            .await;
        jobs.first().map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    app.telegram.fail_next("sendMessage", 4, out_of_service());
    app.sql_execute("UPDATE jobs SET attempts = max_attempts - 1, run_at = now()")
        .await;
    app.answer(anna.id, SORRY).await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), [SORRY]);
    assert_eq!(app.sql_one("SELECT state FROM jobs").await["state"], "dead");
    app.finish().await;
}

#[tokio::test]
async fn a_chat_that_does_not_exist_is_closed_and_left_alone() {
    for refusal in ["Bad Request: chat not found", "Bad Request: PEER_ID_INVALID"] {
        let app = app().start().await;
        let anna = anna();
        app.telegram
            .fail_next("sendMessage", 100, Fault::Status(400, refusal.into()));
        app.say(&anna, "Hello");
        app.idle().await;
        assert_eq!(app.telegram.calls_of("sendMessage").len(), 1, "{refusal}");
        let chat = app
            .sql_one("SELECT closed_at FROM chats WHERE external_id = 7001")
            .await;
        assert!(!chat["closed_at"].is_null(), "{refusal}");
        assert_eq!(
            app.sql_one("SELECT state FROM jobs").await["state"],
            "dead",
            "{refusal}"
        );
        app.finish().await;
    }
}

#[tokio::test]
async fn what_was_written_before_the_bot_was_blocked_is_neither_answered_nor_billed() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, STREAMED);
    app.answer_with(anna.id, "Echo: a").await;
    for number in 0..3 {
        app.say(&anna, &format!("more {number}"));
    }
    eventually(PATIENCE, "all are taken", || async {
        match app.count("SELECT count(*) AS n FROM jobs").await {
            4 => Ok(()),
            few => Err(few.to_string()),
        }
    })
    .await;
    app.telegram.block(TOKEN, anna.id);
    app.idle().await;
    assert_eq!(
        app.provider.totals().requests,
        1,
        "the model was asked for somebody who is gone"
    );
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 1);
    let refused = app.telegram.counters().refused.get(&403).copied().unwrap_or_default();
    assert!((1..=3).contains(&refused), "{refused} calls to a closed chat");
    assert_eq!(
        app.count("SELECT count(*) AS n FROM jobs WHERE state <> 'done'").await,
        0
    );
    // The next message opens the chat, even when Telegram never told that the bot was let in again.
    app.telegram.unblock(TOKEN, anna.id);
    app.say(&anna, "here again");
    app.answer(anna.id, "Echo: here again").await;
    app.finish().await;
}

#[tokio::test]
async fn the_counts_of_what_is_undecidable_are_there_from_the_beginning() {
    let app = app().start().await;
    let anna = anna();
    let metric = |page: &str, name: &str| {
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    app.idle().await;
    let page = app.visitor().get("/metrics").await.body;
    for name in [
        "botdeck_sends_undecided_total ",
        "botdeck_lost_sends_total{found=\"yes\"} ",
        "botdeck_lost_sends_total{found=\"no\"} ",
        "botdeck_lost_sends_total{found=\"overwrote\"} ",
    ] {
        assert_eq!(metric(&page, name), Some(0), "{name}");
    }
    for (fault, found) in [(Fault::DropAfterHandling, "yes"), (Fault::DropBeforeHandling, "no")] {
        app.telegram.fail_next("sendMessage", 1, fault);
        app.say(&anna, found);
        app.answer(anna.id, &format!("Echo: {found}")).await;
        app.idle().await;
        let page = app.visitor().get("/metrics").await.body;
        let name = format!("botdeck_lost_sends_total{{found=\"{found}\"}} ");
        assert_eq!(metric(&page, &name), Some(1), "{found}");
    }
    let page = app.visitor().get("/metrics").await.body;
    assert_eq!(metric(&page, "botdeck_sends_undecided_total "), Some(2));
    // Something else writes with the bot's token, and its message is taken for ours: staff have to hear of that.
    let asked = app.say(&anna, "overwrote[[delay=1000]]");
    let others = call(&app, "sendMessage", json!({"chat_id": anna.id, "text": "not ours"})).await;
    assert_eq!(others["message_id"], asked + 1);
    app.telegram.fail_next("sendMessage", 1, Fault::DropBeforeHandling);
    app.answer(anna.id, "Echo: overwrote").await;
    app.idle().await;
    let page = app.visitor().get("/metrics").await.body;
    assert_eq!(metric(&page, "botdeck_lost_sends_total{found=\"overwrote\"} "), Some(1));
    assert_eq!(metric(&page, "botdeck_lost_sends_total{found=\"yes\"} "), Some(1));
    app.finish().await;
}

#[tokio::test]
async fn telegram_s_pauses_for_polling_count_as_flood_waits() {
    let app = app().start().await;
    app.telegram.fail_next("getUpdates", 1, Fault::RetryAfter(1));
    app.say(&anna(), "Hello");
    app.answer(anna().id, "Echo: Hello").await;
    eventually(
        PATIENCE,
        "the pause is counted, and what else operators watch is there",
        || async {
            let page = app.visitor().get("/metrics").await.body;
            let missing = [
                "botdeck_flood_waits_total{",
                "botdeck_queue_oldest_seconds ",
                "botdeck_jobs_running ",
                "botdeck_jobs_recovered_total ",
            ]
            .into_iter()
            .find(|name| !page.lines().any(|line| line.starts_with(name)));
            missing.map_or(Ok(()), |name| Err(format!("{name} is missing")))
        },
    )
    .await;
    app.finish().await;
}
