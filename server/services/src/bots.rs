//! Bots: added by token, started and stopped by staff, run by whichever replica holds the lease.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use domain::{
    BotCache, BotId, Period, Permission,
    views::{BotRow, BotTransport, IntakeMode},
};
use repositories::{
    bot_pages,
    bots::{self, Bot, Fault, NewTelegramBot},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::{
    Actor, Error, Services,
    audit::{Target, record},
};

/// What Telegram says of a token.
#[derive(Clone, Debug)]
pub struct BotIdentity {
    pub telegram_id: i64,
    pub name: String,
    pub username: Option<String>,
}

/// The edge to Telegram that adding a bot needs.
#[async_trait]
pub trait TelegramDirectory: Send + Sync {
    /// Asks `getMe`.
    async fn identify(&self, token: &SecretString) -> Result<BotIdentity, Unidentified>;
}

/// Why Telegram does not say whose a token is. Never holds the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    #[error("Telegram does not know the token")]
    Unknown,
    /// Telegram's description or a word about the network.
    #[error("{0}")]
    Unreachable(String),
}

impl From<Unidentified> for Error {
    fn from(unidentified: Unidentified) -> Self {
        match unidentified {
            Unidentified::Unknown => Self::Invalid("a token that Telegram knows; @BotFather shows it after /token"),
            Unidentified::Unreachable(why) => Self::Telegram(why),
        }
    }
}

/// A bot with its token opened, for the runtime.
#[derive(Clone, Debug)]
pub struct BotRecord {
    pub id: BotId,
    pub transport: BotTransport,
    pub name: String,
    pub username: Option<String>,
    pub mode: IntakeMode,
    pub enabled: bool,
    /// `None` for the playground.
    pub token: Option<SecretString>,
    pub persona: String,
    pub model: Option<String>,
    /// Which of its answers it gives again.
    pub cache: BotCache,
    /// How often staff had its intake started anew.
    pub restarts: i32,
}

/// The bots of this deployment.
pub struct Bots(pub(crate) Services);

impl Bots {
    pub async fn list(&self, _actor: &Actor) -> Result<Vec<BotRow>, Error> {
        let mut db = self.0.db.acquire().await?;
        Ok(bots::rows(
            &mut db,
            Period::Day.start(self.0.now()),
            &self.0.gateway.default_model().name,
        )
        .await?)
    }

    /// Checks the token with Telegram and adds the bot; a bot that is there already gets the new token and mode.
    pub async fn add(&self, actor: &Actor, token: SecretString, mode: IntakeMode) -> Result<BotRow, Error> {
        if !actor.may(Permission::WriteSecrets) {
            return Err(Error::Forbidden(Permission::WriteSecrets));
        }
        if mode == IntakeMode::Webhook && !self.0.webhooks {
            return Err(Error::Invalid("polling, since BOTDECK_PUBLIC_URL is not set"));
        }
        let token = well_formed(&token)?;
        let identity = self.0.telegram.identify(&token).await?;
        let id = self.store(actor, &token, mode, &identity).await?;
        let rows = self.list(actor).await?;
        rows.into_iter()
            .find(|row| row.id == id)
            .ok_or(Error::NotFound("the bot"))
    }

    /// The bot of the settings. Telegram need not be reached to add it: what the token itself says is enough to begin. One that is
    /// there already keeps what staff have set: how its messages come in, and its token unless Telegram takes that of the settings.
    pub async fn ensure_from_settings(&self, token: &SecretString) -> Result<(), Error> {
        let token = well_formed(token)?;
        let telegram_id = telegram_id(&token)?;
        let stored = bots::all(&mut *self.0.db.acquire().await?).await?;
        let stored = stored.into_iter().find(|bot| bot.telegram_id == Some(telegram_id));
        let mode = match &stored {
            Some(bot) if bot.mode_chosen && (self.0.webhooks || bot.mode == IntakeMode::Polling) => bot.mode,
            _ if self.0.webhooks => IntakeMode::Webhook,
            _ => IntakeMode::Polling,
        };
        if let Some(bot) = stored.as_ref().filter(|bot| bot.mode != mode) {
            self.follow_mode(bot, mode).await?;
        }
        // One that cannot be opened is as good as none.
        let works = match stored.map(|bot| self.open(bot)) {
            Some(Ok(bot)) => bot.token,
            Some(Err(_)) | None => None,
        };
        if works.as_ref().map(ExposeSecret::expose_secret) == Some(token.expose_secret()) {
            return Ok(());
        }
        let identity = match self.0.telegram.identify(&token).await {
            Ok(identity) => identity,
            Err(error) if works.is_some() => {
                tracing::warn!("The bot of TELEGRAM_BOT_TOKEN keeps the token that it has: {error}");
                return Ok(());
            }
            Err(error) => {
                tracing::warn!("Telegram could not be asked about the bot of TELEGRAM_BOT_TOKEN: {error}");
                BotIdentity {
                    telegram_id,
                    name: format!("Bot {telegram_id}"),
                    username: None,
                }
            }
        };
        self.store(&Actor::system("settings"), &token, mode, &identity).await?;
        Ok(())
    }

