//! Requests of other programs, over real sockets against the strict fake provider.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail like the test itself")]

use std::time::Duration;

use bytes::Bytes;
use domain::{ErrorCode, ModelId, Money, ProviderId, ProviderKeyId};
use futures::StreamExt;
use gateway::{
    Alias, Catalogue, Deadlines, Endpoint, Finish, Forward, ForwardBody, Forwarded, Gateway, KeySpec, ModelKind,
    ModelSpec, NotForwarded, Outcome, Part, Price, ProviderKind, ProviderSpec, Target, count_tokens,
};
use serde_json::{Value, json};
use test_support::{FakeProvider, fake_provider::ProviderFault};
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

/// Each fake is a provider, and every alias leads to the fakes one after the other.
fn gateway(fakes: &[&FakeProvider]) -> Gateway {
    let id = |fake: usize, kind: usize| ModelId(Uuid::from_u128((fake * 10 + kind) as u128));
    let provider = |at: usize| ProviderId(Uuid::from_u128(at as u128 + 1));
    let specs = fakes.iter().enumerate().map(|(at, fake)| {
        let mut spec = ProviderSpec::named(provider(at), &format!("fake{at}"), ProviderKind::OpenAi, &fake.url());
        spec.keys.push(KeySpec {
            id: ProviderKeyId(Uuid::nil()),
            secret: "sk-fake".into(),
        });
        spec
    });
    let nanos = |nanos: i64| Money::from_nanos(nanos * 1_000_000);
    let models = (0..fakes.len()).flat_map(|fake| {
        KINDS.iter().enumerate().map(move |(at, (_, kind))| ModelSpec {
            id: id(fake, at),
            provider: provider(fake),
            name: "gpt-4o".into(),
            kind: *kind,
            context_tokens: 128_000,
            max_answer_tokens: 4096,
            price: Price {
                input: nanos(1),
                output: nanos(2),
                image: Money::from_nanos(40),
                audio_input: nanos(6),
                ..Price::default()
            },
        })
    });
    let aliases = KINDS.iter().enumerate().map(|(at, (name, _))| Alias {
        name: (*name).into(),
        shown: true,
        tiers: (0..fakes.len())
            .map(|fake| {
                vec![Target {
                    model: id(fake, at),
                    weight: 1,
                }]
            })
            .collect(),
    });
    let deadlines = Deadlines {
        first_token: Duration::from_millis(400),
        between_tokens: Duration::from_millis(400),
        overall: Duration::from_secs(10),
    };
    Gateway::new(
        Catalogue::new(specs.collect(), models.collect(), aliases.collect()),
        deadlines,
    )
}

fn call(endpoint: Endpoint, body: Value) -> Forward {
    Forward {
        cache: None,
        answer_tokens: None,
        tokens: 50,
        images: 0,
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
        let reply = test_support::fake_provider::Reply::text("fine");
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
    let (body, outcome) = read(&gateway, call(Endpoint::Speech, speak)).await;
    assert_eq!(
        (body.as_str(), outcome.finish),
        ("ID3 say this", Finish::Complete("stop".into()))
    );
    assert!(!outcome.reported && outcome.usage.prompt_tokens >= 2);
    let part = |name: &str, data: &'static str, file: bool| Part {
        name: name.into(),
        file_name: file.then(|| "a.ogg".to_owned()),
        content_type: file.then(|| "audio/ogg".to_owned()),
        data: Bytes::from_static(data.as_bytes()),
    };
    for endpoint in [Endpoint::Transcriptions, Endpoint::Translations] {
        let hear = Forward {
            cache: None,
            answer_tokens: None,
            tokens: 50,
            images: 0,
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

#[tokio::test]
async fn what_was_asked_and_given_up_is_billed() {
    let fake = fake().await;
    let gateway = gateway(&[&fake]);
    // It takes a while until the only provider has been silent for too long, twice.
    fake.fail_next(9, ProviderFault::Hang);
    let failed = send(&gateway, chat("hi", json!({"stream": true}))).await.err().unwrap();
    assert_eq!(failed.error.code(), ErrorCode::AiTimeout);
    let outcome = failed.outcome;
    assert_eq!(
        (
            outcome.finish,
            outcome.usage.prompt_tokens,
            outcome.cost.nanos(),
            outcome.reported
        ),
        (Finish::Failed, 50, 50, false)
    );
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
        (outcome.finish, outcome.usage.prompt_tokens, outcome.cost.nanos()),
        (Finish::Stopped, 50, 50)
    );
    // Nobody was asked.
    let outcome = gateway
        .forward(chat("hi", json!({})), &cancel)
        .await
        .err()
        .unwrap()
        .outcome;
    assert_eq!((outcome.finish, outcome.cost), (Finish::Stopped, Money::ZERO));
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
        answer_tokens: None,
        tokens: 50,
        images: 0,
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
