use std::time::Duration;

use domain::{BotId, Permission, Role, views::IntakeMode};
use secrecy::{ExposeSecret, SecretString};
use services::{Actor, Error, KeyRing, Unidentified};

use crate::app::{App, faulty};

const TOKEN: &str = "4242:AAF-secret_token";

fn token(text: &str) -> SecretString {
    text.to_owned().into()
}

async fn added(app: &App) -> (Actor, BotId) {
    let owner = app.owner().await;
    let id = app
        .bots()
        .add(&owner, token(TOKEN), IntakeMode::Polling)
        .await
        .unwrap()
        .id;
    (owner, id)
}

#[tokio::test]
async fn a_token_is_stored_sealed_and_opens_only_in_its_row_and_with_its_key() {
    let app = App::new().await;
    let (_, id) = added(&app).await;
    // As a dump would show it: text, and the bytes as text and in hexadecimal.
    for part in [TOKEN, "secret_token"] {
        let hex: String = part.bytes().map(|byte| format!("{byte:02x}")).collect();
        for dump in [
            "bots::text",
            "to_jsonb(bots)::text",
            "encode(token_cipher, 'escape')",
            "encode(token_cipher, 'base64')",
        ] {
            let found = app
                .test
                .count(&format!("bots WHERE {dump} LIKE '%{part}%' OR {dump} LIKE '%{hex}%'"))
                .await;
            assert_eq!(found, 0, "{part} in {dump}");
        }
    }
    assert_eq!(
        app.test
            .count(&format!("audit WHERE audit::text LIKE '%{TOKEN}%'"))
            .await,
        0
    );
    let opened = app.bots().get(id).await.unwrap().unwrap().token.unwrap();
    assert_eq!(opened.expose_secret(), TOKEN);

    // With other keys the bot is left out, and staff read why.
    let stranger = app.replica(&KeyRing::generate());
    assert!(matches!(stranger.bots().get(id).await, Err(Error::Secret(_))));
    assert!(stranger.bots().all().await.unwrap().iter().all(|bot| bot.id != id));
    let rows = app
        .bots()
        .list(
            &app.actor(app.staff(Role::Viewer).await, Permission::ReadBots)
                .await
                .unwrap(),
        )
        .await
        .unwrap();
    let fault = rows.iter().find(|bot| bot.id == id).unwrap().fault.clone().unwrap();
    assert!(
        fault.contains("BOTDECK_SECRET_KEY") && !fault.contains("secret_token"),
        "{fault}"
    );

    // Moved to another bot's row it opens nothing.
    app.test
        .run(&format!("UPDATE bots SET token_cipher = b.token_cipher, token_key_id = b.token_key_id FROM bots b WHERE b.id = '{id}' AND bots.id = '{}'", app.bot))
        .await;
    assert!(matches!(app.bots().get(app.bot).await, Err(Error::Secret(_))));
}

#[tokio::test]
async fn adding_a_bot_twice_replaces_its_token_and_mode() {
    let app = App::new().await;
    let (owner, id) = added(&app).await;
    faulty(&app, id, "Unauthorized").await;
    let again = app
        .bots()
        .add(&owner, token("4242:AAF-another_token"), IntakeMode::Webhook)
        .await
        .unwrap();
    assert_eq!((again.id, again.mode, again.fault), (id, IntakeMode::Webhook, None));
    assert_eq!(app.test.count("bots WHERE telegram_id = 4242").await, 1);
    let opened = app.bots().get(id).await.unwrap().unwrap().token.unwrap();
    assert_eq!(opened.expose_secret(), "4242:AAF-another_token");
}

