//! A deck whose workers a test starts, stops and cuts off.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bot::{Directory, Runtime};
use domain::{
    BotId, Permission, Role, StaffId,
    views::{Author, PlaygroundMessage},
};
use futures::{StreamExt, stream};
use gateway::{Catalogue, ChatRequest, Chunk, ChunkStream, Deadlines, Gateway, GatewayError, Provider, models_from};
use jobs::RunnerSettings;
use repositories::staff::{self, Staff};
use services::{Actor, KeyRing, Origin, Parts, RateLimiter, Services, SystemClock};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::database::TestDatabase;

pub const PLAYGROUND: BotId = BotId(uuid::Uuid::from_u128(0x01930000_0000_7000_8000_0000000000b0));

/// Answers `Echo: …`; to `wait …` it says `Once upon` and no more until it is let go; at `panic` it panics.
#[derive(Clone)]
pub struct Script {
    asked: Arc<Mutex<Vec<String>>>,
    go_on: Arc<Semaphore>,
}

impl Script {
    /// The questions, in the order in which they came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// In how many processes somebody still works with it, the test's own included.
    pub fn processes(&self) -> usize {
        Arc::strong_count(&self.asked) - 1
    }

    /// Lets one that waits go on to its end.
    pub fn go_on(&self) {
        self.go_on.add_permits(1);
    }
}

#[async_trait]
impl Provider for Script {
    fn name(&self) -> &str {
        "script"
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChunkStream, GatewayError> {
        let question = request.messages.last().unwrap().text.clone();
        let times = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(question.clone());
            asked.iter().filter(|one| **one == question).count()
        };
        assert!(question != "panic", "as it was told");
        let finish = |text: String| stream::iter([Ok(Chunk::Text(text)), Ok(Chunk::Finish("stop".to_owned()))]);
        // Whoever asks again does not wait again.
        if question.starts_with("wait") && times == 1 {
            let go_on = self.go_on.clone();
            let begun = stream::iter([Ok(Chunk::Text("Once upon".to_owned()))]);
            let rest = stream::once(async move {
                go_on.acquire().await.unwrap().forget();
                Ok(Chunk::Finish("stop".to_owned()))
            });
            return Ok(begun.chain(rest).boxed());
        }
        Ok(finish(format!("Echo: {question}")).boxed())
    }

    async fn probe(&self, _model: &str) -> Result<(), GatewayError> {
        Ok(())
    }
}

pub struct Deck {
    pub test: TestDatabase,
    pub services: Services,
    pub script: Script,
    http: reqwest::Client,
}

pub struct Worker {
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
}

impl Deck {
    pub async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let test = TestDatabase::new().await;
        test.run("DELETE FROM limits").await;
        let script = Script {
            asked: Arc::default(),
            go_on: Arc::new(Semaphore::new(0)),
        };
        let services = services(&test, &script);
        Self {
            test,
            services,
            script,
            http: reqwest::Client::new(),
        }
    }

    /// A worker as another process has it: nothing but the database is shared.
    pub fn worker(&self, name: &str) -> Worker {
        self.worker_with(name, |_| {})
    }

    pub fn worker_with(&self, name: &str, change: impl FnOnce(&mut RunnerSettings)) -> Worker {
        let runtime = Runtime::new(
            services(&self.test, &self.script),
            self.http.clone(),
            "http://127.0.0.1:9",
        );
        let stop = CancellationToken::new();
        let mut settings = RunnerSettings {
            worker: name.to_owned(),
            concurrency: 3,
            per_bot: 3,
            grace: jobs::GRACE,
        };
        change(&mut settings);
        let task = tokio::spawn(jobs::run(runtime, settings, stop.clone()));
        Worker { stop, task }
    }

    /// A member of staff with a chat of their own.
    pub async fn person(&self, name: &str) -> Actor {
        let id = StaffId(uuid::Uuid::now_v7());
        let member = Staff {
            id,
            email: format!("{name}@example.org"),
            name: name.to_owned(),
            role: Role::Owner,
            password_hash: "none".to_owned(),
        };
        let mut db = self.test.acquire().await.unwrap();
        staff::insert(&mut db, &member, self.services.now()).await.unwrap();
        drop(db);
        self.services
            .auth()
            .authorise(Some(id), Permission::UsePlayground, Origin::default())
            .await
            .unwrap()
    }

    pub async fn say(&self, person: &Actor, text: &str) {
        self.services
            .playground()
            .send(person, PLAYGROUND, text.to_owned())
            .await
            .unwrap();
    }

    /// What the bot has written there.
    pub async fn answers(&self, person: &Actor) -> Vec<PlaygroundMessage> {
        let (messages, _) = self.services.playground().changes(person, PLAYGROUND, 0).await.unwrap();
        messages
            .into_iter()
            .filter(|message| message.author == Author::Bot)
            .collect()
    }

    /// Whole answers, as texts.
    pub async fn texts(&self, person: &Actor) -> Vec<String> {
        let answers = self
            .answers(person)
            .await
            .into_iter()
            .filter(|message| message.complete);
        answers.map(|message| message.body.text).collect()
    }

    /// Looks until `what` (rows of a table, with a condition) are as many as wanted.
    pub async fn until(&self, what: &str, wanted: i64) {
        let mut seen = -1;
        for _ in 0..2000 {
            seen = self.test.count(what).await;
            if seen == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {seen} instead of {wanted}");
    }

    /// Looks until so few are left that work.
    pub async fn until_processes(&self, left: usize) {
        for _ in 0..2000 {
            if self.script.processes() == left {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} instead of {left} are left", self.script.processes());
    }

    /// Looks until the provider was asked so often.
    pub async fn until_asked(&self, times: usize) {
        for _ in 0..2000 {
            if self.script.asked().len() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("asked for {:?} only", self.script.asked());
    }
}

impl Worker {
    /// Ends as a process does that is asked to.
    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn services(test: &TestDatabase, script: &Script) -> Services {
    let redis = std::env::var("REDIS_URL").expect("REDIS_URL names a Redis; `bin/test db` sets it");
    Services::new(Parts {
        db: (**test).clone(),
        clock: Arc::new(SystemClock),
        keys: KeyRing::parse(&KeyRing::generate()).unwrap(),
        rate: RateLimiter::new(Some(&redis)).unwrap(),
        gateway: Gateway::new(
            Catalogue::from_settings(Arc::new(script.clone()), models_from(Some("tester@1/2"))),
            Deadlines::default(),
        ),
        telegram: Arc::new(Directory::new(reqwest::Client::new(), "http://127.0.0.1:9")),
        webhooks: false,
        queue_limit: 20_000,
        provider_calls: 64,
        usage_months: 13,
    })
}
