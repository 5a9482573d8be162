//! What the fake provider refuses, how it streams, and how it fails on request.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};
use test_support::FakeProvider;
use test_support::fake_provider::{DEFAULT_KEY, DEFAULT_MODEL, ProviderFault, Reply, Totals, Usage, count_tokens};

const SOON: Duration = Duration::from_secs(3);

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn ask(text: &str) -> Value {
    json!({"model": DEFAULT_MODEL, "messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": text}]})
}

fn ask_stream(text: &str) -> Value {
    let mut body = ask(text);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    body
}

async fn post(fake: &FakeProvider, body: &Value) -> reqwest::Result<reqwest::Response> {
    let request = client()
        .post(format!("{}/chat/completions", fake.url()))
        .bearer_auth(DEFAULT_KEY);
    request.json(body).send().await
}

async fn post_json(fake: &FakeProvider, body: &Value) -> (u16, Value) {
    let response = post(fake, body).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The events of a stream; the error is that of a connection cut in its midst.
async fn events(fake: &FakeProvider, body: &Value) -> (Vec<String>, bool) {
    let response = post(fake, body).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/event-stream")
    );
    let (mut text, mut cut) = (String::new(), false);
    let mut bytes = response.bytes_stream();
    while let Some(next) = bytes.next().await {
        match next {
            Ok(bytes) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            Err(_) => cut = true,
        }
    }
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    (
        events
            .map(|event| event.strip_prefix("data: ").unwrap().to_owned())
            .collect(),
        cut,
    )
}

fn chunks(events: &[String]) -> Vec<Value> {
    events
        .iter()
        .filter(|event| *event != "[DONE]")
        .map(|event| serde_json::from_str(event).unwrap())
        .collect()
}

fn content(events: &[String]) -> String {
    chunks(events)
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect()
}

#[tokio::test]
async fn an_answer_comes_whole_with_its_usage() {
    let fake = FakeProvider::start().await.unwrap();
    let (status, answer) = post_json(&fake, &ask("How are you?")).await;
    assert_eq!(
        (status, &answer["choices"][0]["message"]["content"]),
        (200, &json!("Echo: How are you?"))
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let usage = Usage {
        prompt_tokens: count_tokens("Be kind") + 3,
        completion_tokens: 4,
    };
    assert_eq!(
        answer["usage"],
        json!({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9})
    );
    assert_eq!(fake.requests()[0].usage, Some(usage));
    let mut limited = ask("one two three four");
    limited["max_completion_tokens"] = json!(3);
    let (_, answer) = post_json(&fake, &limited).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Echo: one two");
    assert_eq!(
        (
            &answer["choices"][0]["finish_reason"],
            &answer["usage"]["completion_tokens"]
        ),
        (&json!("length"), &json!(3))
    );
}

#[tokio::test]
async fn a_stream_has_openais_shape() {
    let fake = FakeProvider::start().await.unwrap();
    let (events, cut) = events(&fake, &ask_stream("one two")).await;
    assert!(!cut);
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks = chunks(&events);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == "chatcmpl-1")
    );
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    let pieces: Vec<_> = chunks[1..4]
        .iter()
        .map(|chunk| chunk["choices"][0]["delta"]["content"].clone())
        .collect();
    assert_eq!(pieces, ["Echo: ", "one ", "two"]);
    assert_eq!(
        (
            &chunks[4]["choices"][0]["delta"],
            &chunks[4]["choices"][0]["finish_reason"]
        ),
        (&json!({}), &json!("stop"))
    );
    assert_eq!(
        (&chunks[5]["choices"], &chunks[5]["usage"]["total_tokens"]),
        (&json!([]), &json!(7))
    );
    assert!(chunks[..5].iter().all(|chunk| chunk["usage"].is_null()));
    let mut without = ask_stream("one two");
    without["stream_options"] = Value::Null;
    let (events, _) = self::events(&fake, &without).await;
    assert!(events.iter().all(|event| !event.contains("usage")));
    let totals = Totals {
        requests: 2,
        finished: 2,
        prompt_tokens: 4,
        completion_tokens: 3,
        written_tokens: 6,
        ..Totals::default()
    };
    assert_eq!(fake.totals(), totals);
}

