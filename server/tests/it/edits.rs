//! Second thoughts: an edited question is answered anew, in place, once, and only when its text differs.

use serde_json::Value;
use test_support::{
    app::{PATIENCE, TOKEN, TestApp},
    fake_provider::Reply,
    fake_telegram::Fault,
};

use crate::{anna, app};

/// Until the edit has been taken and its job is over.
async fn edited(app: &TestApp, edits: i64) {
    test_support::app::eventually(PATIENCE, "the edit is stored", || async {
        let stored = app
            .count("SELECT count(*) AS n FROM updates WHERE kind = 'edited_message'")
            .await;
        if stored == edits {
            Ok(())
        } else {
            Err(stored.to_string())
        }
    })
    .await;
    app.idle().await;
}

fn contents(request: &Value) -> Vec<String> {
    let messages = request["messages"].as_array().unwrap();
    messages
        .iter()
        .skip(1)
        .map(|message| message["content"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn an_edited_question_is_answered_in_the_message_of_the_old_answer() {
    let app = app().start().await;
    let anna = anna();
    let asked = app.say(&anna, "what is a crab?");
    let first = app.answer(anna.id, "Echo: what is a crab?").await;
    app.idle().await;
    app.telegram.edit_text(TOKEN, &anna, asked, "what is a lobster?");
    let second = app.answer(anna.id, "Echo: what is a lobster?").await;
    edited(&app, 1).await;
    assert_eq!(second.id, first.id);
    assert_eq!(app.said_by_bot(anna.id), ["Echo: what is a lobster?"]);
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 2);
    assert_eq!(app.count("SELECT count(*) AS n FROM reservations").await, 0);
    // The old exchange is no longer part of the conversation: not while it is replaced, and not afterwards.
    app.say(&anna, "and then?");
    app.answer(anna.id, "Echo: and then?").await;
    app.idle().await;
    let requests = app.provider.requests();
    assert_eq!(contents(&requests[1].body), ["what is a lobster?"]);
    assert_eq!(
        contents(&requests[2].body),
        ["what is a lobster?", "Echo: what is a lobster?", "and then?"]
    );
    // And again, in the same place.
    app.telegram.edit_text(TOKEN, &anna, asked, "what is a shrimp?");
    let third = app.answer(anna.id, "Echo: what is a shrimp?").await;
    edited(&app, 2).await;
    assert_eq!(third.id, first.id);
    assert_eq!(
        contents(&app.provider.requests()[3].body),
        ["and then?", "Echo: and then?", "what is a shrimp?"]
    );
    app.finish().await;
}

/// Its first answer is made to the end, and then replaced.
#[tokio::test]
async fn a_question_changed_while_it_is_answered_is_answered_anew_in_the_same_message() {
    let app = app().start().await;
    let anna = anna();
    let asked = app.say(&anna, "a b c d e f g h[[chunks=9,300ms]]");
    let first = app.answer_with(anna.id, "Echo: a").await;
    app.telegram.edit_text(TOKEN, &anna, asked, "what is a lobster?");
    let second = app.answer(anna.id, "Echo: what is a lobster?").await;
    edited(&app, 1).await;
    assert_eq!(second.id, first.id);
    assert_eq!(app.said_by_bot(anna.id), ["Echo: what is a lobster?"]);
    let requests = app.provider.requests();
    assert_eq!(contents(&requests[1].body), ["what is a lobster?"]);
    assert!(requests.iter().all(|request| request.finished));
    assert_eq!(app.count("SELECT count(*) AS n FROM usage WHERE reported").await, 2);
    assert_eq!(app.count("SELECT count(*) AS n FROM reservations").await, 0);
    app.finish().await;
}

#[tokio::test]
async fn a_new_answer_that_is_stopped_stands_in_place_as_far_as_it_came_and_is_billed_so() {
    let app = app().start().await;
    let anna = anna();
    let asked = app.say(&anna, "one");
    let first = app.answer(anna.id, "Echo: one").await;
    app.idle().await;
    app.telegram
        .edit_text(TOKEN, &anna, asked, "two three four five[[chunks=5,3000ms]]");
    app.provider
        .wait_for(PATIENCE, |provider| {
            let requests = provider.requests();
            (requests.len() == 2 && requests[1].chunks_written >= 2).then_some(())
        })
        .await
        .unwrap();
    app.say(&anna, "/stop");
    let second = app.answer_with(anna.id, "⏹ Stopped").await;
    edited(&app, 1).await;
    assert_eq!(second.id, first.id);
    assert!(second.text.starts_with("Echo: two\n"), "{second:?}");
    assert_eq!(app.said_by_bot(anna.id).len(), 2, "the answer, and the reply to /stop");
    let billed = app
        .sql(
            "SELECT finish, reported, prompt_tokens > 0 AS asked, completion_tokens > 0 AS made FROM usage ORDER BY at",
        )
        .await;
    assert_eq!(
        billed[1],
        serde_json::json!({"finish": "stopped", "reported": false, "asked": true, "made": true})
    );
    assert_eq!(billed.len(), 2);
    assert_eq!(app.count("SELECT count(*) AS n FROM reservations").await, 0);
    app.finish().await;
}

#[tokio::test]
async fn the_same_text_and_edits_of_what_no_model_answered_change_nothing() {
    let app = app().start().await;
    let anna = anna();
    let asked = app.say(&anna, "hello");
    app.answer(anna.id, "Echo: hello").await;
    let command = app.say(&anna, "/help");
    app.answer_with(anna.id, "/new").await;
    app.idle().await;
    let before = (app.said_by_bot(anna.id), app.telegram.calls_of("editMessageText").len());
    let messages = app.count("SELECT count(*) AS n FROM messages").await;
    app.telegram.edit_text(TOKEN, &anna, asked, "hello");
    app.telegram.edit_text(TOKEN, &anna, command, "now a question");
    app.telegram.edit_text(TOKEN, &anna, 4000, "nobody knows this message");
    app.telegram.edit_text(TOKEN, &anna, asked, "/new");
    edited(&app, 4).await;
    assert_eq!(
        (app.said_by_bot(anna.id), app.telegram.calls_of("editMessageText").len()),
        before
    );
    assert_eq!(app.provider.requests().len(), 1);
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 1);
    assert_eq!(app.count("SELECT count(*) AS n FROM messages").await, messages);
    app.finish().await;
}

#[tokio::test]
async fn parts_of_the_old_answer_that_the_new_one_does_not_need_are_taken_away_and_missing_ones_are_sent() {
    let app = app().start().await;
    let anna = anna();
    let long = |mark: &str| {
        (0..3)
            .map(|n| format!("{mark}{n} {}", "text ".repeat(790)))
            .collect::<Vec<_>>()
            .join("\n\n")
    };
    app.provider.reply_next(Reply::text(long("old")));
    let asked = app.say(&anna, "a lot, please");
    app.answer_with(anna.id, "old2").await;
    app.idle().await;
    let ids: Vec<i64> = own(&app, anna.id);
    assert_eq!(ids.len(), 3);
    app.telegram.edit_text(TOKEN, &anna, asked, "a little, please");
    app.answer(anna.id, "Echo: a little, please").await;
    edited(&app, 1).await;
    assert_eq!(own(&app, anna.id), ids[..1]);
    assert_eq!(app.telegram.calls_of("deleteMessage").len(), 2);
    // And back: one is edited, two are sent.
    app.provider.reply_next(Reply::text(long("new")));
    app.telegram.edit_text(TOKEN, &anna, asked, "a lot again, please");
    app.answer_with(anna.id, "new2").await;
    edited(&app, 2).await;
    let now = own(&app, anna.id);
    assert_eq!((now.len(), now[0]), (3, ids[0]));
    assert_eq!(
        app.count("SELECT count(*) AS n FROM deliveries WHERE message_id IS NULL OR body IS NULL")
            .await,
        0
    );
    app.finish().await;
}

/// The ids of the bot's messages that stand in the chat.
fn own(app: &TestApp, chat: i64) -> Vec<i64> {
    let messages = app.telegram.messages(TOKEN, chat).into_iter();
    messages
        .filter(|message| message.from_bot && !message.deleted)
        .map(|message| message.id)
        .collect()
}

#[tokio::test]
async fn an_answer_that_was_deleted_is_sent_anew_and_a_failing_edit_is_tried_again() {
    let app = app().start().await;
    let anna = anna();
    let asked = app.say(&anna, "one");
    let first = app.answer(anna.id, "Echo: one").await;
    app.idle().await;
    app.telegram
        .fail_next("editMessageText", 6, Fault::Status(502, "Bad Gateway".into()));
    app.telegram.edit_text(TOKEN, &anna, asked, "two");
    assert_eq!(app.answer(anna.id, "Echo: two").await.id, first.id);
    edited(&app, 1).await;
    assert_eq!(app.provider.requests().len(), 2);
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 2);
    app.telegram.fail_next(
        "editMessageText",
        1,
        Fault::Status(400, "Bad Request: message to edit not found".into()),
    );
    app.telegram.edit_text(TOKEN, &anna, asked, "three");
    assert_ne!(app.answer(anna.id, "Echo: three").await.id, first.id);
    edited(&app, 2).await;
    app.finish().await;
}

