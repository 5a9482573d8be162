//! A deck without edges: real Postgres and Redis, a clock set by hand, a Telegram that knows every token, and a provider that is
//! never asked (the tests hand in its answers).

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    BotId, Email, LimitKind, Money, Password, Permission, Role, StaffId,
    views::{BotTransport, IntakeMode, RichText},
};
use gateway::{Answer, BreakerRules, Catalogue, Deadlines, Demo, Finish, Gateway, GatewayError, Model, Usage};
use repositories::bots::{self, NewTelegramBot};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use services::{
    Actor, Begin, BotIdentity, Claimed, Database, Error, Incoming, KeyRing, Known, LimitOwner, LimitSetting,
    ManualClock, Origin, Parts, Question, RateLimiter, Refusal, Services, TelegramDirectory, Unidentified,
};

use crate::database::TestDatabase;

/// The model of every test: no special price, so that money is easy to reckon. A dollar a million tokens in, two out.
pub const MODEL: &str = "tester";
pub const FREE: domain::PlanId = domain::PlanId(uuid::Uuid::from_u128(0x01930000_0000_7000_8000_000000000001));
pub const PLAYGROUND: BotId = BotId(uuid::Uuid::from_u128(0x01930000_0000_7000_8000_0000000000b0));
pub const PASSWORD: &str = "correct horse battery";

pub fn model() -> Model {
    Model {
        name: MODEL.to_owned(),
        context_tokens: 32_000,
        max_answer_tokens: 1000,
        input_per_million: "1".parse().unwrap(),
        output_per_million: "2".parse().unwrap(),
        cached_input_per_million: "1".parse().unwrap(),
    }
}

/// Says of `123:…` that it is bot 123, and refuses what it was told to.
#[derive(Default)]
pub struct FakeDirectory {
    pub refuses: Mutex<Option<Unidentified>>,
}

#[async_trait]
impl TelegramDirectory for FakeDirectory {
    async fn identify(&self, token: &SecretString) -> Result<BotIdentity, Unidentified> {
        if let Some(why) = self.refuses.lock().unwrap().clone() {
            return Err(why);
        }
        let id = token.expose_secret().split(':').next().unwrap().to_owned();
        Ok(BotIdentity {
            telegram_id: id.parse().unwrap(),
            name: format!("Bot {id}"),
            username: Some(format!("bot_{id}")),
        })
    }
}

pub struct App {
    services: Services,
    pub test: TestDatabase,
    pub clock: ManualClock,
    pub telegram: Arc<FakeDirectory>,
    pub bot: BotId,
    pub secret: SecretString,
    queue_limit: u32,
    next_update: AtomicI64,
}

impl Deref for App {
    type Target = Services;
    fn deref(&self) -> &Services {
        &self.services
    }
}

impl App {
    /// A deck with one Telegram bot, whose clients have no limits at all.
    pub async fn new() -> Self {
        Self::with_models(vec![model()]).await
    }

    pub async fn with_models(models: Vec<Model>) -> Self {
        Self::with(models, 20_000).await
    }

    /// One whose bots may have so many jobs.
    pub async fn with_queue_limit(limit: u32) -> Self {
        Self::with(vec![model()], limit).await
    }

    async fn with(models: Vec<Model>, queue_limit: u32) -> Self {
        Self::on(TestDatabase::new().await, demo(models), queue_limit).await
    }

    /// One in this database that asks so.
    pub async fn asking_by(test: TestDatabase, gateway: Gateway) -> Self {
        Self::on(test, gateway, 20_000).await
    }

