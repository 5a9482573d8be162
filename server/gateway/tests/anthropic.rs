//! Anthropic's messages, asked by a bot and by a program that speaks OpenAI, against a strict fake.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail like the test itself")]

use std::time::Duration;

use bytes::Bytes;
use domain::{ErrorCode, ModelId, Money, ProviderId, ProviderKeyId};
use futures::StreamExt;
use gateway::{
    Alias, Answer, Catalogue, ChatRequest, Deadlines, Endpoint, Finish, Forward, ForwardBody, Gateway, GatewayError,
    KeySpec, ModelKind, ModelSpec, Outcome, Price, Probe, ProviderKind, ProviderSpec, Role, Target, Turn,
};
use serde_json::{Value, json};
use test_support::{
    FakeProvider,
    fake_anthropic::{ANTHROPIC_KEY, ANTHROPIC_MODEL, FakeAnthropic},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

async fn fake() -> FakeAnthropic {
    let _ = rustls::crypto::ring::default_provider().install_default();
    FakeAnthropic::start().await.unwrap()
}

fn gateway(fake: &FakeAnthropic, key: &str) -> Gateway {
    gateway_and(fake, key, None)
}

/// `other`: is asked after it.
fn gateway_and(fake: &FakeAnthropic, key: &str, other: Option<&FakeProvider>) -> Gateway {
    let id = ProviderId(Uuid::from_u128(1));
    let mut spec = ProviderSpec::named(id, "claude", ProviderKind::Anthropic, &fake.url());
    spec.keys.push(KeySpec {
        id: ProviderKeyId(Uuid::nil()),
        secret: key.into(),
    });
    let model = ModelSpec {
        id: ModelId(Uuid::from_u128(1)),
        provider: id,
        name: ANTHROPIC_MODEL.into(),
        kind: ModelKind::Chat,
        context_tokens: 200_000,
        max_answer_tokens: 8192,
        price: Price {
            input: Money::from_nanos(3_000_000),
            output: Money::from_nanos(15_000_000),
            ..Price::default()
        },
    };
    let (mut providers, mut models) = (vec![spec], vec![model]);
    if let Some(other) = other {
        let id = ProviderId(Uuid::from_u128(2));
        let mut spec = ProviderSpec::named(id, "other", ProviderKind::OpenAi, &other.url());
        spec.keys.push(KeySpec {
            id: ProviderKeyId(Uuid::nil()),
            secret: "sk-fake".into(),
        });
        models.push(ModelSpec {
            id: ModelId(Uuid::from_u128(2)),
            provider: id,
            name: "gpt-4o".into(),
            ..models[0].clone()
        });
        providers.push(spec);
    }
    let target = |model: &ModelSpec| Target {
        model: model.id,
        weight: 1,
    };
    let alias = Alias {
        name: "gpt-4o".into(),
        shown: true,
        tiers: models.iter().map(|model| vec![target(model)]).collect(),
    };
    let deadlines = Deadlines {
        first_token: Duration::from_millis(400),
        between_tokens: Duration::from_millis(400),
        overall: Duration::from_secs(10),
    };
    Gateway::new(Catalogue::new(providers, models, vec![alias]), deadlines)
}

async fn ask(fake: &FakeAnthropic, texts: &[(Role, &str)]) -> Answer {
    let turn = |(role, text): &(Role, &str)| Turn {
        role: *role,
        text: (*text).into(),
    };
    let request = ChatRequest {
        model: "gpt-4o".into(),
        messages: texts.iter().map(turn).collect(),
        max_tokens: 100,
        user: "opaque".into(),
    };
    gateway(fake, ANTHROPIC_KEY)
        .answer(&request, &CancellationToken::new(), |_| {})
        .await
}

type Pieces = Vec<Result<Bytes, GatewayError>>;

fn call(mut body: Value) -> Forward {
    body["model"] = "gpt-4o".into();
    Forward {
        cache: None,
        bound: None,
        tokens: 50,
        images: 0,
        spoken: 0,
        endpoint: Endpoint::Chat,
        alias: "gpt-4o".into(),
        stream: body["stream"] == true,
        body: ForwardBody::Json(Bytes::from(body.to_string())),
    }
}

async fn forwarded(gateway: &Gateway, body: Value) -> (Pieces, Outcome) {
    let forwarded = gateway.forward(call(body), &CancellationToken::new()).await;
    let forwarded = forwarded.map_err(|failed| failed.error).unwrap();
    (forwarded.body.collect().await, forwarded.outcome.await.unwrap())
}

fn text_of(pieces: &Pieces) -> String {
    let all: Vec<u8> = pieces.iter().flatten().flatten().copied().collect();
    String::from_utf8(all).unwrap()
}

async fn forward(fake: &FakeAnthropic, body: Value) -> (String, Outcome) {
    let (pieces, outcome) = forwarded(&gateway(fake, ANTHROPIC_KEY), body).await;
    (text_of(&pieces), outcome)
}

fn code(answer: &Answer) -> Option<ErrorCode> {
    answer.failure.as_ref().map(GatewayError::code)
}

#[tokio::test]
async fn a_bot_is_answered_with_the_usage_that_was_reported() {
    let fake = fake().await;
    let answer = ask(
        &fake,
        &[
            (Role::System, "Be brief"),
            (Role::User, "first"),
            (Role::User, "second"),
            (Role::Assistant, "yes"),
            (Role::User, "one two three"),
        ],
    )
    .await;
    assert_eq!((answer.text.as_str(), code(&answer)), ("Echo: one two three", None));
    assert_eq!(answer.finish, Finish::Complete("stop".into()));
    assert!(answer.usage_reported && answer.usage.completion_tokens == 4);
    assert_eq!(answer.usage.cached_tokens, 4);
    let sent = &fake.requests()[0];
    assert_eq!(
        (&sent["system"], &sent["max_tokens"]),
        (&json!("Be brief"), &json!(100))
    );
    assert_eq!(sent["metadata"]["user_id"], "opaque");
    assert_eq!(
        sent["messages"].as_array().unwrap().len(),
        3,
        "two turns of one side are one message"
    );
}

#[tokio::test]
async fn failures_have_their_meaning_and_show_no_key() {
    let fake = fake().await;
    for (question, expected, attempts) in [
        ("[[status=529]]", ErrorCode::AiDown, 2),
        ("[[status=429,9]]", ErrorCode::AiBusy, 2),
        ("[[drop]]", ErrorCode::AiDown, 2),
        ("[[hang]]", ErrorCode::AiTimeout, 1),
        ("[[tokens=20]] [[cut]]", ErrorCode::AiCut, 1),
        ("[[tokens=20]] [[hangmid]]", ErrorCode::AiTimeout, 1),
        // Here an error amid the stream.
        ("[[tokens=20]] [[garbage]]", ErrorCode::AiCut, 1),
    ] {
        let answer = ask(&fake, &[(Role::User, question)]).await;
        assert_eq!(
            (code(&answer), answer.attempts),
            (Some(expected), attempts),
            "{question}"
        );
    }
    let request = ChatRequest {
        model: "gpt-4o".into(),
        messages: vec![Turn {
            role: Role::User,
            text: "hi".into(),
        }],
        max_tokens: 10,
        user: String::new(),
    };
    let gateway = gateway(&fake, "vendor-key-77");
    let answer = gateway.answer(&request, &CancellationToken::new(), |_| {}).await;
    assert_eq!(code(&answer), Some(ErrorCode::AiAuth));
    let cause = answer.failure.unwrap().cause();
    assert!(cause.contains("[key]") && !cause.contains("vendor-key"), "{cause}");
}

#[tokio::test]
async fn a_program_that_speaks_openai_is_answered_in_its_words() {
    let fake = fake().await;
    let body = json!({"messages": [{"role": "developer", "content": "Be brief"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}],
        "temperature": 1.7, "stop": "END", "max_completion_tokens": 50_000, "some_new_parameter": {"a": 1}});
    let (text, outcome) = forward(&fake, body).await;
    let whole: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["message"]["content"], "Echo: look");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert!(outcome.reported && outcome.usage.completion_tokens == 2 && outcome.usage.cached_tokens == 4);
    let sent = &fake.requests()[0];
    assert_eq!((&sent["temperature"], &sent["max_tokens"]), (&json!(1.0), &json!(8192)));
    assert_eq!(
        (&sent["stop_sequences"], &sent["system"]),
        (&json!(["END"]), &json!("Be brief"))
    );
    assert_eq!(sent["messages"][0]["content"][1]["source"]["media_type"], "image/png");
}

