//! Who takes part: the fake provider, the bare proxy, and Botdeck twice, without limits and with them, each with a database of its own.
//! Only one of them is called at a time; the others wait.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rand::Rng;
use serde_json::Value;
use sqlx::types::Uuid;
use test_support::fake_provider::{DEFAULT_KEY, DEFAULT_MODEL};
use tokio::process::Command;

use super::{Target, Way};
use crate::{
    deck::{Deck, free_addr},
    postgres::{Database, Server, Work},
    process::{self, Running},
};

/// Far above what a run uses, so that everything is counted and nothing refused.
const LIMITS: [&str; 3] = [
    "messages_per_day=1000000000",
    "tokens_per_day=1000000000000",
    "money_per_month=1000000",
];
/// What is written after an answer is there a moment later; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    server: Server,
    provider: Running,
    provider_addr: SocketAddr,
    proxy: Running,
    proxy_addr: SocketAddr,
    decks: [Served; 2],
    http: reqwest::Client,
    _logs: Folder,
    /// What the provider has answered and been left with so far.
    seen: Totals,
}

/// Botdeck with a key to call it.
struct Served {
    deck: Deck,
    running: Running,
    database: Database,
    key: String,
    limited: bool,
    /// The last call that was looked at, and the tokens of all until then.
    last: Uuid,
    tokens: i64,
}

/// Where the helpers' words go; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("botdeck-bench-{}-helpers", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Clone, Copy, Default, PartialEq)]
struct Totals {
    finished: u64,
    disconnected: u64,
    tokens: u64,
}

/// What everybody has cost so far. CPU in seconds.
pub struct Costs {
    pub at: Instant,
    pub own: Option<f64>,
    pub bench: Option<f64>,
    pub provider: Option<f64>,
    pub machine: Option<f64>,
    pub memory: Option<u64>,
    pub postgres: Option<Work>,
}

impl World {
    pub async fn start() -> anyhow::Result<Self> {
        let server = Server::find().await?;
        let (provider_addr, proxy_addr) = (free_addr()?, free_addr()?);
        let base = format!("http://{provider_addr}/v1");
        let logs = Folder::new()?;
        let arguments = ["fake-provider", "--addr", &provider_addr.to_string()];
        let provider = helper("the fake provider", &arguments, provider_addr, &logs.0).await?;
        let arguments = ["bare-proxy", "--addr", &proxy_addr.to_string(), "--provider", &base];
        let proxy = helper("the bare proxy", &arguments, proxy_addr, &logs.0).await?;
        let decks = [
            Served::start(&server, "botdeck_bench", &base, false).await?,
            Served::start(&server, "botdeck_bench_limits", &base, true).await?,
        ];
        Ok(Self {
            server,
            provider,
            provider_addr,
            proxy,
            proxy_addr,
            decks,
            http: reqwest::Client::builder().no_proxy().build()?,
            _logs: logs,
            seen: Totals::default(),
        })
    }

    /// Version, and whether commits wait for the disk.
    pub fn postgres(&self) -> (String, bool) {
        (self.server.version.clone(), self.server.durable)
    }

    pub fn target(&self, way: Way) -> Target {
        match way {
            Way::Direct => Target::new(self.provider_addr, DEFAULT_KEY, DEFAULT_MODEL),
            Way::Proxy => Target::new(self.proxy_addr, DEFAULT_KEY, DEFAULT_MODEL),
            Way::Deck => self.decks[0].target(),
            Way::LimitedDeck => self.decks[1].target(),
        }
    }

    /// Of the process in the middle, or of the provider when there is none.
    pub fn pid(&self, way: Way) -> u32 {
        match way {
            Way::Direct => self.provider.pid(),
            Way::Proxy => self.proxy.pid(),
            Way::Deck => self.decks[0].running.pid(),
            Way::LimitedDeck => self.decks[1].running.pid(),
        }
    }

    fn deck(&mut self, way: Way) -> Option<&mut Served> {
        match way {
            Way::Direct | Way::Proxy => None,
            Way::Deck => Some(&mut self.decks[0]),
            Way::LimitedDeck => Some(&mut self.decks[1]),
        }
    }

    pub async fn costs(&mut self, way: Way) -> anyhow::Result<Costs> {
        let pid = self.pid(way);
        let postgres = match self.deck(way) {
            Some(served) => Some(served.database.work().await?),
            None => None,
        };
        Ok(Costs {
            at: Instant::now(),
            own: if way == Way::Direct {
                Some(0.0)
            } else {
                process::cpu_seconds(pid)
            },
            bench: process::cpu_seconds(std::process::id()),
            provider: process::cpu_seconds(self.provider.pid()),
            machine: process::cpu_seconds_of_machine(),
            memory: process::memory(pid),
            postgres,
        })
    }

