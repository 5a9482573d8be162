//! Answers shown while they are made, split when they are long, stopped when that is wished.

use std::time::{Duration, Instant};

use test_support::{
    app::{PATIENCE, TOKEN, eventually},
    fake_provider::Reply,
};

use crate::{anna, app};

const WORDS: &str = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen \
    seventeen eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four twenty-five twenty-six twenty-seven \
    twenty-eight twenty-nine";

#[tokio::test]
async fn previews_appear_at_telegrams_pace_and_the_text_ends_complete() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, &format!("{WORDS}[[chunks=30,150ms]]"));
    let whole = format!("Echo: {WORDS}");
    let answer = app.answer(anna.id, &whole).await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), [whole.as_str()]);
    assert!(answer.edits.len() >= 3, "only {} previews in 4.4 s", answer.edits.len());
    for (number, preview) in answer.edits.iter().enumerate() {
        assert!(whole.starts_with(preview.as_str()), "preview {number} is {preview:?}");
        assert!(number == 0 || preview.len() > answer.edits[number - 1].len());
    }
    let changes: Vec<_> = ["sendMessage", "editMessageText"]
        .iter()
        .flat_map(|method| app.telegram.calls_of(method))
        .map(|call| call.at)
        .collect();
    let span = changes
        .iter()
        .max()
        .unwrap()
        .duration_since(*changes.iter().min().unwrap())
        .unwrap()
        .as_secs_f64();
    // The first and the last come when they come; between them the pace is one a second.
    let pace = (changes.len() as f64 - 2.0) / span;
    assert!(
        pace <= 1.1,
        "{} changes within {span:.1} s: {pace:.2} a second",
        changes.len()
    );
    assert_eq!(
        app.telegram.chat_actions(TOKEN, anna.id).len(),
        0,
        "typing although the answer began at once"
    );
    app.finish().await;
}

#[tokio::test]
async fn typing_is_shown_while_the_model_thinks() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "hm[[delay=1500]]");
    app.answer(anna.id, "Echo: hm").await;
    assert_eq!(app.telegram.chat_actions(TOKEN, anna.id), ["typing"]);
    // Complete when it began: one call, no edit.
    assert_eq!(app.telegram.counters().calls.get("editMessageText"), None);
    app.finish().await;
}

/// About 9,000 characters, half of them in one block of code.
fn long_answer() -> (String, Vec<String>, Vec<String>) {
    let prose: Vec<String> = (0..40)
        .map(|n| format!("Sentence number {n} says a little about nothing much at all, friend."))
        .collect();
    let code: Vec<String> = (0..110)
        .map(|n| format!("let value_{n:03} = compute({n}, \"something\"); // step {n}"))
        .collect();
    let tail: Vec<String> = (0..12)
        .map(|n| format!("Remark number {n} after the code, which nobody should lose either."))
        .collect();
    let text = format!(
        "{}\n\n```rust\n{}\n```\n\n{}",
        prose.join(" "),
        code.join("\n"),
        tail.join(" ")
    );
    (text, [prose, tail].concat(), code)
}

#[tokio::test]
async fn long_answers_are_split_and_code_stays_code() {
    for reply in [
        Reply::text(long_answer().0).chunks(3, Duration::ZERO),
        Reply::text(long_answer().0).chunks(30, Duration::from_millis(150)),
    ] {
        let (text, sentences, code) = long_answer();
        assert!(text.len() > 8500);
        let app = app().start().await;
        let anna = anna();
        app.provider.reply_next(reply);
        app.say(&anna, "tell me everything");
        app.answer_with(anna.id, "Remark number 11 after the code").await;
        app.idle().await;
        let messages: Vec<_> = app
            .telegram
            .messages(TOKEN, anna.id)
            .into_iter()
            .filter(|m| m.from_bot)
            .collect();
        assert_eq!(
            messages.len(),
            3,
            "{:?}",
            messages.iter().map(|m| m.text.len()).collect::<Vec<_>>()
        );
        let mut in_code = String::new();
        for message in &messages {
            let units: Vec<u16> = message.text.encode_utf16().collect();
            assert!(units.len() <= 4096);
            for entity in message.entities.iter().filter(|entity| entity["type"] == "pre") {
                assert_eq!(entity["language"], "rust", "the fence lost its language");
                let at = |name: &str| usize::try_from(entity[name].as_u64().unwrap()).unwrap();
                in_code.push_str(&String::from_utf16(&units[at("offset")..at("offset") + at("length")]).unwrap());
                in_code.push('\n');
            }
        }
        assert!(
            messages
                .iter()
                .filter(|m| m.entities.iter().any(|e| e["type"] == "pre"))
                .count()
                >= 2
        );
        let lines: Vec<&str> = in_code.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, code, "the code is not whole");
        let all: String = messages.iter().map(|m| m.text.replace('\n', " ") + " ").collect();
        let mut from = 0;
        for sentence in sentences {
            match all[from..].find(&sentence) {
                Some(at) => from += at,
                None => panic!("{sentence:?} is missing or out of place"),
            }
            assert_eq!(all.matches(&sentence).count(), 1, "{sentence:?} stands twice");
        }
        assert!(!all.contains("```"));
        app.finish().await;
    }
}

