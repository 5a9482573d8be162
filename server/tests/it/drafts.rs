//! Answers shown as drafts in private chats, and what happens where drafts are not taken.

use std::time::{Duration, Instant};

use serde_json::json;
use test_support::{
    TestApp,
    app::{PATIENCE, TOKEN, eventually},
    fake_provider::Reply,
    fake_telegram::{Drafts, Fault},
};

use crate::{anna, app};

/// A text that is streamed for about three seconds.
const STREAMED: &str = "a b c d e f g h i j k l m n o p q r s t u v w x y z[[chunks=26,120ms]]";
const ANSWER: &str = "Echo: a b c d e f g h i j k l m n o p q r s t u v w x y z";

/// One that is streamed for nine.
const LONG: &str = "a b c d e f g h i j k l m n o p q r s t u v w x y z[[chunks=26,350ms]]";

fn calls(app: &TestApp, method: &str) -> u64 {
    app.telegram.counters().calls.get(method).copied().unwrap_or_default()
}

async fn draft_with(app: &TestApp, part: &str) {
    let seen = app.telegram.wait_for(PATIENCE, |telegram| {
        let drafts = telegram.drafts(TOKEN, anna().id);
        drafts.iter().any(|draft| draft.text.contains(part)).then_some(())
    });
    seen.await.unwrap();
}

#[tokio::test]
async fn an_answer_grows_as_a_draft_and_is_sent_once() {
    let app = app().start().await;
    app.telegram.drafts_are(Drafts::Taken);
    let anna = anna();
    app.say(&anna, STREAMED);
    app.answer(anna.id, ANSWER).await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), [ANSWER]);
    assert_eq!((calls(&app, "sendMessage"), calls(&app, "editMessageText")), (1, 0));
    let drafts = app.telegram.drafts(TOKEN, anna.id);
    assert!(drafts.len() >= 2, "only {} drafts in three seconds", drafts.len());
    for (number, draft) in drafts.iter().enumerate() {
        assert!(ANSWER.starts_with(&draft.text), "draft {number} is {:?}", draft.text);
        assert!(draft.can_stop && draft.draft_id == drafts[0].draft_id, "{draft:?}");
        if number > 0 {
            assert!(draft.text.len() > drafts[number - 1].text.len());
            let pause = draft.at.duration_since(drafts[number - 1].at).unwrap();
            assert!(pause >= Duration::from_millis(950), "a draft came after {pause:?}");
        }
    }
    // The next answer is another draft.
    app.say(&anna, STREAMED);
    eventually(PATIENCE, "a draft of its own", || async {
        let last = app.telegram.drafts(TOKEN, anna.id).pop().unwrap();
        if last.draft_id == drafts[0].draft_id {
            Err(format!("{last:?}"))
        } else {
            Ok(())
        }
    })
    .await;
    app.finish().await;
}

/// However a server says that it takes no drafts: it is asked once, and the answer loses nothing.
async fn refused(prepare: impl FnOnce(&TestApp)) {
    let app = app().start().await;
    prepare(&app);
    let anna = anna();
    app.say(&anna, STREAMED);
    let answer = app.answer(anna.id, ANSWER).await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), [ANSWER]);
    assert!(answer.edits.len() >= 2, "{:?}", answer.edits);
    // The message to be edited was sent at once, in the draft's place.
    let sent = app.telegram.calls_of("sendMessage").remove(0);
    let tried = app.telegram.calls_of("sendMessageDraft").remove(0);
    assert!(sent.at.duration_since(tried.at).unwrap() < Duration::from_millis(500));
    app.say(&anna, STREAMED);
    eventually(PATIENCE, "a second answer", || async {
        let said = app.said_by_bot(anna.id);
        if said == [ANSWER, ANSWER] {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    })
    .await;
    assert_eq!(calls(&app, "sendMessageDraft"), 1, "it was asked again");
    let bot = app.sql_one("SELECT fault FROM bots WHERE transport = 'telegram'").await;
    assert!(bot["fault"].is_null(), "the token is held responsible: {bot}");
    app.finish().await;
}

