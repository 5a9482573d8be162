use std::time::Duration;

use chrono::TimeDelta;
use domain::{
    BotId,
    views::{IntakeMode, bots::BotCard},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use services::{Actor, Error};

use crate::app::{App, MODEL, PLAYGROUND, faulty};

async fn added(app: &App) -> (Actor, BotId) {
    let owner = app.owner().await;
    let token: SecretString = "4242:AAF-secret_token".to_owned().into();
    let id = app.bots().add(&owner, token, IntakeMode::Polling).await.unwrap().id;
    (owner, id)
}

async fn card(app: &App, actor: &Actor, id: BotId) -> BotCard {
    let board = app.bots().board(actor).await.unwrap();
    board.bots.into_iter().find(|bot| bot.row.id == id).unwrap()
}

/// Before and after of the last entry of that action.
async fn trail(app: &App, action: &str) -> Value {
    app.test
        .one(&format!(
            "SELECT jsonb_build_array(before, after) FROM audit WHERE action = '{action}' ORDER BY id DESC LIMIT 1"
        ))
        .await
}

#[tokio::test]
async fn a_card_says_who_runs_the_bot_and_how_far_it_is_behind() {
    let app = App::new().await;
    let (owner, id) = added(&app).await;
    let idle = card(&app, &owner, id).await;
    assert_eq!(
        (idle.lease_holder, idle.lag_ms, idle.pending, idle.flood_waits),
        (None, None, None, 0)
    );
    assert!(app.bots().lease(id, "replica", Duration::from_secs(30)).await.unwrap());
    app.intake().accept(id, vec![app.update(7, 7, "hello")]).await.unwrap();
    app.test
        .run("UPDATE jobs SET created_at = now() - interval '2 minutes'")
        .await;
    app.bots().set_pending(id, 12).await.unwrap();
    let busy = card(&app, &owner, id).await;
    assert_eq!(busy.lease_holder.as_deref(), Some("replica"));
    assert!(
        busy.lag_ms.is_some_and(|ms| (120_000..150_000).contains(&ms)),
        "{busy:?}"
    );
    assert_eq!(busy.pending, Some((12, app.now())));
    assert_eq!(
        card(&app, &owner, app.bot).await.lag_ms,
        None,
        "the other bot is not behind"
    );
    let health = async || {
        let bots = app.bots().health().await.unwrap();
        bots.into_iter().find(|bot| bot.id == id).unwrap()
    };
    let bot = health().await;
    assert!(bot.lag_ms >= 120_000 && bot.pending == Some(12), "{bot:?}");
    assert!(bot.enabled && bot.up, "{bot:?}");
    app.test.run("UPDATE bots SET fault = 'no'").await;
    assert!(!health().await.up, "it has a fault");
    app.test.run("UPDATE bots SET fault = NULL").await;
    // A lease that ran out is nobody's.
    app.test
        .run("UPDATE bots SET lease_until = now() - interval '1 ms'")
        .await;
    assert_eq!(card(&app, &owner, id).await.lease_holder, None);
    let bot = health().await;
    assert!(bot.enabled && !bot.up, "nobody listens for it: {bot:?}");
}

#[tokio::test]
async fn flood_waits_are_counted_by_the_minute_and_seen_for_an_hour() {
    let app = App::new().await;
    let (owner, id) = added(&app).await;
    for _ in 0..5 {
        app.bots().flood_wait(id);
    }
    app.bots().write_flood_waits(id).await.unwrap();
    app.bots().flood_wait(id);
    app.bots().write_flood_waits(id).await.unwrap();
    assert_eq!(card(&app, &owner, id).await.flood_waits, 6);
    assert_eq!(card(&app, &owner, app.bot).await.flood_waits, 0);
    app.test
        .run("UPDATE flood_waits SET minute = minute - interval '61 minutes'")
        .await;
    assert_eq!(card(&app, &owner, id).await.flood_waits, 0);
    assert!(app.test.count("flood_waits").await > 0);
    app.test
        .run("UPDATE flood_waits SET minute = minute - interval '1 day'")
        .await;
    app.queue().tidy().await.unwrap();
    assert_eq!(app.test.count("flood_waits").await, 0);
}

#[tokio::test]
async fn persona_and_model_are_changed_with_before_and_after() {
    let app = App::new().await;
    let (owner, id) = added(&app).await;
    let set = async |persona: &str, model: &str| {
        app.bots()
            .set_manner(&owner, id, persona.parse().unwrap(), Some(model.to_owned()))
            .await
    };
    set("You are a pirate.\r\nSay arr.", MODEL).await.unwrap();
    let now = card(&app, &owner, id).await;
    assert_eq!(
        (now.persona.as_str(), now.model.as_deref()),
        ("You are a pirate.\nSay arr.", Some(MODEL))
    );
    let record = app.bots().get(id).await.unwrap().unwrap();
    assert_eq!(record.persona, "You are a pirate.\nSay arr.");
    assert_eq!(
        trail(&app, "bot.edit").await,
        json!([
            { "persona": "", "model": null },
            { "persona": "You are a pirate.\nSay arr.", "model": MODEL },
        ])
    );
    // The same again leaves no trace, an empty model is the default one, an unknown one is refused.
    set("You are a pirate.\nSay arr.", MODEL).await.unwrap();
    assert_eq!(app.test.count("audit WHERE action = 'bot.edit'").await, 1);
    set("", "").await.unwrap();
    assert_eq!(card(&app, &owner, id).await.model, None);
    let refused = set("", "gpt-unknown").await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn a_changed_mode_is_recorded_and_only_telegram_bots_have_one() {
    let app = App::new().await;
    let (owner, id) = added(&app).await;
    faulty(&app, id, "Conflict").await;
    app.bots().set_mode(&owner, id, IntakeMode::Webhook).await.unwrap();
    let now = card(&app, &owner, id).await.row;
    assert_eq!((now.mode, now.fault), (IntakeMode::Webhook, None));
    assert_eq!(
        trail(&app, "bot.mode").await,
        json!([{ "mode": "polling" }, { "mode": "webhook" }])
    );
    let refused = app.bots().set_mode(&owner, PLAYGROUND, IntakeMode::Webhook).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn a_new_token_must_be_of_the_same_bot_and_starts_its_intake_anew() {
    let app = App::new().await;
    let (owner, id) = added(&app).await;
    faulty(&app, id, "Unauthorized").await;
    let before = app.bots().get(id).await.unwrap().unwrap().restarts;
    let replace = async |token: &str| {
        let token: SecretString = token.to_owned().into();
        app.bots().replace_token(&owner, id, token).await
    };
    let other = replace("777:AAF-of_another_bot").await;
    assert!(matches!(other, Err(Error::Conflict(_))), "{other:?}");
    replace("4242:AAF-the_new_one").await.unwrap();
    let now = app.bots().get(id).await.unwrap().unwrap();
    assert_eq!(now.token.unwrap().expose_secret(), "4242:AAF-the_new_one");
    assert!(now.restarts > before);
    assert_eq!(card(&app, &owner, id).await.row.fault, None);
    let trail = trail(&app, "bot.replace_token").await.to_string();
    assert!(trail.contains("\"new\"") && !trail.contains("the_new_one"), "{trail}");
}

#[tokio::test]
async fn a_faulty_bot_is_tried_again_at_once_but_not_a_stopped_one() {
    let app = App::new().await;
    let (owner, id) = added(&app).await;
    faulty(&app, id, "Telegram does not answer").await;
    let before = app.bots().get(id).await.unwrap().unwrap().restarts;
    let woken = {
        let bots = app.bots();
        async move { tokio::time::timeout(Duration::from_secs(10), bots.changed()).await }
    };
    let bots = app.bots();
    let (woken, restarted) = tokio::join!(woken, bots.restart(&owner, id));
    restarted.unwrap();
    woken.expect("intake was not told");
    assert_eq!(app.bots().get(id).await.unwrap().unwrap().restarts, before + 1);
    assert_eq!(card(&app, &owner, id).await.row.fault, None);
    assert_eq!(
        trail(&app, "bot.restart").await,
        json!([{ "fault": "Telegram does not answer" }, { "fault": null }])
    );
    app.clock.advance(TimeDelta::seconds(1));
    app.bots().set_enabled(&owner, id, false).await.unwrap();
    let refused = app.bots().restart(&owner, id).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
}
