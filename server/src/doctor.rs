//! `botdeck doctor`: is everything there that the program stands on, and if not, what is to be done.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use services::{Clock, Database, RateLimiter, SystemClock, TelegramDirectory};

use crate::{embedded, lifecycle, settings::Settings};

const PATIENCE: Duration = Duration::from_secs(25);
const LEAST_FREE_MB: u64 = 500;

/// How one thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: &'static str,
    pub state: State,
    pub found: String,
    /// What to do about it; empty when all is well.
    pub advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Good,
    /// Works, but not as well as it could.
    Note,
    Bad,
}

fn finding(what: &'static str, state: State, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding {
        what,
        state,
        found: found.into(),
        advice: advice.into(),
    }
}

/// Looks at everything; one fault does not hide another.
pub async fn examine(settings: &Settings) -> Vec<Finding> {
    let ((storage, stored), redis, provider) = tokio::join!(
        async {
            let (findings, db) = storage(settings).await;
            (findings, stored_bots(settings, db).await)
        },
        redis(settings),
        provider(settings)
    );
    let mut findings = vec![secret_key(settings)];
    findings.extend(storage);
    findings.push(redis);
    findings.extend(telegram(settings, stored).await);
    findings.extend(metrics(settings));
    findings.extend([provider, disk()]);
    findings
}

fn secret_key(settings: &Settings) -> Finding {
    match &settings.keys {
        Some(keys) => finding("secret key", State::Good, format!("key {}", keys.current_id()), ""),
        None => {
            let advice = "set BOTDECK_SECRET_KEY: openssl rand -base64 32 makes one; keep it, it opens stored secrets";
            finding("secret key", State::Bad, "not set", advice)
        }
    }
}

/// Figures of the whole deck, by the address that everybody knows.
fn metrics(settings: &Settings) -> Option<Finding> {
    let advice = "set BOTDECK_METRICS_TOKEN, or keep /metrics from strangers in your proxy";
    let is_open = settings.public_url.is_some() && settings.metrics_token.is_none();
    is_open.then(|| {
        finding(
            "metrics",
            State::Note,
            "open to everybody who reaches BOTDECK_PUBLIC_URL",
            advice,
        )
    })
}

/// The database and its clock; the database itself when it is reached.
async fn storage(settings: &Settings) -> (Vec<Finding>, Option<Database>) {
    let unreached = |found: String, advice: &str| {
        let clock = finding(
            "clock",
            State::Note,
            "not compared: it goes by the database's",
            "see database",
        );
        (vec![finding("database", State::Bad, found, advice), clock], None)
    };
    let Some(url) = &settings.database_url else {
        return unreached(
            "DATABASE_URL is not set".to_owned(),
            "set it to postgres://user:password@host/name",
        );
    };
    let checked = tokio::time::timeout(PATIENCE, async {
        let db = Database::connect(url.expose_secret(), 2).await?;
        let version = db.ping().await?;
        let now = db.now().await?;
        Ok::<_, repositories::Error>((version, now, db))
    });
    match checked.await {
        Ok(Ok((version, now, db))) => {
            let database = finding("database", State::Good, format!("Postgres {version}"), "");
            (vec![database, clock(now)], Some(db))
        }
        Ok(Err(error)) => unreached(
            error.to_string(),
            "check that Postgres runs and that DATABASE_URL names the right host, user, password and database",
        ),
        Err(_) => unreached("no answer".to_owned(), "check host and firewall of DATABASE_URL"),
    }
}

fn clock(of_database: DateTime<Utc>) -> Finding {
    let apart = (SystemClock.now() - of_database).num_milliseconds().abs();
    let found = format!("{apart} ms apart from the database");
    if apart < 2000 {
        return finding("clock", State::Good, found, "");
    }
    let advice = "set both machines' clocks by NTP: limits and leases go by the time";
    finding("clock", State::Bad, found, advice)
}

async fn redis(settings: &Settings) -> Finding {
    let advice = "check REDIS_URL; until then limits per minute are counted by each replica alone, and stricter";
    let Some(url) = &settings.redis_url else {
        return finding("redis", State::Note, "REDIS_URL is not set", advice);
    };
    let Ok(limiter) = RateLimiter::new(Some(url.expose_secret())) else {
        return finding("redis", State::Bad, "REDIS_URL is not readable", advice);
    };
    match limiter.ping().await {
        Ok(version) => finding("redis", State::Good, format!("Redis {version}"), ""),
        Err(error) => finding("redis", State::Bad, error, advice),
    }
}

/// A bot that was added in the dashboard: its name, and its token if that can be opened.
struct StoredBot {
    name: String,
    token: Result<SecretString, &'static str>,
}

