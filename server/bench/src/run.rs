//! One contestant after the other under the same load.

use anyhow::bail;
use serde::Serialize;
use test_support::{
    FakeProvider, FakeTelegram,
    fake_provider::{DEFAULT_KEY, DEFAULT_MODEL},
};
use tokio::process::Command;

use crate::{
    deck::{Deck, Transport},
    load::People,
    postgres::{Server, Statement, Work},
    process::{self, Running},
};

const TOKEN: &str = "123456:BENCH";

#[derive(Clone, clap::Args)]
pub struct Size {
    /// Messages that are measured in each run
    #[arg(long, global = true, default_value_t = 3000)]
    messages: usize,
    /// People who write at the same time
    #[arg(long, global = true, default_value_t = 50)]
    users: usize,
}

impl Size {
    /// Connections, plans of statements, memory: 5 % of the load before anything is counted, and a message of each at least.
    fn warm_up(&self) -> usize {
        (self.messages / 20).max(self.users)
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
    pub messages: usize,
    pub users: usize,
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
    pub answers_per_second: f64,
    pub latency_p50_ms: f64,
    pub latency_p99_ms: f64,
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

pub async fn all(size: &Size) -> anyhow::Result<Runs> {
    let server = Server::find().await?;
    let mut runs = Vec::new();
    for transport in [Transport::Polling, Transport::Webhook] {
        eprintln!("Botdeck, {}…", transport.name());
        runs.push(botdeck(size, &server, transport).await?);
    }
    eprintln!("the bare loop…");
    runs.push(bare(size).await?);
    Ok(Runs {
        messages: size.messages,
        users: size.users,
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

async fn botdeck(size: &Size, server: &Server, transport: Transport) -> anyhow::Result<Measured> {
    let (outside, endpoints) = Outside::start().await?;
    let mut database = server.fresh().await?;
    let deck = Deck::new(&database.url, &endpoints)?;
    deck.prepare(transport).await?;
    let mut running = deck.serve().await?;
    let telegram = outside.telegram.clone();
    running
        .until(async || match transport {
            Transport::Polling => telegram.polls_open(TOKEN) > 0,
            Transport::Webhook => telegram.webhook_url(TOKEN).is_some(),
        })
        .await?;
    let people = People::new(&outside.telegram, TOKEN, size.users);
    people.write(size.warm_up()).await?;
    database.forget().await?;
    let before = database.work().await?;
    let mut measured = measure(
        &format!("Botdeck, {}", transport.name()),
        size,
        &outside,
        &people,
        &running,
    )
    .await?;
    let messages = number(size.messages as u64);
    let work = database.work().await?.since(&before, messages);
    if let (Some(other), Some(cpu)) = (&mut measured.other_work_cores, work.cpu_seconds) {
        *other -= cpu * measured.answers_per_second;
    }
    measured.postgres = Some(work);
    measured.statements = database.statements(messages).await?;
    running.stop().await?;
    check(size, &outside)?;
    Ok(measured)
}

async fn bare(size: &Size) -> anyhow::Result<Measured> {
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
    let people = People::new(&outside.telegram, TOKEN, size.users);
    people.write(size.warm_up()).await?;
    let measured = measure("bare loop, polling", size, &outside, &people, &running).await?;
    running.stop().await?;
    std::fs::remove_file(log)?;
    check(size, &outside)?;
    Ok(measured)
}

async fn measure(
    name: &str,
    size: &Size,
    outside: &Outside,
    people: &People,
    running: &Running,
) -> anyhow::Result<Measured> {
    let messages = number(size.messages as u64);
    let cpu = process::cpu_seconds(running.pid());
    let (machine, fakes) = (
        process::cpu_seconds_of_machine(),
        process::cpu_seconds(std::process::id()),
    );
    let calls = outside.calls();
    let felt = match people.write(size.messages).await {
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
        name: name.to_owned(),
        answers_per_second: messages / felt.elapsed.as_secs_f64(),
        latency_p50_ms: felt.percentile(50).as_secs_f64() * 1000.0,
        latency_p99_ms: felt.percentile(99).as_secs_f64() * 1000.0,
        cpu_ms,
        peak_memory_bytes: process::peak_memory(running.pid()),
        telegram_calls: (now.0 - calls.0) / messages,
        polls: (now.1 - calls.1) / messages,
        postgres: None,
        statements: Vec::new(),
        other_work_cores: other,
    })
}

fn difference(now: Option<f64>, then: Option<f64>) -> Option<f64> {
    Some(now? - then?)
}

/// A fast wrong answer is worth nothing: each message was sent once and asked for once.
fn check(size: &Size, outside: &Outside) -> anyhow::Result<()> {
    let asked = (size.messages + size.warm_up()) as u64;
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
