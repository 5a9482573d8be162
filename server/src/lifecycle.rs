//! Starting the roles and stopping them in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use axum::serve::{ListenerExt, TapIo};
use bot::{Directory, Runtime, intake};
use domain::ComparedBy;
use gateway::{Catalogue, Deadlines, Demo, Gateway, OpenAi, Provider};
use secrecy::ExposeSecret;
use services::{Database, Parts, RateLimiter, Services, SystemClock, models::FromSettings};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    settings::Settings,
    telemetry,
    web::{self, AppState, Edge},
};

/// What a process may do. All of them in one by default; split over machines without a change of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Pages, server functions, webhooks.
    Web,
    /// Polling and the registration of webhooks.
    Intake,
    /// Jobs.
    Worker,
    /// What is done by the clock.
    Scheduler,
}

impl Role {
    /// For programs, or for people who write to a bot.
    const fn asks_models(self) -> bool {
        match self {
            Self::Web | Self::Worker => true,
            Self::Intake | Self::Scheduler => false,
        }
    }
}

const DEFAULT_OPENAI_URL: &str = "https://api.openai.com/v1";

/// What is left of the program's start after the settings: servers reached, schema up to date.
pub struct Deck {
    pub services: Services,
    pub runtime: Runtime,
    settings: Settings,
}

impl Deck {
    /// Connects, and with `migrate` brings the schema up to date.
    pub async fn open(mut settings: Settings, migrate: bool) -> anyhow::Result<Self> {
        let Some(url) = settings.database() else {
            bail!("DATABASE_URL is not set")
        };
        let db = Database::connect(url.expose_secret(), settings.db_connections)
            .await
            .context("the database of DATABASE_URL is not reached; is Postgres running there?")?;
        if migrate {
            let unused = db
                .migrate()
                .await
                .context("the schema could not be brought up to date")?;
            if let Some(why) = unused {
                info!("The database has pgvector, which cannot be used: {why}");
            }
        }
        match db.compared_by() {
            ComparedBy::Database => info!("Similar questions are compared by pgvector"),
            ComparedBy::Process => info!("Similar questions are compared in process"),
        }
        let Some(keys) = settings.keys.take() else {
            bail!("no secret key")
        };
        let redis = settings.redis_url.as_ref().map(ExposeSecret::expose_secret);
        let http = http_client()?;
        let services = Services::new(Parts {
            db,
            clock: Arc::new(SystemClock),
            keys,
            // An error of the redis crate may quote the URL, and with it a password.
            rate: RateLimiter::new(redis).map_err(|_| anyhow::anyhow!("REDIS_URL is not readable"))?,
            gateway: gateway(&settings)?,
            telegram: Arc::new(Directory::new(http.clone(), &settings.telegram_api_url)),
            webhooks: settings.public_url.is_some(),
            queue_limit: settings.queue_limit,
            provider_calls: settings.provider_calls,
            usage_months: settings.usage_months,
        });
        let runtime = Runtime::new(services.clone(), http, &settings.telegram_api_url)
            .with_drafts(settings.drafts)
            .with_late_after(settings.late_after);
        Ok(Self {
            services,
            runtime,
            settings,
        })
    }

    /// Makes what the settings name: the first owner, the first bot. Prints the set-up link when there is no owner.
    async fn prepare(&self, roles: &[Role]) -> anyhow::Result<()> {
        if let Some((email, password)) = &self.settings.owner
            && self
                .services
                .setup()
                .owner_from_settings(email.clone(), password.clone())
                .await?
        {
            info!("The owner account of BOTDECK_OWNER_EMAIL was made");
        }
        self.services.bots().seal_anew().await?;
        let provider = self.settings.openai_key.as_ref().map(|key| FromSettings {
            base_url: self.settings.openai_url.clone(),
            key: key.clone(),
            models: self.settings.openai_models.clone(),
        });
        // Whoever asks no model needs no key: that this process has none says nothing.
        if provider.is_some() || roles.contains(&Role::Worker) {
            self.services.models().ensure_from_settings(provider).await?;
        }
        if let Some(token) = &self.settings.telegram_token {
            self.services.bots().ensure_from_settings(token).await?;
        }
        Ok(())
    }