#[tokio::test]
async fn a_kill_amid_the_new_answer_leaves_one_answer_and_one_bill() {
    let mut app = app().start().await;
    let anna = anna();
    let asked = app.say(&anna, "one");
    let first = app.answer(anna.id, "Echo: one").await;
    app.idle().await;
    for (text, in_telegram) in [("two[[delay=3000]]", false), ("three", true)] {
        if in_telegram {
            app.telegram.fail_next("editMessageText", 1, Fault::Delay(3000));
        }
        let requests = app.provider.requests().len();
        let edits = app.telegram.calls_of("editMessageText").len();
        app.telegram.edit_text(TOKEN, &anna, asked, text);
        if in_telegram {
            let telegram = &app.telegram;
            telegram
                .wait_for(PATIENCE, |telegram| {
                    (telegram.calls_of("editMessageText").len() > edits).then_some(())
                })
                .await
                .unwrap();
        } else {
            app.provider
                .wait_for(PATIENCE, |provider| {
                    (provider.requests().len() > requests).then_some(())
                })
                .await
                .unwrap();
        }
        app.kill().await;
        app.sql_execute("UPDATE bots SET lease_until = now()").await;
        app.sql_execute("UPDATE jobs SET lease_until = now() WHERE state = 'running'")
            .await;
        app.start().await;
        let word = text.split('[').next().unwrap();
        assert_eq!(app.answer(anna.id, &format!("Echo: {word}")).await.id, first.id);
        app.idle().await;
    }
    assert_eq!(app.said_by_bot(anna.id), ["Echo: three"]);
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 3);
    assert_eq!(app.count("SELECT count(*) AS n FROM reservations").await, 0);
    app.finish().await;
}

