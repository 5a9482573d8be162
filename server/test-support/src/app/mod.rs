//! The whole program under test: the built binary as a child process, both fakes, a database of its own.
//!
//! ```no_run
//! # use test_support::{TestApp, fake_telegram::User};
//! # async fn f(binary: &'static str) {
//! let app = TestApp::builder(binary).with_limits("messages_per_day", "10").polling().start().await;
//! let anna = User::new(7, "Anna");
//! app.say(&anna, "Hello");
//! app.answer(anna.id, "Echo: Hello").await;
//! app.finish().await;
//! # }
//! ```

mod database;
mod process;
mod visitor;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::Value;

use crate::fake_telegram::{Message, User};
use crate::{FakeProvider, FakeTelegram};

pub use database::TestDatabase;
pub use process::{Ended, Process};
pub use visitor::{Page, Visitor};

/// The bot's token: must never be seen in clear.
pub const TOKEN: &str = "123456:AAsecret-token_of-the-bot_0123456789";
/// The provider's key: must never be seen at all.
pub const KEY: &str = "sk-proj-secretKEYofTHEprovider0123456789";
pub const BOT_NAME: &str = "deck_bot";
/// The password of every account that [`TestApp::sign_in`] makes.
pub const PASSWORD: &str = "correct horse battery";
/// Unsealed, this would open every stored secret.
pub const MASTER_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Long enough for a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Ends the test with words, where something that must work does not.
pub trait OrFail<T> {
    #[track_caller]
    fn or_fail(self, what: &str) -> T;
}

impl<T, E: Debug> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: &str) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("{what}: {error:?}"),
        }
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_fail(self, what: &str) -> T {
        match self {
            Some(value) => value,
            None => panic!("{what}"),
        }
    }
}

