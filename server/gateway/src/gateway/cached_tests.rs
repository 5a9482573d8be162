//! Who is given whose answers.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures::{StreamExt, stream};

use super::*;
use crate::{CacheKey, CacheScope, ChunkStream, Provider, SharedCache, Turn, models_from};

/// Counts how often it is asked, and takes a second to answer; the first `fails` requests fail.
#[derive(Default)]
struct Counting {
    asked: AtomicUsize,
    fails: usize,
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
        let end = [Ok(Chunk::Finish("stop".into())), Ok(Chunk::Usage(used))];
        Ok(stream::iter(chunks.into_iter().chain(end)).boxed())
    }

    async fn probe(&self, _model: &str) -> Result<(), GatewayError> {
        Ok(())
    }
}

fn gateway(fails: usize) -> (Gateway, Arc<Counting>) {
    let provider = Arc::new(Counting {
        fails,
        ..Counting::default()
    });
    let catalogue = Catalogue::from_settings(provider.clone(), models_from(Some("gpt-4o-mini")));
    (Gateway::new(catalogue, Deadlines::default()), provider)
}

async fn ask(gateway: &Gateway, scope: Option<&str>) -> (Answer, Vec<String>) {
    let request = ChatRequest {
        model: "gpt-4o-mini".into(),
        messages: vec![Turn {
            role: Role::User,
            text: "Tell me".into(),
        }],
        max_tokens: 100,
        user: "u".into(),
    };
    let scope = scope.map(CacheScope::new);
    let mut seen = Vec::new();
    let nobody = CancellationToken::new();
    let answer = gateway
        .answer_cached(&request, scope.as_ref(), &nobody, |text| seen.push(text.to_owned()))
        .await;
    (answer, seen)
}

#[tokio::test(start_paused = true)]
async fn a_hit_is_replayed_as_a_stream_costs_nothing_and_says_so() {
    let (gateway, provider) = gateway(0);
    let (first, seen) = ask(&gateway, Some("bot")).await;
    assert!(!first.cached && first.cost > Money::ZERO);
    let (again, seen_again) = ask(&gateway, Some("bot")).await;
    assert_eq!((again.text, seen_again), (first.text, seen));
    assert!(again.cached && again.usage_reported);
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
        assert!(!ask(&gateway, scope).await.0.cached);
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
    assert!(!ask(&gateway, Some("bot")).await.0.cached, "a failure is not kept");
    assert!(ask(&gateway, Some("bot")).await.0.cached);
}

#[derive(Default)]
struct Memory(Mutex<HashMap<CacheKey, Vec<u8>>>);

#[async_trait]
impl SharedCache for Memory {
    async fn get(&self, key: &CacheKey) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    async fn put(&self, key: &CacheKey, value: Vec<u8>, _lifetime: Duration) {
        self.0.lock().unwrap().insert(*key, value);
    }
}

struct Hangs;

#[async_trait]
impl SharedCache for Hangs {
    async fn get(&self, _key: &CacheKey) -> Option<Vec<u8>> {
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
    let (answer, seen) = ask(&other, Some("bot")).await;
    assert!(answer.cached && answer.text == "Once upon" && seen.len() == 2);
    assert_eq!(never_asked.asked.load(Ordering::Relaxed), 0);
    let (slow, _) = gateway(0);
    slow.share_cache(Arc::new(Hangs));
    let (answer, _) = ask(&slow, Some("bot")).await;
    assert_eq!(
        (answer.text.as_str(), answer.total),
        ("Once upon", Duration::from_secs(1))
    );
}
