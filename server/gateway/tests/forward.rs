//! Requests of other programs, over real sockets against the strict fake provider.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail like the test itself")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::{ErrorCode, ModelId, Money, ProviderId, ProviderKeyId};
use futures::StreamExt;
use gateway::{
    Alias, AnswerBound, Catalogue, Deadlines, Endpoint, Finish, Forward, ForwardBody, Forwarded, Gateway, KeySpec,
    ModelKind, ModelSpec, NotForwarded, Outcome, Part, Price, ProviderKind, ProviderSpec, Target, count_tokens,
};
use serde_json::{Value, json};
use test_support::{
    FakeProvider,
    fake_provider::{ProviderFault, Reply},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(5);
const KINDS: [(&str, ModelKind); 5] = [
    ("chat", ModelKind::Chat),
    ("embed", ModelKind::Embedding),
    ("paint", ModelKind::Image),
    ("hear", ModelKind::Transcription),
    ("speak", ModelKind::Speech),
];

async fn fake() -> FakeProvider {
    let _ = rustls::crypto::ring::default_provider().install_default();
    FakeProvider::start().await.unwrap()
}

fn deadlines(overall: Duration) -> Deadlines {
    Deadlines {
        first_token: Duration::from_millis(400),
        between_tokens: Duration::from_millis(400),
        overall,
    }
}

const OVERALL: Duration = Duration::from_secs(10);

/// Each fake is a provider, and every alias leads to the fakes one after the other.
fn gateway(fakes: &[&FakeProvider]) -> Gateway {
    gateway_within(fakes, OVERALL)
}

fn gateway_within(fakes: &[&FakeProvider], overall: Duration) -> Gateway {
    let urls: Vec<String> = fakes.iter().map(|fake| fake.url()).collect();
    gateway_of(&urls, deadlines(overall))
}

/// The same, of whoever answers at these addresses. Each model is said to read twice as much as the one before.
fn gateway_to(urls: &[String]) -> Gateway {
    gateway_of(urls, deadlines(OVERALL))
}

fn gateway_of(urls: &[String], deadlines: Deadlines) -> Gateway {
    let id = |fake: usize, kind: usize| ModelId(Uuid::from_u128((fake * 10 + kind) as u128));
    let provider = |at: usize| ProviderId(Uuid::from_u128(at as u128 + 1));
    let specs = urls.iter().enumerate().map(|(at, url)| {
        let mut spec = ProviderSpec::named(provider(at), &format!("fake{at}"), ProviderKind::OpenAi, url);
        spec.keys.push(KeySpec {
            id: ProviderKeyId(Uuid::nil()),
            secret: "sk-fake".into(),
        });
        spec
    });
    let nanos = |nanos: i64| Money::from_nanos(nanos * 1_000_000);
    let models = (0..urls.len()).flat_map(|fake| {
        KINDS.iter().enumerate().map(move |(at, (_, kind))| ModelSpec {
            id: id(fake, at),
            provider: provider(fake),
            name: "gpt-4o".into(),
            kind: *kind,
            context_tokens: 128_000 << fake,
            max_answer_tokens: 4096,
            price: Price {
                input: nanos(1),
                output: nanos(2),
                image: Money::from_nanos(40),
                audio_input: nanos(6),
                audio_output: nanos(12),
                ..Price::default()
            },
        })
    });
    let aliases = KINDS.iter().enumerate().map(|(at, (name, _))| Alias {
        name: (*name).into(),
        shown: true,
        tiers: (0..urls.len())
            .map(|fake| {
                vec![Target {
                    model: id(fake, at),
                    weight: 1,
                }]
            })
            .collect(),
    });
    Gateway::new(
        Catalogue::new(specs.collect(), models.collect(), aliases.collect()),
        deadlines,
    )
}

fn call(endpoint: Endpoint, body: Value) -> Forward {
    Forward {
        cache: None,
        bound: None,
        tokens: 50,
        images: 0,
        spoken: 0,
        endpoint,
        alias: body["model"].as_str().unwrap().to_owned(),
        stream: body["stream"] == true,
        body: ForwardBody::Json(Bytes::from(body.to_string())),
    }
}

fn chat(text: &str, more: Value) -> Forward {
    let mut body = json!({"model": "chat", "messages": [{"role": "user", "content": text}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    call(Endpoint::Chat, body)
}

async fn send(gateway: &Gateway, call: Forward) -> Result<Forwarded, Box<NotForwarded>> {
    gateway.forward(call, &CancellationToken::new()).await
}

/// The whole body, and what came of it.
async fn read(gateway: &Gateway, call: Forward) -> (String, Outcome) {
    let forwarded = send(gateway, call).await.map_err(|failed| failed.error).unwrap();
    let mut body = forwarded.body;
    let mut all = Vec::new();
    while let Some(Ok(bytes)) = body.next().await {
        all.extend_from_slice(&bytes);
    }
    drop(body);
    (
        String::from_utf8_lossy(&all).into_owned(),
        forwarded.outcome.await.unwrap(),
    )
}

#[tokio::test]
async fn a_plain_answer_passes_with_its_usage() {
    let fake = fake().await;
    let more = json!({"temperature": 0.5, "seed": 7});
    let (body, outcome) = read(&gateway(&[&fake]), chat("one two three", more)).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["choices"][0]["message"]["content"], "Echo: one two three");
    assert_eq!(
        (
            outcome.usage.prompt_tokens,
            outcome.usage.completion_tokens,
            outcome.reported
        ),
        (3, 4, true)
    );
    assert_eq!(outcome.cost.nanos(), 3 + 4 * 2);
    assert_eq!(
        (outcome.finish, outcome.provider.as_str()),
        (Finish::Complete("stop".into()), "fake0")
    );
    let sent = &fake.requests()[0].body;
    assert_eq!(
        (&sent["model"], &sent["temperature"], &sent["seed"]),
        (&json!("gpt-4o"), &json!(0.5), &json!(7))
    );
    assert!(sent.get("stream_options").is_none());
}

#[tokio::test]
async fn a_stream_passes_as_it_came_and_the_usage_only_to_whoever_asked() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    for asks in [false, true] {
        let mut more = json!({"stream": true});
        if asks {
            more["stream_options"] = json!({"include_usage": true});
        }
        let (body, outcome) = read(&gateway, chat("one two three", more)).await;
        assert_eq!(
            (
                outcome.usage.prompt_tokens,
                outcome.usage.completion_tokens,
                outcome.reported
            ),
            (3, 4, true)
        );
        assert_eq!(outcome.finish, Finish::Complete("stop".into()));
        assert_eq!(body.contains("\"prompt_tokens\""), asks, "{body}");
        assert!(
            body.ends_with("data: [DONE]\n\n") && body.matches("data: ").count() == 7 + usize::from(asks),
            "{body}"
        );
    }
    assert_eq!(
        fake.requests()[0].body["stream_options"],
        json!({"include_usage": true})
    );
}

#[tokio::test]
async fn before_the_first_byte_another_is_asked() {
    for fault in [
        ProviderFault::Status(500),
        ProviderFault::RateLimited { retry_after: 60 },
        ProviderFault::Status(401),
        ProviderFault::Drop,
        ProviderFault::Hang,
        ProviderFault::EmptyStream,
    ] {
        let (sick, well) = (fake().await, fake().await);
        sick.fail_next(1, fault.clone());
        let (body, outcome) = read(&gateway(&[&sick, &well]), chat("hi", json!({"stream": true}))).await;
        assert!(body.contains("Echo:"), "{fault:?}: {body}");
        let ways: Vec<&str> = outcome.tries.iter().map(|one| one.provider.as_str()).collect();
        assert_eq!((ways, outcome.provider.as_str()), (vec!["fake0", "fake1"], "fake1"));
        assert!(outcome.tries[0].code.is_some() && outcome.tries[1].code.is_none());
    }
}

#[tokio::test]
async fn whoever_hangs_over_an_answer_that_comes_at_once_leaves_time_for_another() {
    let (sick, well) = (fake().await, fake().await);
    sick.fail_next(9, ProviderFault::Hang);
    sick.fail_others(9, ProviderFault::Hang);
    let gateway = gateway_within(&[&sick, &well], Duration::from_secs(4));
    let calls = [
        chat("hi", json!({})),
        call(Endpoint::Embeddings, json!({"model": "embed", "input": "hi"})),
        call(Endpoint::Responses, json!({"model": "chat", "input": "hi"})),
        call(Endpoint::Images, json!({"model": "paint", "prompt": "hi"})),
    ];
    let answers = calls.map(|call| read(&gateway, call));
    for (body, outcome) in futures::future::join_all(answers).await {
        let codes: Vec<_> = outcome.tries.iter().map(|one| one.code).collect();
        assert_eq!(codes, [Some(ErrorCode::AiTimeout), None], "{body}");
        assert_eq!(outcome.provider, "fake1");
    }
    // Where nobody else is left, all of the time is this one's.
    let began = Instant::now();
    let alone = gateway_within(&[&sick], Duration::from_secs(1));
    let failed = send(&alone, chat("hi", json!({}))).await.err().unwrap();
    assert_eq!(
        (failed.error.code(), failed.outcome.tries.len()),
        (ErrorCode::AiTimeout, 1)
    );
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn success_without_an_answer_is_a_failure_and_another_is_asked() {
    let long = format!(r#"{{"choices":[{{"message":{{"content":"{}"#, "A".repeat(100));
    let chats = [
        "",
        " ",
        "oops",
        "{not json",
        "[]",
        "{}",
        r#"{"choices":[]}"#,
        "null",
        long.as_str(),
    ];
    let paths = [
        (
            Endpoint::Chat,
            json!({"model": "chat", "messages": [{"role": "user", "content": "hi"}]}),
            &chats[..],
        ),
        (
            Endpoint::Responses,
            json!({"model": "chat", "input": "hi"}),
            &["", "{", r#"{"output":[]}"#][..],
        ),
        (
            Endpoint::Embeddings,
            json!({"model": "embed", "input": "hi"}),
            &["", "{", r#"{"data":[]}"#][..],
        ),
        (
            Endpoint::Images,
            json!({"model": "paint", "prompt": "hi"}),
            &["", "{", r#"{"data":[]}"#][..],
        ),
    ];
    for (endpoint, asked, bodies) in paths {
        for bytes in bodies {
            let (sick, well) = (fake().await, fake().await);
            let fails = |times| {
                let fault = ProviderFault::Instead((*bytes).to_owned());
                match endpoint {
                    Endpoint::Chat => sick.fail_next(times, fault),
                    _ => sick.fail_others(times, fault),
                }
            };
            fails(1);
            let both = gateway(&[&sick, &well]);
            let (body, outcome) = read(&both, call(endpoint, asked.clone())).await;
            let codes: Vec<_> = outcome.tries.iter().map(|one| one.code).collect();
            assert_eq!(codes, [Some(ErrorCode::AiDown), None], "{endpoint:?} {bytes}: {body}");
            assert!(both.states()[0].last_failure.is_some(), "the breaker has heard of it");
            fails(9);
            let failed = send(&gateway(&[&sick]), call(endpoint, asked.clone()))
                .await
                .err()
                .unwrap();
            assert_eq!(failed.error.code(), ErrorCode::AiDown, "{endpoint:?} {bytes}");
            assert_eq!(
                (failed.outcome.finish, failed.outcome.cost),
                (Finish::Failed, Money::ZERO)
            );
        }
    }
}

#[tokio::test]
async fn a_long_answer_that_breaks_off_is_not_billed_as_a_whole_one() {
    let fake = fake().await;
    let half = format!(r#"{{"choices":[{{"message":{{"content":"{}"#, "A".repeat(200_000));
    fake.fail_next(1, ProviderFault::Instead(half));
    let forwarded = send(&gateway(&[&fake]), chat("hi", json!({}))).await.ok().unwrap();
    let pieces: Vec<_> = forwarded.body.collect().await;
    assert_eq!(pieces.last().unwrap().as_ref().unwrap_err().code(), ErrorCode::AiCut);
    let outcome = forwarded.outcome.await.unwrap();
    assert_eq!((outcome.finish, outcome.reported), (Finish::Cut, false));
}

/// Whose turn it is, and the end of the body.
const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";

#[tokio::test]
async fn whoever_says_nothing_but_whose_turn_it_is_has_not_begun() {
    for fault in [ProviderFault::HangAfterRole, ProviderFault::Instead(ROLE.into())] {
        let (sick, well) = (fake().await, fake().await);
        sick.fail_next(1, fault.clone());
        let (body, outcome) = read(&gateway(&[&sick, &well]), chat("hi", json!({"stream": true}))).await;
        assert_eq!(outcome.provider, "fake1", "{fault:?}");
        assert!(
            body.matches("assistant").count() == 1 && body.ends_with("data: [DONE]\n\n"),
            "{body}"
        );
    }
    // Where nobody else is left it goes on at once.
    let sick = fake().await;
    sick.fail_next(1, ProviderFault::HangAfterRole);
    let forwarded = send(&gateway(&[&sick]), chat("hi", json!({"stream": true})))
        .await
        .ok()
        .unwrap();
    let pieces: Vec<_> = forwarded.body.collect().await;
    assert!(pieces[0].as_ref().unwrap().ends_with(b"\n\n"), "{pieces:?}");
    assert_eq!(pieces[1].as_ref().unwrap_err().code(), ErrorCode::AiCut);
}

#[tokio::test]
async fn a_refusal_is_told_without_the_providers_keys_and_nobody_else_is_asked() {
    let (first, second) = (fake().await, fake().await);
    let failed = send(&gateway(&[&first, &second]), chat("hi", json!({"temperature": 9}))).await;
    let failed = failed.err().unwrap();
    assert_eq!(
        (failed.error.code(), failed.error.status()),
        (ErrorCode::AiRefused, Some(400))
    );
    assert_eq!((failed.outcome.tries.len(), failed.outcome.cost), (1, Money::ZERO));
    assert!(second.requests().is_empty());
    first.accept_keys(&["sk-other"]);
    second.accept_keys(&["sk-other"]);
    let failed = send(&gateway(&[&first, &second]), chat("hi", json!({})))
        .await
        .err()
        .unwrap();
    assert_eq!(failed.error.code(), ErrorCode::AiAuth);
    assert!(!format!("{:?} {}", failed.error, failed.error.cause()).contains("sk-fake"));
    let failed = send(&gateway(&[&first]), call(Endpoint::Chat, json!({"model": "embed"}))).await;
    assert_eq!(failed.err().unwrap().error.code(), ErrorCode::AiRefused);
}

#[tokio::test]
async fn a_model_that_is_gone_is_asked_elsewhere_and_missed_only_where_nobody_is_left() {
    let (first, second) = (fake().await, fake().await);
    first.offer_models(&["newer"]);
    let alias = gateway(&[&first, &second]);
    let (body, outcome) = read(&alias, chat("hi", json!({}))).await;
    assert!(body.contains("Echo: hi"), "{body}");
    let statuses: Vec<Option<u16>> = outcome.tries.iter().map(|one| one.status).collect();
    assert_eq!((statuses, outcome.provider.as_str()), (vec![Some(404), None], "fake1"));
    second.offer_models(&["newer"]);
    let response = call(Endpoint::Responses, json!({"model": "chat", "input": "hi"}));
    for call in [chat("hi", json!({})), response] {
        let failed = send(&alias, call).await.err().unwrap();
        assert_eq!(
            (failed.error.code(), failed.error.status(), failed.outcome.tries.len()),
            (ErrorCode::AiRefused, Some(404), 2)
        );
    }
}

/// One with a bound that the program knows nothing of.
fn bounded(text: &str, tokens: u32, is_budget: bool, more: Value) -> Forward {
    Forward {
        bound: Some(AnswerBound { tokens, is_budget }),
        ..chat(text, more)
    }
}

/// As a server answers that refuses what `refusal` finds wrong.
fn strict(fake: &FakeProvider, refusal: fn(&Value) -> Option<&'static str>) {
    fake.reply_with(move |body| match refusal(body) {
        Some(words) => Reply::text("").fault(ProviderFault::Refused(words.into())),
        None => Reply::text("fine"),
    });
}

#[tokio::test]
async fn a_bound_of_ours_is_said_in_the_word_that_the_provider_takes() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    strict(&fake, |body| {
        body.get("max_tokens").map(|_| {
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        })
    });
    for requests in [2, 3] {
        let (body, outcome) = read(&gateway, bounded("hi", 100, true, json!({}))).await;
        assert!(body.contains("fine") && outcome.tries.len() == 1, "{body}");
        let sent = fake.requests();
        assert_eq!(sent.len(), requests, "it is learned once");
        let last = &sent.last().unwrap().body;
        assert_eq!(
            (last.get("max_tokens"), last["max_completion_tokens"].as_i64()),
            (None, Some(100))
        );
    }
    // A word that the program has chosen is its own.
    let failed = send(&gateway, bounded("hi", 100, true, json!({"max_tokens": 500})))
        .await
        .err()
        .unwrap();
    assert_eq!((failed.error.status(), fake.requests().len()), (Some(400), 4));
}

#[tokio::test]
async fn a_bound_of_ours_that_is_too_large_is_left_out_unless_a_budget_needs_it() {
    for (words, learned) in [
        (
            "max_tokens is too large: 4096. This model supports at most 1000 completion tokens, whereas you provided 4096.",
            true,
        ),
        (
            "'max_tokens' is too large: 4096. This model's maximum context length is 4096 tokens and your request has 9 input tokens.",
            false,
        ),
        (
            "max_tokens: Extra inputs are not permitted; max_completion_tokens: Extra inputs are not permitted",
            false,
        ),
    ] {
        let fake = fake().await;
        let gateway = gateway(&[&fake]);
        fake.reply_with(move |body| {
            let is_said = |name| body.get(name).is_some();
            if is_said("max_tokens") || is_said("max_completion_tokens") {
                Reply::text("").fault(ProviderFault::Refused(words.into()))
            } else {
                Reply::text("fine")
            }
        });
        let (body, outcome) = read(&gateway, bounded("hi", 9000, false, json!({}))).await;
        assert!(body.contains("fine") && outcome.tries.len() == 1, "{words}: {body}");
        let asked = fake.requests().len();
        assert_eq!(
            fake.requests()[0].body["max_tokens"],
            4096,
            "no more than the model gives"
        );
        read(&gateway, bounded("hi", 9000, false, json!({}))).await;
        assert_eq!(
            fake.requests().len(),
            asked + if learned { 1 } else { asked },
            "{words}"
        );
        // What a budget pays for holds, as does what the program says.
        for call in [
            bounded("hi", 100, true, json!({})),
            bounded("hi", 100, false, json!({"max_tokens": 500})),
        ] {
            let failed = send(&gateway, call).await.err().unwrap();
            assert!(matches!(failed.error.status(), Some(400)), "{words}: {}", failed.error);
        }
    }
    // What is refused for other reasons is not asked again.
    let fake = fake().await;
    let failed = send(&gateway(&[&fake]), bounded("hi", 100, false, json!({"temperature": 9}))).await;
    assert_eq!(
        (failed.err().unwrap().error.status(), fake.requests().len()),
        (Some(400), 1)
    );
}

#[tokio::test]
async fn a_proxy_is_what_requests_go_through() {
    let fake = fake().await;
    // Whose name nobody can look up, so that only the proxy can reach it: the fake, which takes whole addresses as well.
    let mut spec = ProviderSpec::named(
        ProviderId(Uuid::from_u128(1)),
        "far",
        ProviderKind::OpenAi,
        "http://provider.invalid/v1",
    );
    spec.keys.push(KeySpec {
        id: ProviderKeyId(Uuid::nil()),
        secret: "sk-fake".into(),
    });
    spec.proxy = Some(fake.url().trim_end_matches("/v1").to_owned().into());
    let model = ModelSpec {
        id: ModelId(Uuid::from_u128(1)),
        provider: spec.id,
        name: "gpt-4o".into(),
        kind: ModelKind::Chat,
        context_tokens: 1000,
        max_answer_tokens: 100,
        price: Price::default(),
    };
    let alias = Alias {
        name: "chat".into(),
        shown: true,
        tiers: vec![vec![Target {
            model: model.id,
            weight: 1,
        }]],
    };
    let gateway = Gateway::new(
        Catalogue::new(vec![spec], vec![model], vec![alias]),
        Deadlines::default(),
    );
    let (body, outcome) = read(&gateway, chat("hi", json!({"stream": true}))).await;
    assert!(body.contains("Echo:") && fake.requests().len() == 1, "{body}");
    assert_eq!(outcome.provider, "far");
}

#[tokio::test]
async fn a_usage_of_nothing_that_is_reported_is_billed_as_nothing() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    for stream in [false, true] {
        fake.fail_next(1, ProviderFault::ZeroUsage);
        let (_, outcome) = read(&gateway, chat("one two three", json!({"stream": stream}))).await;
        assert_eq!((outcome.reported, outcome.cost), (true, Money::ZERO));
        assert_eq!((outcome.usage.prompt_tokens, outcome.usage.completion_tokens), (0, 0));
        fake.fail_next(1, ProviderFault::NoUsage);
        let (_, outcome) = read(&gateway, chat("one two three", json!({"stream": stream}))).await;
        assert_eq!((outcome.reported, outcome.usage.prompt_tokens), (false, 50));
    }
}

#[tokio::test]
async fn after_the_first_byte_an_answer_is_ended_and_billed_as_far_as_it_came() {
    let (sick, well) = (fake().await, fake().await);
    for question in ["[[tokens=20]] [[cut]]", "[[tokens=20]] [[hangmid]]"] {
        let gateway = gateway(&[&sick, &well]);
        let (body, outcome) = read(&gateway, chat(question, json!({"stream": true}))).await;
        assert!(body.contains("word10") && !body.contains("word11"), "{body}");
        assert_eq!((&outcome.finish, outcome.reported), (&Finish::Cut, false));
        assert_eq!(outcome.failure.as_ref().unwrap().code(), ErrorCode::AiCut);
        let text = (1..=10).map(|n| format!("word{n}")).collect::<Vec<_>>().join(" ");
        let counted = i64::from(count_tokens(&text));
        assert!((counted..=counted + 1).contains(&outcome.usage.completion_tokens));
        assert!(outcome.usage.prompt_tokens > 0 && outcome.cost > Money::ZERO);
    }
    assert!(well.requests().is_empty());
}

#[tokio::test]
async fn a_stream_whose_connection_closes_in_mid_answer_ends_in_an_error() {
    let (sick, well) = (fake().await, fake().await);
    let gateway = gateway(&[&sick, &well]);
    let forwarded = send(&gateway, chat("[[tokens=20]] [[end]]", json!({"stream": true})))
        .await
        .ok()
        .unwrap();
    let pieces: Vec<_> = forwarded.body.collect().await;
    let (last, pieces) = pieces.split_last().unwrap();
    let said: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece.as_ref().unwrap().to_vec())
        .collect();
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("word10") && !said.contains("word11"), "{said}");
    assert_eq!(last.as_ref().unwrap_err().code(), ErrorCode::AiCut);
    let outcome = forwarded.outcome.await.unwrap();
    assert_eq!((&outcome.finish, outcome.reported), (&Finish::Cut, false));
    assert_eq!(
        gateway.states()[0].last_failure.as_ref().unwrap().code,
        ErrorCode::AiDown
    );
    assert!(well.requests().is_empty());
}

#[tokio::test]
async fn a_program_that_leaves_ends_the_providers_work_and_is_billed_for_what_it_got() {
    gateway::warm_up();
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    let question = "[[tokens=200]] [[chunks=200,20ms]]";
    let forwarded = send(&gateway, chat(question, json!({"stream": true})))
        .await
        .ok()
        .unwrap();
    let mut body = forwarded.body;
    let mut got = String::new();
    while !got.contains("word5") {
        got.push_str(&String::from_utf8_lossy(&body.next().await.unwrap().unwrap()));
    }
    assert_eq!(gateway.states()[0].running, 1);
    drop(body);
    let outcome = forwarded.outcome.await.unwrap();
    assert_eq!(
        (outcome.finish, outcome.failure.is_none(), outcome.reported),
        (Finish::Stopped, true, false)
    );
    assert!(
        (5..60).contains(&outcome.usage.completion_tokens),
        "{:?}",
        outcome.usage
    );
    assert_eq!(gateway.states()[0].running, 0);
    fake.wait_for(PATIENCE, |fake| fake.requests()[0].disconnected.then_some(()))
        .await
        .unwrap();
    assert!(fake.requests()[0].chunks_written < 40);
}

#[tokio::test]
async fn a_server_that_knows_no_stream_options_is_asked_without() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    fake.reply_with(|body| {
        let reply = Reply::text("fine");
        match body.get("stream_options") {
            Some(_) => reply.fault(ProviderFault::Refused("Unknown parameter: 'stream_options'.".into())),
            None => reply,
        }
    });
    for requests in [2, 3] {
        let (_, outcome) = read(&gateway, chat("hi", json!({"stream": true}))).await;
        assert_eq!(
            (outcome.finish, outcome.tries.len()),
            (Finish::Complete("stop".into()), 1)
        );
        assert!(!outcome.reported && outcome.usage.completion_tokens == 1);
        assert_eq!(fake.requests().len(), requests);
    }
}

#[tokio::test]
async fn embeddings_are_counted() {
    let fake = fake().await;
    let (body, outcome) = read(
        &gateway(&[&fake]),
        call(
            Endpoint::Embeddings,
            json!({"model": "embed", "input": ["one two", "three"]}),
        ),
    )
    .await;
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        (outcome.usage.prompt_tokens, outcome.reported, outcome.cost.nanos()),
        (3, true, 3)
    );
}

#[tokio::test]
async fn responses_pass_plain_and_as_a_stream() {
    let fake = fake().await;
    for stream in [false, true] {
        let body = json!({"model": "chat", "input": "one two", "stream": stream});
        let (body, outcome) = read(&gateway(&[&fake]), call(Endpoint::Responses, body)).await;
        assert!(body.contains("Echo: one two"), "{body}");
        assert_eq!(
            (
                outcome.usage.prompt_tokens,
                outcome.usage.completion_tokens,
                outcome.reported
            ),
            (2, 3, true)
        );
        assert_eq!(outcome.finish, Finish::Complete("stop".into()));
    }
    assert!(
        fake.requests()
            .iter()
            .all(|one| one.body.get("stream_options").is_none())
    );
}

#[tokio::test]
async fn pictures_and_sound_have_their_price() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    let paint = call(Endpoint::Images, json!({"model": "paint", "prompt": "a cat", "n": 3}));
    let (_, outcome) = read(&gateway, paint).await;
    assert_eq!(outcome.usage.images, 3);
    assert!(outcome.cost.nanos() >= 120);
    let speak = json!({"model": "speak", "input": "say this", "voice": "alloy"});
    let speak = Forward {
        spoken: 12,
        ..call(Endpoint::Speech, speak)
    };
    let (body, outcome) = read(&gateway, speak).await;
    assert_eq!(
        (body.as_str(), outcome.finish),
        ("ID3 say this", Finish::Complete("stop".into()))
    );
    // Sound says nothing of its tokens, so it is billed as it was reckoned.
    assert_eq!(
        (outcome.usage.completion_tokens, outcome.usage.audio_output_tokens),
        (12, 12)
    );
    assert_eq!((outcome.reported, outcome.cost.nanos()), (false, 50 + 12 * 12));
    let part = |name: &str, data: &'static str, file: bool| Part {
        name: name.into(),
        file_name: file.then(|| "a.ogg".to_owned()),
        content_type: file.then(|| "audio/ogg".to_owned()),
        data: Bytes::from_static(data.as_bytes()),
    };
    for endpoint in [Endpoint::Transcriptions, Endpoint::Translations] {
        let hear = Forward {
            cache: None,
            bound: None,
            tokens: 50,
            images: 0,
            spoken: 0,
            endpoint,
            alias: "hear".into(),
            body: ForwardBody::Form(vec![
                part("model", "hear", false),
                part("file", "words of a file", true),
            ]),
            stream: false,
        };
        let (body, outcome) = read(&gateway, hear).await;
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["text"], "words of a file");
        // Six seconds at six dollars a million tokens, which is $0.006 a minute.
        assert_eq!((outcome.usage.audio_input_tokens, outcome.cost.nanos()), (100, 600));
    }
}