    async fn on(test: TestDatabase, gateway: Gateway, queue_limit: u32) -> Self {
        let clock = ManualClock::at(test.now().await.unwrap());
        let secret = KeyRing::generate();
        let telegram = Arc::new(FakeDirectory::default());
        let mut app = Self {
            services: services_with(
                RateLimiter::new(Some(&redis_url())).unwrap(),
                (*test).clone(),
                &clock,
                &secret,
                &telegram,
                gateway,
                queue_limit,
            ),
            test,
            clock,
            telegram,
            bot: BotId(uuid::Uuid::now_v7()),
            secret,
            queue_limit,
            next_update: AtomicI64::new(1),
        };
        app.test.run("DELETE FROM limits").await;
        let bot = NewTelegramBot {
            id: app.bot,
            telegram_id: 1,
            name: "Bot",
            username: Some("the_bot"),
            mode: IntakeMode::Polling,
            token_cipher: &[0],
            token_key_id: "none",
        };
        let mut db = app.test.acquire().await.unwrap();
        app.bot = bots::upsert_telegram(&mut db, &bot, app.now()).await.unwrap().0;
        drop(db);
        app
    }

    /// The same deck as another process sees it, perhaps with other keys.
    pub fn replica(&self, secret: &SecretString) -> Services {
        services(
            (*self.test).clone(),
            &self.clock,
            secret,
            &self.telegram,
            vec![model()],
            self.queue_limit,
        )
    }

    /// The same deck as another process sees it that counts in another Redis.
    pub fn on_redis(&self, url: &str) -> Services {
        let rate = RateLimiter::new(Some(url)).unwrap();
        services_with(
            rate,
            (*self.test).clone(),
            &self.clock,
            &self.secret,
            &self.telegram,
            demo(vec![model()]),
            self.queue_limit,
        )
    }

    /// The same deck as another process sees it that asks by rules of its own.
    pub fn asking(&self, deadlines: Deadlines, rules: BreakerRules) -> Services {
        let models = Catalogue::from_settings(Arc::new(Demo::new()), vec![model()]);
        services_with(
            RateLimiter::new(Some(&redis_url())).unwrap(),
            (*self.test).clone(),
            &self.clock,
            &self.secret,
            &self.telegram,
            Gateway::with_rules(models, deadlines, rules),
            self.queue_limit,
        )
    }

    /// Another process of the same deck, with connections of its own.
    pub async fn process(&self) -> Services {
        let db = Database::connect(self.test.url(), 20).await.unwrap();
        services(
            db,
            &self.clock,
            &self.secret,
            &self.telegram,
            vec![model()],
            self.queue_limit,
        )
    }

    /// Another process of the same deck, with connections of its own, that asks so.
    pub async fn process_asking_by(&self, gateway: Gateway) -> Services {
        services_with(
            RateLimiter::new(Some(&redis_url())).unwrap(),
            Database::connect(self.test.url(), 20).await.unwrap(),
            &self.clock,
            &self.secret,
            &self.telegram,
            gateway,
            self.queue_limit,
        )
    }

    /// Sets a limit of something that is not a plan.
    pub async fn limit_of(&self, owner: LimitOwner, kind: LimitKind, amount: i64) {
        let settings = [LimitSetting::Limit(kind, Some(amount))];
        self.limits()
            .set(&Actor::system("test"), &owner, &settings)
            .await
            .unwrap();
    }

    /// (used, reserved) of all windows of a scope together.
    pub async fn scope_counter(&self, scope: &str, measure: &str) -> (i64, i64) {
        sqlx::query_as(
            "SELECT coalesce(sum(used), 0)::bigint, coalesce(sum(reserved), 0)::bigint FROM scope_counters
             WHERE scope = $1 AND measure = $2",
        )
        .bind(scope)
        .bind(measure)
        .fetch_one(self.test.pool())
        .await
        .unwrap()
    }

    pub async fn limit(&self, kind: LimitKind, amount: i64) {
        let mut db = self.test.acquire().await.unwrap();
        repositories::plans::set_limit(&mut db, FREE, kind, Some(amount))
            .await
            .unwrap();
    }

    pub fn incoming(&self, user: i64, chat: i64, text: &str) -> Incoming {
        Incoming {
            bot: self.bot,
            transport: BotTransport::Telegram,
            user_external_id: user,
            user_name: format!("Person {user}"),
            username: None,
            language: Some("en".to_owned()),
            chat_external_id: chat,
            chat_kind: if user == chat { "private" } else { "group" }.to_owned(),
            chat_title: "Chat".to_owned(),
            thread_id: 0,
            message_id: 1,
            text: text.to_owned(),
            received_at: self.now(),
            replaces: None,
        }
    }

