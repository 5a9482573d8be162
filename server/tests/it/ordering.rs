//! Messages of one chat one after another, chats side by side.

use std::time::{Duration, Instant};

use test_support::{app::TOKEN, fake_telegram::User};

use crate::{anna, app, boris};

#[tokio::test]
async fn messages_of_one_chat_are_answered_in_order() {
    let app = app().start().await;
    let anna = anna();
    // The later ones would be faster.
    for (text, delay) in [("one", 600), ("two", 200), ("three", 0), ("four", 100), ("five", 0)] {
        app.say(&anna, &format!("{text}[[delay={delay}]]"));
    }
    app.answer(anna.id, "Echo: five").await;
    app.idle().await;
    assert_eq!(
        app.said_by_bot(anna.id),
        ["Echo: one", "Echo: two", "Echo: three", "Echo: four", "Echo: five"]
    );
    // Each knew what had been answered before it.
    let last = app.provider.requests().last().unwrap().body.to_string();
    assert!(last.contains("Echo: four"), "{last}");
    app.finish().await;
}

#[tokio::test]
async fn a_slow_answer_in_one_chat_does_not_delay_another() {
    let app = app().start().await;
    let (anna, boris) = (anna(), boris());
    app.say(&anna, "slow[[delay=4000]]");
    app.provider
        .wait_for(Duration::from_secs(10), |provider| {
            (!provider.requests().is_empty()).then_some(())
        })
        .await
        .unwrap();
    let asked = Instant::now();
    app.say(&boris, "fast");
    app.answer(boris.id, "Echo: fast").await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "the other chat waited for {took:?}");
    assert!(app.said_by_bot(anna.id).is_empty());
    app.answer(anna.id, "Echo: slow").await;
    app.finish().await;
}

/// More than one batch of updates, and more than Telegram lets the bot answer in minutes.
#[tokio::test]
async fn one_who_sends_five_hundred_messages_delays_nobody_else() {
    let app = app().unlimited().start().await;
    let (anna, boris) = (anna(), boris());
    for number in 0..500 {
        app.say(&anna, &format!("message {number}[[delay=100]]"));
    }
    app.answer(anna.id, "Echo: message 0").await;
    let asked = Instant::now();
    app.say(&boris, "one");
    app.answer(boris.id, "Echo: one").await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(3), "the other waited for {took:?}");
    let open = app
        .count("SELECT count(*) AS n FROM jobs WHERE state IN ('waiting', 'ready', 'running')")
        .await;
    assert!(open > 300, "only {open} were before him");
    app.finish().await;
}

#[tokio::test]
async fn many_chats_are_answered_side_by_side() {
    let app = app().start().await;
    let people: Vec<User> = (1..=20).map(|id| User::new(id, "Somebody")).collect();
    let asked = Instant::now();
    for person in &people {
        app.say(person, &format!("I am {}[[delay=1000]]", person.id));
    }
    for person in &people {
        app.answer(person.id, &format!("Echo: I am {}", person.id)).await;
    }
    // One after another it would take 20 seconds.
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(10), "20 chats took {took:?}");
    app.idle().await;
    for person in &people {
        assert_eq!(app.telegram.messages(TOKEN, person.id).len(), 2);
    }
    app.finish().await;
}
