//! Groups: who is meant, who knows what, and what happens when a group becomes a supergroup.

use serde_json::json;
use test_support::{
    app::{BOT_NAME, PATIENCE, TOKEN, TestApp, eventually},
    fake_telegram::{Fault, Group},
};

use crate::{anna, app, boris};

/// Until so many updates are stored and all jobs are over.
async fn settled(app: &TestApp, updates: i64) {
    eventually(PATIENCE, "all updates are stored", || async {
        let stored = app.count("SELECT count(*) AS n FROM updates").await;
        if stored == updates {
            Ok(())
        } else {
            Err(stored.to_string())
        }
    })
    .await;
    app.idle().await;
}

fn asked(app: &TestApp) -> Vec<String> {
    let requests = app.provider.requests().into_iter();
    requests
        .map(|request| {
            let messages = request.body["messages"].as_array().unwrap().clone();
            messages.last().unwrap()["content"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn in_a_group_the_bot_answers_only_those_who_mean_it() {
    let app = app().start().await;
    let (anna, friends) = (anna(), Group::new(-1_000_000_000_500, "Friends"));
    let say = |text: &str| app.telegram.send_in_group(TOKEN, &friends, &anna, text);
    say("hello all");
    say("see @other_bot and code");
    let meant = say(&format!("😀 @{BOT_NAME} what is this?"));
    say("/help@other_bot");
    let answer = app.answer(friends.id, "Echo: 😀 what is this?").await;
    assert_eq!(answer.reply_to, Some(meant));
    let original = json!({"message_id": answer.id, "chat": friends.json(), "date": 1, "text": "x",
        "from": {"id": 123_456, "is_bot": true, "first_name": "Deck", "username": BOT_NAME}});
    app.telegram.send_in_group_with(
        TOKEN,
        &friends,
        &anna,
        "and that?",
        json!({"reply_to_message": original}),
    );
    app.answer(friends.id, "Echo: and that?").await;
    say(&format!("@{BOT_NAME}"));
    app.answer_with(friends.id, "/new").await;
    settled(&app, 6).await;
    assert_eq!(asked(&app), ["😀 what is this?", "and that?"]);
    assert_eq!(app.said_by_bot(friends.id).len(), 3);
    app.finish().await;
}

#[tokio::test]
async fn topics_have_their_own_context_and_nothing_private_reaches_a_group() {
    let app = app().start().await;
    let (anna, boris) = (anna(), boris());
    let forum = Group::new(-1_000_000_000_600, "Forum");
    let (one, two) = (forum.topic(11), forum.topic(12));
    app.say(&anna, "PRIVATE my password is tulip");
    app.answer_with(anna.id, "tulip").await;
    let ask = |group: &Group, user, text: &str| {
        app.telegram
            .send_in_group(TOKEN, group, user, &format!("@{BOT_NAME} {text}"))
    };
    ask(&one, &anna, "TOPIC-ONE first");
    app.answer(forum.id, "Echo: TOPIC-ONE first").await;
    ask(&two, &boris, "TOPIC-TWO first");
    app.answer(forum.id, "Echo: TOPIC-TWO first").await;
    ask(&one, &boris, "what did I say?");
    app.answer(forum.id, "Echo: what did I say?").await;
    app.say(&anna, "and here?");
    app.answer(anna.id, "Echo: and here?").await;
    app.idle().await;
    let seen: Vec<String> = app.provider.requests().iter().map(|r| r.body.to_string()).collect();
    let holds = |request: usize| ["PRIVATE", "TOPIC-ONE", "TOPIC-TWO"].map(|word| seen[request].contains(word));
    assert_eq!(holds(1), [false, true, false]);
    assert_eq!(holds(2), [false, false, true]);
    // The members of a topic share it.
    assert_eq!(holds(3), [false, true, false]);
    assert_eq!(holds(4), [true, false, false]);
    let threads: Vec<_> = app
        .telegram
        .calls_of("sendMessage")
        .iter()
        .map(|call| call.params["message_thread_id"].clone())
        .collect();
    assert_eq!(threads, [json!(null), json!(11), json!(12), json!(11), json!(null)]);
    app.finish().await;
}

#[tokio::test]
async fn staff_see_who_said_what_in_a_group() {
    let app = app().start().await;
    let (anna, boris, friends) = (anna(), boris(), Group::new(-1_000_000_000_650, "Friends"));
    for (user, text) in [(&anna, "I am the first"), (&boris, "I am the second")] {
        app.telegram
            .send_in_group(TOKEN, &friends, user, &format!("@{BOT_NAME} {text}"));
        app.answer(friends.id, &format!("Echo: {text}")).await;
    }
    app.idle().await;
    let staff = app.sign_in("support").await;
    let conversation = app.sql_one("SELECT id FROM conversations").await["id"].clone();
    let page = staff
        .page(&format!("/conversations/{}", conversation.as_str().unwrap()))
        .await;
    // Each bubble begins with who speaks, and leads to them.
    let bubbles: Vec<&str> = page.body.split("<article").skip(1).collect();
    assert_eq!(bubbles.len(), 4, "{}", page.body);
    for (bubble, user) in [(bubbles[0], &anna), (bubbles[2], &boris)] {
        let known = app
            .sql_one(&format!("SELECT id, name FROM users WHERE external_id = {}", user.id))
            .await;
        let (id, name) = (known["id"].as_str().unwrap(), known["name"].as_str().unwrap());
        assert!(
            bubble.contains(&format!("/users/{id}")) && bubble.contains(name),
            "{name}: {bubble}"
        );
        // And from their page it is reached, whoever began it.
        let theirs = staff.page(&format!("/users/{id}")).await;
        assert!(theirs.body.contains("/conversations/"), "{name} has no conversations");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_group_that_becomes_a_supergroup_goes_on_where_it_was() {
    let app = app().start().await;
    let (anna, old) = (anna(), Group::new(-500, "Friends"));
    let new = Group::new(-1_000_000_000_700, "Friends");
    let ask = |group: &Group, text: &str| {
        app.telegram
            .send_in_group(TOKEN, group, &anna, &format!("@{BOT_NAME} {text}"))
    };
    ask(&old, "REMEMBER-ME");
    app.answer(old.id, "Echo: REMEMBER-ME").await;
    app.idle().await;
    let service = |chat: &Group, field: &str, id: i64| {
        let from = json!({"id": anna.id, "is_bot": false, "first_name": "Anna"});
        let mut message = json!({"message_id": 900, "date": 1, "chat": chat.json(), "from": from});
        message[field] = json!(id);
        app.telegram.push_update(TOKEN, json!({"message": message}));
    };
    service(&old, "migrate_to_chat_id", new.id);
    service(&new, "migrate_from_chat_id", old.id);
    ask(&new, "what did I say?");
    app.answer(new.id, "Echo: what did I say?").await;
    settled(&app, 4).await;
    let last = app.provider.requests()[1].body.to_string();
    assert!(last.contains("REMEMBER-ME"), "{last}");
    let chats = app.sql("SELECT external_id, kind, former_id FROM chats").await;
    assert_eq!(
        chats,
        [json!({"external_id": new.id, "kind": "supergroup", "former_id": old.id})]
    );
    assert_eq!(app.count("SELECT count(*) AS n FROM conversations").await, 1);
    app.finish().await;
}

#[tokio::test]
async fn a_move_that_is_first_learnt_by_sending_loses_neither_the_answer_nor_the_past() {
    let app = app().start().await;
    let (anna, old) = (anna(), Group::new(-500, "Friends"));
    let new = Group::new(-1_000_000_000_800, "Friends");
    let ask = |group: &Group, text: &str| {
        app.telegram
            .send_in_group(TOKEN, group, &anna, &format!("@{BOT_NAME} {text}"))
    };
    ask(&old, "REMEMBER-ME");
    app.answer(old.id, "Echo: REMEMBER-ME").await;
    app.idle().await;
    // Somebody writes under the new id before we know: that becomes a chat of its own.
    ask(&new, "EARLY");
    app.answer(new.id, "Echo: EARLY").await;
    app.idle().await;
    assert_eq!(app.count("SELECT count(*) AS n FROM chats").await, 2);
    app.telegram.fail_next("sendMessage", 1, Fault::MigrateTo(new.id));
    ask(&old, "still under the old id");
    app.answer(new.id, "Echo: still under the old id").await;
    app.idle().await;
    assert_eq!(
        app.sql("SELECT external_id FROM chats").await,
        [json!({"external_id": new.id})]
    );
    // Both pasts are one, and what still waits under the old id belongs to it.
    ask(&old, "one more");
    app.answer(new.id, "Echo: one more").await;
    app.idle().await;
    let last = app.provider.requests().last().unwrap().body.to_string();
    for word in ["REMEMBER-ME", "EARLY", "still under"] {
        assert!(last.contains(word), "{word} is not in {last}");
    }
    assert_eq!(
        app.count("SELECT count(*) AS n FROM conversations WHERE ended_at IS NULL")
            .await,
        1
    );
    assert_eq!(app.count("SELECT count(*) AS n FROM usage").await, 4);
    assert_eq!(app.said_by_bot(old.id), ["Echo: REMEMBER-ME"]);
    app.finish().await;
}
