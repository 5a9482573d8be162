//! When the model fails: words and a code for people, the cause for staff, a key for nobody.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_support::{TestApp, app::KEY, fake_provider::ProviderFault};

use crate::{anna, app, boris};

/// Asks, and returns what the user reads with the ledger's line and the error that staff see.
async fn ask(app: &TestApp, text: &str) -> (String, Value, Value) {
    let anna = anna();
    let asked = app.say(&anna, text);
    let reply = app.reply(anna.id, asked).await;
    let line = app.sql_one("SELECT * FROM usage ORDER BY at DESC LIMIT 1").await;
    let error = app
        .sql("SELECT code, cause, job_id FROM errors ORDER BY at DESC LIMIT 1")
        .await;
    let error = error
        .into_iter()
        .find(|error| error["job_id"] == line["job_id"])
        .unwrap_or_default();
    (reply.text, line, error)
}

async fn assert_unbilled(app: &TestApp) {
    let counters = app.sql("SELECT * FROM counters WHERE used <> 0 OR reserved <> 0").await;
    assert!(counters.is_empty(), "billed although nothing came: {counters:?}");
}

#[tokio::test]
async fn a_provider_that_fails_twice_is_reported() {
    let app = app().start().await;
    app.provider.fail_next(2, ProviderFault::Status(500));
    let (text, line, error) = ask(&app, "Hello").await;
    assert_eq!(
        text,
        "The model cannot be reached. Ask again in a few minutes.\nBD-AI-DOWN"
    );
    assert_eq!((&line["finish"], &line["attempts"]), (&json!("failed"), &json!(2)));
    assert_eq!(error["code"], "BD-AI-DOWN");
    assert!(error["cause"].as_str().unwrap().contains("500"), "{error}");
    assert!(
        !text.contains("server had an error"),
        "an internal text reached the user"
    );
    assert_unbilled(&app).await;
    // What failed is no part of the conversation.
    let (text, ..) = ask(&app, "again").await;
    assert_eq!(text, "Echo: again");
    let context = app.provider.requests().last().unwrap().body["messages"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(context, 2);
    app.finish().await;
}

#[tokio::test]
async fn one_failure_is_forgiven() {
    let app = app().start().await;
    for fault in [
        ProviderFault::Status(500),
        ProviderFault::Drop,
        ProviderFault::RateLimited { retry_after: 1 },
    ] {
        app.provider.fail_next(1, fault.clone());
        let (text, line, error) = ask(&app, "Hello").await;
        assert_eq!(text, "Echo: Hello", "{fault:?}");
        assert_eq!(line["attempts"], 2, "{fault:?}");
        assert!(error.is_null(), "{fault:?}: {error}");
    }
    app.finish().await;
}

#[tokio::test]
async fn every_kind_of_failure_has_its_code() {
    let app = app().with("BOTDECK_FIRST_TOKEN_SECONDS", "1").start().await;
    for (question, code, finish, cause) in [
        ("[[status=429,60]]", "BD-AI-BUSY", "failed", "429"),
        ("[[hang]]", "BD-AI-TIMEOUT", "failed", "timed out"),
        ("[[status=400]]", "BD-AI-REFUSED", "failed", "400"),
        ("[[empty]]", "BD-AI-DOWN", "failed", "without a finish reason"),
    ] {
        let asked = Instant::now();
        let (text, line, error) = ask(&app, question).await;
        assert!(text.ends_with(code), "{question} was answered {text:?}");
        assert_eq!(
            (&line["finish"], &error["code"]),
            (&json!(finish), &json!(code)),
            "{question}: {line} {error}"
        );
        assert!(error["cause"].as_str().unwrap().contains(cause), "{question}: {error}");
        assert!(
            asked.elapsed() < Duration::from_secs(8),
            "{question} took {:?}",
            asked.elapsed()
        );
    }
    assert_unbilled(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_kept_as_far_as_it_came() {
    let app = app().with("BOTDECK_FIRST_TOKEN_SECONDS", "1").start().await;
    for (fault, code) in [("[[cut]]", "BD-AI-CUT"), ("[[hangmid]]", "BD-AI-TIMEOUT")] {
        let (text, line, error) = ask(&app, &format!("one two three four five six seven {fault}")).await;
        assert!(text.starts_with("Echo: one two three"), "{text}");
        assert!(
            text.contains("⚠ The answer broke off here.") && text.ends_with(code),
            "{text}"
        );
        assert!(!text.contains("seven"), "{text}");
        assert_eq!((&line["finish"], &line["attempts"]), (&json!("cut"), &json!(1)));
        assert!(line["completion_tokens"].as_i64().unwrap() > 0, "{line}");
        assert_eq!(error["code"], code);
    }
    app.finish().await;
}

#[tokio::test]
async fn a_refused_key_is_said_and_shown_nowhere() {
    let app = app().with("BOTDECK_LOG", "trace").start().await;
    let boris = boris();
    app.say(&boris, "привет");
    app.answer(boris.id, "Echo: привет").await;
    app.provider.accept_keys(&["another"]);
    let (text, _, error) = ask(&app, "Hello").await;
    assert!(
        text.contains("your question was not charged") && text.ends_with("BD-AI-AUTH"),
        "{text}"
    );
    assert_eq!(error["code"], "BD-AI-AUTH");
    assert!(error["cause"].as_str().unwrap().contains("401"), "{error}");
    // Telegram fails as well, with errors that carry the address and in it the token.
    for fault in [
        test_support::fake_telegram::Fault::DropAfterHandling,
        test_support::fake_telegram::Fault::Status(502, "Bad Gateway".into()),
    ] {
        app.telegram.fail_next("*", 4, fault);
        ask(&app, "again").await;
    }
    let staff = app.sign_in("owner").await;
    let token = test_support::app::TOKEN;
    let added = staff
        .post("/api/fn/bots/add", &[("token", token), ("mode", "polling")])
        .await;
    assert!(added.status.is_success(), "{added:?}");
    for page in [
        "/bots",
        "/audit",
        "/",
        "/api/fn/bots/list",
        "/api/fn/audit/list",
        "/metrics",
    ] {
        let body = staff.get(page).await.body;
        assert!(!body.contains(token) && !body.contains(KEY), "a secret is on {page}");
    }
    app.assert_no_secrets().await;
    let list = app.cli(&["bot", "list"]).await.ok();
    assert!(!list.text().contains(token));
    app.finish().await;
}

#[tokio::test]
async fn a_provider_that_is_away_altogether_is_reported_at_once() {
    let app = app().start().await;
    app.provider.stop();
    let asked = Instant::now();
    let (text, _, error) = ask(&app, "Hello").await;
    assert!(text.ends_with("BD-AI-DOWN"), "{text}");
    assert!(asked.elapsed() < Duration::from_secs(8));
    assert!(!error["cause"].as_str().unwrap().contains(KEY));
    app.finish().await;
}

/// As a value that cannot be kept: trying again would only hold the conversation up.
#[tokio::test]
async fn what_would_fail_again_is_not_tried_again() {
    let app = app().start().await;
    let anna = anna();
    app.sql_execute("ALTER TABLE messages ADD CONSTRAINT no_poison CHECK (text NOT LIKE '%poison%')")
        .await;
    app.say(&anna, "poison");
    app.say(&anna, "hello");
    app.answer_with(anna.id, "BD-INTERNAL").await;
    app.answer(anna.id, "Echo: hello").await;
    app.idle().await;
    let job = app
        .sql_one("SELECT attempts, last_error FROM jobs WHERE state = 'dead'")
        .await;
    assert_eq!(job["attempts"], 1);
    assert!(job["last_error"].as_str().unwrap().contains("no_poison"), "{job}");
    assert_eq!(app.count("SELECT count(*) AS n FROM reservations").await, 0);
    app.finish().await;
}