/// Who was asked, and what went wrong.
fn ways(outcome: &Outcome) -> Vec<(&str, Option<ErrorCode>)> {
    outcome
        .tries
        .iter()
        .map(|one| (one.provider.as_str(), one.code))
        .collect()
}

#[tokio::test]
async fn whoever_leaves_pays_for_the_question_and_nobody_for_silence() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    fake.fail_next(1, ProviderFault::Hang);
    let failed = send(&gateway, chat("hi", json!({"stream": true}))).await.err().unwrap();
    assert_eq!(failed.error.code(), ErrorCode::AiTimeout);
    let outcome = failed.outcome;
    assert_eq!(ways(&outcome), [("fake0", Some(ErrorCode::AiTimeout))]);
    assert!(outcome.tries[0].took >= Duration::from_millis(400));
    assert_eq!(
        (
            &outcome.finish,
            outcome.usage.prompt_tokens,
            outcome.cost,
            outcome.reported
        ),
        (&Finish::Failed, 0, Money::ZERO, false)
    );
    fake.fail_next(1, ProviderFault::Hang);
    // A program that leaves before the first byte.
    let cancel = CancellationToken::new();
    let leaves = async {
        let asked = fake.requests().len();
        fake.wait_for(PATIENCE, |fake| (fake.requests().len() > asked).then_some(()))
            .await
            .unwrap();
        cancel.cancel();
    };
    let (failed, ()) = tokio::join!(gateway.forward(chat("hi", json!({})), &cancel), leaves);
    let outcome = failed.err().unwrap().outcome;
    assert_eq!(
        (&outcome.finish, outcome.usage.prompt_tokens, outcome.cost.nanos()),
        (&Finish::Stopped, 50, 50)
    );
    assert_eq!(ways(&outcome), [("fake0", None)]);
    // Nobody was asked.
    let outcome = gateway
        .forward(chat("hi", json!({})), &cancel)
        .await
        .err()
        .unwrap()
        .outcome;
    assert_eq!((outcome.finish, outcome.cost), (Finish::Stopped, Money::ZERO));
}

