//! A Bot API server that refuses what Telegram refuses and remembers everything.
//!
//! It listens on a real socket, so the bot's real HTTP client is what is tested. Message ids, update offsets, conflicts,
//! lengths, entities, keyboards, webhook deliveries and error texts follow the Bot API's documentation and server; where
//! Telegram would silently repair something, the fake refuses it. Not here: parsing of `parse_mode` text (the text is taken
//! as it is), `getFile`, payments, and method calls in the body of a webhook's answer.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use test_support::fake_telegram::{FakeTelegram, User};
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! let telegram = FakeTelegram::start().await?;
//! telegram.add_bot("123456:TEST", "deck_bot");
//! // … start the bot with TELEGRAM_API_URL = telegram.url() …
//! let anna = User::new(7, "Anna").language("ru");
//! let (_, asked) = telegram.send_text("123456:TEST", &anna, "Hello");
//! let reply = telegram.wait_reply("123456:TEST", anna.id, asked, Duration::from_secs(5)).await?;
//! # Ok(()) }
//! ```

mod answer;
mod check;
mod control;
mod faults;
mod http;
mod inspect;
mod manners;
mod messages;
mod params;
mod people;
mod profile;
mod state;
mod talk;
mod updates;
mod wait;
mod webhook;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use tokio::sync::watch;

pub use faults::Fault;
pub use manners::{Absent, Manners, Unknown};
pub use state::{Call, CallbackAnswer, CheckoutAnswer, Counters, Delivery, Draft, Drafts, FileInfo, Message, User};
pub use talk::Group;

use crate::net::{Server, lock};
use faults::Faults;
use state::{Bot, BotState, Log, Shared};

/// A running fake; clones are the same one, and with the last of them it ends.
#[derive(Clone)]
pub struct FakeTelegram {
    shared: Arc<Shared>,
    /// Absent in the views that the server's own control interface takes: they must not keep it alive.
    running: Option<Arc<Running>>,
}

struct Running {
    server: Server,
    shared: Arc<Shared>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stopped.send_replace(true);
    }
}

/// Starting and stopping. What people do is in `people.rs`, failures and what was seen in `inspect.rs`, waiting in `wait.rs`.
///
/// # Panics
/// Methods that take a token panic when no such bot was added: the test itself is wrong then.
impl FakeTelegram {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn start_on(addr: SocketAddr) -> io::Result<Self> {
        // Refused when a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tcp = tokio::net::TcpListener::bind(addr).await?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build();
        let shared = Arc::new(Shared {
            bots: RwLock::new(HashMap::new()),
            log: Mutex::new(Log::default()),
            faults: Mutex::new(Faults::default()),
            record: true.into(),
            drafts: Mutex::default(),
            manners: Mutex::default(),
            duplicates: 0.into(),
            listener: OnceLock::new(),
            changed: watch::Sender::new(()),
            stopped: watch::Sender::new(false),
            client: client.map_err(io::Error::other)?,
            started: Instant::now(),
            addr: tcp.local_addr()?,
        });
        let router = Router::new()
            .nest("/control", control::router())
            .fallback(http::entry)
            .layer(DefaultBodyLimit::max(params::MAX_BODY))
            .with_state(Arc::clone(&shared));
        let server = Server::start(tcp, router);
        Ok(Self {
            running: Some(Arc::new(Running {
                server,
                shared: Arc::clone(&shared),
            })),
            shared,
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// What `TELEGRAM_API_URL` is to be: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.addr)
    }

    /// Closes the port and cuts all connections, as an outage would; what was recorded can still be read.
    pub fn stop(&self) {
        self.shared.stopped.send_replace(true);
        if let Some(running) = &self.running {
            running.server.stop();
        }
    }
}

/// Access to one bot.
impl FakeTelegram {
    pub(crate) fn bot(&self, token: &str) -> Arc<Bot> {
        match self.shared.bot(token) {
            Some(bot) => bot,
            None => panic!("no bot with this token: call add_bot first"),
        }
    }

    pub(crate) fn read<T>(&self, token: &str, read: impl FnOnce(&mut BotState) -> T) -> T {
        read(&mut lock(&self.bot(token).state))
    }

    /// Changes a bot and wakes its polls, deliverers and those who wait.
    pub(crate) fn change<T>(&self, token: &str, change: impl FnOnce(&mut BotState) -> T) -> T {
        let bot = self.bot(token);
        let result = change(&mut lock(&bot.state));
        bot.news.send_replace(());
        self.shared.changed.send_replace(());
        result
    }
}