    /// Without a public address nothing can be delivered, and with one it is the faster way.
    async fn follow_mode(&self, bot: &Bot, mode: IntakeMode) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        bot_pages::set_mode(&mut tx, bot.id, mode, false).await?;
        let target = Target {
            kind: "bot",
            id: bot.id.to_string(),
            name: &bot.name,
        };
        let (before, after) = (json!({ "mode": bot.mode }), json!({ "mode": mode }));
        let actor = Actor::system("settings");
        record(&self.0, &mut tx, &actor, "bot.mode", target, Some(before), Some(after)).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.0.bots_changed.notify_waiters();
        Ok(())
    }

    /// Seals with the current key what an older one sealed, so that this is needed no more once all replicas know the new one. Every
    /// start does it; of two at once one finds nothing left to do.
    pub async fn seal_anew(&self) -> Result<(), Error> {
        let mut db = self.0.db.acquire().await?;
        for bot in bots::all(&mut db).await? {
            let (Some(cipher), Some(key), Some(telegram_id)) = (&bot.token_cipher, &bot.token_key_id, bot.telegram_id)
            else {
                continue;
            };
            if key == self.0.keys.current_id() {
                continue;
            }
            let bound_to = telegram_id.to_be_bytes();
            // What cannot be opened is told where the bots are started.
            let Ok(token) = self.0.keys.open(cipher, key, &bound_to) else {
                continue;
            };
            let (sealed, key) = self.0.keys.seal(&token, &bound_to)?;
            if bots::seal_anew(&mut db, bot.id, cipher, &sealed, &key).await? {
                tracing::info!(bot.id = %bot.id, "The token of bot {} is sealed with the current key", bot.id);
            }
        }
        Ok(())
    }

    async fn store(
        &self,
        actor: &Actor,
        token: &SecretString,
        mode: IntakeMode,
        identity: &BotIdentity,
    ) -> Result<BotId, Error> {
        let (cipher, key_id) = self.0.keys.seal(token, &identity.telegram_id.to_be_bytes())?;
        let bot = NewTelegramBot {
            id: BotId(uuid::Uuid::now_v7()),
            telegram_id: identity.telegram_id,
            name: &identity.name,
            username: identity.username.as_deref(),
            mode,
            token_cipher: &cipher,
            token_key_id: &key_id,
        };
        let mut tx = self.0.db.begin().await?;
        let before = bots::lock_telegram(&mut tx, identity.telegram_id).await?;
        let before = before.map(|bot| json!({ "username": bot.username, "mode": bot.mode }));
        let (id, added) = bots::upsert_telegram(&mut tx, &bot, self.0.now()).await?;
        let action = if added { "bot.add" } else { "bot.replace_token" };
        let target = Target {
            kind: "bot",
            id: id.to_string(),
            name: &identity.name,
        };
        let after = json!({ "username": identity.username, "mode": mode });
        record(&self.0, &mut tx, actor, action, target, before, Some(after)).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.0.bots_changed.notify_waiters();
        Ok(id)
    }

    /// Starts or stops a bot on all replicas; each sees it within a few seconds.
    pub async fn set_enabled(&self, actor: &Actor, id: BotId, enabled: bool) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        let bot = bots::lock(&mut tx, id).await?.ok_or(Error::NotFound("the bot"))?;
        if bot.enabled == enabled {
            return Err(Error::Conflict(if enabled {
                "the bot is running already"
            } else {
                "the bot is stopped already"
            }));
        }
        bots::set_enabled(&mut tx, id, enabled).await?;
        self.0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        let action = if enabled { "bot.start" } else { "bot.stop" };
        let target = Target {
            kind: "bot",
            id: id.to_string(),
            name: &bot.name,
        };
        let (before, after) = (json!({ "enabled": bot.enabled }), json!({ "enabled": enabled }));
        record(&self.0, &mut tx, actor, action, target, Some(before), Some(after)).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.0.bots_changed.notify_waiters();
        Ok(())
    }

    /// All bots with their tokens opened. One whose token cannot be opened is left out, and its row says why.
    pub async fn all(&self) -> Result<Vec<BotRecord>, Error> {
        let mut db = self.0.db.acquire().await?;
        let mut records = Vec::new();
        for bot in bots::all(&mut db).await? {
            let id = bot.id;
            match self.open(bot) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::error!(bot.id = %id, "The token of bot {id} cannot be opened: {error}");
                    let fault = error.to_string();
                    bots::set_fault(&mut db, id, None, Fault::words(&fault)).await?;
                }
            }
        }
        Ok(records)
    }

    pub async fn get(&self, id: BotId) -> Result<Option<BotRecord>, Error> {
        let bot = bots::get(&mut *self.0.db.acquire().await?, id).await?;
        bot.map(|bot| self.open(bot)).transpose()
    }

    fn open(&self, bot: Bot) -> Result<BotRecord, Error> {
        let token = match (&bot.token_cipher, &bot.token_key_id, bot.telegram_id) {
            (Some(cipher), Some(key), Some(id)) => Some(self.0.keys.open(cipher, key, &id.to_be_bytes())?),
            _ => None,
        };
        Ok(BotRecord {
            id: bot.id,
            transport: bot.transport,
            name: bot.name,
            username: bot.username,
            mode: bot.mode,
            enabled: bot.enabled,
            token,
            persona: bot.persona,
            model: bot.model,
            cache: bot.cache,
            restarts: bot.restarts,
        })
    }

    /// Whether what is delivered for the bot is taken: not while it is stopped. Believed for two seconds, since every delivery asks.
    pub async fn takes_updates(&self, id: BotId) -> Result<bool, Error> {
        let held = self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .copied();
        if let Some((running, at)) = held
            && at.elapsed() < BELIEVED
        {
            return Ok(running);
        }
        let running = bots::is_enabled(&mut *self.0.db.acquire().await?, id).await?;
        let mut all = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, at)| at.elapsed() < BELIEVED);
        all.insert(id, (running, Instant::now()));
        Ok(running)
    }

    /// What `getMe` said at start.
    pub async fn set_identity(&self, id: BotId, identity: &BotIdentity) -> Result<(), Error> {
        let mut db = self.0.db.acquire().await?;
        Ok(bots::set_identity(&mut db, id, &identity.name, identity.username.as_deref()).await?)
    }

    /// Says to staff why a bot does not run, or that it does again. Nothing when `holder` does not hold the bot's lease.
    pub async fn set_fault(&self, id: BotId, holder: &str, fault: Fault<'_>) -> Result<(), Error> {
        Ok(bots::set_fault(&mut *self.0.db.acquire().await?, id, Some(holder), fault).await?)
    }

    /// Takes or renews the right to run a bot's intake; false while another replica has it.
    pub async fn lease(&self, id: BotId, holder: &str, time: Duration) -> Result<bool, Error> {
        Ok(bots::lease(&mut *self.0.db.acquire().await?, id, holder, time.as_secs_f64()).await?)
    }

    pub async fn release(&self, id: BotId, holder: &str) -> Result<(), Error> {
        Ok(bots::release(&mut *self.0.db.acquire().await?, id, holder).await?)
    }

    /// Returns when the set of bots was changed in this process.
    pub async fn changed(&self) {
        self.0.bots_changed.notified().await;
    }
}

