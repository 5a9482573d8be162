//! One contestant after the other under the same loads.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use test_support::{
    FakeProvider, FakeTelegram,
    fake_provider::{DEFAULT_KEY, DEFAULT_MODEL},
    fake_telegram::Drafts,
};
use tokio::process::Command;

use crate::{
    deck::{Deck, Transport},
    load::{Felt, People},
    postgres::{Server, Statement, Work},
    process::{self, Running},
};

const TOKEN: &str = "123456:BENCH";
/// With many chats, so many people write at the same moment.
const AT_ONCE: usize = 200;

#[derive(Clone, clap::Args)]
pub struct Size {
    /// Messages that are measured in each run with people who wait; of one person a tenth
    #[arg(long, global = true, default_value_t = 3000)]
    messages: usize,
    /// People who write at the same time, a run each
    #[arg(long, global = true, value_delimiter = ',', default_value = "1,50,1000")]
    users: Vec<usize>,
    /// Updates a second that arrive whether or not those before are answered, a run each
    #[arg(long, global = true, value_delimiter = ',', default_value = "5,50")]
    rates: Vec<usize>,
    /// How long a run at such a rate lasts
    #[arg(long, global = true, default_value_t = 30)]
    seconds: u64,
    /// Chats that each write once while memory is measured; 0: not measured
    #[arg(long, global = true, default_value_t = 10_000)]
    chats: usize,
    /// Messages of others that lie in the database in the last runs; 0: no such runs
    #[arg(long, global = true, default_value_t = 1_000_000)]
    old: usize,
}

impl Size {
    /// With `--quick` taken into account.
    fn resolved(&self, quick: bool) -> Self {
        if !quick {
            return self.clone();
        }
        Self {
            messages: self.messages.min(300),
            users: self.users.iter().copied().filter(|users| *users <= 50).collect(),
            rates: self.rates.clone(),
            seconds: self.seconds.min(5),
            chats: self.chats.min(500),
            old: self.old.min(20_000),
        }
    }
}

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contestant {
    Deck(Transport),
    Bare,
}

impl Contestant {
    fn name(self) -> String {
        match self {
            Self::Deck(transport) => format!("Botdeck, {}", transport.name()),
            Self::Bare => "bare loop".to_owned(),
        }
    }
}

/// What is asked of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    /// Each of them waits for the answer before writing again.
    Waiting { users: usize, messages: usize },
    /// Updates a second, for so many seconds.
    Steady { rate: usize, seconds: u64 },
    /// So many people, each of whom writes once.
    Chats { chats: usize },
    /// As `Waiting`, and each answer takes three seconds: shown by drafts, or by a message that is edited.
    Streamed {
        users: usize,
        messages: usize,
        drafts: bool,
    },
}

impl Load {
    fn name(self) -> String {
        match self {
            Self::Waiting { users: 1, .. } => "1 user".to_owned(),
            Self::Waiting { users, .. } => format!("{users} users"),
            Self::Steady { rate, .. } => format!("{rate} updates a second"),
            Self::Chats { chats } => format!("{chats} chats"),
            Self::Streamed {
                users, drafts: true, ..
            } => format!("{users} users, 3 s, drafts"),
            Self::Streamed { users, .. } => format!("{users} users, 3 s, edits"),
        }
    }