/// A server that tells what it has used of the question, and then fails.
async fn told_and_failed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"}") && tcp.read_buf(&mut request).await.unwrap() > 0 {}
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            let used = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":0,"total_tokens":7}}"#;
            let error = r#"{"error":{"message":"overloaded","type":"server_error"}}"#;
            let answer = format!("{head}data: {used}\n\ndata: {error}\n\n");
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn an_attempt_before_the_last_is_billed_by_what_it_has_told_and_not_for_its_silence() {
    let (silent, well) = (fake().await, fake().await);
    let gateway = gateway_to(&[told_and_failed().await, silent.url(), well.url()]);
    silent.fail_next(1, ProviderFault::Hang);
    let (body, outcome) = read(&gateway, chat("one two", json!({"stream": true}))).await;
    assert!(body.contains("Echo:"), "{body}");
    let (down, late) = (Some(ErrorCode::AiDown), Some(ErrorCode::AiTimeout));
    assert_eq!(ways(&outcome), [("fake0", down), ("fake1", late), ("fake2", None)]);
    // Seven of the first, two and three of the last.
    let usage = outcome.usage;
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (7 + 2, 3));
    assert_eq!((outcome.cost.nanos(), outcome.reported), (7 + 2 + 3 * 2, true));
    // Where nobody answers, it is billed all the same.
    let alone = gateway_to(&[told_and_failed().await]);
    let failed = send(&alone, chat("one two", json!({"stream": true})))
        .await
        .err()
        .unwrap();
    let outcome = failed.outcome;
    let asked = i64::try_from(outcome.tries.len()).unwrap();
    assert_eq!(
        (outcome.usage.prompt_tokens, outcome.cost.nanos()),
        (7 * asked, 7 * asked)
    );
    assert!(outcome.reported && asked > 0);
}

