//! The official `openai` packages of Python and Node, unchanged, against the built program. `bin/test bot` installs them.

use serde_json::{Value, json};
use test_support::TestApp;
use tokio::process::Command;

use crate::{
    api::{Program, offer_every_kind},
    app,
};

async fn run(program: &str, args: &[&str]) -> Value {
    let ended = Command::new(program).args(args).output().await.unwrap();
    let (said, error) = (
        String::from_utf8_lossy(&ended.stdout).into_owned(),
        String::from_utf8_lossy(&ended.stderr).into_owned(),
    );
    assert!(ended.status.success(), "{program} {args:?}: {said}\n{error}");
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("no JSON: {said}\n{error}"))
}

fn installed(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} says where the package is; `bin/test bot` sets it"))
}

fn check(seen: &Value, words: &str) {
    let echo = format!("Echo: {words}");
    for way in ["plain", "streamed", "helper"] {
        assert_eq!(seen[way], echo.as_str(), "{way}: {seen}");
    }
    let mut models: Vec<&str> = seen["models"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    models.sort_unstable();
    assert_eq!(models, ["embed", "fake-model", "hear", "paint", "speak"]);
    for way in ["response", "response_streamed"] {
        assert_eq!(seen[way], echo.as_str(), "{way}: {seen}");
    }
    assert_eq!(
        (&seen["vectors"], &seen["pictures"]),
        (&json!([0.5, 0.5]), &json!(2)),
        "{seen}"
    );
    assert_eq!(
        (&seen["heard"], &seen["said"]),
        (&json!("spoken words"), &json!("ID3 hello there")),
        "{seen}"
    );
    assert_eq!(seen["translated"], "gesprochen");
    let call = json!(["tool_calls", "weather", "{\"city\": \"Kyoto\"}"]);
    assert_eq!((&seen["tool"], &seen["tool_streamed"]), (&call, &call), "{seen}");
    assert_eq!(seen["tool_told"], "The tool said: rain");
    assert_eq!(seen["model"], "fake-model");
    assert_eq!(seen["request_id"], true);
    assert_eq!(seen["usage_unasked"], false, "it was not asked for");
    assert!(
        seen["tokens"].as_i64() > Some(0) && seen["usage_asked"] == seen["tokens"],
        "{seen}"
    );
    assert_eq!(
        seen["failures"],
        json!({
            "no_model": ["NotFoundError", 404, "model_not_found"],
            "bad_key": ["AuthenticationError", 401, "invalid_api_key"],
            "no_such_kind": ["NotFoundError", 404, "model_not_found"],
            "bad_request": ["BadRequestError", 400, null],
            "overloaded": ["InternalServerError", 502, "provider_failed"],
        })
    );
}

/// It came back when it had been told to, and not before.
fn check_patience(seen: &Value) {
    assert_eq!(
        seen["limited"],
        json!([429, "rate_limit_exceeded", "requests"]),
        "{seen}"
    );
    assert_eq!(seen["limited_headers"], json!(["20", "0"]));
    let answers: Vec<(u64, u64)> = seen["retried"]
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| {
            let wait = answer[1].as_str().map_or(0, |wait| wait.parse().unwrap());
            (answer[0].as_u64().unwrap(), wait)
        })
        .collect();
    let (last, refused) = answers.split_last().unwrap();
    assert_eq!(last.0, 200, "{answers:?}");
    assert!(!refused.is_empty() && refused.iter().all(|(status, wait)| *status == 429 && *wait > 0));
    let asked: u64 = refused.iter().map(|(_, wait)| wait).sum();
    let waited = seen["waited"].as_f64().unwrap();
    assert!(waited >= asked as f64, "{waited} s instead of {asked}: {answers:?}");
}

/// A key that may ask so often a minute that the next time is three seconds away.
async fn limited(app: &TestApp) -> Program {
    let program = Program::made_by("admin", app, &["chat"]).await;
    program.limit(app, &["messages_per_minute=20"]).await;
    program
}

#[tokio::test]
async fn the_python_package_works_unchanged() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat", "embeddings", "images", "audio", "models"]).await;
    offer_every_kind(&app, &program).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../end2end/clients/openai_client.py");
    let url = format!("{}/v1", app.base);
    let seen = run(
        &installed("TEST_OPENAI_PYTHON"),
        &[script, &url, &program.key, "fake-model", &limited(&app).await.key],
    )
    .await;
    check(&seen, "Hello from Python");
    check_patience(&seen);
    app.finish().await;
}

#[tokio::test]
async fn the_node_package_works_unchanged() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat", "embeddings", "images", "audio", "models"]).await;
    offer_every_kind(&app, &program).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../end2end/clients/openai_client.mjs");
    let url = format!("{}/v1", app.base);
    let seen = run(
        "node",
        &[
            script,
            &url,
            &program.key,
            "fake-model",
            &limited(&app).await.key,
            &installed("TEST_OPENAI_NODE"),
        ],
    )
    .await;
    check(&seen, "Hello from Node");
    check_patience(&seen);
    app.finish().await;
}
