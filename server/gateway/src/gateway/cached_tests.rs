//! Who is given whose answers.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures::{StreamExt, stream};

use super::*;
use crate::{
    Alias, AnswerBound, CacheKey, CacheScope, ChunkStream, Endpoint, Forward, ForwardBody, ModelSpec, Provider,
    ProviderSpec, SharedCache, Similar, Turn, cache, models_from,
};

/// Counts how often it is asked, and takes a second to answer; the first `fails` requests fail.
#[derive(Default)]
struct Counting {
    asked: AtomicUsize,
    fails: usize,
    /// With what it ends; `stop` where nothing is said.
    finish: Option<&'static str>,
}

#[async_trait]
impl Provider for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    async fn stream(&self, _request: &ChatRequest) -> Result<ChunkStream, GatewayError> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
        if asked < self.fails {
            return Err(GatewayError::refused("no"));
        }
        let chunks = ["Once ", "upon"].map(|text| Ok(Chunk::Text(text.into())));
        let used = Usage {
            prompt_tokens: 5,
            completion_tokens: 2,
            ..Usage::default()
        };
        let end = [
            Ok(Chunk::Finish(self.finish.unwrap_or("stop").into())),
            Ok(Chunk::Usage(used)),
        ];
        Ok(stream::iter(chunks.into_iter().chain(end)).boxed())
    }

    async fn probe(&self, _model: &str) -> Result<(), GatewayError> {
        Ok(())
    }
}

fn gateway(fails: usize) -> (Gateway, Arc<Counting>) {
    asking(Counting {
        fails,
        ..Counting::default()
    })
}

fn asking(provider: Counting) -> (Gateway, Arc<Counting>) {
    let provider = Arc::new(provider);
    let catalogue = Catalogue::from_settings(provider.clone(), models_from(Some("gpt-4o-mini")));
    (Gateway::new(catalogue, Deadlines::default()), provider)
}

const HOUR: Duration = Duration::from_secs(3600);

fn scope(tenant: &str) -> CacheScope {
    CacheScope::new(tenant, HOUR)
}

fn question(text: &str) -> ChatRequest {
    ChatRequest {
        model: "gpt-4o-mini".into(),
        messages: vec![Turn {
            role: Role::User,
            text: text.into(),
        }],
        max_tokens: 100,
        user: "u".into(),
    }
}

async fn ask(gateway: &Gateway, tenant: Option<&str>) -> (Answer, Vec<String>) {
    let mut seen = Vec::new();
    let (request, scope, nobody) = (question("Tell me"), tenant.map(scope), CancellationToken::new());
    let answer = gateway
        .answer_cached(&request, scope.as_ref(), async { None }, &nobody, |text| {
            seen.push(text.to_owned());
        })
        .await;
    (answer, seen)
}