#[tokio::test]
async fn a_stream_is_told_in_openais_events_and_its_usage_only_on_request() {
    let fake = fake().await;
    for asks in [false, true] {
        let mut body = json!({"messages": [{"role": "user", "content": "one two"}], "stream": true});
        if asks {
            body["stream_options"] = json!({"include_usage": true});
        }
        let (text, outcome) = forward(&fake, body).await;
        let events: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .collect();
        let said: String = events
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(
            (said.as_str(), events[0]["choices"][0]["delta"]["role"].as_str()),
            ("Echo: one two", Some("assistant"))
        );
        assert_eq!(text.contains("\"prompt_tokens\""), asks, "{text}");
        assert!(
            text.ends_with("data: [DONE]\n\n") && text.contains("\"finish_reason\":\"stop\""),
            "{text}"
        );
        assert!(outcome.reported && outcome.usage.completion_tokens == 3);
        assert_eq!(outcome.finish, Finish::Complete("stop".into()));
    }
    // Be it that the connection breaks, or that it is closed in good order.
    for end in ["cut", "end"] {
        let question = format!("[[tokens=20]] [[{end}]]");
        let body = json!({"messages": [{"role": "user", "content": question}], "stream": true});
        let (pieces, outcome) = forwarded(&gateway(&fake, ANTHROPIC_KEY), body).await;
        let error = pieces.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.code(), ErrorCode::AiCut, "{end}");
        let text = text_of(&pieces);
        assert!(!text.contains("[DONE]") && text.contains("word10"), "{text}");
        assert_eq!((outcome.finish, outcome.reported), (Finish::Cut, false));
    }
}