    /// How the model is to answer.
    fn manner(self) -> &'static str {
        match self {
            Self::Streamed { .. } => " [[chunks=20,150ms]]",
            _ => "",
        }
    }

    fn messages(self) -> usize {
        match self {
            Self::Waiting { messages, .. } | Self::Streamed { messages, .. } => messages,
            Self::Steady { rate, seconds } => rate * usize::try_from(seconds).unwrap_or(usize::MAX),
            Self::Chats { chats } => chats,
        }
    }

    fn users(self) -> usize {
        match self {
            Self::Waiting { users, .. } | Self::Streamed { users, .. } => users,
            // Nobody writes again before four seconds have passed.
            Self::Steady { rate, .. } => rate * 4,
            Self::Chats { chats } => chats,
        }
    }

    /// Connections, plans of statements, memory: 5 % of the load before anything is counted, and a message of each at least.
    fn warm_up(self) -> usize {
        match self {
            Self::Waiting { users, messages } => (messages / 20).max(users),
            Self::Steady { .. } | Self::Streamed { .. } => self.users(),
            Self::Chats { .. } => AT_ONCE,
        }
    }

    async fn warm(self, people: &People) -> anyhow::Result<()> {
        people
            .write(self.warm_up(), self.users().min(AT_ONCE.max(self.warm_up())))
            .await?;
        Ok(())
    }

    async fn put(self, people: &People) -> anyhow::Result<Felt> {
        match self {
            Self::Waiting { users, messages } | Self::Streamed { users, messages, .. } => {
                people.write(messages, users).await
            }
            Self::Steady { rate, seconds } => people.arrive(rate, Duration::from_secs(seconds)).await,
            Self::Chats { .. } => people.once_each(AT_ONCE).await,
        }
    }
}

/// Where a contestant finds the others.
pub struct Endpoints {
    pub telegram: String,
    pub token: &'static str,
    pub provider: String,
    pub key: &'static str,
    pub model: &'static str,
}

/// All runs, and under what they were made.
#[derive(Serialize)]
pub struct Runs {
    pub cores: usize,
    pub program: String,
    /// Both from the same compiler, or the comparison is none.
    pub bench_is_debug: bool,
    pub postgres: String,
    pub postgres_durable: bool,
    pub runs: Vec<Measured>,
}

/// One contestant's figures.
#[derive(Serialize)]
pub struct Measured {
    pub name: String,
    pub load: String,
    pub messages: usize,
    /// Messages of others in the database.
    pub old: usize,
    pub answers_per_second: f64,
    pub latency_p50_ms: f64,
    pub latency_p99_ms: f64,
    /// More than the bare loop under the same load.
    pub added_p50_ms: Option<f64>,
    pub added_p99_ms: Option<f64>,
    /// User and system time of its process, a message.
    pub cpu_ms: Option<f64>,
    pub peak_memory_bytes: Option<u64>,
    /// Calls to Telegram an answer, polls left out.
    pub telegram_calls: f64,
    /// Polls, an answer.
    pub polls: f64,
    pub postgres: Option<Work>,
    pub statements: Vec<Statement>,
    /// What others than the contestant, Postgres and the fakes have worked meanwhile: figures are worth most when it is 0.
    pub other_work_cores: Option<f64>,
}

/// What is run, in order: the bare loop first where others are compared with it.
fn cases(size: &Size) -> Vec<(Contestant, Load, usize)> {
    let waiting = |users: usize| Load::Waiting {
        users,
        messages: if users == 1 {
            (size.messages / 10).max(1)
        } else {
            size.messages.max(users)
        },
    };
    let steady = |rate: usize| Load::Steady {
        rate,
        seconds: size.seconds,
    };
    let mut loads: Vec<Load> = size.users.iter().copied().map(waiting).collect();
    loads.extend(size.rates.iter().copied().map(steady));
    let decks = [Transport::Polling, Transport::Webhook].map(Contestant::Deck);
    let mut cases = Vec::new();
    for load in loads {
        cases.extend([Contestant::Bare, decks[0], decks[1]].map(|contestant| (contestant, load, 0)));
    }
    if let Some(users) = size.users.iter().copied().find(|users| *users > 1) {
        let messages = (size.messages / 10).max(users);
        let streamed = [true, false].map(|drafts| Load::Streamed {
            users,
            messages,
            drafts,
        });
        cases.extend(streamed.map(|load| (decks[0], load, 0)));
    }
    if size.chats > 0 {
        let load = Load::Chats { chats: size.chats };
        cases.push((decks[0], load, 0));
    }
    if size.old > 0 {
        // The loads that a deployment of that age is likely to have.
        let load = [
            size.users.iter().copied().find(|users| *users > 1).map(waiting),
            size.rates.last().copied().map(steady),
        ];
        for load in load.into_iter().flatten() {
            cases.extend(decks.map(|deck| (deck, load, size.old)));
        }
    }
    cases
}

