//! Bot API servers that are not Telegram's own: they know little, refuse in words of their own, and write what is absent in other ways.

use std::time::Duration;

use test_support::{
    TestApp,
    app::{PATIENCE, TOKEN},
    fake_telegram::{Absent, Manners, Unknown},
};

use crate::{anna, app};

/// All that a bot needs which polls.
const POLLING: &[&str] = &["getMe", "getUpdates", "sendMessage", "editMessageText"];
/// All that one needs to which is delivered.
const WEBHOOK: &[&str] = &["getMe", "setWebhook", "sendMessage"];

/// A short answer, then one that is long in the making, for which drafts, "typing…" and edits are tried.
async fn answers(mut app: TestApp, manners: Manners) {
    app.telegram.manners(manners);
    app.spawn();
    app.wait_ready().await;
    let anna = anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    app.say(&anna, "At some length, if I may ask [[delay=600]] [[chunks=25,80ms]]");
    app.answer(anna.id, "Echo: At some length, if I may ask").await;
    app.idle().await;
    assert_eq!(app.provider.totals().requests, 2, "{manners:?}");
    assert_eq!(
        app.count("SELECT count(*) AS n FROM jobs WHERE state = 'dead'").await,
        0
    );
    app.finish().await;
}

async fn polled(unknown: Unknown) {
    let manners = Manners {
        only: Some(POLLING),
        unknown,
        ..Manners::default()
    };
    answers(app().prepare().await, manners).await;
}

#[tokio::test]
async fn a_server_that_knows_four_methods_is_enough() {
    polled(Unknown::NotFound).await;
}

#[tokio::test]
async fn so_is_one_that_refuses_the_others_with_a_page() {
    polled(Unknown::Page).await;
}

#[tokio::test]
async fn so_is_one_that_refuses_the_others_in_the_words_of_a_framework() {
    polled(Unknown::Framework).await;
}

#[tokio::test]
async fn so_is_one_that_has_not_implemented_the_others() {
    polled(Unknown::NotImplemented).await;
}

#[tokio::test]
async fn so_is_one_that_blames_the_token() {
    polled(Unknown::Unauthorized).await;
}

async fn delivered(unknown: Unknown) {
    let manners = Manners {
        only: Some(WEBHOOK),
        unknown,
        ..Manners::default()
    };
    answers(app().webhook().prepare().await, manners).await;
}

#[tokio::test]
async fn a_server_that_delivers_and_knows_three_methods_is_enough() {
    delivered(Unknown::NotFound).await;
}

#[tokio::test]
async fn so_is_one_that_delivers_and_refuses_the_others_in_the_words_of_a_framework() {
    delivered(Unknown::Framework).await;
}

#[tokio::test]
async fn nulls_for_everything_that_is_absent_change_nothing() {
    let nulls = Manners {
        absent: Absent::Null,
        ..Manners::default()
    };
    answers(app().prepare().await, nulls).await;
    answers(app().webhook().prepare().await, nulls).await;
}

#[tokio::test]
async fn messages_without_all_that_can_be_done_without_are_answered() {
    let least = Manners {
        absent: Absent::AllButTheLeast,
        ..Manners::default()
    };
    answers(app().prepare().await, least).await;
    answers(app().webhook().prepare().await, least).await;
}

#[tokio::test]
async fn a_server_that_never_holds_a_poll_is_asked_a_few_times_a_second() {
    let mut app = app().prepare().await;
    app.telegram.manners(Manners {
        never_holds: true,
        ..Manners::default()
    });
    app.spawn();
    app.wait_ready().await;
    let anna = anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    let polls = app.telegram.wait_for(PATIENCE, |telegram| {
        let polls: Vec<_> = telegram
            .calls_of("getUpdates")
            .into_iter()
            .skip_while(|poll| poll.params["offset"] == 0)
            .collect();
        (polls.len() > 4).then_some(polls)
    });
    let polls = polls.await.unwrap();
    for pair in polls.windows(2) {
        let gap = pair[1].at.duration_since(pair[0].at).unwrap();
        assert!(gap >= Duration::from_millis(250), "asked again after {gap:?}");
    }
    assert!(app.telegram.pending_updates(TOKEN).is_empty());
    app.finish().await;
}

/// Neither the menu nor what a hanging method costs stands in the way.
#[tokio::test]
async fn polling_waits_for_no_menu() {
    let mut app = app().prepare().await;
    app.telegram.manners(Manners {
        only: Some(&["getMe", "deleteWebhook", "getUpdates", "sendMessage", "editMessageText"]),
        unknown: Unknown::Silence,
        ..Manners::default()
    });
    app.spawn();
    app.wait_ready().await;
    let anna = anna();
    app.say(&anna, "Hello");
    app.answer(anna.id, "Echo: Hello").await;
    // The first call of the menu is given up after ten seconds.
    assert!(!app.logs().contains("The menu of commands could not be set"));
    app.finish().await;
}
