//! What has piled up while nobody was listening.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_support::{
    TestApp,
    app::{BOT_NAME, TOKEN},
    fake_telegram::{Group, User},
};

use crate::{anna, app, boris};

/// A private text that was sent so many seconds ago.
fn old_text(user: &User, message_id: i64, seconds: i64, text: &str) -> Value {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    json!({"message": {
        "message_id": message_id, "date": i64::try_from(now.as_secs()).unwrap() - seconds, "text": text,
        "chat": {"id": user.id, "type": "private", "first_name": user.first_name},
        "from": {"id": user.id, "is_bot": false, "first_name": user.first_name,
                 "language_code": user.language_code.clone().unwrap_or_default()},
    }})
}

#[tokio::test]
async fn ten_thousand_waiting_updates_of_fifty_chats_are_worked_off_in_order() {
    const CHATS: i64 = 50;
    const EACH: i64 = 200;
    let mut app = app().unlimited().start().await;
    app.kill().await;
    app.sql_execute("UPDATE bots SET lease_until = now()").await;
    let people: Vec<User> = (1..=CHATS).map(|id| User::new(id, "Somebody")).collect();
    for number in 0..EACH {
        for person in &people {
            // What a question costs is not looked at here, so most of them need no model.
            let text = if number % 4 == 0 {
                format!("question {number}")
            } else {
                "/usage".to_owned()
            };
            let update = old_text(person, 2 * number + 1, 3600, &text);
            app.telegram.push_update(TOKEN, update);
        }
    }
    app.provider.record(false);
    let began = Instant::now();
    app.spawn();
    app.wait_ready().await;
    let all = u64::try_from(CHATS * EACH).unwrap();
    let sent = app.telegram.wait_for(Duration::from_secs(200), |telegram| {
        (telegram.counters().sent >= all).then_some(())
    });
    assert!(
        sent.await.is_ok(),
        "only {} were answered",
        app.telegram.counters().sent
    );
    app.idle().await;
    println!("{} updates took {:?}", CHATS * EACH, began.elapsed());
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, CHATS * EACH / 4);
    assert_eq!(
        app.count("SELECT count(*) AS n FROM jobs WHERE state = 'dead' OR attempts <> 1")
            .await,
        0
    );
    // Each was taken after the one before it, and the answers came in the same order.
    let disorder = app
        .sql(
            "SELECT * FROM (
                 SELECT u.message_id, j.seq, m.created_at, lag(j.seq) OVER w AS seq_before, lag(m.created_at) OVER w AS before
                 FROM messages m JOIN updates u ON u.id = m.id JOIN jobs j ON j.id = m.id WHERE m.author = 'user'
                 WINDOW w AS (PARTITION BY m.conversation_id ORDER BY u.message_id)
             ) AS t WHERE created_at <= before OR seq < seq_before LIMIT 5",
        )
        .await;
    assert!(disorder.is_empty(), "{disorder:?}");
    for person in &people {
        let answers = app.said_by_bot(person.id);
        assert_eq!(i64::try_from(answers.len()).unwrap(), EACH, "chat {}", person.id);
        let echoes: Vec<String> = answers.into_iter().filter(|text| text.starts_with("Echo")).collect();
        let expected: Vec<String> = (0..EACH)
            .step_by(4)
            .map(|number| format!("Echo: question {number}"))
            .collect();
        assert_eq!(echoes, expected, "chat {}", person.id);
    }
    app.finish().await;
}

async fn states(app: &TestApp) -> Vec<Value> {
    app.sql("SELECT DISTINCT state FROM jobs").await
}