#[tokio::test]
async fn where_drafts_are_refused_answers_are_messages_that_are_edited() {
    let forbidden = "Forbidden: the method is not available".to_owned();
    tokio::join!(
        refused(|_| {}),
        refused(|app| app.telegram.drafts_are(Drafts::Refused)),
        refused(|app| app
            .telegram
            .fail_next("sendMessageDraft", 1, Fault::Status(403, forbidden))),
        // Servers that only resemble the Bot API.
        refused(|app| app.telegram.fail_next("sendMessageDraft", 1, Fault::Html(404))),
        refused(|app| app.telegram.fail_next("sendMessageDraft", 1, Fault::Html(501))),
    );
}

/// Nobody says that drafts are refused, but none gets through: then the answer grows as a message all the same.
#[tokio::test]
async fn where_drafts_keep_failing_answers_are_messages_that_are_edited() {
    async fn despite(fault: Fault) {
        let app = app().start().await;
        app.telegram.drafts_are(Drafts::Taken);
        app.telegram.fail_next("sendMessageDraft", 100, fault.clone());
        let anna = anna();
        app.say(&anna, LONG);
        let answer = app.answer(anna.id, ANSWER).await;
        app.idle().await;
        assert!(!answer.edits.is_empty(), "{fault:?}: nothing was shown before the end");
        assert_eq!(app.said_by_bot(anna.id), [ANSWER], "{fault:?}");
        let tried = calls(&app, "sendMessageDraft");
        assert!(tried <= 2, "{fault:?}: {tried} drafts in one answer");
        app.finish().await;
    }
    tokio::join!(
        despite(Fault::Status(502, "Bad Gateway".into())),
        despite(Fault::DropBeforeHandling),
        despite(Fault::Delay(9000)),
    );
}

#[tokio::test]
async fn drafts_can_be_switched_off() {
    let app = app().with("BOTDECK_DRAFTS", "off").start().await;
    app.telegram.drafts_are(Drafts::Taken);
    let anna = anna();
    app.say(&anna, STREAMED);
    assert!(!app.answer(anna.id, ANSWER).await.edits.is_empty());
    assert_eq!(calls(&app, "sendMessageDraft"), 0);
    app.finish().await;
}

#[tokio::test]
async fn groups_get_no_drafts() {
    let app = app().start().await;
    app.telegram.drafts_are(Drafts::Taken);
    let text = format!("@deck_bot {STREAMED}");
    app.telegram.push_update(
        TOKEN,
        json!({"message": {
            "message_id": 40, "date": 1_700_000_000, "text": text,
            "entities": [{"type": "mention", "offset": 0, "length": 9}],
            "chat": {"id": -100, "type": "supergroup", "title": "Club"},
            "from": {"id": anna().id, "is_bot": false, "first_name": "Anna"},
        }}),
    );
    app.answer_with(-100, "x y z").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(-100).len(), 1);
    assert_eq!(calls(&app, "sendMessageDraft"), 0);
    app.finish().await;
}

#[tokio::test]
async fn the_stop_button_stops() {
    let app = app().start().await;
    app.telegram.drafts_are(Drafts::Taken);
    let anna = anna();
    app.say(&anna, "[[tokens=200]][[chunks=200,50ms]]");
    draft_with(&app, "word1 word2").await;
    let pressed = Instant::now();
    assert!(app.telegram.press_stop(TOKEN, anna.id));
    app.provider
        .wait_for(PATIENCE, |provider| provider.requests()[0].disconnected.then_some(()))
        .await
        .unwrap();
    let took = pressed.elapsed();
    assert!(took < Duration::from_secs(1), "the model went on for {took:?}");
    app.idle().await;
    let said = app.said_by_bot(anna.id);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("word1 word2") && said[0].ends_with("⏹ Stopped. Write on whenever you like."),
        "{said:?}"
    );
    let line = app.sql_one("SELECT finish, completion_tokens FROM usage").await;
    assert_eq!(line["finish"], "stopped");
    assert!(line["completion_tokens"].as_i64().unwrap() > 0, "{line}");
    // Pressed too late, it stops nothing and says nothing, however close behind it the next question comes.
    assert!(app.telegram.press_stop(TOKEN, anna.id));
    app.say(&anna, "next[[delay=700]]");
    app.answer(anna.id, "Echo: next").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id).len(), 2);
    app.finish().await;
}

