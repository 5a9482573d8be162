//! What other programs see: keys, models, and failures in OpenAI's words.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use test_support::{
    app::{TestApp, eventually},
    fake_provider::ProviderFault,
};

use crate::app;

/// A program with a key of its own.
pub(crate) struct Program {
    client: reqwest::Client,
    base: String,
    pub(crate) key: String,
}

impl Program {
    pub(crate) async fn new(app: &TestApp, scopes: &[&str]) -> Self {
        Self::made_by("owner", app, scopes).await
    }

    /// One whose key staff with this role have made, who are not there yet.
    pub(crate) async fn made_by(role: &str, app: &TestApp, scopes: &[&str]) -> Self {
        let staff = app.sign_in(role).await;
        let places: Vec<String> = (0..scopes.len()).map(|n| format!("scopes[{n}]")).collect();
        let mut form = vec![("name", "program"), ("lifetime", "month")];
        form.extend(places.iter().map(String::as_str).zip(scopes.iter().copied()));
        let made = staff.post("/api/fn/keys/create", &form).await;
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

    /// The same program, calling another replica.
    pub(crate) fn at(&self, base: &str) -> Self {
        Self {
            client: self.client.clone(),
            base: base.to_owned(),
            key: self.key.clone(),
        }
    }

    pub(crate) async fn ask(&self, path: &str, body: Value) -> reqwest::Response {
        let request = self.client.post(format!("{}{path}", self.base)).bearer_auth(&self.key);
        request.json(&body).send().await.unwrap()
    }

    /// The id of its key.
    async fn id(&self, app: &TestApp) -> String {
        let prefix: String = self.key.chars().take(9).collect();
        let key = app
            .sql_one(&format!("SELECT id FROM api_keys WHERE prefix = '{prefix}'"))
            .await;
        key["id"].as_str().unwrap().to_owned()
    }

    /// Limits its key, as on the command line.
    pub(crate) async fn limit(&self, app: &TestApp, limits: &[&str]) {
        let id = self.id(app).await;
        let args = [&["limits", "set", "--key", id.as_str()], limits].concat();
        app.cli(&args).await.ok();
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

pub(crate) fn question(text: &str) -> Value {
    json!({ "model": "fake-model", "messages": [{ "role": "user", "content": text }] })
}

pub(crate) fn streamed(text: &str) -> Value {
    let mut body = question(text);
    body["stream"] = true.into();
    body
}

/// The only line of the ledger, once it is there.
async fn line(app: &TestApp) -> Value {
    eventually(Duration::from_secs(20), "the call is written", || async {
        let lines = app.sql("SELECT * FROM usage").await;
        match lines.as_slice() {
            [line] => Ok(line.clone()),
            _ => Err(format!("{lines:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_passes_and_is_written_with_its_price_and_its_way() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    let answer = program.ask("/v1/chat/completions", question("one two three")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert!(answer.headers().contains_key("x-request-id"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "Echo: one two three");
    let line = line(&app).await;
    assert_eq!(line["prompt_tokens"], body["usage"]["prompt_tokens"]);
    assert_eq!(line["completion_tokens"], body["usage"]["completion_tokens"]);
    assert_eq!(
        (&line["alias"], &line["finish"], &line["http_status"]),
        (&json!("fake-model"), &json!("stop"), &json!(200))
    );
    assert_eq!(
        (&line["reported"], &line["user_id"], &line["error_code"]),
        (&json!(true), &Value::Null, &Value::Null)
    );
    assert!(
        line["api_key_id"].is_string() && line["tries"].as_array().is_some_and(|tries| tries.len() == 1),
        "{line}"
    );
    assert_eq!(app.count("SELECT count(*) AS n FROM api_calls").await, 0);
    app.finish().await;
}

#[tokio::test]
async fn a_stream_passes_as_it_comes() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    let answer = program
        .ask("/v1/chat/completions", streamed("[[hangmid]] one two three four"))
        .await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert!(!answer.headers().contains_key("content-encoding"));
    let mut pieces = answer.bytes_stream();
    // The provider goes silent half way: what there is has arrived all the same.
    let first = tokio::time::timeout(Duration::from_secs(10), pieces.next())
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&first.unwrap().unwrap()).starts_with("data: {"));
    // The program leaves: the provider's work ends at once, and what was made of it is billed.
    drop(pieces);
    app.provider
        .wait_for(Duration::from_secs(10), |provider| {
            provider
                .requests()
                .first()
                .filter(|request| request.disconnected)
                .cloned()
        })
        .await
        .unwrap();
    let line = line(&app).await;
    assert_eq!(
        (&line["finish"], &line["reported"], &line["error_code"]),
        (&json!("gone"), &json!(false), &Value::Null)
    );
    assert!(line["prompt_tokens"].as_i64() > Some(0), "{line}");
    app.finish().await;
}

#[tokio::test]
async fn a_program_that_leaves_before_the_answer_ends_it() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    app.provider.fail_next(1, ProviderFault::Hang);
    let call = tokio::time::timeout(
        Duration::from_millis(500),
        program.ask("/v1/chat/completions", question("hello")),
    )
    .await;
    assert!(call.is_err(), "the provider hangs");
    app.provider
        .wait_for(Duration::from_secs(10), |provider| {
            provider
                .requests()
                .first()
                .filter(|request| request.disconnected)
                .cloned()
        })
        .await
        .unwrap();
    let line = line(&app).await;
    assert_eq!((&line["finish"], &line["http_status"]), (&json!("gone"), &json!(499)));
    // The provider was asked, and bills that.
    assert!(line["prompt_tokens"].as_i64() > Some(0), "{line}");
    assert_eq!(line["reported"], false);
    app.finish().await;
}

#[tokio::test]
async fn a_stream_that_breaks_says_so_and_is_never_begun_again() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    // Be it that the connection breaks, or that it is closed in good order.
    for (at, fault) in [ProviderFault::CutMidStream, ProviderFault::EndMidStream]
        .into_iter()
        .enumerate()
    {
        app.provider.fail_next(1, fault);
        let text = program
            .ask("/v1/chat/completions", streamed("one two three four"))
            .await
            .text()
            .await
            .unwrap();
        let events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
        let last: Value = serde_json::from_str(events.last().unwrap().strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(
            (&last["error"]["code"], &last["error"]["type"]),
            (&json!("answer_cut"), &json!("server_error")),
            "{text}"
        );
        assert!(!text.contains("[DONE]"));
        assert_eq!(app.provider.requests().len(), at + 1);
    }
    eventually(Duration::from_secs(20), "both calls are written", || async {
        let lines = app.sql("SELECT finish, error_code FROM usage").await;
        let is_cut = |line: &Value| line["finish"] == "cut" && line["error_code"] == "BD-AI-CUT";
        if lines.len() == 2 && lines.iter().all(is_cut) {
            Ok(())
        } else {
            Err(format!("{lines:?}"))
        }
    })
    .await;
    app.finish().await;
}

#[tokio::test]
async fn a_providers_words_never_reach_a_program() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    app.provider
        .fail_next(3, ProviderFault::ErrorInside("the provider's secret".into()));
    let answer = program.ask("/v1/chat/completions", question("hello")).await;
    assert_eq!(answer.status(), 502);
    let text = answer.text().await.unwrap();
    assert!(text.contains("provider_failed") && !text.contains("secret"), "{text}");
    let answer = program
        .ask("/v1/chat/completions", streamed("one two three four"))
        .await;
    let text = answer.text().await.unwrap();
    assert!(text.contains("answer_cut") && !text.contains("secret"), "{text}");
    // In whatever shape they come.
    let hello = r#"data: {"choices":[{"delta":{"content":"hello"}}]}"#;
    for (stream, bytes, code) in [
        (false, r#"{"detail":"secret"}"#.to_owned(), "provider_failed"),
        (
            false,
            r#"{"message":"secret","error":["secret"]}"#.to_owned(),
            "provider_failed",
        ),
        (
            true,
            "event: error\ndata: {\"detail\":\"secret\"}\n\n".to_owned(),
            "provider_failed",
        ),
        (
            true,
            format!("{hello}\n\nevent: error\ndata: {{\"message\":\"secret\"}}\n\n"),
            "answer_cut",
        ),
        (
            true,
            format!("{hello}\n\ndata: {{\"detail\":\"secret\"}}\n\ndata: [DONE]\n\n"),
            "answer_cut",
        ),
    ] {
        // What has not begun is asked a second time.
        let times = if code == "answer_cut" { 1 } else { 2 };
        app.provider.fail_next(times, ProviderFault::Instead(bytes.clone()));
        let asked = if stream { streamed("hi") } else { question("hi") };
        let text = program.ask("/v1/chat/completions", asked).await.text().await.unwrap();
        assert!(text.contains(code) && !text.contains("secret"), "{bytes}: {text}");
    }
    app.finish().await;
}

#[tokio::test]
async fn what_is_set_aside_for_an_answer_is_what_the_provider_is_asked_for() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    let asked_for = async |wanted: Option<u32>| {
        let mut body = question("hello");
        if let Some(wanted) = wanted {
            body["max_tokens"] = wanted.into();
        }
        let answer = program.ask("/v1/chat/completions", body).await;
        assert_eq!(answer.status(), 200);
        let sent = app.provider.requests().last().unwrap().body.clone();
        assert!(sent.get("max_completion_tokens").is_none());
        sent.get("max_tokens").and_then(Value::as_u64)
    };
    // Where nothing is set aside the program alone says how long an answer may be.
    for wanted in [None, Some(100_000), Some(50)] {
        assert_eq!(asked_for(wanted).await, wanted.map(u64::from));
    }
    program.limit(&app, &["tokens_total=1000000"]).await;
    let longest = eventually(Duration::from_secs(20), "the limit holds", || async {
        asked_for(None).await.ok_or_else(|| "it does not yet".to_owned())
    })
    .await;
    assert_eq!(asked_for(Some(100_000)).await, Some(longest));
    assert_eq!(asked_for(Some(50)).await, Some(50));
    let mut body = question("hello");
    body["n"] = 129.into();
    let refused = program.ask("/v1/chat/completions", body).await;
    assert_eq!(refused.status(), 400);
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["param"], "n");
    app.finish().await;
}

#[tokio::test]
async fn what_a_program_sends_wrong_is_told_to_it_and_never_reaches_a_provider() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat", "audio"]).await;
    let post = async |path: &str, kind: &str, body: Vec<u8>| {
        let request = program
            .client
            .post(format!("{}{path}", program.base))
            .bearer_auth(&program.key);
        let answer = request.header("content-type", kind).body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let json_kind = "application/json";
    let large = serde_json::to_vec(&question(&"x".repeat(25 * 1024 * 1024))).unwrap();
    for (path, kind, body, status, code) in [
        ("/v1/chat/completions", json_kind, b"{".to_vec(), 400, Value::Null),
        ("/v1/chat/completions", "text/plain", b"{}".to_vec(), 400, Value::Null),
        (
            "/v1/chat/completions",
            json_kind,
            b"{\"messages\":[]}".to_vec(),
            400,
            Value::Null,
        ),
        (
            "/v1/chat/completions",
            json_kind,
            large,
            413,
            json!("request_too_large"),
        ),
        (
            "/v1/chat/completions",
            json_kind,
            b"{\"model\":\"nope\"}".to_vec(),
            404,
            json!("model_not_found"),
        ),
        ("/v1/audio/transcriptions", json_kind, b"{}".to_vec(), 400, Value::Null),
        (
            "/v1/embeddings",
            json_kind,
            b"{}".to_vec(),
            403,
            json!("insufficient_permissions"),
        ),
    ] {
        let (answered, body) = post(path, kind, body).await;
        assert_eq!((answered, &body["error"]["code"]), (status, &code), "{path}: {body}");
        assert!(
            body["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty())
        );
    }
    assert!(app.provider.requests().is_empty());
    app.finish().await;
}

#[tokio::test]
async fn a_large_picture_passes_as_it_came() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    // In base64 a third larger than its 15 MB.
    let picture = format!("data:image/png;base64,{}", "iVBORw0K".repeat(20_000_000 / 8));
    let content = json!([
        { "type": "text", "text": "What is this?" },
        { "type": "image_url", "image_url": { "url": picture } }
    ]);
    let body = json!({ "model": "fake-model", "messages": [{ "role": "user", "content": content }] });
    let answer = program.ask("/v1/chat/completions", body.clone()).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Echo: What is this?");
    assert!(app.provider.requests()[0].body["messages"] == body["messages"]);
    app.finish().await;
}

#[tokio::test]
async fn a_providers_refusal_of_our_key_is_not_the_programs() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    app.provider.accept_keys(&["another"]);
    let answer = program.ask("/v1/chat/completions", question("hello")).await;
    assert_eq!(answer.status(), 502);
    let text = answer.text().await.unwrap();
    assert!(text.contains("provider_refused") && !text.contains("sk-"), "{text}");
    let line = line(&app).await;
    assert_eq!(
        (&line["error_code"], &line["http_status"], &line["cost"]),
        (&json!("BD-AI-AUTH"), &json!(502), &json!(0))
    );
    app.finish().await;
}

/// A model of every kind, at the provider of the settings, each under its own name.
pub(crate) async fn offer_every_kind(app: &TestApp, program: &Program) {
    app.provider
        .offer_models(&["fake-model", "embed", "paint", "hear", "speak"]);
    for (name, kind) in [
        ("embed", "embedding"),
        ("paint", "image"),
        ("hear", "transcription"),
        ("speak", "speech"),
    ] {
        app.sql_execute(&format!(
            "WITH model AS (
                 INSERT INTO models (id, provider_id, name, kind, context_tokens, max_answer_tokens, created_at)
                 SELECT gen_random_uuid(), id, '{name}', '{kind}', 8000, 1000, now() FROM providers RETURNING id
             ), price AS (
                 INSERT INTO prices (model_id, since, input, cached_input, output, image, set_by)
                 SELECT id, now(), 1000000000, 1000000000, 2000000000, 40000000, 'test' FROM model
             ), alias AS (
                 INSERT INTO aliases (name, place, created_at) VALUES ('{name}', 9, now())
             )
             INSERT INTO routes (alias, model_id, tier) SELECT '{name}', id, 0 FROM model"
        ))
        .await;
    }
    eventually(Duration::from_secs(20), "all kinds are offered", || async {
        let (_, models) = program.get("/v1/models").await;
        match models["data"].as_array() {
            Some(models) if models.len() == 5 => Ok(()),
            _ => Err(models.to_string()),
        }
    })
    .await;
}

