//! A token that is taken back stops its bot, and no other.

use test_support::{
    app::{PATIENCE, TOKEN, eventually},
    fake_telegram::User,
};

use crate::{anna, app};

const OTHER: &str = "777001:AAanother-bot_of_the_same_deck_987654";
const FRESH: &str = "777001:AAfresh-token_from_the_same_father_1";

#[tokio::test]
async fn a_revoked_token_stops_that_bot_alone_and_a_new_one_starts_it_again() {
    let app = app().start().await;
    let (anna, boris) = (anna(), User::new(7002, "Boris").language("en"));
    app.telegram.add_bot(OTHER, "other_bot");
    app.cli_with(
        &[("TOKEN_OF_OTHER", OTHER)],
        &["bot", "add", "--token-env", "TOKEN_OF_OTHER", "--mode", "polling"],
        "",
    )
    .await
    .ok();
    app.telegram
        .wait_for(PATIENCE, |telegram| (telegram.polls_open(OTHER) > 0).then_some(()))
        .await
        .unwrap();
    app.telegram.send_text(OTHER, &boris, "hello");
    app.telegram
        .wait_message(OTHER, boris.id, PATIENCE, |message| message.text == "Echo: hello")
        .await
        .unwrap();

    app.telegram.revoke(OTHER);
    let fault = |says: &'static str| {
        let app = &app;
        eventually(PATIENCE, "the dashboard's word about the bot", move || async move {
            let row = app
                .sql_one("SELECT coalesce(fault, '') AS fault FROM bots WHERE username = 'other_bot'")
                .await;
            let fault = row["fault"].as_str().unwrap().to_owned();
            let right = if says.is_empty() {
                fault.is_empty()
            } else {
                fault.contains(says)
            };
            if right { Ok(()) } else { Err(fault) }
        })
    };
    fault("revoked").await;
    // Tried again now and then, it says the same.
    let refused = app.telegram.calls_of("getMe").len();
    app.telegram
        .wait_for(PATIENCE, |telegram| {
            (telegram.calls_of("getMe").len() >= refused + 2).then_some(())
        })
        .await
        .unwrap();
    fault("revoked").await;
    app.say(&anna, "are you still there?");
    app.answer(anna.id, "Echo: are you still there?").await;
    let row = app.sql_one("SELECT fault FROM bots WHERE username = 'deck_bot'").await;
    assert!(row["fault"].is_null(), "{row}");
    let page = app.sign_in("owner").await.get("/bots").await.body;
    assert!(page.contains("revoked"), "{page}");

    app.telegram.renew_token(OTHER, FRESH);
    app.cli_with(
        &[("TOKEN_OF_OTHER", FRESH)],
        &["bot", "add", "--token-env", "TOKEN_OF_OTHER", "--mode", "polling"],
        "",
    )
    .await
    .ok();
    app.telegram.send_text(FRESH, &boris, "back again?");
    app.telegram
        .wait_message(FRESH, boris.id, PATIENCE, |message| message.text == "Echo: back again?")
        .await
        .unwrap();
    fault("").await;
    assert_eq!(
        app.count("SELECT count(*) AS n FROM bots WHERE transport = 'telegram'")
            .await,
        2
    );
    assert!(!app.telegram.calls_of("getUpdates").is_empty() && app.telegram.polls_open(TOKEN) > 0);
    app.finish().await;
}

/// Nothing is delivered any more, so nothing but asking can tell.
#[tokio::test]
async fn a_revoked_token_of_a_webhook_is_noticed_too() {
    let app = app().webhook().start().await;
    app.telegram.revoke(TOKEN);
    eventually(PATIENCE, "the dashboard's word about the bot", || async {
        let row = app
            .sql_one("SELECT coalesce(fault, '') AS fault FROM bots WHERE transport = 'telegram'")
            .await;
        let fault = row["fault"].as_str().unwrap().to_owned();
        if fault.contains("revoked") { Ok(()) } else { Err(fault) }
    })
    .await;
    app.finish().await;
}

/// A model that is asked for a bot that cannot speak costs money for nothing.
#[tokio::test]
async fn what_waits_for_a_revoked_bot_is_asked_when_it_can_speak_again() {
    let app = app()
        .with("BOTDECK_BOT_WORKERS", "1")
        .with("BOTDECK_WORKERS", "8")
        .start()
        .await;
    let (carl, dora) = (User::new(1, "Carl").language("en"), User::new(2, "Dora").language("en"));
    app.telegram.add_bot(OTHER, "other_bot");
    let add = async |token: &str| {
        let args = ["bot", "add", "--token-env", "TOKEN_OF_OTHER", "--mode", "polling"];
        app.cli_with(&[("TOKEN_OF_OTHER", token)], &args, "").await.ok();
    };
    add(OTHER).await;
    app.telegram.send_text(OTHER, &carl, "wait [[chunks=2,60000ms]]");
    let jobs = async |state: &str| {
        app.count(&format!("SELECT count(*) AS n FROM jobs WHERE state = '{state}'"))
            .await
    };
    let until = async |state: &'static str| {
        eventually(PATIENCE, state, || async {
            match jobs(state).await {
                1 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
    };
    until("running").await;
    app.telegram.send_text(OTHER, &dora, "is anybody there?");
    until("ready").await;
    app.telegram.revoke(OTHER);
    eventually(PATIENCE, "the fault", || async {
        let row = app
            .sql_one("SELECT fault, token_refused FROM bots WHERE username = 'other_bot'")
            .await;
        if row["token_refused"] == true {
            Ok(())
        } else {
            Err(row.to_string())
        }
    })
    .await;
    // The hand gets free, and another bot's question is taken with it.
    app.sql_execute("UPDATE jobs SET cancel_requested = true WHERE state = 'running'")
        .await;
    eventually(PATIENCE, "a free hand", || async {
        match jobs("running").await {
            0 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    let asked = app.provider.requests().len();
    app.say(&anna(), "and you?");
    app.answer(anna().id, "Echo: and you?").await;
    assert_eq!(app.provider.requests().len(), asked + 1);
    let waiting = app.sql_one("SELECT attempts FROM jobs WHERE id = (SELECT id FROM updates WHERE payload->'message'->>'text' = 'is anybody there?')").await;
    assert_eq!(waiting["attempts"], 0);
    app.telegram.renew_token(OTHER, FRESH);
    add(FRESH).await;
    app.telegram
        .wait_message(FRESH, dora.id, PATIENCE, |message| {
            message.text == "Echo: is anybody there?"
        })
        .await
        .unwrap();
    app.finish().await;
}