/// How long a replica may go on taking updates of a bot that was stopped on another.
const BELIEVED: Duration = Duration::from_secs(2);

const EXPECTED_TOKEN: &str = "a bot token from @BotFather, such as 123456789:AAF…";

/// A bot's token: `123456789:` and at least a few characters of `A-Za-z0-9_-`.
pub fn well_formed(token: &SecretString) -> Result<SecretString, Error> {
    let text = token.expose_secret().trim();
    let parts = text.split_once(':').filter(|(id, secret)| {
        !id.is_empty()
            && id.len() <= 15
            && id.bytes().all(|byte| byte.is_ascii_digit())
            && (3..=100).contains(&secret.len())
            && secret
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    });
    if parts.is_some() {
        Ok(text.to_owned().into())
    } else {
        Err(Error::Invalid(EXPECTED_TOKEN))
    }
}

fn telegram_id(token: &SecretString) -> Result<i64, Error> {
    let id = token.expose_secret().split(':').next().unwrap_or_default();
    id.parse().map_err(|_| Error::Invalid(EXPECTED_TOKEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_checked_before_anyone_is_asked() {
        assert!(well_formed(&" 123456:TEST-token_1 ".to_owned().into()).is_ok());
        for bad in ["", "123456", "x:abcdef", "123:", "123:a b c", "123:../../x"] {
            assert!(well_formed(&bad.to_owned().into()).is_err(), "{bad} was taken");
        }
    }
}