#[tokio::test]
async fn stop_cuts_a_running_answer_within_a_second_and_bills_it() {
    let app = app().with("OPENAI_MODEL", "fake-model@1/2").start().await;
    let anna = anna();
    app.say(&anna, "[[tokens=200]][[chunks=200,50ms]]");
    app.answer_with(anna.id, "word1 word2").await;
    let asked = Instant::now();
    let stop = app.say(&anna, "/stop");
    app.provider
        .wait_for(PATIENCE, |provider| provider.requests()[0].disconnected.then_some(()))
        .await
        .unwrap();
    let took = asked.elapsed();
    println!("/stop was felt by the provider after {took:?}");
    assert!(took < Duration::from_secs(1), "the model went on for {took:?}");
    app.idle().await;
    let answer = app.said_by_bot(anna.id).remove(0);
    assert!(
        answer.starts_with("word1 word2") && answer.ends_with("⏹ Stopped. Write on whenever you like."),
        "{answer}"
    );
    let said = app.telegram.messages(TOKEN, anna.id);
    assert!(
        said.iter().any(|m| m.id > stop && m.text == "Stopped."),
        "{:?}",
        app.said_by_bot(anna.id)
    );
    let line = app.sql_one("SELECT * FROM usage").await;
    assert_eq!(
        (&line["finish"], &line["reported"]),
        (&"stopped".into(), &false.into()),
        "{line}"
    );
    let written = i64::try_from(app.provider.totals().written_tokens).unwrap();
    let billed = line["completion_tokens"].as_i64().unwrap();
    // What was shown and kept, and no more than the model had written by then.
    let kept = app
        .sql_one("SELECT text FROM messages WHERE author = 'bot' AND in_context")
        .await;
    let kept = kept["text"].as_str().unwrap();
    assert_eq!(billed, i64::from(gateway::count_tokens(kept)), "{line}");
    let words = i64::try_from(kept.split_whitespace().count()).unwrap();
    assert!(
        words > 0 && words <= written && words < 200,
        "{words} of {written} words"
    );
    assert!(line["cost"].as_i64().unwrap() > 0, "{line}");
    let counters = app.sql("SELECT measure, used, reserved FROM counters").await;
    assert!(
        counters
            .iter()
            .all(|c| c["reserved"] == 0 && c["used"].as_i64().unwrap() > 0),
        "{counters:?}"
    );
    // The conversation goes on.
    app.say(&anna, "next");
    app.answer(anna.id, "Echo: next").await;
    app.finish().await;
}

#[tokio::test]
async fn stop_before_the_first_word_is_felt_too() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, "never mind[[hang]]");
    app.provider
        .wait_for(PATIENCE, |provider| (!provider.requests().is_empty()).then_some(()))
        .await
        .unwrap();
    let asked = Instant::now();
    app.say(&anna, "/stop");
    app.provider
        .wait_for(PATIENCE, |provider| provider.requests()[0].disconnected.then_some(()))
        .await
        .unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    app.idle().await;
    assert_eq!(
        app.count("SELECT coalesce(sum(reserved), 0)::bigint AS n FROM counters")
            .await,
        0
    );
    app.finish().await;
}

#[tokio::test]
async fn somebody_who_blocks_the_bot_midway_is_left_alone() {
    let app = app().start().await;
    let anna = anna();
    app.say(&anna, &format!("{WORDS}[[chunks=30,100ms]]"));
    app.answer_with(anna.id, "one two").await;
    app.telegram.block(TOKEN, anna.id);
    app.idle().await;
    let chat = app
        .sql_one("SELECT closed_at FROM chats WHERE external_id = 7001")
        .await;
    assert!(!chat["closed_at"].is_null(), "{chat}");
    let jobs = app.sql("SELECT state, attempts FROM jobs").await;
    assert!(
        jobs.iter().all(|job| job["state"] == "done" && job["attempts"] == 1),
        "{jobs:?}"
    );
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 1);
    let refused = app.telegram.counters().refused.get(&403).copied().unwrap_or_default();
    assert!((1..=3).contains(&refused), "{refused} calls to a closed chat");
    // Nobody would have read the rest, and somebody would have paid for it.
    let made = app.provider.requests().pop().unwrap();
    assert!(made.disconnected && !made.finished, "{made:?}");
    // Who comes back is welcome.
    app.telegram.unblock(TOKEN, anna.id);
    app.say(&anna, "here again");
    app.answer(anna.id, "Echo: here again").await;
    eventually(PATIENCE, "the chat is open again", || async {
        let chat = app
            .sql_one("SELECT closed_at FROM chats WHERE external_id = 7001")
            .await;
        if chat["closed_at"].is_null() {
            Ok(())
        } else {
            Err(chat.to_string())
        }
    })
    .await;
    app.finish().await;
}