/// Lines of the ledger by the model that was asked for, once there are so many.
async fn lines(app: &TestApp, count: usize) -> std::collections::BTreeMap<String, Value> {
    eventually(Duration::from_secs(20), "the calls are written", || async {
        let lines = app.sql("SELECT * FROM usage").await;
        if lines.len() == count {
            let by_name = |line: Value| (line["alias"].as_str().unwrap_or_default().to_owned(), line);
            Ok(lines.into_iter().map(by_name).collect())
        } else {
            Err(format!("{lines:?}"))
        }
    })
    .await
}

#[tokio::test]
async fn every_kind_of_model_is_asked_in_its_own_way() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat", "embeddings", "images", "audio", "models"]).await;
    offer_every_kind(&app, &program).await;
    let ask = async |path: &str, body: Value| {
        let answer = program.ask(path, body).await;
        assert_eq!(answer.status(), 200, "{path}");
        answer
    };
    let vectors: Value = ask(
        "/v1/embeddings",
        json!({"model": "embed", "input": ["one two", "three"]}),
    )
    .await
    .json()
    .await
    .unwrap();
    assert_eq!(vectors["data"].as_array().unwrap().len(), 2);
    let said: Value = ask("/v1/responses", json!({"model": "fake-model", "input": "one two"}))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(said["output"][0]["content"][0]["text"], "Echo: one two");
    let painted: Value = ask(
        "/v1/images/generations",
        json!({"model": "paint", "prompt": "a deck", "n": 2, "background": "transparent"}),
    )
    .await
    .json()
    .await
    .unwrap();
    assert_eq!(painted["data"].as_array().unwrap().len(), 2);
    let sound = ask(
        "/v1/audio/speech",
        json!({"model": "speak", "input": "hello there", "voice": "alloy"}),
    )
    .await;
    assert_eq!(sound.headers()["content-type"], "audio/mpeg");
    assert_eq!(sound.bytes().await.unwrap(), "ID3 hello there");
    let file = reqwest::multipart::Part::bytes(b"words that were said".to_vec()).file_name("said.ogg");
    let form = reqwest::multipart::Form::new().part("file", file).text("model", "hear");
    let heard = program
        .client
        .post(format!("{}/v1/audio/transcriptions", program.base))
        .bearer_auth(&program.key)
        .multipart(form)
        .send()
        .await
        .unwrap();
    assert_eq!(heard.status(), 200);
    assert_eq!(heard.json::<Value>().await.unwrap()["text"], "words that were said");
    let lines = lines(&app, 5).await;
    assert_eq!(lines["embed"]["prompt_tokens"], 3);
    assert_eq!(lines["embed"]["cost"], 3000);
    assert_eq!(
        (&lines["paint"]["images"], lines["paint"]["cost"].as_i64()),
        (
            &json!(2),
            lines["paint"]["prompt_tokens"]
                .as_i64()
                .map(|words| 2 * 40_000_000 + words * 1000)
        )
    );
    assert_eq!(lines["fake-model"]["completion_tokens"], 3);
    for line in lines.values() {
        assert_eq!(
            (&line["http_status"], &line["error_code"]),
            (&json!(200), &Value::Null),
            "{line}"
        );
    }
    // A model is asked only for what it is for.
    let wrong = program
        .ask("/v1/embeddings", json!({"model": "paint", "input": "x"}))
        .await;
    assert_eq!(wrong.status(), 404);
    let wrong = program
        .ask(
            "/v1/responses",
            json!({"model": "fake-model", "input": "x", "background": true}),
        )
        .await;
    assert_eq!(wrong.status(), 400);
    app.finish().await;
}

