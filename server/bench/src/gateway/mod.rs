//! The AI gateway under the calls of other programs: the same calls straight to a fake provider, through a proxy that only passes on,
//! and through Botdeck without limits and with them, side by side in one run. All of them are processes of their own; this one calls.

mod client;
pub mod proxy;
mod table;
mod world;

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

pub use self::table::table;
use self::{
    client::{Felt, Kind, Target},
    world::World,
};
use crate::{
    postgres::Work,
    process,
    run::{difference, number},
};

/// The whole of it ends by itself, whatever hangs.
const LONGEST: Duration = Duration::from_secs(45 * 60);
/// Calls before anything is measured of a process: connections, plans of statements, the allocator's pools.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Clone, clap::Args)]
#[group(skip)]
pub struct Size {
    /// Programs that call the gateway one after another, each over a connection of its own, a run each
    #[arg(long, global = true, value_delimiter = ',', default_value = "1,8,32,128")]
    connections: Vec<usize>,
    /// Calls a second that arrive at the gateway whether or not those before are answered, a run each
    #[arg(long, global = true, value_delimiter = ',', default_value = "50,500,1000")]
    arrivals: Vec<usize>,
    /// How long the gateway is called in each run, in milliseconds
    #[arg(long, global = true, default_value_t = 3000)]
    span: u64,
    /// Streams that are held open at once while the gateway's memory is measured
    #[arg(long, global = true, default_value_t = 400)]
    streams: usize,
}

impl Size {
    fn resolved(&self, quick: bool) -> Self {
        if !quick {
            return self.clone();
        }
        Self {
            connections: self
                .connections
                .iter()
                .copied()
                .filter(|many| matches!(many, 1 | 32))
                .collect(),
            arrivals: self.arrivals.iter().copied().filter(|many| *many == 500).collect(),
            span: self.span.min(1000),
            streams: self.streams.min(100),
        }
    }

    fn loads(&self) -> Vec<Load> {
        let closed = self.connections.iter().copied().map(Load::Closed);
        closed.chain(self.arrivals.iter().copied().map(Load::Open)).collect()
    }
}

/// What calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Way {
    /// Nothing: straight to the fake provider.
    Direct,
    Proxy,
    Deck,
    /// With budgets of the key and of the deployment, on requests, tokens and money.
    LimitedDeck,
}

impl Way {
    const ALL: [Self; 4] = [Self::Direct, Self::Proxy, Self::Deck, Self::LimitedDeck];

    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Proxy => "bare proxy",
            Self::Deck => "Botdeck",
            Self::LimitedDeck => "Botdeck, limits",
        }
    }
}

/// How calls come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Load {
    /// So many programs, each of which calls again when it is answered.
    Closed(usize),
    /// So many calls a second, whether or not those before are answered.
    Open(usize),
}

impl Load {
    fn name(self) -> String {
        match self {
            Self::Closed(1) => "1 connection".to_owned(),
            Self::Closed(many) => format!("{many} connections"),
            Self::Open(rate) => format!("{rate} a second"),
        }
    }
}

/// All runs, and under what they were made.
#[derive(Serialize)]
pub struct Runs {
    pub cores: usize,
    pub program: String,
    /// All from the same compiler, or the comparison is none.
    pub bench_is_debug: bool,
    pub postgres: String,
    pub postgres_durable: bool,
    pub runs: Vec<Measured>,
    pub held: Vec<HeldStreams>,
}

/// One way's figures under one load. Times in milliseconds.
#[derive(Serialize)]
pub struct Measured {
    pub way: Way,
    pub kind: Kind,
    pub load: Load,
    pub calls: usize,
    pub calls_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Until the first byte of the answer.
    pub first_p50_ms: f64,
    pub first_p99_ms: f64,
    /// More than direct, and than through the bare proxy, under the same load.
    pub to_direct: Option<Added>,
    pub to_proxy: Option<Added>,
    /// User and system time of the process in the middle, a call, with what it writes afterwards.
    pub cpu_ms: Option<f64>,
    /// What it holds after the run.
    pub memory_bytes: Option<u64>,
    pub postgres: Option<Work>,
    /// What others than the bench, the provider, the process in the middle and Postgres have worked meanwhile: figures are worth most
    /// when it is 0.
    pub other_work_cores: Option<f64>,
}

#[derive(Clone, Copy, Serialize)]
pub struct Added {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub first_p50_ms: f64,
}

impl Measured {
    fn more_than(&self, other: &Self) -> Added {
        Added {
            p50_ms: self.p50_ms - other.p50_ms,
            p99_ms: self.p99_ms - other.p99_ms,
            first_p50_ms: self.first_p50_ms - other.first_p50_ms,
        }
    }
}

/// Memory of a process while so many streams are open through it.
#[derive(Serialize)]
pub struct HeldStreams {
    pub way: Way,
    pub streams: usize,
    /// By how much it grew, a stream.
    pub bytes_a_stream: Option<f64>,
}