#[tokio::test(start_paused = true)]
async fn a_hit_is_replayed_as_a_stream_costs_nothing_and_says_so() {
    let (gateway, provider) = gateway(0);
    let (first, seen) = ask(&gateway, Some("bot")).await;
    assert!(first.cached.is_none() && first.cost > Money::ZERO);
    let (again, seen_again) = ask(&gateway, Some("bot")).await;
    assert_eq!((again.text, seen_again), (first.text, seen));
    assert_eq!((again.cached, again.usage_reported), (Some(CacheHit::Exact), true));
    assert_eq!(
        (again.cost, again.usage, again.finish),
        (Money::ZERO, Usage::default(), first.finish)
    );
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_question_of_another_is_a_miss_and_without_a_scope_nothing_is_kept() {
    let (gateway, provider) = gateway(0);
    for scope in [Some("anna"), Some("bob"), None, None] {
        assert!(ask(&gateway, scope).await.0.cached.is_none());
    }
    assert_eq!(provider.asked.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn equal_questions_at_once_are_asked_once() {
    let (gateway, provider) = gateway(0);
    let answers = futures::future::join_all((0..20).map(|_| ask(&gateway, Some("bot")))).await;
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1);
    let paid = answers.iter().filter(|(answer, _)| answer.cost > Money::ZERO).count();
    assert!(
        paid == 1
            && answers
                .iter()
                .all(|(answer, seen)| answer.text == "Once upon" && seen.len() == 2)
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_one_that_fails_asks_for_himself() {
    let (gateway, provider) = gateway(1);
    let answers = futures::future::join_all((0..3).map(|_| ask(&gateway, Some("bot")))).await;
    let failed = answers.iter().filter(|(answer, _)| answer.failure.is_some()).count();
    assert_eq!((failed, provider.asked.load(Ordering::Relaxed)), (1, 3));
    assert!(
        ask(&gateway, Some("bot")).await.0.cached.is_none(),
        "a failure is not kept"
    );
    assert!(ask(&gateway, Some("bot")).await.0.cached.is_some());
}

#[derive(Default)]
struct Memory(Mutex<HashMap<CacheKey, (Vec<u8>, Instant)>>);

#[async_trait]
impl SharedCache for Memory {
    async fn get(&self, key: &CacheKey) -> Option<(Vec<u8>, Duration)> {
        let (value, until) = self.0.lock().unwrap().get(key).cloned()?;
        Some((value, until.checked_duration_since(Instant::now())?))
    }

    async fn put(&self, key: &CacheKey, value: Vec<u8>, lifetime: Duration) {
        self.0.lock().unwrap().insert(*key, (value, Instant::now() + lifetime));
    }
}

struct Hangs;

#[async_trait]
impl SharedCache for Hangs {
    async fn get(&self, _key: &CacheKey) -> Option<(Vec<u8>, Duration)> {
        std::future::pending().await
    }

    async fn put(&self, _key: &CacheKey, _value: Vec<u8>, _lifetime: Duration) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_share_what_they_were_told_and_nobody_waits_for_a_cache_that_hangs() {
    let memory = Arc::<Memory>::default();
    let ((one, _), (other, never_asked)) = (gateway(0), gateway(0));
    one.share_cache(memory.clone());
    other.share_cache(memory);
    ask(&one, Some("bot")).await;
    // What one replica tells the other is on nobody's way.
    sleep(HOUR / 2).await;
    let (answer, seen) = ask(&other, Some("bot")).await;
    assert!(answer.cached.is_some() && answer.text == "Once upon" && seen.len() == 2);
    assert_eq!(never_asked.asked.load(Ordering::Relaxed), 0);
    // It holds there no longer than where it was made.
    sleep(HOUR / 2).await;
    assert!(ask(&other, Some("bot")).await.0.cached.is_none());
    let (slow, _) = gateway(0);
    slow.share_cache(Arc::new(Hangs));
    let (answer, _) = ask(&slow, Some("bot")).await;
    assert_eq!(
        (answer.text.as_str(), answer.total),
        ("Once upon", Duration::from_secs(1))
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_with_its_time_and_one_that_was_cut_short_is_not_kept() {
    let (gateway, provider) = gateway(0);
    ask(&gateway, Some("bot")).await;
    sleep(HOUR - Duration::from_secs(2)).await;
    assert!(ask(&gateway, Some("bot")).await.0.cached.is_some());
    sleep(Duration::from_secs(3)).await;
    assert!(ask(&gateway, Some("bot")).await.0.cached.is_none());
    assert_eq!(provider.asked.load(Ordering::Relaxed), 2);
    for finish in ["length", "content_filter"] {
        let (gateway, provider) = asking(Counting {
            finish: Some(finish),
            ..Counting::default()
        });
        ask(&gateway, Some("bot")).await;
        assert!(ask(&gateway, Some("bot")).await.0.cached.is_none());
        assert_eq!(provider.asked.load(Ordering::Relaxed), 2, "{finish}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_one_who_asks_leaves_another_takes_his_place() {
    let (gateway, provider) = gateway(0);
    let first = tokio::spawn({
        let gateway = gateway.clone();
        async move { ask(&gateway, Some("bot")).await }
    });
    // It is to be the first who asks.
    tokio::task::yield_now().await;
    let others = futures::future::join_all((0..5).map(|_| ask(&gateway, Some("bot"))));
    let leave = async {
        sleep(Duration::from_millis(500)).await;
        first.abort();
    };
    let (answers, ()) = futures::future::join(others, leave).await;
    assert_eq!(provider.asked.load(Ordering::Relaxed), 2);
    let paid = answers.iter().filter(|(answer, _)| answer.cached.is_none()).count();
    assert!(paid == 1 && answers.iter().all(|(answer, _)| answer.text == "Once upon"));
}

#[tokio::test(start_paused = true)]
async fn a_similar_answer_is_given_to_all_who_ask_at_once_and_kept_for_nobody() {
    let (gateway, provider) = gateway(0);
    let (request, scope, nobody) = (question("Tell me"), scope("bot"), CancellationToken::new());
    let looked = AtomicUsize::new(0);
    let similar = || async {
        looked.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(100)).await;
        Some(Similar {
            text: "Long ago".into(),
            provider: "counting".into(),
            model_id: None,
        })
    };
    let ask_both = (0..2).map(|_| gateway.answer_cached(&request, Some(&scope), similar(), &nobody, |_| {}));
    for answer in futures::future::join_all(ask_both).await {
        assert_eq!((answer.text.as_str(), answer.cost), ("Long ago", Money::ZERO));
        assert_eq!(answer.cached, Some(CacheHit::Semantic));
    }
    assert_eq!(
        (looked.load(Ordering::Relaxed), provider.asked.load(Ordering::Relaxed)),
        (1, 0)
    );
    assert!(ask(&gateway, Some("bot")).await.0.cached.is_none());
}

fn target() -> (ProviderSpec, ModelSpec) {
    let provider = ProviderSpec::named(ProviderId(uuid::Uuid::nil()), "p", ProviderKind::OpenAi, "http://a/v1");
    let model = ModelSpec {
        id: ModelId(uuid::Uuid::from_u128(7)),
        provider: provider.id,
        name: "gpt".into(),
        kind: ModelKind::Chat,
        context_tokens: 1000,
        max_answer_tokens: 100,
        price: Price::default(),
    };
    (provider, model)
}

/// Where only this leads to under both names.
fn leading_to((provider, model): (ProviderSpec, ModelSpec)) -> Gateway {
    let aliases = ["gpt-4o-mini", "other"].map(|name| Alias {
        name: name.into(),
        shown: true,
        tiers: vec![vec![crate::Target {
            model: model.id,
            weight: 1,
        }]],
    });
    Gateway::new(
        Catalogue::new(vec![provider], vec![model], aliases.into()),
        Deadlines::default(),
    )
}

#[test]
fn whatever_can_change_the_answer_changes_the_key() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = |scope: &CacheScope, request: &ChatRequest, target| {
        let live = leading_to(target).live();
        cache::key(scope, request, live.route(&request.model, ModelKind::Chat).unwrap())
    };
    let first = key(&scope("bot"), &question("hi"), target());
    let same = ChatRequest {
        user: "bob".into(),
        ..question("hi")
    };
    assert_eq!(first, key(&scope("bot"), &same, target()));
    let mut dearer = target();
    dearer.1.price.input = Money::from_nanos(1);
    dearer.0.name = "renamed".into();
    assert_eq!(first, key(&scope("bot"), &same, dearer));
    let mut system = question("hi");
    system.messages[0].role = Role::System;
    let mut two = question("h");
    two.messages.push(Turn {
        role: Role::User,
        text: "i".into(),
    });
    let (mut named, mut longer) = (question("hi"), question("hi"));
    named.model = "other".into();
    longer.max_tokens += 1;
    for other in [question("hi "), system, two, named, longer] {
        assert_ne!(first, key(&scope("bot"), &other, target()));
    }
    assert_ne!(first, key(&scope("other"), &question("hi"), target()));
    assert_ne!(first, key(&CacheScope::new("bot", HOUR * 2), &question("hi"), target()));
    let changes: [fn(&mut (ProviderSpec, ModelSpec)); 5] = [
        |target| target.0.base_url = "http://b/v1".into(),
        |target| target.0.organisation = Some("o".into()),
        |target| target.0.headers.push(("x-team".into(), "a".into())),
        |target| target.1.name = "gpt-next".into(),
        |target| target.1.id = ModelId(uuid::Uuid::from_u128(8)),
    ];
    for change in changes {
        let mut other = target();
        change(&mut other);
        assert_ne!(first, key(&scope("bot"), &question("hi"), other));
    }
}

#[test]
fn a_call_of_a_program_is_kept_by_its_whole_body() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let live = leading_to(target()).live();
    let route = live.route("gpt-4o-mini", ModelKind::Chat).unwrap();
    let call = |endpoint, body: &'static str, bound| Forward {
        endpoint,
        alias: "gpt-4o-mini".into(),
        body: ForwardBody::Json(body.into()),
        stream: false,
        bound,
        tokens: 1,
        images: 0,
        spoken: 0,
        cache: None,
    };
    let key = |call: Forward| cache::forward_key(&scope("key"), &call, route);
    let first = key(call(Endpoint::Chat, "{}", None));
    assert!(first.is_some());
    assert_eq!(first, key(call(Endpoint::Chat, "{}", None)));
    for other in [
        call(Endpoint::Chat, r#"{"temperature":0}"#, None),
        call(
            Endpoint::Chat,
            "{}",
            Some(AnswerBound {
                tokens: 0,
                is_budget: false,
            }),
        ),
        call(Endpoint::Embeddings, "{}", None),
    ] {
        assert_ne!(first, key(other));
    }
    for never in [Endpoint::Responses, Endpoint::Images, Endpoint::Speech] {
        assert_eq!(key(call(never, "{}", None)), None);
    }
    let form = Forward {
        body: ForwardBody::Form(Vec::new()),
        ..call(Endpoint::Chat, "", None)
    };
    assert_eq!(key(form), None);
}

#[test]
fn only_first_questions_are_similar_and_only_where_all_else_is_the_same() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let live = leading_to(target()).live();
    let route = live.route("gpt-4o-mini", ModelKind::Chat).unwrap();
    let told = |persona: &str, text: &str| {
        let mut request = question(text);
        let system = Turn {
            role: Role::System,
            text: persona.into(),
        };
        request.messages.insert(0, system);
        request
    };
    let space = |request: &ChatRequest, by: &str| cache::space(&scope("bot"), request, route, (by, route));
    let first = space(&told("kind", "hi"), "e");
    assert!(first.is_some());
    assert_eq!(first, space(&told("kind", "hello there"), "e"));
    assert_ne!(first, space(&told("rude", "hi"), "e"));
    assert_ne!(first, space(&told("kind", "hi"), "another"));
    let mut later = told("kind", "hi");
    later.messages.insert(
        1,
        Turn {
            role: Role::Assistant,
            text: "yes?".into(),
        },
    );
    assert_eq!(space(&later, "e"), None);
}

#[test]
fn a_name_that_leads_to_different_models_compares_nothing() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (provider, model) = target();
    let embeds = |number: u128, name: &str| ModelSpec {
        id: ModelId(uuid::Uuid::from_u128(number)),
        name: name.into(),
        kind: ModelKind::Embedding,
        ..model.clone()
    };
    let models = vec![model.clone(), embeds(8, "e"), embeds(9, "e"), embeds(10, "f")];
    let alias = |name: &str, numbers: &[u128]| Alias {
        name: name.into(),
        shown: true,
        tiers: numbers
            .iter()
            .map(|number| {
                vec![crate::Target {
                    model: ModelId(uuid::Uuid::from_u128(*number)),
                    weight: 1,
                }]
            })
            .collect(),
    };
    let aliases = vec![
        alias("gpt-4o-mini", &[7]),
        alias("same", &[8, 9]),
        alias("mixed", &[8, 10]),
    ];
    let gateway = Gateway::new(Catalogue::new(vec![provider], models, aliases), Deadlines::default());
    assert_eq!(gateway.embedders(), ["same"]);
    let space = |by: &str| gateway.similarity_space(&scope("bot"), &question("hi"), by);
    assert!(space("same").is_some() && space("mixed").is_none());
}
