//! Similar first questions: the same story where the database compares them and where each process does.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::TimeDelta;
use domain::{BotCache, ComparedBy, ModelId, ModelKind, Price, ProviderId, ProviderKeyId, Sharing};
use gateway::{
    Alias, Answer, CacheHit, Catalogue, Deadlines, Gateway, KeySpec, ModelSpec, ProviderKind, ProviderSpec, Target,
};
use services::{Begin, Ended, Services};
use test_support::FakeProvider;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    app::{App, MODEL, rich},
    database::TestDatabase,
};

/// By which the questions of these tests are compared: each says itself where it points.
const EMBEDDER: &str = "embed";

#[tokio::test]
async fn the_database_finds_similar_questions_where_it_has_pgvector() {
    story(TestDatabase::with_pgvector().await, ComparedBy::Database).await;
}

#[tokio::test]
async fn a_process_finds_similar_questions_where_the_database_has_no_pgvector() {
    story(TestDatabase::without_vectors().await, ComparedBy::Process).await;
}

async fn story(test: TestDatabase, by: ComparedBy) {
    assert_eq!(test.compared_by(), by);
    let deck = Deck::new(test).await;
    let other = deck.app.process_asking_by(deck.gateway()).await;
    let one = &deck.app;
    let shared = cache(Sharing::Shared);

    assert_eq!(deck.ask(one, "why [[vector=1,0]]", &shared).await, None);
    assert_eq!(deck.looks().await, [], "there was nothing yet");
    // One that is like it enough, one that is not quite, and one that is not at all and therefore not even noted.
    let hit = deck.ask(one, "but why [[vector=0.96,0.28]]", &shared).await;
    assert_eq!(hit.as_deref(), Some("Echo: why [[vector=1,0]]"));
    assert_eq!(deck.ask(one, "why not [[vector=0.9,0.43588989]]", &shared).await, None);
    assert_eq!(deck.ask(one, "what else [[vector=-0.6,0.8]]", &shared).await, None);
    assert_eq!(deck.looks().await, [(960, true), (900, false)]);
    // The nearest of them, whatever came when; and of two that are as near the newer one.
    let hit = deck.ask(one, "nearly not [[vector=1.8,0.9]]", &shared).await;
    assert_eq!(hit.as_deref(), Some("Echo: why not [[vector=0.9,0.43588989]]"));
    assert_eq!(deck.ask(one, "left [[vector=-0.28,-0.96]]", &shared).await, None);
    assert_eq!(deck.ask(one, "right [[vector=0.28,-0.96]]", &shared).await, None);
    let hit = deck.ask(one, "between [[vector=0,-1]]", &shared).await;
    assert_eq!(hit.as_deref(), Some("Echo: right [[vector=0.28,-0.96]]"));
    let looks = deck.looks().await;
    assert_eq!(looks[2..], [(999, true), (843, false), (960, true)]);
    // One of another length, and one in another space, are compared with nothing.
    assert_eq!(deck.ask(one, "in space [[vector=1,0,0]]", &shared).await, None);
    let own = cache(Sharing::User);
    assert_eq!(deck.ask(one, "for me alone [[vector=1,0]]", &own).await, None);
    assert_eq!(deck.looks().await, looks);

    // Another replica knows what this one has written, and in the database at once.
    let hit = deck.ask(&other, "and why [[vector=2,0]]", &shared).await;
    assert_eq!(hit.as_deref(), Some("Echo: why [[vector=1,0]]"));
    if by == ComparedBy::Database {
        assert_eq!(deck.ask(one, "said here [[vector=-1,0]]", &shared).await, None);
        let hit = deck.ask(&other, "asked there [[vector=-2,0]]", &shared).await;
        assert_eq!(hit.as_deref(), Some("Echo: said here [[vector=-1,0]]"));
    }

    // After its time an answer is given no more, also before it is tidied away.
    deck.app
        .clock
        .advance(TimeDelta::seconds(shared.kept_for.seconds().into()));
    let before = deck.looks().await.len();
    assert_eq!(deck.ask(one, "why again [[vector=1,0]]", &shared).await, None);
    assert_eq!(deck.looks().await.len(), before);
    deck.app.similar().tidy().await.unwrap();
    assert_eq!(deck.app.test.count("similar_answers").await, 1);
    if by == ComparedBy::Database {
        assert_eq!(deck.app.test.count("similar_directions").await, 1);
    }
}