pub async fn all(size: &Size, quick: bool) -> anyhow::Result<Runs> {
    let size = size.resolved(quick);
    let measured = tokio::time::timeout(LONGEST, measure_all(&size));
    measured.await.context("the gateway's benchmark takes far too long")?
}

async fn measure_all(size: &Size) -> anyhow::Result<Runs> {
    let mut world = World::start().await?;
    let (runs, held) = match compare(&mut world, size).await {
        Ok(compared) => compared,
        Err(error) => bail!("{error:#}\n{}", world.tails()),
    };
    let program = std::env::var("BOTDECK_PROGRAM").unwrap_or_default();
    let (postgres, postgres_durable) = world.postgres();
    world.stop().await?;
    Ok(Runs {
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        program,
        bench_is_debug: cfg!(debug_assertions),
        postgres,
        postgres_durable,
        runs,
        held,
    })
}

async fn compare(world: &mut World, size: &Size) -> anyhow::Result<(Vec<Measured>, Vec<HeldStreams>)> {
    // First, while the processes are fresh: what they have grown by under load before would be used again.
    let mut held = Vec::new();
    for way in [Way::Proxy, Way::Deck, Way::LimitedDeck] {
        eprintln!("{} streams held open, {}…", size.streams, way.name());
        held.push(hold(world, way, size.streams).await?);
    }
    let mut runs: Vec<Measured> = Vec::new();
    for kind in Kind::MEASURED {
        for load in size.loads() {
            for way in Way::ALL {
                eprintln!("{}, {}, {}…", kind.name(), load.name(), way.name());
                let mut measured = measure(world, way, kind, load, Duration::from_millis(size.span)).await?;
                let of = |way| {
                    let same = |run: &&Measured| run.way == way && run.kind == kind && run.load == load;
                    runs.iter().find(same)
                };
                measured.to_direct = of(Way::Direct).map(|direct| measured.more_than(direct));
                measured.to_proxy = of(Way::Proxy).map(|proxy| measured.more_than(proxy));
                runs.push(measured);
            }
        }
    }
    Ok((runs, held))
}

async fn put(target: &Target, kind: Kind, load: Load, span: Duration) -> anyhow::Result<Felt> {
    match load {
        Load::Closed(connections) => client::closed(target, kind, connections, span).await,
        Load::Open(rate) => client::open(target, kind, rate, span).await,
    }
}

async fn measure(world: &mut World, way: Way, kind: Kind, load: Load, span: Duration) -> anyhow::Result<Measured> {
    let target = world.target(way);
    // Plain ones come in great numbers, and so by each connection to the database.
    let warm = put(&target, Kind::Plain, Load::Closed(8), WARM_UP.min(span)).await?;
    world.check(way, warm.calls()).await?;
    let warm = put(&target, kind, load, WARM_UP.min(span)).await?;
    world.check(way, warm.calls()).await?;
    let before = world.costs(way).await?;
    let felt = put(&target, kind, load, span).await?;
    let (calls, count) = (felt.calls(), number(felt.calls() as u64));
    world.check(way, calls).await?;
    let after = world.costs(way).await?;
    let cpu = difference(after.own, before.own);
    let postgres = after
        .postgres
        .zip(before.postgres)
        .map(|(now, then)| now.since(&then, count));
    let known = [
        cpu,
        difference(after.bench, before.bench),
        difference(after.provider, before.provider),
    ];
    let known: Option<f64> = known.into_iter().sum();
    let database = postgres.as_ref().and_then(|work| work.cpu_seconds).unwrap_or(0.0) * count;
    let other = difference(after.machine, before.machine).zip(known);
    Ok(Measured {
        way,
        kind,
        load,
        calls,
        calls_per_second: count / felt.elapsed.as_secs_f64(),
        p50_ms: felt.whole(50),
        p99_ms: felt.whole(99),
        first_p50_ms: felt.first(50),
        first_p99_ms: felt.first(99),
        to_direct: None,
        to_proxy: None,
        // Straight to the provider there is nobody in the middle.
        cpu_ms: cpu
            .filter(|_| way != Way::Direct)
            .map(|seconds| seconds * 1000.0 / count),
        memory_bytes: after.memory,
        postgres,
        other_work_cores: other.map(|(all, known)| (all - known - database) / (after.at - before.at).as_secs_f64()),
    })
}

/// By how much the process in the middle grows with so many streams through it that have begun and not ended.
async fn hold(world: &mut World, way: Way, streams: usize) -> anyhow::Result<HeldStreams> {
    let target = world.target(way);
    let warm = client::closed(&target, Kind::Burst, 8, WARM_UP).await?;
    world.check(way, warm.calls()).await?;
    let pid = world.pid(way);
    let before = process::memory(pid);
    let open = client::hold(&target, streams).await?;
    let now = process::memory(pid);
    drop(open);
    world.forget_held(way, streams).await?;
    let grown = now.zip(before).map(|(now, before)| number(now.saturating_sub(before)));
    Ok(HeldStreams {
        way,
        streams,
        bytes_a_stream: grown.map(|bytes| bytes / number(streams as u64)),
    })
}