    /// An update with a new id.
    pub fn update(&self, user: i64, chat: i64, text: &str) -> serde_json::Value {
        let id = self.next_update.fetch_add(1, Ordering::SeqCst);
        json!({
            "update_id": id,
            "message": { "message_id": id, "date": 0, "text": text, "chat": { "id": chat }, "from": { "id": user } }
        })
    }

    /// A message arrives, and a worker takes its job. Nothing else may be ready then.
    pub async fn job(&self, user: i64, chat: i64, text: &str) -> (Claimed, Incoming) {
        self.intake()
            .accept(self.bot, vec![self.update(user, chat, text)])
            .await
            .unwrap();
        let mut jobs = self
            .queue()
            .claim("worker", 9, services::Which::All, &[])
            .await
            .unwrap();
        assert_eq!(jobs.len(), 1, "something else was ready as well");
        (jobs.remove(0), self.incoming(user, chat, text))
    }

    /// Many messages of one user at the same moment, each in a chat of its own so that none waits for another.
    pub async fn jobs(&self, user: i64, count: i64, text: &str) -> Vec<(Claimed, Incoming)> {
        let updates = (0..count).map(|n| self.update(user, 1000 + n, text)).collect();
        self.intake().accept(self.bot, updates).await.unwrap();
        let jobs = self
            .queue()
            .claim("worker", count, services::Which::All, &[])
            .await
            .unwrap();
        assert_eq!(jobs.len(), usize::try_from(count).unwrap());
        jobs.into_iter()
            .map(|job| {
                let chat = job.update["message"]["chat"]["id"].as_i64().unwrap();
                (job, self.incoming(user, chat, text))
            })
            .collect()
    }

    /// Meets and begins as the bot does.
    pub async fn begin(&self, job: &Claimed, incoming: &Incoming) -> (Known, Begin) {
        let known = self.chats().meet(incoming).await.unwrap();
        let begin = self.chats().begin(job, incoming, &known, "", None).await.unwrap();
        (known, begin)
    }

    pub async fn ask(&self, job: &Claimed, incoming: &Incoming) -> (Known, Question) {
        let (known, begin) = self.begin(job, incoming).await;
        match begin {
            Begin::Ask(question) => (known, *question),
            Begin::Refused(refusal) => panic!("refused: {refusal:?}"),
            Begin::LeaseLost => panic!("the lease was lost"),
        }
    }

    pub async fn refused(&self, job: &Claimed, incoming: &Incoming) -> Refusal {
        match self.begin(job, incoming).await.1 {
            Begin::Refused(refusal) => refusal,
            Begin::Ask(_) | Begin::LeaseLost => panic!("it was not refused"),
        }
    }

    /// A whole round: the message is answered and the job ended. The answer's tokens are those of the texts.
    pub async fn talk(&self, user: i64, question: &str, answer: &str) -> Known {
        let (job, incoming) = self.job(user, user, question).await;
        let (known, question) = self.ask(&job, &incoming).await;
        let answer = complete(answer, 10, 10);
        let bodies = [rich(&answer.text)];
        assert!(
            self.chats()
                .settle(&job, &incoming, &known, &question, &answer, &bodies)
                .await
                .unwrap()
        );
        assert!(self.queue().end(&job, services::Ended::Done).await.unwrap());
        self.clock.advance(TimeDelta::seconds(1));
        known
    }

    /// (used, reserved) of all users together.
    pub async fn counter(&self, measure: &str) -> (i64, i64) {
        sqlx::query_as(
            "SELECT coalesce(sum(used), 0)::bigint, coalesce(sum(reserved), 0)::bigint FROM counters WHERE measure = $1",
        )
        .bind(measure)
        .fetch_one(self.test.pool())
        .await
        .unwrap()
    }

    /// A member of staff of that role; the first calls of a test are not in the trail's way.
    pub async fn staff(&self, role: Role) -> StaffId {
        let email: Email = format!("{role}@example.org").parse().unwrap();
        self.auth()
            .create_staff(&Actor::system("test"), email, role, password(PASSWORD))
            .await
            .unwrap()
    }