    /// Runs the roles until `stop`; `ready` hears the address once requests are taken. Returns when everything has stopped.
    pub async fn serve(
        self,
        roles: &[Role],
        stop: CancellationToken,
        ready: impl FnOnce(SocketAddr, Option<String>),
    ) -> anyhow::Result<()> {
        let _ = telemetry::metrics();
        self.prepare(roles).await?;
        // Loading the tables of the token counter takes a moment; the first message should not.
        tokio::task::spawn_blocking(gateway::warm_up);
        let _ = self.services.rate().ping().await;
        // Before the first question, which may be to a model of a row.
        look_at_catalogue(&self.services).await;

        let listener = TcpListener::bind(self.settings.addr)
            .await
            .map_err(|error| unbound(self.settings.addr, &error))?;
        let addr = listener.local_addr()?;
        let state = AppState {
            services: self.services.clone(),
            leptos: web::site_options(addr),
            edge: Arc::new(Edge {
                https: self.settings.https(),
                public_origin: self
                    .settings
                    .public_url
                    .as_ref()
                    .map(|url| url.origin().ascii_serialization()),
                trust_proxy: self.settings.trust_proxy,
                metrics_token: self.settings.metrics_token.clone(),
            }),
        };
        let router = web::router(state, roles.contains(&Role::Web));
        let listener = prompt(listener);
        // Pages are served until the very end, so that probes see the process stop rather than vanish.
        let web_stop = CancellationToken::new();
        let web = tokio::spawn({
            let stopped = web_stop.clone();
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            async move {
                axum::serve(listener, service)
                    .with_graceful_shutdown(stopped.cancelled_owned())
                    .await
            }
        });

        tokio::spawn(keep_catalogue(self.services.clone(), stop.clone()));
        tokio::spawn({
            let (services, stopped) = (self.services.clone(), stop.clone());
            async move { services.limits().watch(stopped.cancelled_owned()).await }
        });
        // Of its own, since it writes until the last answer has ended.
        let calls_stop = CancellationToken::new();
        let calls = tokio::spawn({
            let (services, stopped) = (self.services.clone(), calls_stop.clone());
            let asks = roles.iter().any(|role| role.asks_models());
            async move { services.calls().write(asks, stopped.cancelled_owned()).await }
        });

        let replica = replica();
        let mut running = JoinSet::new();
        if roles.contains(&Role::Intake) {
            let settings = intake::IntakeSettings {
                replica: replica.clone(),
                public_url: self
                    .settings
                    .public_url
                    .as_ref()
                    .map(|url| url.as_str().trim_end_matches('/').to_owned()),
            };
            running.spawn(intake::supervise(self.runtime.clone(), settings, stop.clone()));
        }
        if roles.contains(&Role::Worker) {
            let settings = jobs::RunnerSettings {
                worker: replica,
                concurrency: self.settings.workers,
                per_bot: self.settings.bot_workers,
                grace: jobs::GRACE,
            };
            running.spawn(jobs::run(self.runtime.clone(), settings, stop.clone()));
        }
        if roles.contains(&Role::Scheduler) {
            running.spawn(jobs::schedule(self.services.clone(), stop.clone()));
        }
        let link = if roles.contains(&Role::Web) {
            let base = self
                .settings
                .open_at()
                .unwrap_or_else(|| format!("http://{}", reachable(addr)));
            self.services
                .auth()
                .issue_setup_token()
                .await?
                .map(|token| format!("{base}/setup?token={token}"))
        } else {
            None
        };
        ready(addr, link);

        let mut broken = false;
        tokio::select! {
            () = stop.cancelled() => {}
            // Without one of its roles a process only looks alive: whoever watches over it is to start another.
            Some(ended) = running.join_next() => {
                broken = !stop.is_cancelled();
                report(ended);
                stop.cancel();
            }
        }
        info!("Stopping: no new work, what runs gets some time to end");
        let programs = self.services.calls();
        let roles = async {
            while let Some(ended) = running.join_next().await {
                report(ended);
            }
        };
        let ((), drained) = futures::future::join(roles, programs.drain(jobs::GRACE)).await;
        if !drained {
            warn!("Some calls of other programs have not ended; they will be charged by their estimates");
        }
        web_stop.cancel();
        // Open event streams would keep it waiting for ever.
        match tokio::time::timeout(Duration::from_secs(2), web).await {
            Ok(ended) => ended??,
            Err(_) => info!("Some connections were still open and are cut"),
        }
        calls_stop.cancel();
        match tokio::time::timeout(Duration::from_secs(5), calls).await {
            Ok(ended) => ended?,
            Err(_) => {
                warn!("Some calls of other programs could not be written; they will be charged by their estimates");
            }
        }
        self.services.database().close().await;
        info!("Stopped");
        anyhow::ensure!(
            !broken,
            "a role ended although nobody had asked for it; the log says which"
        );
        Ok(())
    }
}

