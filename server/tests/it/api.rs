//! What other programs see: keys, models, and failures in OpenAI's words.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use test_support::app::TestApp;

use crate::app;

/// A program with a key of its own.
struct Program {
    client: reqwest::Client,
    base: String,
    key: String,
}

impl Program {
    async fn new(app: &TestApp, scopes: &[&str]) -> Self {
        let owner = app.sign_in("owner").await;
        let places: Vec<String> = (0..scopes.len()).map(|n| format!("scopes[{n}]")).collect();
        let mut form = vec![("name", "program"), ("lifetime", "month")];
        form.extend(places.iter().map(String::as_str).zip(scopes.iter().copied()));
        let made = owner.post("/api/fn/keys/create", &form).await;
        assert_eq!(made.status, 200, "{made:?}");
        Self {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            base: app.base.clone(),
            key: made.json()["secret"].as_str().unwrap().to_owned(),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
    ) -> (StatusCode, reqwest::header::HeaderMap, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        (status, headers, answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = self.call(Method::GET, path, Some(&self.key)).await;
        (status, body)
    }
}

#[tokio::test]
async fn programs_are_told_apart_by_their_keys_and_refused_in_openais_words() {
    let app = app().start().await;
    let program = Program::new(&app, &["models"]).await;
    for (key, code) in [
        (None, Value::Null),
        (Some("sk-x"), json!("invalid_api_key")),
        (Some(""), Value::Null),
    ] {
        let (status, headers, body) = program.call(Method::GET, "/v1/models", key).await;
        assert_eq!(status, 401, "{key:?}");
        assert_eq!(body["error"]["code"], code, "{body}");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert!(body["error"]["message"].is_string() && body["error"]["param"].is_null());
        assert!(headers.contains_key("x-request-id"));
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
    let (status, body) = program.get("/v1/models").await;
    assert_eq!((status.as_u16(), &body["object"]), (200, &json!("list")));
    let model = body["data"][0]["id"].as_str().unwrap().to_owned();
    let (status, body) = program.get(&format!("/v1/models/{model}")).await;
    assert_eq!((status.as_u16(), body["id"].as_str()), (200, Some(model.as_str())));
    let (status, body) = program.get("/v1/models/some/other").await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    assert_eq!(body["error"]["param"], "model");
    for (method, path) in [(Method::GET, "/v1/nonsense"), (Method::DELETE, "/v1/models")] {
        let (status, _, body) = program.call(method, path, Some(&program.key)).await;
        assert_eq!(
            (status.as_u16(), &body["error"]["code"]),
            (404, &json!("unknown_url")),
            "{path}"
        );
    }
    // A cookie opens nothing here.
    let admin = app.sign_in("admin").await;
    assert_eq!(admin.open("/v1/models").await, 401);
    app.finish().await;
}

#[tokio::test]
async fn a_key_opens_only_its_scopes_and_nothing_once_it_is_revoked() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    let (status, body) = program.get("/v1/models").await;
    assert_eq!(
        (status.as_u16(), &body["error"]["code"]),
        (403, &json!("insufficient_permissions"))
    );
    let id = app.sql_one("SELECT id FROM api_keys").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let support = app.sign_in("support").await;
    assert_eq!(support.post("/api/fn/keys/revoke", &[("id", &id)]).await.status, 403);
    let admin = app.sign_in("admin").await;
    assert_eq!(admin.post("/api/fn/keys/revoke", &[("id", &id)]).await.status, 200);
    assert_eq!(program.get("/v1/models").await.0, 401);
    app.finish().await;
}