/// The running bots of the database. None while it is empty: `serve` and `migrate` make its tables.
async fn stored_bots(settings: &Settings, db: Option<Database>) -> Vec<StoredBot> {
    let (Some(db), Some(keys)) = (db, &settings.keys) else {
        return Vec::new();
    };
    let Ok(mut db) = db.acquire().await else {
        return Vec::new();
    };
    let bots = repositories::bots::all(&mut db).await.unwrap_or_default();
    bots.into_iter()
        .filter(|bot| bot.enabled)
        .filter_map(|bot| {
            let (cipher, key, id) = (bot.token_cipher?, bot.token_key_id?, bot.telegram_id?);
            let token = keys.open(&cipher, &key, &id.to_be_bytes());
            Some(StoredBot {
                name: bot.name,
                token: token.map_err(|_| "its token cannot be opened with BOTDECK_SECRET_KEY"),
            })
        })
        .collect()
}

/// One finding for each bot: of the settings, and of the database.
async fn telegram(settings: &Settings, stored: Vec<StoredBot>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let of_settings = settings.telegram_token.as_ref();
    match of_settings {
        Some(token) => {
            let advice = "check TELEGRAM_BOT_TOKEN (@BotFather, /token) and that TELEGRAM_API_URL is reached from here";
            findings.push(identified(settings, token, None, advice).await);
        }
        None if stored.is_empty() => {
            let advice = "get a token from @BotFather and set TELEGRAM_BOT_TOKEN, or add the bot in the dashboard";
            findings.push(finding("telegram", State::Note, "no bot yet", advice));
        }
        None => {}
    }
    for bot in stored {
        let advice = "replace its token on the page Bots, or stop it there; TELEGRAM_API_URL must be reached from here";
        match &bot.token {
            // It has been looked at already.
            Ok(token) if of_settings.is_some_and(|of| of.expose_secret() == token.expose_secret()) => {}
            Ok(token) => findings.push(identified(settings, token, Some(&bot.name), advice).await),
            Err(why) => {
                let advice = "set the key it was stored with (an old one goes behind the new), or replace the token on the page Bots";
                findings.push(finding("telegram", State::Bad, format!("{}: {why}", bot.name), advice));
            }
        }
    }
    findings
}

async fn identified(settings: &Settings, token: &SecretString, name: Option<&str>, advice: &str) -> Finding {
    let directory = bot::Directory::new(reqwest::Client::new(), &settings.telegram_api_url);
    let of = name.map(|name| format!("{name}: ")).unwrap_or_default();
    match tokio::time::timeout(PATIENCE, directory.identify(token)).await {
        Ok(Ok(bot)) => {
            let username = bot.username.unwrap_or(bot.name);
            finding("telegram", State::Good, format!("{of}@{username}"), "")
        }
        Ok(Err(error)) => finding("telegram", State::Bad, format!("{of}{error}"), advice),
        Err(_) => finding("telegram", State::Bad, format!("{of}no answer"), advice),
    }
}

async fn provider(settings: &Settings) -> Finding {
    if settings.openai_key.is_none() {
        let advice = "set OPENAI_API_KEY (and OPENAI_BASE_URL for another server) for real answers";
        return finding(
            "model",
            State::Note,
            "no key: the built-in demo answers, unless page Models has a chat model",
            advice,
        );
    }
    let advice = "check OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_MODEL and the account's balance";
    let gateway = match lifecycle::gateway(settings) {
        Ok(gateway) => gateway,
        Err(error) => return finding("model", State::Bad, error.to_string(), advice),
    };
    let model = gateway.default_model().name.clone();
    match tokio::time::timeout(PATIENCE, gateway.probe(&model)).await {
        Ok(Ok(())) => finding(
            "model",
            State::Good,
            format!("{model} of {} answers", gateway.provider_name()),
            "",
        ),
        Ok(Err(error)) => finding(
            "model",
            State::Bad,
            format!("{} {}", error.code(), error.cause()),
            advice,
        ),
        Err(_) => finding("model", State::Bad, "no answer", advice),
    }
}

/// The disk of the private Postgres' data, if there is one; else the one we are on. `df` is on every system we run on, and the standard
/// library has no word for this.
fn disk() -> Finding {
    let data = Path::new(embedded::DIR).join("services");
    let place = if data.exists() { data } else { PathBuf::from(".") };
    let output = std::process::Command::new("df").arg("-Pk").arg(&place).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let free = text
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().nth(3))
        .and_then(|kb| kb.parse::<u64>().ok());
    match free.map(|kb| kb / 1024) {
        Some(mb) if mb >= LEAST_FREE_MB => {
            finding("disk", State::Good, format!("{mb} MB free at {}", place.display()), "")
        }
        Some(mb) => finding(
            "disk",
            State::Bad,
            format!("{mb} MB free at {}", place.display()),
            "free some space: Postgres stops when the disk is full",
        ),
        None => finding("disk", State::Note, "df did not answer", ""),
    }
}

/// A table for people; one line each, advice below what is wrong.
pub fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.state {
            State::Good => "ok  ",
            State::Note => "note",
            State::Bad => "BAD ",
        };
        text.push_str(&format!("{mark}  {:width$}  {}\n", finding.what, finding.found));
        if !finding.advice.is_empty() {
            text.push_str(&format!("      {:width$}  → {}\n", "", finding.advice));
        }
    }
    text
}