#[tokio::test]
async fn limits_of_a_key_hold_and_are_told_in_openais_headers() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    program
        .limit(&app, &["messages_per_minute=2", "tokens_per_day=200000"])
        .await;
    let header = |answer: &reqwest::Response, name: &str| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let mut body = question("one two");
    body["max_tokens"] = 50.into();
    for left in ["1", "0"] {
        let answer = program.ask("/v1/chat/completions", body.clone()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "x-ratelimit-limit-requests"), "2");
        assert_eq!(header(&answer, "x-ratelimit-remaining-requests"), left);
        assert!(!header(&answer, "x-ratelimit-reset-requests").is_empty());
        assert_eq!(header(&answer, "x-ratelimit-limit-tokens"), "200000");
        let remaining: i64 = header(&answer, "x-ratelimit-remaining-tokens").parse().unwrap();
        assert!((190_000..200_000).contains(&remaining), "{remaining}");
        assert!(header(&answer, "x-ratelimit-reset-tokens").contains('m'));
        answer.bytes().await.unwrap();
    }
    let refused = program.ask("/v1/chat/completions", body).await;
    assert_eq!(refused.status(), 429);
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(header(&refused, "x-should-retry").is_empty());
    let error: Value = refused.json().await.unwrap();
    assert_eq!(
        (&error["error"]["type"], &error["error"]["code"]),
        (&json!("requests"), &json!("rate_limit_exceeded"))
    );
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("this API key: 2 requests per minute"), "{message}");
    assert_eq!(app.provider.requests().len(), 2);
    eventually(Duration::from_secs(20), "all is settled and written", || async {
        let seen = app
            .sql_one(
                "SELECT (SELECT count(*) FROM usage WHERE error_code = 'BD-LIMIT-KEY' AND http_status = 429) AS refused,
                        (SELECT sum(prompt_tokens + completion_tokens)::bigint FROM usage) AS tokens,
                        (SELECT sum(used)::bigint FROM scope_counters WHERE measure = 'tokens') AS counted,
                        (SELECT count(*) FROM holds) AS held, (SELECT count(*) FROM usage) AS written",
            )
            .await;
        let all = seen["refused"] == 1 && seen["written"] == 3 && seen["held"] == 0;
        if all && seen["tokens"] == seen["counted"] {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    })
    .await;
    app.finish().await;
}