#[tokio::test]
async fn what_was_too_long_for_a_model_goes_to_the_larger_one_at_once() {
    let (small, large) = (fake().await, fake().await);
    let gateway = gateway(&[&small, &large]);
    small.fail_next(
        1,
        ProviderFault::Refused("This model's maximum context length is 40 tokens.".into()),
    );
    let too_long = Some(ErrorCode::AiContext);
    let (_, outcome) = read(&gateway, chat("hi", json!({}))).await;
    assert_eq!(ways(&outcome), [("fake0", too_long), ("fake1", None)]);
    let (_, outcome) = read(&gateway, chat("hi", json!({}))).await;
    assert_eq!(ways(&outcome), [("fake1", None)]);
    let shorter = Forward {
        tokens: 49,
        ..chat("hi", json!({}))
    };
    assert_eq!(ways(&read(&gateway, shorter).await.1), [("fake0", None)]);
    // Rather that one than nobody.
    large.fail_next(1, ProviderFault::Status(500));
    let (_, outcome) = read(&gateway, chat("hi", json!({}))).await;
    assert_eq!(ways(&outcome), [("fake1", Some(ErrorCode::AiDown)), ("fake0", None)]);
}

#[tokio::test]
async fn a_program_that_leaves_behind_the_end_is_billed_by_what_the_provider_says() {
    let fake = fake().await;
    let forwarded = send(&gateway(&[&fake]), chat("one two three", json!({"stream": true})))
        .await
        .ok()
        .unwrap();
    let mut body = forwarded.body;
    let mut got = String::new();
    while !got.contains("\"finish_reason\":\"stop\"") {
        got.push_str(&String::from_utf8_lossy(&body.next().await.unwrap().unwrap()));
    }
    drop(body);
    let outcome = forwarded.outcome.await.unwrap();
    assert_eq!(
        (
            outcome.finish,
            outcome.usage.prompt_tokens,
            outcome.usage.completion_tokens,
            outcome.reported
        ),
        (Finish::Complete("stop".into()), 3, 4, true)
    );
}

