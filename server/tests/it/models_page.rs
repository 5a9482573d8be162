//! Page Models as a browser without script uses it, and who answers by what was set up there.

use serde_json::Value;
use test_support::{TestApp, app::Visitor};

use crate::app;

const BOT: &str = "01930000-0000-7000-8000-0000000000b0";

/// What the bot of the playground says to a text.
async fn answer(app: &TestApp, visitor: &Visitor, text: &str) -> Value {
    let sent = visitor
        .post("/api/fn/playground/send", &[("bot", BOT), ("text", text)])
        .await;
    assert_eq!(sent.status, 200, "{sent:?}");
    app.idle().await;
    app.sql_one(
        "SELECT text, error_code, error_cause FROM messages WHERE author = 'bot' ORDER BY created_at DESC LIMIT 1",
    )
    .await
}

fn says(value: &Value, words: &str) -> bool {
    value.as_str().is_some_and(|text| text.contains(words))
}

#[tokio::test]
async fn a_fresh_deck_answers_as_the_demo_and_a_provider_that_is_switched_off_is_missed() {
    let app = app().without_bot().without("OPENAI_API_KEY").start().await;
    let owner = app.sign_in("owner").await;
    let said = answer(&app, &owner, "hello").await;
    assert!(says(&said["text"], "demo model"), "{said}");

    // A plain form comes to where it is said what it has changed.
    let saved = async |path: &str, fields: &[(&str, &str)]| {
        let place = owner.submit(path, fields).await.location.unwrap();
        let page = owner.page(&place).await;
        assert_eq!(page.status, 200);
        (place, page.body)
    };
    let provider = [
        ("fields[name]", "Home lab"),
        ("fields[kind]", "openai"),
        ("fields[base_url]", "http://127.0.0.1:9/v1"),
    ];
    let in_use = ("fields[enabled]", "yes");
    let (place, page) = saved("/api/fn/models/provider", &[&provider[..], &[in_use]].concat()).await;
    assert!(place.starts_with("/models?saved=provider:"), "{place}");
    for words in [
        "Saved:",
        "Home lab",
        "Test the provider",
        "no name leads to a chat model",
    ] {
        assert!(page.contains(words), "{words:?} is not in {page}");
    }
    let id = app.sql_one("SELECT id FROM providers").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let model = [
        ("provider", id.as_str()),
        ("fields[name]", "house-model"),
        ("fields[kind]", "chat"),
        ("fields[context_tokens]", "8000"),
        ("fields[max_answer_tokens]", "1000"),
        ("fields[input]", "0.25"),
        ("fields[cached_input]", "0.1"),
        in_use,
    ];
    let (place, page) = saved("/api/fn/models/model", &model).await;
    assert!(place.starts_with("/models?saved=model:"), "{place}");
    for words in [
        "Saved:",
        "price_cached_input",
        "$0.25 in, $0.1 cached",
        "Test house-model",
    ] {
        assert!(page.contains(words), "{words:?} is not in {page}");
    }
    let off = [&provider[..], &[("id", id.as_str())]].concat();
    let (_, page) = saved("/api/fn/models/provider", &off).await;
    for words in ["<del>true", "<ins>false", "Nobody can be asked for an answer"] {
        assert!(page.contains(words), "{words:?} is not in {page}");
    }
    let (place, page) = saved("/api/fn/models/provider", &off).await;
    assert_eq!(place, "/models?saved=nothing");
    assert!(page.contains("Saved. Nothing was different."), "{page}");

    let said = answer(&app, &owner, "hello again").await;
    assert_eq!(said["error_code"], "BD-AI-DOWN", "{said}");
    assert!(says(&said["error_cause"], "house-model"), "{said}");
    assert!(!says(&said["text"], "demo"), "{said}");
    app.finish().await;
}
