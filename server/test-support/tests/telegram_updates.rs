//! How updates reach a bot: offsets, conflicts, long polls, webhooks.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use test_support::FakeTelegram;
use test_support::fake_telegram::User;

const TOKEN: &str = "123456:TEST";
const SOON: Duration = Duration::from_secs(5);

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn fake() -> FakeTelegram {
    let fake = FakeTelegram::start().await.unwrap();
    fake.add_bot(TOKEN, "deck_bot");
    fake
}

async fn call(fake: &FakeTelegram, method: &str, params: Value) -> Value {
    let url = format!("{}/bot{TOKEN}/{method}", fake.url());
    client()
        .post(url)
        .json(&params)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

fn ids(answer: &Value) -> Vec<i64> {
    answer["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|update| update["update_id"].as_i64().unwrap())
        .collect()
}

fn say(fake: &FakeTelegram, user: i64, text: &str) -> i64 {
    fake.send_text(TOKEN, &User::new(user, "Anna"), text).0
}

#[tokio::test]
async fn an_offset_confirms_what_is_below_it() {
    let fake = fake().await;
    let sent: Vec<i64> = (0..5).map(|n| say(&fake, 7, &format!("{n}"))).collect();
    assert_eq!(ids(&call(&fake, "getUpdates", json!({})).await), sent);
    assert_eq!(
        ids(&call(&fake, "getUpdates", json!({"limit": 2})).await),
        sent[..2],
        "unconfirmed ones come again"
    );
    assert_eq!(
        ids(&call(&fake, "getUpdates", json!({"offset": sent[2]})).await),
        sent[2..]
    );
    assert_eq!(
        (fake.confirmed_offset(TOKEN), fake.pending_updates(TOKEN)),
        (sent[2], sent[2..].to_vec())
    );
    assert_eq!(
        ids(&call(&fake, "getUpdates", json!({"offset": sent[0]})).await),
        sent[2..],
        "confirmed for good"
    );
    assert_eq!(
        ids(&call(&fake, "getUpdates", json!({"offset": -1})).await),
        sent[4..],
        "all but the last forgotten"
    );
    assert!(ids(&call(&fake, "getUpdates", json!({"offset": sent[4] + 1})).await).is_empty());
}

#[tokio::test]
async fn a_message_carries_its_entities_in_utf16() {
    let fake = fake().await;
    say(&fake, 7, "/model@deck_bot gpt");
    say(&fake, 7, "🦀 /start https://x.y");
    let answer = call(&fake, "getUpdates", json!({})).await;
    let entities = |at: usize| answer["result"][at]["message"]["entities"].clone();
    assert_eq!(entities(0), json!([{"type": "bot_command", "offset": 0, "length": 15}]));
    let second =
        json!([{"type": "bot_command", "offset": 3, "length": 6}, {"type": "url", "offset": 10, "length": 11}]);
    assert_eq!(entities(1), second);
    assert_eq!(answer["result"][1]["message"]["message_id"], 2);
}

#[tokio::test]
async fn a_long_poll_waits_for_an_update_or_its_time() {
    let fake = fake().await;
    let before = Instant::now();
    assert!(ids(&call(&fake, "getUpdates", json!({"timeout": 1})).await).is_empty());
    assert!(before.elapsed() >= Duration::from_secs(1));
    let poll = tokio::spawn({
        let fake = fake.clone();
        async move { ids(&call(&fake, "getUpdates", json!({"timeout": 30})).await) }
    });
    fake.wait_for(SOON, |fake| (fake.polls_open(TOKEN) == 1).then_some(()))
        .await
        .unwrap();
    let id = say(&fake, 7, "hi");
    assert_eq!(poll.await.unwrap(), [id]);
}

#[tokio::test]
async fn a_second_poll_ends_the_first_with_a_conflict() {
    let fake = fake().await;
    let first = tokio::spawn({
        let fake = fake.clone();
        async move { call(&fake, "getUpdates", json!({"timeout": 30})).await }
    });
    fake.wait_for(SOON, |fake| (fake.polls_open(TOKEN) == 1).then_some(()))
        .await
        .unwrap();
    call(&fake, "getUpdates", json!({})).await;
    let first = first.await.unwrap();
    assert_eq!(first["error_code"], 409);
    let why = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
    assert_eq!(first["description"], why);
}

#[tokio::test]
async fn a_poll_ends_with_its_connection() {
    let fake = fake().await;
    let poll = tokio::spawn({
        let fake = fake.clone();
        async move { call(&fake, "getUpdates", json!({"timeout": 30})).await }
    });
    fake.wait_for(SOON, |fake| (fake.polls_open(TOKEN) == 1).then_some(()))
        .await
        .unwrap();
    poll.abort();
    while fake.polls_open(TOKEN) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn only_allowed_kinds_are_sent() {
    let fake = fake().await;
    fake.push_update(
        TOKEN,
        json!({"message_reaction": {"chat": {"id": 7, "type": "private"}}}),
    );
    let future = fake.push_update(TOKEN, json!({"thought_transfer": {}}));
    assert_eq!(ids(&call(&fake, "getUpdates", json!({})).await), [future]);
    call(
        &fake,
        "getUpdates",
        json!({"allowed_updates": ["message_reaction"], "offset": future + 1}),
    )
    .await;
    call(&fake, "getUpdates", json!({})).await;
    assert_eq!(
        fake.allowed_updates(TOKEN),
        ["message_reaction"],
        "an absent list keeps the last one"
    );
    say(&fake, 7, "not heard");
    let reaction = fake.push_update(
        TOKEN,
        json!({"message_reaction": {"chat": {"id": 7, "type": "private"}}}),
    );
    assert_eq!(ids(&call(&fake, "getUpdates", json!({})).await), [reaction]);
    assert_eq!(fake.updates_not_allowed(TOKEN).len(), 2);
}

/// A webhook that keeps (chat, text, secret) and refuses as many requests as it is told to.
struct Hook {
    url: String,
    got: Arc<Mutex<Vec<(i64, String, String)>>>,
    refuse: Arc<AtomicU32>,
}

async fn hook() -> Hook {
    let got = Arc::new(Mutex::new(Vec::new()));
    let refuse = Arc::new(AtomicU32::new(0));
    let (seen, left) = (Arc::clone(&got), Arc::clone(&refuse));
    let handler = async move |headers: HeaderMap, axum::Json(update): axum::Json<Value>| {
        if left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let secret = headers
            .get("x-telegram-bot-api-secret-token")
            .map(|value| value.to_str().unwrap().to_owned());
        let message = &update["message"];
        let text = message["text"].as_str().unwrap_or_default().to_owned();
        seen.lock().unwrap().push((
            message["chat"]["id"].as_i64().unwrap(),
            text,
            secret.unwrap_or_default(),
        ));
        StatusCode::OK
    };
    let tcp = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let url = format!("http://{}/hook", tcp.local_addr().unwrap());
    tokio::spawn(axum::serve(tcp, Router::new().route("/hook", post(handler))).into_future());
    Hook { url, got, refuse }
}

async fn all_delivered(fake: &FakeTelegram) {
    fake.wait_for(SOON, |fake| fake.pending_updates(TOKEN).is_empty().then_some(()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_webhook_gets_every_update_until_it_accepts_it() {
    let (fake, hook) = (fake().await, hook().await);
    say(&fake, 7, "before");
    hook.refuse.store(2, Ordering::SeqCst);
    let answer = call(
        &fake,
        "setWebhook",
        json!({"url": hook.url, "secret_token": "s3cret_-"}),
    )
    .await;
    assert_eq!(answer["description"], "Webhook was set");
    for n in 0..5 {
        say(&fake, 7, &format!("{n}"));
    }
    all_delivered(&fake).await;
    let texts: Vec<_> = hook
        .got
        .lock()
        .unwrap()
        .iter()
        .map(|(_, text, _)| text.clone())
        .collect();
    assert_eq!(
        texts,
        ["before", "0", "1", "2", "3", "4"],
        "in order within a chat, in spite of refusals"
    );
    assert!(hook.got.lock().unwrap().iter().all(|(.., secret)| secret == "s3cret_-"));
    let first: Vec<_> = fake
        .deliveries(TOKEN)
        .iter()
        .take(3)
        .map(|d| (d.attempt, d.status))
        .collect();
    assert_eq!(first, [(1, Some(503)), (2, Some(503)), (3, Some(200))]);
    let info = call(&fake, "getWebhookInfo", json!({})).await;
    assert!(info["result"]["last_error_message"].as_str().unwrap().contains("503"));
}

#[tokio::test]
async fn polling_and_webhook_exclude_each_other() {
    let (fake, hook) = (fake().await, hook().await);
    call(&fake, "setWebhook", json!({"url": hook.url})).await;
    let refused = call(&fake, "getUpdates", json!({})).await;
    let why =
        "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";
    assert_eq!(
        (&refused["error_code"], &refused["description"]),
        (&json!(409), &json!(why))
    );
    call(&fake, "deleteWebhook", json!({})).await;
    assert_eq!(call(&fake, "getUpdates", json!({})).await["ok"], true);
    assert_eq!(fake.pending_dropped(TOKEN), 0);
    for (secret, why) in [("", "1-256"), ("a b", "unallowed"), (&"x".repeat(257), "1-256")] {
        let answer = call(&fake, "setWebhook", json!({"url": hook.url, "secret_token": secret})).await;
        assert!(answer["description"].as_str().unwrap().contains(why), "{answer}");
    }
    say(&fake, 7, "lost");
    call(&fake, "deleteWebhook", json!({"drop_pending_updates": true})).await;
    assert_eq!((fake.pending_dropped(TOKEN), fake.pending_updates(TOKEN).len()), (1, 0));
}

#[tokio::test]
async fn an_unreachable_webhook_is_tried_again_and_copies_come_on_request() {
    let fake = fake().await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = nobody.local_addr().unwrap();
    drop(nobody);
    call(&fake, "setWebhook", json!({"url": format!("http://{addr}/hook")})).await;
    let id = say(&fake, 7, "hi");
    fake.wait_for(SOON, |fake| (fake.deliveries(TOKEN).len() >= 2).then_some(()))
        .await
        .unwrap();
    assert!(
        fake.deliveries(TOKEN)
            .iter()
            .all(|d| d.update_id == id && d.status.is_none())
    );
    let hook = hook().await;
    fake.duplicate_deliveries(2);
    call(&fake, "setWebhook", json!({"url": hook.url, "max_connections": 1})).await;
    all_delivered(&fake).await;
    assert_eq!(hook.got.lock().unwrap().len(), 3);
    assert_eq!(fake.deliveries(TOKEN).iter().filter(|d| d.duplicate).count(), 2);
}