#[tokio::test]
async fn where_no_usage_is_told_the_question_is_billed_by_its_estimate() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    fake.fail_next(1, ProviderFault::NoUsage);
    let (_, outcome) = read(&gateway, chat("data:one two three", json!({"stream": true}))).await;
    assert_eq!((outcome.usage.prompt_tokens, outcome.reported), (50, false));
    let part = |name: &str, data: &'static str| Part {
        name: name.into(),
        file_name: (name == "file").then(|| "a.ogg".to_owned()),
        content_type: None,
        data: Bytes::from_static(data.as_bytes()),
    };
    let hear = Forward {
        cache: None,
        bound: None,
        tokens: 50,
        images: 0,
        spoken: 0,
        endpoint: Endpoint::Transcriptions,
        alias: "hear".into(),
        body: ForwardBody::Form(vec![
            part("model", "hear"),
            part("response_format", "text"),
            part("file", "words of a file"),
        ]),
        stream: false,
    };
    let (body, outcome) = read(&gateway, hear).await;
    assert_eq!(body, "words of a file");
    // At the price of sound.
    assert_eq!(
        (outcome.usage.audio_input_tokens, outcome.cost.nanos(), outcome.reported),
        (50, 300, false)
    );
}

#[tokio::test]
async fn a_providers_words_do_not_pass_with_a_status_of_success() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    fake.fail_next(9, ProviderFault::ErrorInside("secret words".into()));
    let failed = send(&gateway, chat("hi", json!({}))).await.err().unwrap();
    assert_eq!(failed.error.code(), ErrorCode::AiDown);
    let forwarded = send(&gateway, chat("one two three four", json!({"stream": true})))
        .await
        .ok()
        .unwrap();
    let pieces: Vec<_> = forwarded.body.collect().await;
    let (last, pieces) = pieces.split_last().unwrap();
    let text: String = pieces
        .iter()
        .map(|piece| String::from_utf8_lossy(piece.as_ref().unwrap()).into_owned())
        .collect();
    assert!(text.contains("Echo:") && text.ends_with("\n\n"), "{text}");
    assert!(!text.contains("secret") && !text.contains("[DONE]"), "{text}");
    assert_eq!(last.as_ref().unwrap_err().code(), ErrorCode::AiCut);
    let outcome = forwarded.outcome.await.unwrap();
    assert_eq!(outcome.finish, Finish::Cut);
    assert!(outcome.usage.completion_tokens > 0 && !outcome.reported);
}

