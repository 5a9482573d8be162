//! The whole gateway over real sockets, against the strict fake provider.

#![expect(clippy::unwrap_used, reason = "a helper of a test may fail like the test itself")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{ErrorCode, ModelId, ProviderId, ProviderKeyId};
use gateway::{
    Alias, Answer, Catalogue, ChatRequest, Deadlines, Finish, Gateway, GatewayError, KeySpec, ModelKind, ModelSpec,
    OpenAi, Price, Probe, Probed, Provider, ProviderKind, ProviderSpec, Role, Target, Turn, count_tokens, models_from,
};
use test_support::{
    FakeProvider,
    fake_provider::{ProviderFault, Reply},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(5);

async fn fake() -> FakeProvider {
    let _ = rustls::crypto::ring::default_provider().install_default();
    FakeProvider::start().await.unwrap()
}

fn openai(url: &str, key: &str) -> OpenAi {
    OpenAi::new(url, key.into()).unwrap()
}

fn gateway(fake: &FakeProvider) -> Gateway {
    let deadlines = Deadlines {
        first_token: Duration::from_millis(400),
        between_tokens: Duration::from_millis(400),
        overall: Duration::from_secs(10),
    };
    let provider = openai(&fake.url(), "sk-fake");
    let models = models_from(Some("gpt-4o-mini,no-such-model"));
    Gateway::new(Catalogue::from_settings(Arc::new(provider), models), deadlines)
}

fn request(text: &str) -> ChatRequest {
    ChatRequest {
        model: "gpt-4o-mini".into(),
        messages: vec![
            Turn {
                role: Role::System,
                text: "Be brief".into(),
            },
            Turn {
                role: Role::User,
                text: text.into(),
            },
        ],
        max_tokens: 500,
        user: "opaque".into(),
    }
}

async fn ask(fake: &FakeProvider, text: &str) -> Answer {
    gateway(fake)
        .answer(&request(text), &CancellationToken::new(), |_| {})
        .await
}

fn code(answer: &Answer) -> Option<ErrorCode> {
    answer.failure.as_ref().map(GatewayError::code)
}

#[tokio::test]
async fn an_answer_is_streamed_with_the_usage_that_was_reported() {
    let fake = fake().await;
    let mut updates = Vec::new();
    let answer = gateway(&fake)
        .answer(&request("one two three"), &CancellationToken::new(), |text| {
            updates.push(text.to_owned());
        })
        .await;
    assert_eq!(
        (answer.text.as_str(), &answer.finish),
        ("Echo: one two three", &Finish::Complete("stop".into()))
    );
    assert_eq!(updates.len(), 4);
    assert_eq!(
        (
            answer.usage.prompt_tokens,
            answer.usage.completion_tokens,
            answer.usage_reported
        ),
        (5, 4, true)
    );
    assert_eq!(answer.cost.nanos(), 5 * 150 + 4 * 600);
    assert!(answer.attempts == 1 && answer.failure.is_none() && answer.first_token.is_some());

    let sent = fake.requests().remove(0);
    assert_eq!(
        (sent.body["stream"].as_bool(), sent.body["max_tokens"].as_u64()),
        (Some(true), Some(500))
    );
    assert_eq!(sent.body["stream_options"]["include_usage"], true);
    assert!(sent.body.get("user").is_none() && sent.body.get("max_completion_tokens").is_none());
    assert_eq!(sent.key, "sk-fake");
}

#[tokio::test]
async fn busy_once_is_asked_again() {
    let fake = fake().await;
    fake.fail_next(1, ProviderFault::RateLimited { retry_after: 1 });
    let answer = ask(&fake, "hi").await;
    assert_eq!(
        (answer.text.as_str(), answer.attempts, fake.requests().len()),
        ("Echo: hi", 2, 2)
    );
    assert!(answer.total >= Duration::from_secs(1));
}

#[tokio::test]
async fn broken_twice_is_down() {
    for fault in [
        ProviderFault::Status(500),
        ProviderFault::Drop,
        ProviderFault::EmptyStream,
    ] {
        let fake = fake().await;
        fake.fail_next(2, fault);
        let answer = ask(&fake, "hi").await;
        assert_eq!((code(&answer), answer.attempts), (Some(ErrorCode::AiDown), 2));
        assert_eq!((answer.finish, fake.requests().len()), (Finish::Failed, 2));
    }
}

#[tokio::test]
async fn nobody_listening_is_down() {
    let fake = fake().await;
    fake.stop();
    let answer = ask(&fake, "hi").await;
    assert_eq!((code(&answer), answer.attempts), (Some(ErrorCode::AiDown), 2));
}

#[tokio::test]
async fn a_refused_key_is_told_to_staff_without_the_key() {
    let fake = fake().await;
    fake.accept_keys(&["sk-another"]);
    let answer = ask(&fake, "hi").await;
    assert_eq!((code(&answer), answer.attempts), (Some(ErrorCode::AiAuth), 1));
    let cause = answer.failure.unwrap().cause();
    assert!(cause.contains("401") && !cause.contains("sk-fake"), "{cause}");
}

#[tokio::test]
async fn an_unknown_model_is_refused_with_the_servers_words() {
    let fake = fake().await;
    let request = ChatRequest {
        model: "no-such-model".into(),
        ..request("hi")
    };
    let answer = gateway(&fake).answer(&request, &CancellationToken::new(), |_| {}).await;
    assert_eq!((code(&answer), answer.attempts), (Some(ErrorCode::AiRefused), 1));
    assert!(answer.failure.unwrap().cause().contains("no-such-model"));
}

#[tokio::test]
async fn a_cut_keeps_the_text_and_bills_it() {
    let fake = fake().await;
    let answer = ask(&fake, "[[tokens=20]] [[cut]]").await;
    assert_eq!(
        (&answer.finish, code(&answer), answer.attempts),
        (&Finish::Cut, Some(ErrorCode::AiCut), 1)
    );
    assert!(
        answer.text.starts_with("word1 word2") && answer.text.trim_end().ends_with("word10"),
        "{}",
        answer.text
    );
    assert_eq!(answer.usage.completion_tokens, i64::from(count_tokens(&answer.text)));
    assert!(!answer.usage_reported && answer.usage.prompt_tokens > 0 && answer.cost.nanos() > 0);
}

#[tokio::test]
async fn hanging_ends_at_the_deadline_and_lets_the_server_go() {
    for (question, finish) in [("[[hang]]", Finish::Failed), ("[[tokens=20]] [[hangmid]]", Finish::Cut)] {
        let fake = fake().await;
        let answer = ask(&fake, question).await;
        assert_eq!(
            (&answer.finish, code(&answer), answer.attempts),
            (&finish, Some(ErrorCode::AiTimeout), 1)
        );
        assert!((400..1500).contains(&answer.total.as_millis()), "{:?}", answer.total);
        fake.wait_for(PATIENCE, |fake| fake.requests()[0].disconnected.then_some(()))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn stopping_reaches_the_server_within_a_moment() {
    // As the program does at its start; loading the tables would count as ours otherwise.
    gateway::warm_up();
    let fake = fake().await;
    let cancel = CancellationToken::new();
    let (gateway, request) = (gateway(&fake), request("[[tokens=200]] [[chunks=200,20ms]]"));
    let (stopper, mut stopped_at) = (cancel.clone(), None);
    let answer = gateway
        .answer(&request, &cancel, |text| {
            if text.contains("word5") {
                stopper.cancel();
                stopped_at.get_or_insert_with(Instant::now);
            }
        })
        .await;
    assert!(stopped_at.unwrap().elapsed() < Duration::from_millis(500));
    assert_eq!(
        (&answer.finish, answer.failure.is_none(), answer.usage_reported),
        (&Finish::Stopped, true, false)
    );
    assert_eq!(answer.usage.completion_tokens, i64::from(count_tokens(&answer.text)));
    fake.wait_for(PATIENCE, |fake| fake.requests()[0].disconnected.then_some(()))
        .await
        .unwrap();
    assert!(stopped_at.unwrap().elapsed() < Duration::from_secs(1));
    assert!(fake.requests()[0].chunks_written < 20);
}

#[tokio::test]
async fn usage_may_be_missing_or_zero() {
    let fake = fake().await;
    let answer = ask(&fake, "hi [[nousage]]").await;
    assert!(!answer.usage_reported && answer.failure.is_none() && answer.cost.nanos() > 0);
    assert_eq!(answer.usage.completion_tokens, i64::from(count_tokens(&answer.text)));
    let answer = ask(&fake, "hi [[zerousage]]").await;
    assert_eq!(
        (
            answer.usage_reported,
            answer.usage.completion_tokens,
            answer.cost.nanos()
        ),
        (true, 0, 0)
    );
}

#[tokio::test]
async fn a_chunk_of_garbage_is_passed_over() {
    let fake = fake().await;
    let answer = ask(&fake, "one two three [[garbage]]").await;
    assert_eq!(
        (answer.text.as_str(), answer.usage_reported),
        ("Echo: one two three", true)
    );
    assert_eq!(answer.finish, Finish::Complete("stop".into()));
}

#[tokio::test]
async fn a_limit_on_the_answer_is_sent_and_its_end_told() {
    let fake = fake().await;
    fake.reply_next(Reply::text("one two three four"));
    let request = ChatRequest {
        max_tokens: 2,
        ..request("hi")
    };
    let answer = gateway(&fake).answer(&request, &CancellationToken::new(), |_| {}).await;
    assert_eq!(
        (answer.text.as_str(), answer.finish),
        ("one two", Finish::Complete("length".into()))
    );
}

#[tokio::test]
async fn a_probe_tells_right_from_wrong() {
    let fake = fake().await;
    openai(&fake.url(), "sk-fake").probe("gpt-4o-mini").await.unwrap();
    let code = async |url: &str, key: &str, model: &str| openai(url, key).probe(model).await.unwrap_err().code();
    assert_eq!(code(&fake.url(), "sk-wrong", "gpt-4o-mini").await, ErrorCode::AiAuth);
    assert_eq!(code(&fake.url(), "sk-fake", "gpt-x").await, ErrorCode::AiRefused);
    let without_v1 = fake.url().replace("/v1", "");
    assert_eq!(code(&without_v1, "sk-fake", "gpt-4o-mini").await, ErrorCode::AiRefused);
}

#[tokio::test]
async fn a_provider_is_tried_out_with_each_key() {
    let fake = fake().await;
    let spec = provider_with_keys(&fake, &["sk-fake", "sk-wrong"]);
    let (provider, keys) = (spec.id, [spec.keys[0].id, spec.keys[1].id]);
    let gateway = Gateway::new(one_model(spec), Deadlines::default());
    let came = async |probe: Probe<'_>| -> Vec<_> {
        let probed = gateway.probe_provider(provider, probe).await.unwrap();
        let code = |one: &Probed| one.failure.as_ref().map(GatewayError::code);
        probed.iter().map(|one| (one.key, code(one))).collect()
    };
    for probe in [Probe::Token("gpt-4o"), Probe::Embedding("gpt-4o"), Probe::Models] {
        let expected = [(Some(keys[0]), None), (Some(keys[1]), Some(ErrorCode::AiAuth))];
        assert_eq!(came(probe).await, expected, "{probe:?}");
    }
    assert_eq!(came(Probe::Embedding("gpt-x")).await[0].1, Some(ErrorCode::AiRefused));
    let nobody = ProviderId(Uuid::nil());
    assert!(gateway.probe_provider(nobody, Probe::Models).await.is_none());
    let mut elsewhere = provider_with_keys(&fake, &["sk-fake"]);
    elsewhere.base_url = fake.url().replace("/v1", "");
    gateway.replace(one_model(elsewhere));
    assert_eq!(came(Probe::Models).await[0].1, Some(ErrorCode::AiRefused));
}

fn provider_with_keys(fake: &FakeProvider, keys: &[&str]) -> ProviderSpec {
    let mut spec = ProviderSpec::named(
        ProviderId(Uuid::from_u128(1)),
        "fake",
        ProviderKind::OpenAi,
        &fake.url(),
    );
    let key = |(at, key): (usize, &&str)| KeySpec {
        id: ProviderKeyId(Uuid::from_u128(at as u128)),
        secret: (*key).into(),
    };
    spec.keys = keys.iter().enumerate().map(key).collect();
    spec
}

fn one_model(spec: ProviderSpec) -> Catalogue {
    let model = ModelSpec {
        id: ModelId(Uuid::from_u128(1)),
        provider: spec.id,
        name: "gpt-4o".into(),
        kind: ModelKind::Chat,
        context_tokens: 128_000,
        max_answer_tokens: 4096,
        price: Price::default(),
    };
    let target = Target {
        model: model.id,
        weight: 1,
    };
    let alias = Alias {
        name: "gpt-4o-mini".into(),
        shown: true,
        tiers: vec![vec![target]],
    };
    Catalogue::new(vec![spec], vec![model], vec![alias])
}

#[tokio::test]
async fn keys_take_turns_and_one_that_is_refused_rests() {
    let fake = fake().await;
    fake.accept_keys(&["sk-a", "sk-b"]);
    let gateway = Gateway::new(
        one_model(provider_with_keys(&fake, &["sk-a", "sk-b"])),
        Deadlines::default(),
    );
    let ask = async || gateway.answer(&request("hi"), &CancellationToken::new(), |_| {}).await;
    let keys = |fake: &FakeProvider| -> Vec<String> { fake.requests().iter().map(|one| one.key.clone()).collect() };
    for _ in 0..4 {
        let answer = ask().await;
        assert_eq!((answer.text.as_str(), answer.model_id.is_some()), ("Echo: hi", true));
    }
    assert_eq!(keys(&fake), ["sk-a", "sk-b", "sk-a", "sk-b"]);
    assert_eq!(fake.requests()[0].body["model"], "gpt-4o");
    fake.accept_keys(&["sk-b"]);
    let answer = ask().await;
    assert_eq!(
        (answer.text.as_str(), answer.attempts, answer.tries[0].status),
        ("Echo: hi", 2, Some(401))
    );
    let asked = fake.requests().len();
    for _ in 0..3 {
        assert_eq!(ask().await.attempts, 1);
    }
    assert_eq!(keys(&fake)[asked..], ["sk-b", "sk-b", "sk-b"]);
    let state = &gateway.states()[0].keys;
    assert!(state[0].rests_for.is_some() && state[1].rests_for.is_none());
    let cause = &state[0].last_failure.as_ref().unwrap().cause;
    assert!(!cause.contains("sk-"), "{cause}");
    // With new keys, what was known of the old ones is gone; the connection stays.
    gateway.replace(one_model(provider_with_keys(&fake, &["sk-b"])));
    assert!(gateway.states()[0].keys[0].rests_for.is_none());
    assert_eq!(ask().await.text, "Echo: hi");
}

#[tokio::test]
async fn headers_and_organisation_go_along_and_are_not_quoted() {
    let fake = fake().await;
    let mut spec = provider_with_keys(&fake, &["sk-fake"]);
    spec.headers = vec![("x-title".into(), "deck-secret-77".into())];
    spec.organisation = Some("org-1".into());
    let gateway = Gateway::new(one_model(spec), Deadlines::default());
    assert_eq!(
        gateway
            .answer(&request("hi"), &CancellationToken::new(), |_| {})
            .await
            .text,
        "Echo: hi"
    );
    let mut bad = provider_with_keys(&fake, &["sk-fake"]);
    bad.headers = vec![("not a name".into(), "deck-secret-77".into())];
    gateway.replace(one_model(bad));
    let answer = gateway.answer(&request("hi"), &CancellationToken::new(), |_| {}).await;
    let cause = answer.failure.unwrap().cause();
    assert!(cause.contains("header") && !cause.contains("deck-secret"), "{cause}");
}