pub async fn all(size: &Size, quick: bool) -> anyhow::Result<Runs> {
    let size = size.resolved(quick);
    let server = Server::find().await?;
    let mut runs: Vec<Measured> = Vec::new();
    for (contestant, load, old) in cases(&size) {
        eprintln!(
            "{}, {}{}…",
            contestant.name(),
            load.name(),
            if old > 0 {
                format!(", {old} old messages")
            } else {
                String::new()
            }
        );
        let mut measured = match contestant {
            Contestant::Deck(transport) => botdeck(&server, transport, load, old).await?,
            Contestant::Bare => bare(load).await?,
        };
        if let Some(bare) = runs
            .iter()
            .find(|run| run.name == Contestant::Bare.name() && run.load == measured.load)
            && contestant != Contestant::Bare
        {
            measured.added_p50_ms = Some(measured.latency_p50_ms - bare.latency_p50_ms);
            measured.added_p99_ms = Some(measured.latency_p99_ms - bare.latency_p99_ms);
        }
        runs.push(measured);
    }
    Ok(Runs {
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        program: std::env::var("BOTDECK_PROGRAM").unwrap_or_default(),
        bench_is_debug: cfg!(debug_assertions),
        postgres: server.version.clone(),
        postgres_durable: server.durable,
        runs,
    })
}

/// The world outside: fresh for each run, keeping counters only.
struct Outside {
    telegram: FakeTelegram,
    provider: FakeProvider,
}

impl Outside {
    async fn start() -> anyhow::Result<(Self, Endpoints)> {
        let telegram = FakeTelegram::start().await?;
        let provider = FakeProvider::start().await?;
        telegram.record(false);
        provider.record(false);
        telegram.add_bot(TOKEN, "bench_bot");
        let endpoints = Endpoints {
            telegram: telegram.url(),
            token: TOKEN,
            provider: provider.url(),
            key: DEFAULT_KEY,
            model: DEFAULT_MODEL,
        };
        Ok((Self { telegram, provider }, endpoints))
    }

    /// Calls of Telegram: those that say something, and polls.
    fn calls(&self) -> (f64, f64) {
        let (mut speaking, mut polls) = (0.0, 0.0);
        for (method, calls) in self.telegram.counters().calls {
            let sum = if method == "getUpdates" {
                &mut polls
            } else {
                &mut speaking
            };
            *sum += number(calls);
        }
        (speaking, polls)
    }
}

async fn botdeck(server: &Server, transport: Transport, load: Load, old: usize) -> anyhow::Result<Measured> {
    let (outside, endpoints) = Outside::start().await?;
    let mut database = server.fresh().await?;
    let deck = Deck::new(&database.url, &endpoints)?;
    deck.prepare(transport).await?;
    database.fill(old).await?;
    if let Load::Streamed { drafts: true, .. } = load {
        outside.telegram.drafts_are(Drafts::Taken);
    }
    let mut running = deck.serve().await?;
    let telegram = outside.telegram.clone();
    running
        .until(async || match transport {
            Transport::Polling => telegram.polls_open(TOKEN) > 0,
            Transport::Webhook => telegram.webhook_url(TOKEN).is_some(),
        })
        .await?;
    let people = People::new(&outside.telegram, TOKEN, load.users(), load.manner());
    load.warm(&people).await?;
    database.forget().await?;
    let before = database.work().await?;
    let contestant = Contestant::Deck(transport);
    let mut measured = measure(contestant, load, &outside, &people, &running).await?;
    measured.old = old;
    let messages = number(load.messages() as u64);
    let work = database.work().await?.since(&before, messages);
    if let (Some(other), Some(cpu)) = (&mut measured.other_work_cores, work.cpu_seconds) {
        *other -= cpu * measured.answers_per_second;
    }
    measured.postgres = Some(work);
    measured.statements = database.statements(messages).await?;
    running.stop().await?;
    check(load, &outside)?;
    Ok(measured)
}