#[tokio::test]
async fn keys_and_models_must_be_known() {
    let fake = FakeProvider::start().await.unwrap();
    let url = format!("{}/chat/completions", fake.url());
    for (request, code) in [
        (client().post(&url).bearer_auth("sk-wrong"), json!("invalid_api_key")),
        (client().post(&url), Value::Null),
        (
            client().get(format!("{}/models", fake.url())).bearer_auth("sk-wrong"),
            json!("invalid_api_key"),
        ),
    ] {
        let answer = request.json(&ask("hi")).send().await.unwrap();
        assert_eq!(answer.status(), 401);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], code);
        assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string());
        assert!(body["error"]["param"].is_null());
    }
    let mut other = ask("hi");
    other["model"] = json!("gpt-99");
    let (status, body) = post_json(&fake, &other).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("model_not_found")));
    let models = client()
        .get(format!("{}/models", fake.url()))
        .bearer_auth(DEFAULT_KEY)
        .send()
        .await
        .unwrap();
    assert_eq!(models.json::<Value>().await.unwrap()["data"][0]["id"], DEFAULT_MODEL);
    fake.accept_keys(&["sk-other"]);
    assert_eq!(post_json(&fake, &ask("hi")).await.0, 401);
}

#[tokio::test]
async fn a_wrong_body_is_refused_with_the_parameter_at_fault() {
    let fake = FakeProvider::start().await.unwrap();
    for (field, value, param) in [
        ("model", json!(""), "model"),
        ("messages", json!([]), "messages"),
        (
            "messages",
            json!([{"role": "boss", "content": "x"}]),
            "messages[0].role",
        ),
        (
            "messages",
            json!([{"role": "user", "content": 5}]),
            "messages[0].content",
        ),
        (
            "messages",
            json!([{"role": "user", "content": [{"type": "smell"}]}]),
            "messages[0].content",
        ),
        (
            "messages",
            json!([{"role": "tool", "content": "x"}]),
            "messages[0].tool_call_id",
        ),
        ("stream_options", json!({"include_usage": true}), "stream_options"),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_completion_tokens", json!(1.5), "max_completion_tokens"),
        ("temperature", json!(2.1), "temperature"),
        ("stream", json!("yes"), "stream"),
        ("tempreature", json!(1), "tempreature"),
    ] {
        let mut body = ask("hi");
        body[field] = value;
        let (status, answer) = post_json(&fake, &body).await;
        assert_eq!(
            (status, answer["error"]["param"].as_str()),
            (400, Some(param)),
            "{answer}"
        );
    }
    fake.lenient(true);
    let mut body = ask("hi");
    body["top_k"] = json!(40);
    body["messages"][1]["content"] = json!([{"type": "text", "text": "in parts"}]);
    assert_eq!(
        post_json(&fake, &body).await.1["choices"][0]["message"]["content"],
        "Echo: in parts"
    );
    assert_eq!(fake.totals().refused, 12);
}

