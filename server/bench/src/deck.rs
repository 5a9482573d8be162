//! Botdeck as it is installed: the built program, its own process, the settings an operator would give it.

use std::{net::SocketAddr, path::PathBuf, process::Stdio};

use anyhow::{Context, bail};
use base64::Engine;
use tokio::process::Command;

use crate::{process::Running, run::Endpoints};

/// How updates reach it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Polling,
    Webhook,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Self::Polling => "polling",
            Self::Webhook => "webhook",
        }
    }
}

/// The program with everything it needs to know for one run.
pub struct Deck {
    program: PathBuf,
    settings: Vec<(&'static str, String)>,
    /// Empty, so that no settings file lies about; logs go there.
    folder: PathBuf,
    addr: SocketAddr,
}

/// Free now; a program that is started takes it a moment later.
pub fn free_addr() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Deck {
    /// To answer messages.
    pub fn new(database: &str, endpoints: &Endpoints) -> anyhow::Result<Self> {
        let mut deck = Self::for_calls(database, &endpoints.provider, endpoints.key, endpoints.model)?;
        deck.settings.extend([
            ("TELEGRAM_API_URL", endpoints.telegram.clone()),
            ("BENCH_BOT_TOKEN", endpoints.token.to_owned()),
        ]);
        Ok(deck)
    }

    /// To pass calls of other programs on to a provider; it has no bot.
    pub fn for_calls(database: &str, provider: &str, provider_key: &str, model: &str) -> anyhow::Result<Self> {
        let program = std::env::var_os("BOTDECK_PROGRAM").context("BOTDECK_PROGRAM is not set")?;
        let program = std::path::absolute(program)?;
        if !program.is_file() {
            bail!("{} is not there: build it first", program.display());
        }
        let addr = free_addr()?;
        let folder = std::env::temp_dir().join(format!("botdeck-bench-{}-{}", std::process::id(), addr.port()));
        std::fs::create_dir_all(&folder)?;
        let key = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 32]>());
        let settings = vec![
            ("DATABASE_URL", database.to_owned()),
            ("REDIS_URL", std::env::var("REDIS_URL").context("REDIS_URL is not set")?),
            ("BOTDECK_SECRET_KEY", key),
            ("BOTDECK_ADDR", addr.to_string()),
            ("BOTDECK_PUBLIC_URL", format!("http://{addr}")),
            ("OPENAI_BASE_URL", provider.to_owned()),
            ("OPENAI_API_KEY", provider_key.to_owned()),
            // With a price, so that money is counted.
            ("OPENAI_MODEL", format!("{model}@0.15/0.60")),
            // As many at once as the load makes.
            ("BOTDECK_PROVIDER_CALLS", "1024".to_owned()),
        ];
        Ok(Self {
            program,
            settings,
            folder,
            addr,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Whatever the machine's owner has set up for real use is not for this.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["BOTDECK_", "TELEGRAM_", "OPENAI_"]
                .iter()
                .any(|mine| text.starts_with(mine))
            {
                command.env_remove(&name);
            }
        }
        command
            .args(arguments)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder);
        command
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Runs a command to its end.
    pub async fn call(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = self.command(arguments).stdin(Stdio::null()).output().await?;
        if !output.status.success() {
            bail!(
                "botdeck {} failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// The schema, the bot, and a plan without limits: 50 people here write more than anybody should.
    pub async fn prepare(&self, transport: Transport) -> anyhow::Result<()> {
        self.call(&["migrate"]).await?;
        let mut limits = vec!["limits", "set", "free"];
        limits.extend([
            "messages_per_minute=none",
            "messages_per_day=none",
            "tokens_per_day=none",
            "money_per_month=none",
        ]);
        self.call(&limits).await?;
        self.call(&[
            "bot",
            "add",
            "--token-env",
            "BENCH_BOT_TOKEN",
            "--mode",
            transport.name(),
        ])
        .await
    }

    /// Serves, with the log in a file.
    pub async fn serve(&self) -> anyhow::Result<Running> {
        let log = self.folder.join("botdeck.log");
        let mut running = Running::start("botdeck", &mut self.command(&["serve"]), &log)?;
        let url = format!("http://{}/readyz", self.addr);
        let http = reqwest::Client::builder().no_proxy().build()?;
        running
            .until(async || {
                http.get(&url)
                    .send()
                    .await
                    .is_ok_and(|answer| answer.status().is_success())
            })
            .await?;
        Ok(running)
    }
}

impl Drop for Deck {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