fn cache(sharing: Sharing) -> BotCache {
    BotCache {
        sharing,
        similar_by: Some(EMBEDDER.to_owned()),
        ..BotCache::default()
    }
}

struct Deck {
    app: App,
    provider: FakeProvider,
    next_user: AtomicI64,
}

impl Deck {
    async fn new(test: TestDatabase) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let provider = FakeProvider::start().await.unwrap();
        provider.offer_models(&[MODEL, EMBEDDER]);
        Self {
            app: App::asking_by(test, gateway(&provider)).await,
            provider,
            next_user: 100.into(),
        }
    }

    fn gateway(&self) -> Gateway {
        gateway(&self.provider)
    }

    /// Somebody new asks that; the answer, where it was another question's.
    async fn ask(&self, services: &Services, text: &str, cache: &BotCache) -> Option<String> {
        let user = self.next_user.fetch_add(1, Ordering::Relaxed);
        let (job, incoming) = self.app.job(user, user, text).await;
        let chats = services.chats();
        let known = chats.meet(&incoming).await.unwrap();
        let Begin::Ask(mut question) = chats.begin(&job, &incoming, &known, "", None).await.unwrap() else {
            panic!("{text} was not let through");
        };
        let nobody = CancellationToken::new();
        let answer: Answer = chats
            .answer(&incoming, &known, &mut question, cache, &nobody, |_| {})
            .await;
        assert!(answer.failure.is_none(), "{answer:?}");
        let bodies = [rich(&answer.text)];
        let settled = chats.settle(&job, &incoming, &known, &question, &answer, &bodies).await;
        assert!(settled.unwrap() && services.queue().end(&job, Ended::Done).await.unwrap());
        self.app.clock.advance(TimeDelta::seconds(1));
        (answer.cached == Some(CacheHit::Semantic)).then_some(answer.text)
    }

    /// How near the nearest question was in thousandths, and whether its answer was given.
    async fn looks(&self) -> Vec<(i32, bool)> {
        sqlx::query_as("SELECT likeness, hit FROM similar_looks ORDER BY at")
            .fetch_all(self.app.test.pool())
            .await
            .unwrap()
    }
}

fn gateway(provider: &FakeProvider) -> Gateway {
    let id = ProviderId(Uuid::from_u128(7));
    let spec = ProviderSpec {
        keys: vec![KeySpec {
            id: ProviderKeyId(Uuid::from_u128(8)),
            secret: test_support::fake_provider::DEFAULT_KEY.to_owned().into(),
        }],
        ..ProviderSpec::named(id, "fake", ProviderKind::OpenAi, &provider.url())
    };
    let kinds = [(MODEL, ModelKind::Chat), (EMBEDDER, ModelKind::Embedding)];
    let models = kinds.iter().enumerate().map(|(at, (name, kind))| ModelSpec {
        id: ModelId(Uuid::from_u128(at as u128 + 1)),
        provider: id,
        name: (*name).to_owned(),
        kind: *kind,
        context_tokens: 32_000,
        max_answer_tokens: 1000,
        price: Price::default(),
    });
    let models: Vec<ModelSpec> = models.collect();
    let aliases = models.iter().map(|model| Alias {
        name: model.name.clone(),
        shown: true,
        tiers: vec![vec![Target {
            model: model.id,
            weight: 1,
        }]],
    });
    let aliases = aliases.collect();
    Gateway::new(Catalogue::new(vec![spec], models, aliases), Deadlines::default())
}