    pub async fn actor(&self, id: StaffId, permission: Permission) -> Result<Actor, Error> {
        let origin = Origin {
            ip: Some("192.0.2.1".to_owned()),
            request_id: Some("trace".to_owned()),
            ..Origin::default()
        };
        self.auth().authorise(Some(id), permission, origin).await
    }

    pub async fn owner(&self) -> Actor {
        let id = self.staff(Role::Owner).await;
        self.actor(id, Permission::ManageStaff).await.unwrap()
    }

    /// Somebody who wrote once.
    pub async fn user(&self, external_id: i64) -> Known {
        self.chats()
            .meet(&self.incoming(external_id, external_id, "hi"))
            .await
            .unwrap()
    }
}

fn services(
    db: Database,
    clock: &ManualClock,
    secret: &SecretString,
    telegram: &Arc<FakeDirectory>,
    models: Vec<Model>,
    queue_limit: u32,
) -> Services {
    let rate = RateLimiter::new(Some(&redis_url())).unwrap();
    services_with(rate, db, clock, secret, telegram, demo(models), queue_limit)
}

fn demo(models: Vec<Model>) -> Gateway {
    Gateway::new(
        Catalogue::from_settings(Arc::new(Demo::new()), models),
        Deadlines::default(),
    )
}

fn services_with(
    rate: RateLimiter,
    db: Database,
    clock: &ManualClock,
    secret: &SecretString,
    telegram: &Arc<FakeDirectory>,
    gateway: Gateway,
    queue_limit: u32,
) -> Services {
    Services::new(Parts {
        db,
        clock: Arc::new(clock.clone()),
        keys: KeyRing::parse(secret).unwrap(),
        rate,
        gateway,
        telegram: telegram.clone(),
        webhooks: true,
        queue_limit,
        provider_calls: 64,
        usage_months: 13,
    })
}

pub fn redis_url() -> String {
    std::env::var("REDIS_URL").expect("REDIS_URL names a Redis; `bin/test db` sets it")
}

pub fn password(text: &str) -> Password {
    text.parse().unwrap()
}

pub fn rich(text: &str) -> RichText {
    RichText {
        text: text.to_owned(),
        entities: Vec::new(),
    }
}

/// The next midnight that begins a month, a second before it: a day and a month end together.
pub fn last_second_of_the_month(now: DateTime<Utc>) -> DateTime<Utc> {
    domain::Period::Month.reset(now) - TimeDelta::seconds(1)
}

pub fn complete(text: &str, prompt: i64, completion: i64) -> Answer {
    answer(text, Finish::Complete("stop".to_owned()), (prompt, completion), None)
}

pub fn answer(text: &str, finish: Finish, (prompt, completion): (i64, i64), failure: Option<GatewayError>) -> Answer {
    let usage = Usage {
        prompt_tokens: prompt,
        completion_tokens: completion,
        ..Usage::default()
    };
    Answer {
        text: text.to_owned(),
        finish,
        usage,
        usage_reported: true,
        cost: Money::from_nanos(prompt * 1000 + completion * 2000),
        first_token: Some(Duration::from_millis(3)),
        total: Duration::from_millis(7),
        attempts: 1,
        failure,
        tries: vec![gateway::Try {
            provider: "demo".to_owned(),
            model: "tester-1".to_owned(),
            code: None,
            status: None,
            took: Duration::from_millis(7),
        }],
        provider: "demo".to_owned(),
        price: gateway::Price {
            input: Money::from_nanos(1_000_000_000),
            cached_input: Money::from_nanos(1_000_000_000),
            output: Money::from_nanos(2_000_000_000),
            ..gateway::Price::default()
        },
        model_id: None,
        cached: None,
    }
}

/// As the replica says it that listens for the bot.
pub async fn faulty(app: &App, bot: BotId, fault: &str) {
    assert!(app.bots().lease(bot, "replica", Duration::from_secs(60)).await.unwrap());
    let fault = services::Fault::words(fault);
    app.bots().set_fault(bot, "replica", fault).await.unwrap();
}