#[tokio::test]
async fn an_edit_of_one_part_of_a_paste_asks_the_whole_again() {
    let app = app().start().await;
    let anna = anna();
    let first = app.say(&anna, &format!("ONE {}", "a".repeat(4040)));
    app.say(&anna, "END");
    app.answer_with(anna.id, "END").await;
    app.idle().await;
    assert_eq!(app.provider.requests().len(), 1);
    app.telegram.edit_text(TOKEN, &anna, first, "SHORT");
    let answer = app.answer(anna.id, "Echo: SHORT\nEND").await;
    edited(&app, 1).await;
    assert_eq!(app.said_by_bot(anna.id).len(), 1, "{answer:?}");
    app.finish().await;
}

/// What a replica whose clock is ahead has taken came no later for that.
#[tokio::test]
async fn which_version_is_the_newest_does_not_depend_on_the_clocks_of_replicas() {
    let app = app().start().await;
    let anna = anna();
    let asked = app.say(&anna, "one");
    app.answer(anna.id, "Echo: one").await;
    app.idle().await;
    app.telegram.edit_text(TOKEN, &anna, asked, "two");
    app.answer(anna.id, "Echo: two").await;
    edited(&app, 1).await;
    for ahead in [
        "UPDATE updates SET received_at = received_at + interval '30 s' WHERE kind = 'edited_message'",
        "UPDATE usage SET at = at + interval '30 s' WHERE job_id IN (SELECT id FROM updates WHERE kind = 'edited_message')",
    ] {
        assert_eq!(app.sql_execute(ahead).await, 1);
    }
    app.telegram.edit_text(TOKEN, &anna, asked, "three");
    app.answer(anna.id, "Echo: three").await;
    edited(&app, 2).await;
    // Back again: what counts is what was asked last, not what the clocks say of it.
    app.telegram.edit_text(TOKEN, &anna, asked, "two");
    app.answer(anna.id, "Echo: two").await;
    edited(&app, 3).await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: two"]);
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 4);
    app.finish().await;
}