#[tokio::test]
async fn late_texts_of_a_chat_get_one_word_together_and_cost_nothing() {
    let mut app = app().with("BOTDECK_LATE_AFTER", "600").prepare().await;
    let (anna, boris) = (anna(), boris());
    for id in 1..=5 {
        app.telegram
            .push_update(TOKEN, old_text(&anna, id, 3600, &format!("old question {id}")));
    }
    app.telegram.push_update(TOKEN, old_text(&anna, 6, 3600, "/help"));
    app.telegram
        .push_update(TOKEN, old_text(&anna, 7, 30, "a new question"));
    app.telegram.push_update(TOKEN, old_text(&boris, 1, 3600, "давно"));
    app.start().await;
    app.answer(anna.id, "Echo: a new question").await;
    app.answer_with(boris.id, "пришло 1 сообщение").await;
    app.idle().await;
    let said = app.said_by_bot(anna.id);
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[0].contains("5 messages came in the meantime"), "{said:?}");
    assert!(said[1].contains("/new"), "a command is obeyed however late: {said:?}");
    assert_eq!(app.provider.requests().len(), 1);
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 1);
    assert_eq!(app.count("SELECT count(*) AS n FROM reservations").await, 0);
    assert_eq!(states(&app).await, [json!({"state": "done"})]);
    // Staff can read what was asked; the model never sees it.
    assert_eq!(
        app.count("SELECT count(*) AS n FROM messages WHERE text LIKE 'old question %' AND NOT in_context")
            .await,
        5
    );
    assert!(!app.provider.requests()[0].body.to_string().contains("old question"));
    app.finish().await;
}

#[tokio::test]
async fn without_the_setting_late_texts_are_answered_and_in_groups_only_those_for_the_bot_count() {
    let mut app = app().prepare().await;
    let anna = anna();
    app.telegram.push_update(TOKEN, old_text(&anna, 1, 80_000, "yesterday"));
    app.start().await;
    app.answer(anna.id, "Echo: yesterday").await;
    app.idle().await;
    app.finish().await;

    let mut app = crate::app().with("BOTDECK_LATE_AFTER", "600").prepare().await;
    let friends = Group::new(-1_000_000_000_900, "Friends");
    let say = |id: i64, text: &str| {
        let mut update = old_text(&anna, id, 3600, text);
        update["message"]["chat"] = friends.json();
        app.telegram.push_update(TOKEN, update);
    };
    say(1, &format!("@{BOT_NAME} one"));
    say(2, "nobody is meant");
    say(3, &format!("two @{BOT_NAME}"));
    say(4, "nobody either");
    app.start().await;
    let notice = app.answer_with(friends.id, "2 messages").await;
    assert_eq!(notice.reply_to, Some(3));
    app.idle().await;
    assert_eq!(app.said_by_bot(friends.id).len(), 1);
    assert!(app.provider.requests().is_empty());
    app.finish().await;
}

#[tokio::test]
async fn late_pictures_are_part_of_the_one_word_and_so_is_all_that_a_blocked_person_wrote() {
    let mut app = app().with("BOTDECK_LATE_AFTER", "600").start().await;
    let (anna, boris) = (anna(), boris());
    app.say(&boris, "привет");
    app.answer(boris.id, "Echo: привет").await;
    app.idle().await;
    app.kill().await;
    app.sql_execute(
        "UPDATE users SET blocked_at = now(), blocked_reason = 'spam', blocked_by = 'test' WHERE external_id = 7002",
    )
    .await;
    app.sql_execute("UPDATE bots SET lease_until = now()").await;
    let picture = |user: &User, id: i64| {
        let mut update = old_text(user, id, 3600, "");
        update["message"].as_object_mut().unwrap().remove("text");
        update["message"]["photo"] = json!([{"file_id": "x", "file_unique_id": "x", "width": 1, "height": 1}]);
        app.telegram.push_update(TOKEN, update);
    };
    for id in [101, 102] {
        picture(&anna, id);
    }
    app.telegram
        .push_update(TOKEN, old_text(&anna, 103, 3600, "what is on it?"));
    for id in [104, 105, 106] {
        app.telegram.push_update(TOKEN, old_text(&boris, id, 3600, "почему?"));
    }
    app.start().await;
    app.answer_with(anna.id, "3 messages came in the meantime").await;
    app.answer_with(boris.id, "BD-BLOCKED").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id).len(), 1, "{:?}", app.said_by_bot(anna.id));
    assert_eq!(app.said_by_bot(boris.id).len(), 2, "{:?}", app.said_by_bot(boris.id));
    assert_eq!(app.provider.requests().len(), 1);
    app.finish().await;
}