/// Asks again and again until the answer is `Ok`; the last `Err` says what was seen when time is up.
///
/// # Panics
/// When it never is.
pub async fn eventually<T, F>(timeout: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + timeout;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= deadline => panic!("{what} not within {timeout:?}; seen: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
}

/// A port outside the range from which outgoing connections take theirs, so that it is still free after a restart.
pub fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(12_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// What is to be started.
pub struct Builder {
    binary: &'static str,
    env: BTreeMap<String, String>,
    args: Vec<String>,
    unset: Vec<String>,
    limits: Option<Vec<(String, String)>>,
    webhook: bool,
    bot: bool,
    servers: Option<(String, String)>,
}

impl Builder {
    /// A setting, by its name in the environment.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Not even the setting that every test has.
    pub fn without(mut self, name: &str) -> Self {
        self.unset.push(name.to_owned());
        self
    }

    /// A limit of the default plan, as on the command line; with the first, all that a deployment starts with are gone.
    pub fn with_limits(mut self, name: &str, value: &str) -> Self {
        self.limits
            .get_or_insert_default()
            .push((name.to_owned(), value.to_owned()));
        self
    }

    /// No limit at all on the default plan.
    pub fn unlimited(mut self) -> Self {
        self.limits.get_or_insert_default();
        self
    }

    /// The default.
    pub fn polling(mut self) -> Self {
        self.webhook = false;
        self
    }

    pub fn webhook(mut self) -> Self {
        self.webhook = true;
        self
    }

    /// Without a bot: a fresh deployment.
    pub fn without_bot(mut self) -> Self {
        self.bot = false;
        self
    }

    /// On this Postgres and this Redis instead of those of `DATABASE_URL` and `REDIS_URL`.
    pub fn on_servers(mut self, postgres: &str, redis: &str) -> Self {
        self.servers = Some((postgres.to_owned(), redis.to_owned()));
        self
    }

    /// Only some roles: `web,intake`.
    pub fn roles(mut self, roles: &str) -> Self {
        self.args = vec!["--roles".to_owned(), roles.to_owned()];
        self
    }

    /// Everything around the program, which is not started yet.
    pub async fn prepare(mut self) -> TestApp {
        let telegram = FakeTelegram::start().await.or_fail("the fake Telegram did not start");
        telegram.add_bot(TOKEN, BOT_NAME);
        let provider = FakeProvider::start().await.or_fail("the fake provider did not start");
        provider.accept_keys(&[KEY]);
        let (db, redis) = match &self.servers {
            Some((postgres, redis)) => (TestDatabase::create_on(postgres).await, Ok(redis.clone())),
            None => (TestDatabase::create().await, std::env::var("REDIS_URL")),
        };
        let dir = std::env::temp_dir().join(format!("botdeck-it-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&dir).or_fail("no temporary directory");
        let port = free_port();
        let base = format!("http://127.0.0.1:{port}");
        let mut defaults = vec![
            ("BOTDECK_ADDR", format!("127.0.0.1:{port}")),
            ("BOTDECK_SECRET_KEY", MASTER_KEY.to_owned()),
            ("BOTDECK_DB_CONNECTIONS", "10".to_owned()),
            ("BOTDECK_LOG", "info,bot=debug,jobs=debug,server=debug".to_owned()),
            ("DATABASE_URL", db.url.clone()),
            ("TELEGRAM_API_URL", telegram.url()),
            ("OPENAI_BASE_URL", provider.url()),
            ("OPENAI_API_KEY", KEY.to_owned()),
            ("OPENAI_MODEL", "fake-model".to_owned()),
        ];
        if let Ok(redis) = redis {
            defaults.push(("REDIS_URL", redis));
        }
        if self.bot {
            defaults.push(("TELEGRAM_BOT_TOKEN", TOKEN.to_owned()));
        }
        if self.webhook {
            defaults.push(("BOTDECK_PUBLIC_URL", base.clone()));
        }
        for (name, value) in defaults {
            if self.unset.iter().any(|unset| unset == name) {
                continue;
            }
            self.env.entry(name.to_owned()).or_insert(value);
        }
        TestApp {
            telegram,
            provider,
            db,
            base,
            env: self.env,
            binary: self.binary,
            args: self.args,
            webhook: self.webhook,
            bot: self.bot,
            dir,
            process: None,
            earlier: String::new(),
            limits: self.limits,
        }
    }

    /// Starts the program and waits until it is ready and listens for its bot.
    pub async fn start(self) -> TestApp {
        let mut app = self.prepare().await;
        app.start().await;
        app
    }
}

/// A running deployment of one process; more can be spawned beside it.
pub struct TestApp {
    pub telegram: FakeTelegram,
    pub provider: FakeProvider,
    pub db: TestDatabase,
    /// Where the dashboard is.
    pub base: String,
    env: BTreeMap<String, String>,
    binary: &'static str,
    args: Vec<String>,
    webhook: bool,
    bot: bool,
    dir: PathBuf,
    process: Option<Process>,
    /// What processes that have ended had said.
    earlier: String,
    limits: Option<Vec<(String, String)>>,
}

/// Starting and stopping.
impl TestApp {
    /// `binary`: `env!("CARGO_BIN_EXE_botdeck")`.
    pub fn builder(binary: &'static str) -> Builder {
        Builder {
            binary,
            env: BTreeMap::new(),
            args: Vec::new(),
            unset: Vec::new(),
            limits: None,
            webhook: false,
            bot: true,
            servers: None,
        }
    }

    /// Starts the program and waits until it is ready and listens for its bot.
    pub async fn start(&mut self) {
        self.spawn();
        self.wait_ready().await;
        if let Some(limits) = self.limits.clone() {
            self.set_limits(&limits).await;
        }
        if self.bot {
            self.wait_listening().await;
        }
    }

    /// Starts the program and waits for nothing.
    pub fn spawn(&mut self) {
        self.process = Some(self.spawn_beside(&[], &self.args.iter().map(String::as_str).collect::<Vec<_>>()));
    }

    /// One more process on the same database, with some settings changed; `BOTDECK_ADDR` should be one of them.
    pub fn spawn_beside(&self, settings: &[(&str, &str)], args: &[&str]) -> Process {
        let mut env = self.env.clone();
        env.extend(
            settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        Process::spawn(self.binary, &self.dir, &env, &[&["serve"], args].concat())
    }

    /// A second replica, ready.
    pub async fn replica(&self, settings: &[(&str, &str)], args: &[&str]) -> Process {
        let addr = format!("127.0.0.1:{}", free_port());
        let process = self.spawn_beside(&[&[("BOTDECK_ADDR", addr.as_str())], settings].concat(), args);
        process
            .wait_line("Botdeck is ready: ", PATIENCE)
            .await
            .or_fail("a second replica did not start");
        process
    }

    fn process(&self) -> &Process {
        self.process.as_ref().or_fail("the program is not running")
    }

    /// Until requests are taken.
    pub async fn wait_ready(&self) {
        let ready = self.process().wait_line("Botdeck is ready: ", PATIENCE).await;
        ready.or_fail("botdeck did not start");
    }

    /// Until updates would be taken.
    pub async fn wait_listening(&self) {
        let webhook = self.webhook;
        let listening = self.telegram.wait_for(PATIENCE, |telegram| {
            let listens = if webhook {
                telegram.webhook_url(TOKEN).is_some()
            } else {
                telegram.polls_open(TOKEN) > 0
            };
            listens.then_some(())
        });
        if let Err(error) = listening.await {
            panic!("botdeck does not listen for its bot: {error}\n{}", self.logs());
        }
    }

    /// The one-time link printed at start.
    pub async fn setup_link(&self) -> String {
        let link = self.process().wait_line("(once, within a day): ", PATIENCE).await;
        link.or_fail("no set-up link")
    }

    /// Kill -9.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
            self.earlier.push_str(&process.logs());
        }
    }

    /// Kill -9 and a new start, ready but perhaps not yet listening.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.spawn();
        self.wait_ready().await;
    }

    /// SIGTERM; how it ended, and after what time.
    pub async fn stop(&mut self) -> (ExitStatus, Duration) {
        let mut process = self.process.take().or_fail("the program is not running");
        let asked = Instant::now();
        process.terminate();
        let status = process.ended(Duration::from_secs(40)).await;
        let took = asked.elapsed();
        self.earlier.push_str(&process.logs());
        (status, took)
    }

    /// All that the program has written, by all its starts.
    pub fn logs(&self) -> String {
        let now = self.process.as_ref().map(Process::logs).unwrap_or_default();
        format!("{}{now}", self.earlier)
    }

    /// A command with the same settings.
    pub async fn cli(&self, args: &[&str]) -> Ended {
        self.cli_with(&[], args, "").await
    }

    /// A command with some settings changed (an empty one counts as not set), fed on standard input.
    pub async fn cli_with(&self, settings: &[(&str, &str)], args: &[&str], stdin: &str) -> Ended {
        let mut env = self.env.clone();
        env.extend(
            settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        process::run(self.binary, &self.dir, &env, args, stdin).await
    }

    /// The program's working directory.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    async fn set_limits(&self, limits: &[(String, String)]) {
        self.sql_execute("DELETE FROM limits WHERE plan_id = (SELECT id FROM plans WHERE is_default)")
            .await;
        if limits.is_empty() {
            return;
        }
        let pairs: Vec<String> = limits.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut args = vec!["limits", "set", "free"];
        args.extend(pairs.iter().map(String::as_str));
        self.cli(&args).await.ok();
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what botdeck said last:\n{}", last_lines(&self.logs(), 80));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// What people do, and what they and the database see.
impl TestApp {
    /// Somebody writes to the bot in private; the message's id.
    pub fn say(&self, user: &User, text: &str) -> i64 {
        self.telegram.send_text(TOKEN, user, text).1
    }

    /// Waits for a message of the bot with exactly this text.
    pub async fn answer(&self, chat: i64, text: &str) -> Message {
        self.answer_like(chat, text, |message| message.text == text).await
    }

    /// Waits for a message of the bot that holds this.
    pub async fn answer_with(&self, chat: i64, part: &str) -> Message {
        self.answer_like(chat, part, |message| message.text.contains(part))
            .await
    }

    /// Waits for the bot's first message after `asked` that is not a preview any more: its job is over.
    pub async fn reply(&self, chat: i64, asked: i64) -> Message {
        let reply = self.telegram.wait_reply(TOKEN, chat, asked, PATIENCE).await;
        let id = reply.or_fail("no reply").id;
        self.idle().await;
        let messages = self.telegram.messages(TOKEN, chat);
        messages
            .into_iter()
            .find(|message| message.id == id)
            .or_fail("the reply is gone")
    }

    async fn answer_like(&self, chat: i64, what: &str, is_it: impl Fn(&Message) -> bool) -> Message {
        let found = self
            .telegram
            .wait_message(TOKEN, chat, PATIENCE, |message| message.from_bot && is_it(message))
            .await;
        found.or_fail(&format!("no answer {what:?} in chat {chat}"))
    }

    /// The texts of the bot in a chat, in order; deleted ones left out.
    pub fn said_by_bot(&self, chat: i64) -> Vec<String> {
        let messages = self.telegram.messages(TOKEN, chat).into_iter();
        let own = messages.filter(|message| message.from_bot && !message.deleted);
        own.map(|message| message.text).collect()
    }

    /// Until all updates are taken and all jobs are over.
    pub async fn idle(&self) {
        self.idle_within(PATIENCE).await;
    }

    pub async fn idle_within(&self, timeout: Duration) {
        eventually(timeout, "an empty queue", || async {
            let pending = self.telegram.pending_updates(TOKEN);
            let open = self
                .sql("SELECT id, lane, state, attempts, last_error FROM jobs WHERE state NOT IN ('done', 'dead', 'discarded')")
                .await;
            if pending.is_empty() && open.is_empty() {
                Ok(())
            } else {
                Err(format!("pending updates {pending:?}, open jobs {open:?}"))
            }
        })
        .await;
    }

    /// The rows of a query as JSON objects.
    pub async fn sql(&self, query: &str) -> Vec<Value> {
        self.db.rows(query).await
    }

    /// A statement; how many rows it changed.
    pub async fn sql_execute(&self, statement: &str) -> u64 {
        self.db.execute(statement).await
    }

    /// The one row of a query.
    pub async fn sql_one(&self, query: &str) -> Value {
        let rows = self.sql(query).await;
        assert_eq!(rows.len(), 1, "{query} gave {rows:?}");
        rows.into_iter().next().unwrap_or_default()
    }

    /// The one number that a query of the form `SELECT … AS n` gives.
    pub async fn count(&self, query: &str) -> i64 {
        let row = self.sql_one(query).await;
        row["n"].as_i64().or_fail(query)
    }

    /// The id of the Telegram bot.
    pub async fn bot_id(&self) -> String {
        let row = self.sql_one("SELECT id FROM bots WHERE transport = 'telegram'").await;
        row["id"].as_str().or_fail("no bot").to_owned()
    }

    pub fn visitor(&self) -> Visitor {
        Visitor::new(&self.base)
    }

    /// Makes an account with this role and signs in by what the form posts.
    pub async fn sign_in(&self, role: &str) -> Visitor {
        let email = format!("{role}@example.org");
        let args = ["admin", "create", "--email", &email, "--role", role, "--password-stdin"];
        self.cli_with(&[], &args, PASSWORD).await.ok();
        let visitor = self.visitor();
        let page = visitor
            .post(
                "/api/fn/auth/sign-in",
                &[("email", &email), ("password", PASSWORD), ("next", "/")],
            )
            .await;
        assert!(page.status.is_success(), "{role} could not sign in: {page:?}");
        visitor
    }

    /// Fails when a secret is to be seen in logs, in anything stored, or in the metrics.
    pub async fn assert_no_secrets(&self) {
        let metrics = if self.process.is_some() {
            self.visitor().get("/metrics").await.body
        } else {
            String::new()
        };
        let places = [
            ("the logs", self.logs()),
            ("the database", self.db.dump().await),
            ("the metrics", metrics),
        ];
        let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        // The token's half behind the colon is the secret one.
        for secret in [TOKEN, "AAsecret-token", KEY, PASSWORD, MASTER_KEY] {
            for (place, text) in &places {
                let line = text
                    .lines()
                    .find(|line| line.contains(secret) || line.contains(&hex(secret)));
                assert!(line.is_none(), "a secret is in {place}: {line:?}");
            }
        }
    }

    /// What must hold at the end of every test, then the end of the program.
    ///
    /// # Panics
    /// When something panicked, a secret was logged, pending updates were dropped, or Telegram's pauses were not kept.
    pub async fn finish(mut self) {
        self.kill().await;
        let logs = self.logs();
        assert!(!logs.contains("panicked at"), "something panicked:\n{logs}");
        assert!(!logs.contains(TOKEN) && !logs.contains(KEY), "a secret was logged");
        assert_eq!(self.telegram.pending_dropped(TOKEN), 0, "pending updates were dropped");
        assert_eq!(self.telegram.flood_violations(), 0, "retry_after was not kept");
    }
}