#[tokio::test]
async fn success_without_a_message_is_a_failure() {
    let fake = fake().await;
    for bytes in [
        "",
        "{}",
        r#"{"detail":"secret"}"#,
        r#"{"type":"error","error":{"message":"secret"}}"#,
    ] {
        let question = format!("[[instead={bytes}]]");
        let body = json!({"messages": [{"role": "user", "content": question}]});
        let failed = gateway(&fake, ANTHROPIC_KEY)
            .forward(call(body), &CancellationToken::new())
            .await;
        assert_eq!(failed.err().unwrap().error.code(), ErrorCode::AiDown, "{bytes}");
    }
    for (data, code) in [
        (r#"{"detail":"secret"}"#, ErrorCode::AiDown),
        (r#"{"type":"rate_limit_error","message":"secret"}"#, ErrorCode::AiBusy),
        ("secret", ErrorCode::AiDown),
    ] {
        let question = format!("[[instead=event: error\ndata: {data}\n\n]]");
        let body = json!({"messages": [{"role": "user", "content": question}], "stream": true});
        let failed = gateway(&fake, ANTHROPIC_KEY)
            .forward(call(body), &CancellationToken::new())
            .await;
        assert_eq!(failed.err().unwrap().error.code(), code, "{data}");
    }
}

#[tokio::test]
async fn where_no_usage_is_told_it_is_estimated() {
    let fake = fake().await;
    for stream in [false, true] {
        let body = json!({"messages": [{"role": "user", "content": "one two [[nousage]]"}], "stream": stream});
        let (text, outcome) = forward(&fake, body).await;
        assert!(text.contains("Echo") && !text.contains("prompt_tokens"), "{text}");
        assert_eq!(outcome.finish, Finish::Complete("stop".into()));
        assert_eq!((outcome.reported, outcome.usage.prompt_tokens), (false, 50));
        assert!(outcome.usage.completion_tokens > 0 && outcome.cost > Money::ZERO);
    }
    let answer = ask(&fake, &[(Role::User, "one two [[nousage]]")]).await;
    assert!(!answer.usage_reported && answer.usage.prompt_tokens > 0 && answer.usage.completion_tokens > 0);
}

#[tokio::test]
async fn tools_are_called_and_their_results_taken() {
    let fake = fake().await;
    let tools = json!([{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {}}}}, {"type": "function", "function": {"name": "time"}}]);
    let question = json!({"role": "user", "content": "[[tool]] how is it?"});
    let (text, outcome) = forward(
        &fake,
        json!({"messages": [question], "tools": tools, "tool_choice": "required"}),
    )
    .await;
    let whole: Value = serde_json::from_str(&text).unwrap();
    let call = whole["choices"][0]["message"]["tool_calls"][0].clone();
    assert_eq!(
        (&call["function"]["name"], &call["function"]["arguments"]),
        (&json!("weather"), &json!("{\"city\":\"Paris\"}"))
    );
    assert_eq!(outcome.finish, Finish::Complete("tool_calls".into()));
    assert_eq!(fake.requests()[0]["tool_choice"]["type"], "any");
    let (text, _) = forward(&fake, json!({"messages": [question], "tools": tools, "stream": true})).await;
    let arguments: String = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|event| {
            Some(
                event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]
                    .as_str()?
                    .to_owned(),
            )
        })
        .collect();
    assert_eq!(arguments, "{\"city\":\"Paris\"}");
    let history = json!([question, {"role": "assistant", "content": null, "tool_calls": [call]}, {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}]);
    let (text, _) = forward(&fake, json!({"messages": history, "tools": tools})).await;
    assert!(text.contains("Echo: sunny"), "{text}");
}