#[tokio::test]
async fn of_a_long_answer_what_is_full_is_sent_and_the_rest_is_a_draft() {
    let app = app().start().await;
    app.telegram.drafts_are(Drafts::Taken);
    let anna = anna();
    let sentences: Vec<String> = (0..120)
        .map(|n| format!("Sentence number {n} says a little about nothing much at all, friend."))
        .collect();
    let paragraphs: Vec<String> = sentences.chunks(10).map(|chunk| chunk.join(" ")).collect();
    app.provider
        .reply_next(Reply::text(paragraphs.join("\n\n")).chunks(40, Duration::from_millis(150)));
    app.say(&anna, "tell me everything");
    app.answer_with(anna.id, "Sentence number 119").await;
    app.idle().await;
    let said = app.said_by_bot(anna.id);
    assert!(
        said.len() >= 2 && said.iter().all(|part| part.len() <= 4096),
        "{said:?}"
    );
    let all = said.join("\n\n");
    for sentence in &sentences {
        assert_eq!(all.matches(sentence.as_str()).count(), 1, "{sentence:?}");
    }
    assert_eq!(calls(&app, "sendMessage"), said.len() as u64);
    let drafts = app.telegram.drafts(TOKEN, anna.id);
    let second: Vec<_> = drafts.iter().filter(|draft| said[1].starts_with(&draft.text)).collect();
    assert!(!second.is_empty(), "the second message was no draft");
    assert_ne!(second[0].draft_id, drafts[0].draft_id);
    app.finish().await;
}

#[tokio::test]
async fn a_crash_while_a_draft_is_shown_leaves_nothing_to_be_found() {
    let mut app = app().start().await;
    app.telegram.drafts_are(Drafts::Taken);
    let anna = anna();
    app.say(&anna, STREAMED);
    draft_with(&app, "Echo: a").await;
    let first = app.telegram.drafts(TOKEN, anna.id).remove(0).draft_id;
    app.kill().await;
    app.sql_execute("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE state = 'running'")
        .await;
    app.sql_execute("UPDATE bots SET lease_until = now()").await;
    app.start().await;
    app.answer(anna.id, ANSWER).await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), [ANSWER]);
    // Neither was anything looked for, by edits, nor does a second draft stand beside the first.
    assert_eq!((calls(&app, "sendMessage"), calls(&app, "editMessageText")), (1, 0));
    let drafts = app.telegram.drafts(TOKEN, anna.id);
    assert!(drafts.iter().all(|draft| draft.draft_id == first), "{drafts:?}");
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 1);
    app.finish().await;
}

/// A streamed answer while a draft fails.
async fn despite(times: u32, fault: Fault) {
    let app = app().start().await;
    app.telegram.drafts_are(Drafts::Taken);
    let anna = anna();
    // The first answer of a process takes longer.
    app.say(&anna, "first");
    app.answer(anna.id, "Echo: first").await;
    app.telegram.fail_next("sendMessageDraft", times, fault.clone());
    let asked = Instant::now();
    app.say(&anna, STREAMED);
    app.answer(anna.id, ANSWER).await;
    // Streaming takes three seconds and a bit.
    assert!(
        asked.elapsed() < Duration::from_secs(8),
        "{fault:?}: {:?}",
        asked.elapsed()
    );
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: first", ANSWER], "{fault:?}");
    assert_eq!(
        (calls(&app, "sendMessage"), calls(&app, "editMessageText")),
        (2, 0),
        "{fault:?}"
    );
    app.finish().await;
}

#[tokio::test]
async fn failing_drafts_cost_neither_the_answer_nor_time() {
    let entities = "Bad Request: can't parse entities: unsupported entity type".to_owned();
    tokio::join!(
        despite(1, Fault::RetryAfter(1)),
        despite(1, Fault::Status(502, "Bad Gateway".into())),
        despite(1, Fault::DropBeforeHandling),
        despite(1, Fault::DropAfterHandling),
    );
    tokio::join!(
        despite(1, Fault::Delay(30_000)),
        despite(1, Fault::Html(502)),
        despite(1, Fault::Html(200)),
        despite(1, Fault::Status(400, entities)),
    );
}