#[tokio::test]
async fn faults_meet_the_next_requests_only() {
    let fake = FakeProvider::start().await.unwrap();
    fake.fail_next(1, ProviderFault::RateLimited { retry_after: 3 });
    fake.fail_next(1, ProviderFault::Status(500));
    let limited = post(&fake, &ask("hi")).await.unwrap();
    assert_eq!(
        (
            limited.status().as_u16(),
            limited.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "3")
    );
    let (status, body) = post_json(&fake, &ask("hi")).await;
    assert_eq!((status, &body["error"]["type"]), (500, &json!("server_error")));
    fake.fail_next(2, ProviderFault::NoUsage);
    assert!(post_json(&fake, &ask("hi")).await.1["usage"].is_null());
    assert!(
        events(&fake, &ask_stream("hi"))
            .await
            .0
            .iter()
            .all(|event| !event.contains("total_tokens"))
    );
    fake.fail_next(1, ProviderFault::ZeroUsage);
    assert_eq!(post_json(&fake, &ask("hi")).await.1["usage"]["total_tokens"], 0);
    fake.fail_next(1, ProviderFault::EmptyStream);
    assert_eq!(events(&fake, &ask_stream("hi")).await.0, ["[DONE]"]);
    fake.fail_next(1, ProviderFault::GarbageChunk);
    let garbage = events(&fake, &ask_stream("hi")).await.0;
    assert!(
        garbage
            .iter()
            .any(|event| serde_json::from_str::<Value>(event).is_err() && event != "[DONE]")
    );
    fake.fail_next(1, ProviderFault::Drop);
    assert!(post(&fake, &ask("hi")).await.is_err());
    assert_eq!(post_json(&fake, &ask("hi")).await.0, 200);
    assert_eq!(fake.totals().disconnected, 0);
}

#[tokio::test]
async fn a_cut_stream_breaks_after_half() {
    let fake = FakeProvider::start().await.unwrap();
    let (events, cut) = events(&fake, &ask_stream("[[cut]] [[tokens=10]]")).await;
    assert!(cut);
    assert_eq!(content(&events), "word1 word2 word3 word4 word5 ");
    let request = fake.requests().pop().unwrap();
    assert_eq!(
        (request.chunks_written, request.finished, request.usage),
        (5, false, None)
    );
    assert_eq!((fake.totals().written_tokens, fake.totals().completion_tokens), (5, 0));
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let fake = FakeProvider::start().await.unwrap();
    for question in [
        "[[hang]]",
        "[[hangmid]] [[tokens=4]]",
        "[[chunks=1000,20ms]] [[tokens=1000]]",
    ] {
        let asked = tokio::spawn({
            let fake = fake.clone();
            async move { events(&fake, &ask_stream(question)).await }
        });
        let arrived = |fake: &FakeProvider| {
            let request = fake.requests().pop()?;
            let here = request.body["messages"][1]["content"] == question;
            (here && (question == "[[hang]]" || request.chunks_written >= 2)).then_some(())
        };
        fake.wait_for(SOON, arrived).await.unwrap();
        asked.abort();
        fake.wait_for(SOON, |fake| fake.requests().pop()?.disconnected.then_some(()))
            .await
            .unwrap();
    }
    let totals = fake.totals();
    assert_eq!(
        (totals.disconnected, totals.finished, totals.completion_tokens),
        (3, 0, 0)
    );
}

#[tokio::test]
async fn answers_are_scripted_from_within_and_from_without() {
    let fake = FakeProvider::start().await.unwrap();
    fake.reply_with(|body| Reply::text(format!("model {}", body["model"].as_str().unwrap_or("?"))));
    fake.reply_next(
        Reply::text("abcdef")
            .chunks(3, Duration::from_millis(30))
            .delay(Duration::from_millis(40)),
    );
    let before = Instant::now();
    let (events, _) = events(&fake, &ask_stream("x")).await;
    assert!(before.elapsed() >= Duration::from_millis(100));
    assert_eq!(
        (content(&events).as_str(), fake.requests()[0].chunks_written),
        ("abcdef", 3)
    );
    assert_eq!(
        post_json(&fake, &ask("x")).await.1["choices"][0]["message"]["content"],
        "model fake-model"
    );

    let fake = FakeProvider::start().await.unwrap();
    let once = ask("[[status=503]] [[once]] again");
    assert_eq!(post_json(&fake, &once).await.0, 503);
    assert_eq!(
        post_json(&fake, &once).await.1["choices"][0]["message"]["content"],
        "Echo: again"
    );
    fake.stop();
    assert!(post(&fake, &ask("hi")).await.is_err());
}