/// What staff change about providers and models holds here within a second, and what this process finds out of them holds elsewhere.
async fn keep_catalogue(services: Services, stop: CancellationToken) {
    let spread = services.clone();
    let spread = async move { spread.models().spread_breakers().await };
    let look = async {
        loop {
            look_at_catalogue(&services).await;
            tokio::time::sleep(services::models::REFRESH).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        ((), ()) = futures::future::join(spread, look) => {}
    }
}

async fn look_at_catalogue(services: &Services) {
    if let Err(error) = services.models().refresh().await {
        warn!(error = %error, "The catalogue of models could not be read; the last one holds");
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        warn!(error = %error, "A role ended badly");
    }
}

fn unbound(addr: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        anyhow::anyhow!("{addr} is taken; set BOTDECK_ADDR to another address")
    } else {
        anyhow::anyhow!("{addr} cannot be listened on ({error}); set BOTDECK_ADDR to an address of this machine")
    }
}

/// `0.0.0.0` is where we listen, not where a browser goes.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), addr.port())
    } else {
        addr
    }
}

/// The provider of the settings, or the demo.
pub fn gateway(settings: &Settings) -> anyhow::Result<Gateway> {
    let deadlines = Deadlines {
        first_token: settings.first_token,
        between_tokens: settings.first_token,
        overall: settings.answer,
    };
    let (provider, models): (Arc<dyn Provider>, _) = match &settings.openai_key {
        Some(key) => (
            Arc::new(OpenAi::new(&settings.openai_url, key.clone()).context("the provider of OPENAI_BASE_URL")?),
            settings.openai_models.clone(),
        ),
        None => {
            if settings.openai_url != DEFAULT_OPENAI_URL {
                warn!(
                    "OPENAI_BASE_URL is set without OPENAI_API_KEY: the demo model answers; a server that asks for no key wants some word all the same"
                );
            }
            (Arc::new(Demo::new()), Demo::models())
        }
    };
    let catalogue = Catalogue::from_settings(provider, models).with_concurrency(settings.provider_calls);
    Ok(Gateway::new(catalogue, deadlines))
}

/// Takes connections on which a streamed answer does not wait for more of it to fill a packet.
fn prompt(listener: TcpListener) -> TapIo<TcpListener, fn(&mut TcpStream)> {
    listener.tap_io::<fn(&mut TcpStream)>(|stream| {
        let _ = stream.set_nodelay(true);
    })
}

/// One client for all bots: connections are shared, redirects are not followed (a link may hold a token).
fn http_client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(3))
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .build()
        .context("no HTTP client")
}

/// Names this process in leases: readable, and never the same twice.
fn replica() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = host.trim();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!(
        "{}-{}-{}",
        if host.is_empty() { "botdeck" } else { host },
        std::process::id(),
        &random[..6]
    )
}

#[cfg(test)]
mod tests {
    use axum::serve::Listener;

    use super::*;

    #[tokio::test]
    async fn no_piece_of_a_streamed_answer_waits_for_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let mut listener = prompt(listener);
        let (client, (stream, _)) = tokio::join!(client, listener.accept());
        assert!(stream.nodelay().unwrap() && !client.unwrap().nodelay().unwrap());
    }
}