#[tokio::test]
async fn what_telegram_says_of_a_wrong_token_is_told_and_nothing_is_stored() {
    let app = App::new().await;
    let owner = app.owner().await;
    *app.telegram.refuses.lock().unwrap() = Some(Unidentified::Unknown);
    let refused = app.bots().add(&owner, token(TOKEN), IntakeMode::Polling).await;
    assert!(
        matches!(&refused, Err(Error::Invalid(expected)) if expected.contains("@BotFather")),
        "{refused:?}"
    );
    *app.telegram.refuses.lock().unwrap() = Some(Unidentified::Unreachable("no connection".to_owned()));
    let unreached = app.bots().add(&owner, token(TOKEN), IntakeMode::Polling).await;
    assert!(
        matches!(&unreached, Err(Error::Telegram(why)) if why == "no connection"),
        "{unreached:?}"
    );
    assert_eq!(app.test.count("bots WHERE telegram_id = 4242").await, 0);
    // The bot of the settings begins without Telegram, too.
    app.bots().ensure_from_settings(&token(TOKEN)).await.unwrap();
    app.bots().ensure_from_settings(&token(TOKEN)).await.unwrap();
    assert_eq!(
        app.test
            .count("bots WHERE telegram_id = 4242 AND name = 'Bot 4242'")
            .await,
        1
    );
    assert_eq!(
        app.test.count("audit WHERE action LIKE 'bot.%'").await,
        1,
        "a second start changes nothing"
    );
}

