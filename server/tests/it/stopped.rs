//! A bot that staff have stopped says nothing, and loses nothing: what comes waits at Telegram.

use serde_json::json;
use test_support::app::{Builder, PATIENCE, TOKEN, eventually};

use crate::{anna, app};

#[tokio::test]
async fn a_stopped_polling_bot_waits_for_its_start() {
    stop_ask_start(app().polling()).await;
}

#[tokio::test]
async fn a_stopped_webhook_bot_waits_for_its_start() {
    stop_ask_start(app().webhook()).await;
}

async fn stop_ask_start(builder: Builder) {
    let app = builder.start().await;
    let anna = anna();
    app.say(&anna, "before");
    app.answer(anna.id, "Echo: before").await;
    let (owner, bot) = (app.sign_in("owner").await, app.bot_id().await);
    let switch = |enabled: &'static str| {
        let (owner, bot) = (&owner, &bot);
        async move {
            let page = owner
                .post("/api/fn/bots/enabled", &[("id", bot.as_str()), ("enabled", enabled)])
                .await;
            assert!(page.status.is_success(), "{}: {}", page.status, page.body);
        }
    };
    switch("false").await;
    eventually(PATIENCE, "nobody listens any more", || async {
        let held = app
            .count("SELECT count(*) AS n FROM bots WHERE lease_holder IS NOT NULL AND lease_until > now()")
            .await;
        if held == 0 && app.telegram.webhook_url(TOKEN).is_none() {
            Ok(())
        } else {
            Err(format!("{held} leases, webhook {:?}", app.telegram.webhook_url(TOKEN)))
        }
    })
    .await;
    app.say(&anna, "during");
    // Somebody who still delivers, as Telegram may for a moment, is sent away to come again.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    if let Some(call) = app.telegram.calls_of("setWebhook").first() {
        let answer = client
            .post(format!("{}/telegram/{bot}", app.base))
            .header(
                "X-Telegram-Bot-Api-Secret-Token",
                call.params["secret_token"].as_str().unwrap(),
            )
            .json(&json!({"update_id": 99_999}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 503);
    }
    assert_eq!(app.telegram.pending_updates(TOKEN).len(), 1);
    assert_eq!(app.said_by_bot(anna.id), ["Echo: before"]);
    switch("true").await;
    app.answer(anna.id, "Echo: during").await;
    app.idle().await;
    assert_eq!(app.said_by_bot(anna.id), ["Echo: before", "Echo: during"]);
    app.finish().await;
}