async fn bare(load: Load) -> anyhow::Result<Measured> {
    let (outside, endpoints) = Outside::start().await?;
    let log = std::env::temp_dir().join(format!("botdeck-bench-bare-{}.log", std::process::id()));
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["bare", "--telegram", &endpoints.telegram, "--token", endpoints.token])
        .args(["--provider", &endpoints.provider, "--key", endpoints.key])
        .args(["--model", endpoints.model]);
    let mut running = Running::start("the bare loop", &mut command, &log)?;
    let telegram = outside.telegram.clone();
    running.until(async || telegram.polls_open(TOKEN) > 0).await?;
    let people = People::new(&outside.telegram, TOKEN, load.users(), load.manner());
    load.warm(&people).await?;
    let measured = measure(Contestant::Bare, load, &outside, &people, &running).await?;
    running.stop().await?;
    std::fs::remove_file(log)?;
    check(load, &outside)?;
    Ok(measured)
}

async fn measure(
    contestant: Contestant,
    load: Load,
    outside: &Outside,
    people: &People,
    running: &Running,
) -> anyhow::Result<Measured> {
    let messages = number(load.messages() as u64);
    let cpu = process::cpu_seconds(running.pid());
    let (machine, fakes) = (
        process::cpu_seconds_of_machine(),
        process::cpu_seconds(std::process::id()),
    );
    let calls = outside.calls();
    let felt = match load.put(people).await {
        Ok(felt) => felt,
        Err(error) => bail!("{error:#}\n{}", running.tail()),
    };
    let cpu_ms = difference(process::cpu_seconds(running.pid()), cpu).map(|seconds| seconds * 1000.0 / messages);
    let other = difference(process::cpu_seconds_of_machine(), machine)
        .zip(difference(process::cpu_seconds(std::process::id()), fakes))
        .zip(cpu_ms)
        .map(|((machine, fakes), cpu_ms)| (machine - fakes - cpu_ms * messages / 1000.0) / felt.elapsed.as_secs_f64());
    let now = outside.calls();
    Ok(Measured {
        name: contestant.name(),
        load: load.name(),
        messages: load.messages(),
        old: 0,
        answers_per_second: messages / felt.elapsed.as_secs_f64(),
        latency_p50_ms: felt.percentile(50).as_secs_f64() * 1000.0,
        latency_p99_ms: felt.percentile(99).as_secs_f64() * 1000.0,
        added_p50_ms: None,
        added_p99_ms: None,
        cpu_ms,
        peak_memory_bytes: process::peak_memory(running.pid()),
        telegram_calls: (now.0 - calls.0) / messages,
        polls: (now.1 - calls.1) / messages,
        postgres: None,
        statements: Vec::new(),
        other_work_cores: other,
    })
}

pub fn difference(now: Option<f64>, then: Option<f64>) -> Option<f64> {
    Some(now? - then?)
}

/// A fast wrong answer is worth nothing: each message was sent once and asked for once.
fn check(load: Load, outside: &Outside) -> anyhow::Result<()> {
    let asked = (load.messages() + load.warm_up()) as u64;
    let (sent, counters) = (outside.telegram.counters().sent, outside.provider.totals());
    if sent != asked || counters.finished != asked {
        bail!(
            "{asked} messages were written, {sent} sent in answer, {} answers made by the model",
            counters.finished
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
pub fn number(count: u64) -> f64 {
    count as f64
}