#[tokio::test]
async fn a_budget_that_is_nearly_used_up_bounds_the_answer_and_then_refuses() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat"]).await;
    program.limit(&app, &["tokens_total=1000"]).await;
    let answer = program.ask("/v1/chat/completions", question("hello")).await;
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap();
    let bound = app.provider.requests()[0].body["max_tokens"].as_i64().unwrap();
    assert!(
        (900..1000).contains(&bound),
        "what is left beside the question: {bound}"
    );
    program.limit(&app, &["tokens_total=20"]).await;
    eventually(Duration::from_secs(20), "the first call is settled", || async {
        match app.count("SELECT count(*) AS n FROM holds").await {
            0 => Ok(()),
            held => Err(format!("{held} are not")),
        }
    })
    .await;
    let refused = program.ask("/v1/chat/completions", question("hello")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["x-should-retry"], "false");
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["code"], "insufficient_quota", "{error}");
    app.finish().await;
}

#[tokio::test]
async fn a_key_asks_only_its_models_and_not_after_its_end() {
    let app = app().start().await;
    let program = Program::new(&app, &["chat", "models"]).await;
    let id = program.id(&app).await;
    app.sql_execute(&format!("UPDATE api_keys SET models = '{{another}}' WHERE id = '{id}'"))
        .await;
    eventually(Duration::from_secs(20), "the key's models are known", || async {
        match program
            .ask("/v1/chat/completions", question("hello"))
            .await
            .status()
            .as_u16()
        {
            404 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(program.get("/v1/models").await.1["data"], json!([]));
    app.sql_execute("UPDATE api_keys SET expires_at = now() - interval '1 second'")
        .await;
    eventually(Duration::from_secs(20), "the key has ended", || async {
        match program.get("/v1/models").await.0.as_u16() {
            401 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    app.finish().await;
}