#[tokio::test]
async fn what_is_no_json_is_left_out_of_a_stream() {
    let fake = fake().await;
    fake.fail_next(1, ProviderFault::GarbageChunk);
    let (body, outcome) = read(&gateway(&[&fake]), chat("one two three", json!({"stream": true}))).await;
    for event in body.lines().filter_map(|line| line.strip_prefix("data: ")) {
        assert!(
            event == "[DONE]" || serde_json::from_str::<Value>(event).is_ok(),
            "{event}"
        );
    }
    assert!(body.contains("three") && body.ends_with("data: [DONE]\n\n"), "{body}");
    assert_eq!(
        (outcome.finish, outcome.reported),
        (Finish::Complete("stop".into()), true)
    );
}

#[tokio::test]
async fn pictures_and_speech_pass_as_streams() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    let paint = json!({"model": "paint", "prompt": "a cat", "stream": true});
    let (body, outcome) = read(&gateway, call(Endpoint::Images, paint)).await;
    assert!(body.contains("event: image_generation.completed"), "{body}");
    assert_eq!(
        (outcome.usage.images, outcome.reported, outcome.cost.nanos()),
        (1, true, 5 + 7 * 2 + 40)
    );
    let speak =
        json!({"model": "speak", "input": "say this", "voice": "alloy", "stream_format": "sse", "stream": true});
    fake.lenient(true);
    let (body, outcome) = read(&gateway, call(Endpoint::Speech, speak)).await;
    assert!(body.contains("event: speech.audio.done"), "{body}");
    assert_eq!(
        (outcome.finish, outcome.usage.prompt_tokens, outcome.reported),
        (Finish::Complete("stop".into()), 3, true)
    );
    // What is reported of speech is sound.
    assert_eq!(outcome.cost.nanos(), 3 + 9 * 12);
}

#[tokio::test]
async fn a_slow_reader_gives_the_providers_place_free() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    let forwarded = send(&gateway, chat("[[tokens=5000]]", json!({"stream": true})))
        .await
        .ok()
        .unwrap();
    assert_eq!(gateway.states()[0].running, 1);
    // Nothing is read, and yet there is an outcome.
    let outcome = tokio::time::timeout(PATIENCE, forwarded.outcome)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((outcome.finish, gateway.states()[0].running), (Finish::Stopped, 0));
    assert!(
        (1..5000).contains(&outcome.usage.completion_tokens),
        "{:?}",
        outcome.usage
    );
    drop(forwarded.body);
}