#[tokio::test]
async fn what_it_has_no_word_for_is_said() {
    let fake = fake().await;
    for endpoint in [Endpoint::Responses, Endpoint::Chat] {
        let call = Forward {
            cache: None,
            bound: None,
            tokens: 50,
            images: 0,
            spoken: 0,
            endpoint,
            alias: "gpt-4o".into(),
            stream: false,
            body: ForwardBody::Json(Bytes::from_static(
                br#"{"model":"gpt-4o","messages":[{"role":"user","content":[{"type":"input_audio"}]}]}"#,
            )),
        };
        let failed = gateway(&fake, ANTHROPIC_KEY)
            .forward(call, &CancellationToken::new())
            .await;
        assert_eq!(failed.err().unwrap().error.code(), ErrorCode::AiRefused);
    }
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn a_provider_is_tried_out_by_a_token_and_by_its_list() {
    let fake = fake().await;
    let code = async |key: &str, probe: Probe<'_>| {
        let probed = gateway(&fake, key)
            .probe_provider(ProviderId(Uuid::from_u128(1)), probe)
            .await;
        probed.unwrap()[0].failure.as_ref().map(GatewayError::code)
    };
    for probe in [Probe::Token(ANTHROPIC_MODEL), Probe::Models] {
        assert_eq!(code(ANTHROPIC_KEY, probe).await, None, "{probe:?}");
        assert_eq!(code("sk-ant-wrong", probe).await, Some(ErrorCode::AiAuth), "{probe:?}");
    }
    // It has none.
    assert_eq!(
        code(ANTHROPIC_KEY, Probe::Embedding("x")).await,
        Some(ErrorCode::AiRefused)
    );
}

#[tokio::test]
async fn what_it_has_no_word_for_another_one_is_asked() {
    let (fake, other) = (fake().await, FakeProvider::start().await.unwrap());
    let gateway = gateway_and(&fake, ANTHROPIC_KEY, Some(&other));
    let sound =
        json!({"messages": [{"role": "user", "content": [{"type": "input_audio"}, {"type": "text", "text": "hi"}]}]});
    for (endpoint, mut body, status) in [
        (Endpoint::Responses, json!({"input": "hi"}), None),
        (Endpoint::Chat, sound, None),
        // The other one has understood this, and refuses it.
        (
            Endpoint::Chat,
            json!({"n": 2, "messages": [{"role": "user", "content": "hi"}]}),
            Some(400),
        ),
    ] {
        body["model"] = "gpt-4o".into();
        let call = Forward {
            cache: None,
            bound: None,
            tokens: 50,
            images: 0,
            spoken: 0,
            endpoint,
            alias: "gpt-4o".into(),
            stream: false,
            body: ForwardBody::Json(Bytes::from(body.to_string())),
        };
        let outcome = match gateway.forward(call, &CancellationToken::new()).await {
            Ok(forwarded) => {
                drop(forwarded.body);
                forwarded.outcome.await.unwrap()
            }
            Err(failed) => {
                assert_eq!((failed.error.status(), status), (status, Some(400)));
                failed.outcome
            }
        };
        assert_eq!((outcome.provider.as_str(), outcome.tries.len()), ("other", 2));
        assert_eq!(outcome.tries[0].code, Some(ErrorCode::AiRefused));
    }
    assert!(fake.requests().is_empty() && other.requests().len() == 3);
}