    async fn totals(&self) -> anyhow::Result<Totals> {
        let url = format!("http://{}/control/totals", self.provider_addr);
        let totals: Value = self.http.get(url).send().await?.json().await?;
        let of = |name: &str| {
            totals[name]
                .as_u64()
                .with_context(|| format!("the provider tells no {name}"))
        };
        Ok(Totals {
            finished: of("finished")?,
            disconnected: of("disconnected")?,
            tokens: of("prompt_tokens")? + of("completion_tokens")?,
        })
    }

    /// So many calls came this way since the last look: each was answered once by the provider, and Botdeck has written each in its
    /// ledger with the tokens that the provider told, and counted them on the limits.
    pub async fn check(&mut self, way: Way, calls: usize) -> anyhow::Result<()> {
        let (before, now) = (self.seen, self.totals().await?);
        self.seen = now;
        let (calls, answered) = (u64::try_from(calls)?, now.finished - before.finished);
        if answered != calls || now.disconnected != before.disconnected {
            bail!("{calls} calls were made and {answered} answered by the provider");
        }
        let tokens = i64::try_from(now.tokens - before.tokens)?;
        match self.deck(way) {
            Some(served) => served.check(i64::try_from(calls)?, tokens).await,
            None => Ok(()),
        }
    }

    /// So many streams were left in their middle: waits until the provider knows and Botdeck has written them.
    pub async fn forget_held(&mut self, way: Way, streams: usize) -> anyhow::Result<()> {
        let (before, streams) = (self.seen.disconnected, u64::try_from(streams)?);
        let until = Instant::now() + PATIENCE;
        while self.totals().await?.disconnected < before + streams {
            if Instant::now() > until {
                bail!("the provider does not learn that its streams were left");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.seen = self.totals().await?;
        match self.deck(way) {
            Some(served) => served.take_up(i64::try_from(streams)?).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// The last words of all, for a person who wonders.
    pub fn tails(&self) -> String {
        let running = [
            &self.provider,
            &self.proxy,
            &self.decks[0].running,
            &self.decks[1].running,
        ];
        running.map(Running::tail).join("\n")
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        for served in self.decks {
            served.running.stop().await?;
            drop(served.deck);
        }
        self.proxy.stop().await?;
        self.provider.stop().await
    }
}

/// This program in another part, at `addr`.
async fn helper(name: &'static str, arguments: &[&str], addr: SocketAddr, logs: &Path) -> anyhow::Result<Running> {
    let log = logs.join(format!("{}.log", addr.port()));
    let mut command = Command::new(std::env::current_exe()?);
    let mut running = Running::start(name, command.args(arguments), &log)?;
    running
        .until(async || tokio::net::TcpStream::connect(addr).await.is_ok())
        .await?;
    Ok(running)
}

impl Served {
    async fn start(server: &Server, database: &'static str, provider: &str, limited: bool) -> anyhow::Result<Self> {
        let mut database = server.fresh_as(database).await?;
        let deck = Deck::for_calls(&database.url, provider, DEFAULT_KEY, DEFAULT_MODEL)?;
        deck.call(&["migrate"]).await?;
        let key = fresh_key();
        let id = database.add_api_key(&key).await?;
        if limited {
            for owner in [vec!["--key", &id], vec!["--deployment"]] {
                let arguments: Vec<&str> = ["limits", "set"].into_iter().chain(owner).chain(LIMITS).collect();
                deck.call(&arguments).await?;
            }
        }
        let running = deck.serve().await?;
        Ok(Self {
            deck,
            running,
            database,
            key,
            limited,
            last: Uuid::nil(),
            tokens: 0,
        })
    }

    fn target(&self) -> Target {
        Target::new(self.deck.addr(), &self.key, DEFAULT_MODEL)
    }

    /// Waits until so many more calls are in the ledger, and looks at them.
    async fn check(&mut self, calls: i64, tokens: i64) -> anyhow::Result<()> {
        let written = self.take_up(calls).await?;
        if written != tokens {
            bail!("the provider told {tokens} tokens, the ledger has {written}");
        }
        Ok(())
    }

    /// Waits until so many more calls are in the ledger and on the limits, and tells their tokens.
    async fn take_up(&mut self, calls: i64) -> anyhow::Result<i64> {
        let until = Instant::now() + PATIENCE;
        loop {
            let written = self.database.ledger(self.last).await?;
            let total = self.tokens + written.tokens;
            let counted = written.settled && (!self.limited || written.counted == total);
            if written.calls == calls && counted {
                (self.last, self.tokens) = (written.last, total);
                return Ok(written.tokens);
            }
            if written.calls > calls || Instant::now() > until {
                bail!(
                    "{calls} calls were made and {} written; on the limits stand {} tokens of {total}, {}",
                    written.calls,
                    written.counted,
                    if written.settled {
                        "all settled"
                    } else {
                        "not all settled"
                    }
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// As Botdeck makes them.
fn fresh_key() -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut rng = rand::rng();
    let letters = (0..43).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]));
    format!("bd-{}", letters.collect::<String>())
}
