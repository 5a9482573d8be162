//! From target to target: who is asked after whom, for which reason, and what it costs.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use uuid::Uuid;

use super::*;
use crate::{
    Alias, BreakerState, ChunkStream, Endpoint, ForwardBody, Incoming, Outgoing, Provider, ProviderSpec, Turn,
};

type Script = Result<Vec<Result<Chunk, GatewayError>>, GatewayError>;

/// Answers by its scripts, then `ok`, and counts how often it is asked.
#[derive(Default)]
struct Scripted {
    scripts: Mutex<VecDeque<Script>>,
    hangs: bool,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(scripts: impl IntoIterator<Item = Script>) -> Arc<Self> {
        Arc::new(Self {
            scripts: Mutex::new(scripts.into_iter().collect()),
            ..Self::default()
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Provider for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    async fn stream(&self, _request: &ChatRequest) -> Result<ChunkStream, GatewayError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.hangs {
            return std::future::pending().await;
        }
        let script = self.scripts.lock().unwrap().pop_front();
        Ok(stream::iter(script.unwrap_or_else(|| Ok(said("ok")))?).boxed())
    }

    /// Of its scripts only the refusals.
    async fn forward(&self, _request: &Outgoing<'_>) -> Result<Incoming, GatewayError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(Err(error)) = self.scripts.lock().unwrap().pop_front() {
            return Err(error);
        }
        let answer = r#"{"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}]}"#;
        Ok(Incoming {
            content_type: "application/json".into(),
            hide_usage: false,
            body: stream::iter([Ok(Bytes::from_static(answer.as_bytes()))]).boxed(),
        })
    }

    async fn probe(&self, _model: &str) -> Result<(), GatewayError> {
        Ok(())
    }
}

fn used(prompt_tokens: i64, completion_tokens: i64) -> Chunk {
    Chunk::Usage(Usage {
        prompt_tokens,
        completion_tokens,
        ..Usage::default()
    })
}

fn said(text: &str) -> Vec<Result<Chunk, GatewayError>> {
    vec![
        Ok(Chunk::Text(text.into())),
        Ok(Chunk::Finish("stop".into())),
        Ok(used(10, 1)),
    ]
}

fn provider_id(at: usize) -> ProviderId {
    ProviderId(Uuid::from_u128(100 + at as u128))
}

fn model_id(at: usize) -> ModelId {
    ModelId(Uuid::from_u128(200 + at as u128))
}

/// Providers a, b, c…; model `alias` leads to `m` of each, one tier each; a token of the first costs 1 nano-dollar, of the
/// second 2…, and each reads twice as much as the one before.
fn catalogue(providers: &[&Arc<Scripted>]) -> Catalogue {
    let names = ["a", "b", "c"];
    let specs = (0..providers.len())
        .map(|at| ProviderSpec::named(provider_id(at), names[at], ProviderKind::OpenAi, "http://localhost/v1"));
    let models = (0..providers.len()).map(|at| ModelSpec {
        id: model_id(at),
        provider: provider_id(at),
        name: format!("m-{}", names[at]),
        kind: ModelKind::Chat,
        context_tokens: 1000 << at,
        max_answer_tokens: 50,
        price: Price {
            input: Money::from_nanos(1_000_000 * (at as i64 + 1)),
            output: Money::from_nanos(1_000_000 * (at as i64 + 1)),
            ..Price::default()
        },
    });
    let tiers = (0..providers.len()).map(|at| {
        vec![crate::Target {
            model: model_id(at),
            weight: 1,
        }]
    });
    let alias = Alias {
        name: "alias".into(),
        shown: true,
        tiers: tiers.collect(),
    };
    let mut catalogue = Catalogue::new(specs.collect(), models.collect(), vec![alias]);
    for (at, provider) in providers.iter().enumerate() {
        catalogue.given.insert(provider_id(at), (*provider).clone() as _);
    }
    catalogue
}

fn gateway(providers: &[&Arc<Scripted>]) -> Gateway {
    let rules = BreakerRules {
        in_a_row: 3,
        ..BreakerRules::default()
    };
    Gateway::with_rules(catalogue(providers), Deadlines::default(), rules)
}

fn request() -> ChatRequest {
    let turn = |role, text: &str| Turn {
        role,
        text: text.into(),
    };
    ChatRequest {
        model: "alias".into(),
        messages: vec![
            turn(Role::User, "first"),
            turn(Role::Assistant, "yes"),
            turn(Role::User, "now"),
        ],
        max_tokens: 100,
        user: "u".into(),
    }
}

async fn ask(gateway: &Gateway) -> Answer {
    gateway.answer(&request(), &CancellationToken::new(), |_| {}).await
}

fn ways(answer: &Answer) -> Vec<(&str, &str, Option<ErrorCode>)> {
    answer
        .tries
        .iter()
        .map(|one| (one.provider.as_str(), one.model.as_str(), one.code))
        .collect()
}

fn down() -> GatewayError {
    GatewayError::Down {
        status: Some(500),
        detail: "broken".into(),
        source: None,
    }
}

fn busy() -> GatewayError {
    GatewayError::Busy {
        retry_after: None,
        detail: "slow down".into(),
    }
}

fn auth() -> GatewayError {
    GatewayError::Auth {
        status: Some(401),
        detail: "no".into(),
    }
}

fn too_long() -> GatewayError {
    GatewayError::Context {
        status: Some(400),
        detail: "too long".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_target_answers_at_its_own_price_and_what_the_first_reported_is_billed_at_the_firsts() {
    let (a, b) = (
        Scripted::new([Ok(vec![Ok(used(100, 0)), Err(down())])]),
        Scripted::new([]),
    );
    let answer = ask(&gateway(&[&a, &b])).await;
    assert_eq!((answer.text.as_str(), answer.attempts), ("ok", 2));
    assert_eq!(
        ways(&answer),
        [("a", "m-a", Some(ErrorCode::AiDown)), ("b", "m-b", None)]
    );
    assert_eq!(answer.tries[0].status, Some(500));
    assert_eq!(answer.provider, "b");
    assert_eq!((answer.usage.prompt_tokens, answer.usage_reported), (110, true));
    assert_eq!(answer.cost.nanos(), 100 + 11 * 2);
    assert_eq!(answer.total, Duration::ZERO, "nobody waits before asking somebody else");
}

#[tokio::test(start_paused = true)]
async fn the_reason_decides_whether_another_is_asked() {
    for (error, code) in [
        (down(), ErrorCode::AiDown),
        (busy(), ErrorCode::AiBusy),
        (auth(), ErrorCode::AiAuth),
        (GatewayError::Timeout { what: "x" }, ErrorCode::AiTimeout),
        (too_long(), ErrorCode::AiContext),
    ] {
        let (a, b) = (Scripted::new([Err(error)]), Scripted::new([]));
        let answer = ask(&gateway(&[&a, &b])).await;
        assert_eq!(ways(&answer), [("a", "m-a", Some(code)), ("b", "m-b", None)]);
    }
    let filtered = || Ok(vec![Ok(Chunk::Finish("content_filter".into()))]);
    for (script, code) in [
        (filtered(), ErrorCode::AiEmpty),
        (Err(GatewayError::refused("no")), ErrorCode::AiRefused),
    ] {
        let (a, b) = (Scripted::new([script]), Scripted::new([]));
        let answer = ask(&gateway(&[&a, &b])).await;
        assert_eq!((ways(&answer), b.asked()), (vec![("a", "m-a", Some(code))], 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_provider_is_left_at_the_deadline_to_the_first_token() {
    let hangs = Arc::new(Scripted {
        hangs: true,
        ..Scripted::default()
    });
    let answer = ask(&gateway(&[&hangs, &Scripted::new([])])).await;
    assert_eq!((answer.text.as_str(), answer.total.as_secs()), ("ok", 20));
    assert_eq!(answer.first_token, Some(Duration::from_secs(20)));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_for_the_largest_is_made_shorter() {
    let (a, b) = (Scripted::new([Err(too_long())]), Scripted::new([Err(too_long())]));
    let answer = ask(&gateway(&[&a, &b])).await;
    let asked: Vec<&str> = ways(&answer).iter().map(|(provider, ..)| *provider).collect();
    assert_eq!((asked, answer.text.as_str()), (vec!["a", "b", "b"], "ok"));
}

#[tokio::test(start_paused = true)]
async fn what_was_too_long_for_a_model_is_not_asked_of_it_again_where_there_is_a_larger_one() {
    let (a, b) = (Scripted::new([Err(too_long())]), Scripted::new([]));
    let gateway = gateway(&[&a, &b]);
    let nobody = CancellationToken::new();
    let too_long = Some(ErrorCode::AiContext);
    let first = ask(&gateway).await;
    assert_eq!(ways(&first), [("a", "m-a", too_long), ("b", "m-b", None)]);
    assert_eq!(ways(&ask(&gateway).await), [("b", "m-b", None)]);
    let mut shorter = request();
    shorter.messages.drain(..2);
    let answer = gateway.answer(&shorter, &nobody, |_| {}).await;
    assert_eq!(ways(&answer), [("a", "m-a", None)]);
    // Rather that one than nobody; and since it has answered, it is asked again.
    b.scripts.lock().unwrap().push_back(Err(down()));
    let answer = ask(&gateway).await;
    assert_eq!(
        ways(&answer),
        [("b", "m-b", Some(ErrorCode::AiDown)), ("a", "m-a", None)]
    );
    assert_eq!(ways(&ask(&gateway).await), [("a", "m-a", None)]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_can_stand_in_for_is_asked_however_long_the_question() {
    let a = Scripted::new([Err(too_long())]);
    let gateway = gateway(&[&a]);
    for asked in [2, 3] {
        assert_eq!(ask(&gateway).await.text, "ok");
        assert_eq!(a.asked(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_attempt_before_the_last_is_not_billed_and_can_be_seen() {
    let hangs = Arc::new(Scripted {
        hangs: true,
        ..Scripted::default()
    });
    let answer = ask(&gateway(&[&hangs, &Scripted::new([])])).await;
    let late = Some(ErrorCode::AiTimeout);
    assert_eq!(ways(&answer), [("a", "m-a", late), ("b", "m-b", None)]);
    assert_eq!(answer.tries[0].took.as_secs(), 20);
    assert_eq!((answer.usage.prompt_tokens, answer.cost.nanos()), (10, 11 * 2));
}

#[tokio::test(start_paused = true)]
async fn after_text_nobody_else_is_asked() {
    let begun = Ok(vec![Ok(Chunk::Text("Half".into())), Err(down())]);
    let (a, b) = (Scripted::new([begun]), Scripted::new([]));
    let answer = ask(&gateway(&[&a, &b])).await;
    assert_eq!(
        (&answer.finish, answer.text.as_str(), b.asked()),
        (&Finish::Cut, "Half", 0)
    );
}

#[tokio::test(start_paused = true)]
async fn when_all_have_failed_the_last_is_asked_once_more() {
    let failing = || Scripted::new((0..9).map(|_| Err(down())));
    let (a, b) = (failing(), failing());
    let answer = ask(&gateway(&[&a, &b])).await;
    assert_eq!((a.asked(), b.asked()), (1, 2));
    assert_eq!(answer.failure.unwrap().code(), ErrorCode::AiDown);
}

#[tokio::test(start_paused = true)]
async fn a_sick_provider_is_left_alone_until_a_probe_finds_it_well() {
    let (a, b) = (Scripted::new((0..3).map(|_| Err(down()))), Scripted::new([]));
    let gateway = gateway(&[&a, &b]);
    for _ in 0..10 {
        assert_eq!(ask(&gateway).await.provider, "b");
    }
    assert_eq!(a.asked(), 3);
    let state = &gateway.states()[0];
    assert_eq!((state.name.as_str(), state.state), ("a", BreakerState::Open));
    let last = state.last_failure.as_ref().unwrap();
    assert_eq!(last.code, ErrorCode::AiDown);
    assert_eq!(gateway.states()[1].state, BreakerState::Closed);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(ask(&gateway).await.provider, "a");
    assert_eq!(gateway.states()[0].state, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn with_nobody_else_each_question_asks_a_sick_provider_once_and_its_recovery_is_seen_at_once() {
    let a = Scripted::new((0..11).map(|_| Err(down())));
    let gateway = gateway(&[&a]);
    for n in 0..10 {
        let answer = ask(&gateway).await;
        assert_eq!(answer.failure.as_ref().unwrap().code(), ErrorCode::AiDown);
        assert_eq!(answer.cost, Money::ZERO);
        assert_eq!(
            answer.total.is_zero(),
            n > 0,
            "a pause before an attempt that will not be made"
        );
    }
    assert_eq!(a.asked(), 11, "a second attempt only until the breaker opened");
    assert_eq!(gateway.states()[0].state, BreakerState::Open);
    assert_eq!(ask(&gateway).await.text, "ok");
    assert_eq!(gateway.states()[0].state, BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_program_does_not_wait_for_a_second_attempt_that_will_not_be_made() {
    let a = Scripted::new((0..11).map(|_| Err(down())));
    let gateway = gateway(&[&a]);
    let nobody = CancellationToken::new();
    let call = || Forward {
        endpoint: Endpoint::Chat,
        alias: "alias".into(),
        body: ForwardBody::Json(Bytes::from_static(br#"{"model":"alias"}"#)),
        stream: false,
        bound: None,
        tokens: 10,
        images: 0,
        spoken: 0,
        cache: None,
    };
    for n in 0..10 {
        let failed = gateway.forward(call(), &nobody).await.err().unwrap();
        assert_eq!(failed.error.code(), ErrorCode::AiDown);
        let outcome = failed.outcome;
        let waits = n == 0;
        assert_eq!(
            (outcome.tries.len(), outcome.total.is_zero()),
            (1 + usize::from(waits), !waits),
            "{n}"
        );
    }
    assert_eq!(a.asked(), 11, "a second attempt only until the breaker opened");
    assert!(gateway.forward(call(), &nobody).await.is_ok(), "it is well again");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_provider_that_is_known_to_hang() {
    let hangs = Arc::new(Scripted {
        hangs: true,
        ..Scripted::default()
    });
    let gateway = gateway(&[&hangs]);
    for _ in 0..3 {
        assert_eq!(ask(&gateway).await.total.as_secs(), 20);
    }
    let answer = ask(&gateway).await;
    assert_eq!(answer.failure.unwrap().code(), ErrorCode::AiTimeout);
    assert!(answer.total.is_zero());
}

#[tokio::test(start_paused = true)]
async fn what_another_replica_found_out_holds_here() {
    let (a, b) = (Scripted::new([]), Scripted::new([]));
    let gateway = gateway(&[&a, &b]);
    gateway.share_breakers(&[SharedBreaker {
        provider: provider_id(0),
        key: None,
        open_for: Duration::from_secs(9),
        code: ErrorCode::AiDown,
    }]);
    assert_eq!(ask(&gateway).await.provider, "b");
    gateway.share_breakers(&[]);
    assert_eq!(ask(&gateway).await.provider, "a");
}

#[tokio::test(start_paused = true)]
async fn another_catalogue_holds_from_the_next_question_and_keeps_what_is_known() {
    let (a, b) = (Scripted::new((0..3).map(|_| Err(down()))), Scripted::new([]));
    let gateway = gateway(&[&a, &b]);
    for _ in 0..3 {
        ask(&gateway).await;
    }
    let mut dearer = catalogue(&[&a, &b]);
    let mut model = (*dearer.models[1]).clone();
    model.price.input = Money::from_nanos(7_000_000);
    dearer.models[1] = Arc::new(model);
    gateway.replace(dearer);
    let answer = ask(&gateway).await;
    assert_eq!((answer.provider.as_str(), answer.cost.nanos()), ("b", 10 * 7 + 2));
    assert_eq!(a.asked(), 3, "its breaker is open still");
    let mut disabled = catalogue(&[&a, &b]);
    disabled.providers[1].enabled = false;
    gateway.replace(disabled);
    assert_eq!(ask(&gateway).await.provider, "a", "there is nobody else");
    gateway.replace(Catalogue::default());
    assert!(gateway.models().is_empty() && gateway.states().is_empty());
    assert_eq!(ask(&gateway).await.failure.unwrap().code(), ErrorCode::AiRefused);
}

#[tokio::test(start_paused = true)]
async fn a_tier_is_split_by_weight_and_its_others_stand_in() {
    let (a, b) = (Scripted::new([]), Scripted::new([]));
    let mut split = catalogue(&[&a, &b]);
    let target = |at, weight| crate::Target {
        model: model_id(at),
        weight,
    };
    split.aliases[0].tiers = vec![vec![target(0, 1), target(1, 3)]];
    let gateway = gateway(&[&a, &b]);
    gateway.replace(split.clone());
    for _ in 0..1000 {
        ask(&gateway).await;
    }
    assert!((170..330).contains(&a.asked()), "{} of 1000", a.asked());
    split.aliases[0].tiers = vec![vec![target(0, 0), target(1, 1)]];
    gateway.replace(split);
    let before = a.asked();
    for _ in 0..100 {
        ask(&gateway).await;
    }
    assert_eq!(a.asked(), before);
    b.scripts.lock().unwrap().push_back(Err(down()));
    assert_eq!(ask(&gateway).await.provider, "a");
}

#[tokio::test(start_paused = true)]
async fn an_alias_is_offered_with_sizes_that_fit_and_no_price_that_is_too_low() {
    let (a, b) = (Scripted::new([]), Scripted::new([]));
    let gateway = gateway(&[&a, &b]);
    let model = gateway.default_model();
    assert_eq!((model.name.as_str(), model.context_tokens), ("alias", 1000));
    assert_eq!(model.input_per_million.nanos(), 2_000_000);
    let mut hidden = catalogue(&[&a, &b]);
    hidden.aliases[0].shown = false;
    gateway.replace(hidden.clone());
    assert!(gateway.models().is_empty() && gateway.model("alias").is_some());
    assert!(gateway.names().is_empty());
    // Nobody offers an embedding model to people; programs are told of it all the same.
    for model in &mut hidden.models {
        Arc::make_mut(model).kind = ModelKind::Embedding;
    }
    gateway.replace(hidden);
    assert_eq!(gateway.names(), ["alias"]);
}