#[tokio::test]
async fn who_may_change_bots_but_not_secrets_cannot_enter_a_token() {
    let app = App::new().await;
    let support = app.staff(Role::Support).await;
    let actor = app.actor(support, Permission::ReadBots).await.unwrap();
    let refused = app.bots().add(&actor, token(TOKEN), IntakeMode::Polling).await;
    assert!(
        matches!(refused, Err(Error::Forbidden(Permission::WriteSecrets))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_replica_holds_a_bot_until_it_lets_go_or_goes_away() {
    let app = App::new().await;
    let (_, id) = added(&app).await;
    let (bots, time) = (app.bots(), Duration::from_secs(30));
    let all = futures::future::join_all((0..10).map(|n| {
        let bots = app.bots();
        async move { bots.lease(id, &format!("replica {n}"), time).await.unwrap() }
    }))
    .await;
    let holders: Vec<usize> = (0..10).filter(|n| all[*n]).collect();
    assert_eq!(holders.len(), 1, "{holders:?} hold it at once");
    let (holder, other) = (format!("replica {}", holders[0]), "another");
    assert!(bots.lease(id, &holder, time).await.unwrap(), "the holder renews");
    assert!(!bots.lease(id, other, time).await.unwrap());
    // Only the holder can let go.
    bots.release(id, other).await.unwrap();
    assert!(!bots.lease(id, other, time).await.unwrap());
    bots.release(id, &holder).await.unwrap();
    assert!(bots.lease(id, other, time).await.unwrap());
    // It goes away without a word.
    app.test
        .run("UPDATE bots SET lease_until = now() - interval '1 ms'")
        .await;
    assert!(bots.lease(id, &holder, time).await.unwrap());
    assert!(!bots.lease(id, other, time).await.unwrap());
}

#[tokio::test]
async fn a_stopped_bot_is_leased_to_nobody_and_shown_as_stopped() {
    let app = App::new().await;
    let (owner, id) = added(&app).await;
    let time = Duration::from_secs(30);
    let running = async || {
        app.bots()
            .list(&owner)
            .await
            .unwrap()
            .into_iter()
            .find(|bot| bot.id == id)
            .unwrap()
            .running
    };
    assert!(!running().await);
    assert!(app.bots().lease(id, "replica", time).await.unwrap());
    assert!(running().await);
    faulty(&app, id, "Conflict").await;
    app.bots().set_enabled(&owner, id, false).await.unwrap();
    assert!(!app.bots().lease(id, "replica", time).await.unwrap());
    assert!(!running().await);
    app.bots().set_enabled(&owner, id, true).await.unwrap();
    assert!(running().await, "starting again forgets the old fault");
}

#[tokio::test]
async fn only_the_one_that_listens_says_what_is_wrong_with_a_bot() {
    let app = App::new().await;
    let (owner, id) = added(&app).await;
    let fault = async || {
        let rows = app.bots().list(&owner).await.unwrap();
        rows.into_iter().find(|row| row.id == id).unwrap().fault
    };
    faulty(&app, id, "Conflict").await;
    assert_eq!(fault().await.as_deref(), Some("Conflict"));
    // One that was frozen has seen its successor at work.
    let none = services::Fault::NONE;
    app.bots()
        .set_fault(id, "frozen", services::Fault::words("x"))
        .await
        .unwrap();
    app.bots().set_fault(id, "frozen", none).await.unwrap();
    assert_eq!(fault().await.as_deref(), Some("Conflict"));
    app.bots().set_fault(id, "replica", none).await.unwrap();
    assert_eq!(fault().await, None);
    app.test.run("UPDATE bots SET lease_until = now()").await;
    app.bots()
        .set_fault(id, "replica", services::Fault::words("x"))
        .await
        .unwrap();
    assert_eq!(fault().await, None);
}

#[tokio::test]
async fn a_start_undoes_nothing_that_staff_have_set_on_the_bot_of_the_settings() {
    let app = App::new().await;
    let owner = app.owner().await;
    let of_settings = token("4242:AAF-of_the_settings");
    app.bots().ensure_from_settings(&of_settings).await.unwrap();
    let bot = async || {
        let all = app.bots().all().await.unwrap();
        let bot = all.into_iter().find(|bot| bot.name == "Bot 4242").unwrap();
        (bot.id, bot.mode, bot.token.unwrap().expose_secret().to_owned())
    };
    let (id, first, _) = bot().await;
    assert_eq!(first, IntakeMode::Webhook, "the settings have a public address");
    // Nobody has chosen yet, so it follows the address: this start has one, the last had none.
    app.test.run("UPDATE bots SET mode = 'polling'").await;
    app.bots().ensure_from_settings(&of_settings).await.unwrap();
    assert_eq!(bot().await.1, IntakeMode::Webhook);
    app.bots().set_mode(&owner, id, IntakeMode::Polling).await.unwrap();
    app.bots().replace_token(&owner, id, token(TOKEN)).await.unwrap();
    let trail = app.test.count("audit").await;

    // The old token was revoked, or Telegram is not reached: what staff have entered stays.
    for why in [
        Unidentified::Unknown,
        Unidentified::Unreachable("no connection".to_owned()),
    ] {
        *app.telegram.refuses.lock().unwrap() = Some(why);
        app.bots().ensure_from_settings(&of_settings).await.unwrap();
        assert_eq!(bot().await, (id, IntakeMode::Polling, TOKEN.to_owned()));
    }
    assert_eq!(app.test.count("audit").await, trail);

    // Telegram takes that of the settings again: somebody has put a new one there.
    *app.telegram.refuses.lock().unwrap() = None;
    app.bots().ensure_from_settings(&of_settings).await.unwrap();
    let now = bot().await;
    assert_eq!(
        (now.1, now.2.as_str()),
        (IntakeMode::Polling, of_settings.expose_secret()),
        "a new token is no reason for another mode"
    );
    let before: serde_json::Value = app
        .test
        .one("SELECT before FROM audit WHERE action = 'bot.replace_token' ORDER BY id DESC LIMIT 1")
        .await;
    assert_eq!(before, serde_json::json!({ "username": "bot_4242", "mode": "polling" }));
}

#[tokio::test]
async fn after_a_rotation_the_old_key_is_needed_no_more() {
    let app = App::new().await;
    let (_, id) = added(&app).await;
    let new = KeyRing::generate();
    let both: SecretString = format!("{},{}", new.expose_secret(), app.secret.expose_secret()).into();
    let rotated = app.replica(&both);
    rotated.bots().seal_anew().await.unwrap();
    let cipher = app
        .test
        .one::<Vec<u8>>(&format!("SELECT token_cipher FROM bots WHERE id = '{id}'"))
        .await;
    rotated.bots().seal_anew().await.unwrap();
    let again = app
        .test
        .one::<Vec<u8>>(&format!("SELECT token_cipher FROM bots WHERE id = '{id}'"))
        .await;
    assert_eq!(cipher, again, "what has the current key is left alone");
    let opened = app.replica(&new).bots().get(id).await.unwrap().unwrap();
    assert_eq!(opened.token.unwrap().expose_secret(), TOKEN);
}
