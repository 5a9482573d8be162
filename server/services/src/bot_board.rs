//! The bots page: how each bot is doing, and changing what it is.

use chrono::{DateTime, Utc};
use domain::{
    BotCache, BotId, Period, Permission, Persona, Scope, Threshold,
    views::{
        BotTransport, IntakeMode,
        bots::{BotBoard, BotCard},
    },
};
use repositories::{PgConnection, bot_pages, bots};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::{
    Actor, Bots, Error,
    audit::{Target, record},
    bots::well_formed,
    limits::shared_bars,
};

impl Bots {
    pub async fn board(&self, actor: &Actor) -> Result<BotBoard, Error> {
        let now = self.0.now();
        let default = self.0.gateway.default_model();
        let mut db = self.0.db.acquire().await?;
        let rows = bots::rows(&mut db, Period::Day.start(now), &default.name).await?;
        let mut health = bot_pages::health(&mut db).await?;
        let mut bars = Vec::new();
        if actor.may(Permission::ReadLimits) {
            let bots: Vec<_> = rows.iter().map(|row| (Scope::Bot, row.id.to_string())).collect();
            bars = shared_bars(&self.0, &mut db, &bots).await?;
        }
        let cards = rows.into_iter().filter_map(|row| {
            let id = row.id.to_string();
            let ours = bars.iter().filter(|(_, subject, _)| *subject == id);
            let at = health.iter().position(|health| health.id == row.id)?;
            let health = health.swap_remove(at);
            Some(BotCard {
                row,
                lease_holder: health.lease_holder,
                lag_ms: health.lag_ms,
                pending: health.pending,
                flood_waits: health.flood_waits,
                persona: health.persona,
                model: health.model,
                cache: health.cache,
                limits: ours.map(|(.., bar)| bar.clone()).collect(),
            })
        });
        Ok(BotBoard {
            now,
            bots: cards.collect(),
            models: self.0.gateway.models().iter().map(|model| model.name.clone()).collect(),
            embedders: self.0.gateway.embedders(),
            webhooks: self.0.webhooks,
        })
    }

    /// Who the bot is and which model answers; `None` is the default one. Holds from the next message on, within seconds. A call
    /// that changes nothing leaves no trace.
    pub async fn set_manner(
        &self,
        actor: &Actor,
        id: BotId,
        persona: Persona,
        model: Option<String>,
    ) -> Result<(), Error> {
        let model = model.filter(|name| !name.is_empty());
        if model
            .as_deref()
            .is_some_and(|name| self.0.gateway.model(name).is_none())
        {
            return Err(Error::Invalid("a model of the list"));
        }
        let mut tx = self.0.db.begin().await?;
        let bot = bots::lock(&mut tx, id).await?.ok_or(Error::NotFound("the bot"))?;
        if bot.persona == persona.as_str() && bot.model == model {
            return Ok(());
        }
        bot_pages::set_manner(&mut tx, id, persona.as_str(), model.as_deref()).await?;
        let before = json!({ "persona": bot.persona, "model": bot.model });
        let after = json!({ "persona": persona.as_str(), "model": model });
        self.note(&mut tx, actor, "bot.edit", (id, &bot.name), before, after)
            .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(())
    }

    /// Which of its answers the bot gives again. Holds from the next message on, within seconds; another lifetime begins with nothing.
    pub async fn set_cache(&self, actor: &Actor, id: BotId, cache: BotCache) -> Result<(), Error> {
        self.change_cache(actor, id, |_| cache).await
    }

    /// From which likeness on a question counts as asked before.
    pub async fn set_threshold(&self, actor: &Actor, id: BotId, from: Threshold) -> Result<(), Error> {
        let change = |before: BotCache| BotCache {
            similar_from: from,
            ..before
        };
        self.change_cache(actor, id, change).await
    }

    async fn change_cache(
        &self,
        actor: &Actor,
        id: BotId,
        change: impl FnOnce(BotCache) -> BotCache,
    ) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        let bot = bots::lock(&mut tx, id).await?.ok_or(Error::NotFound("the bot"))?;
        let cache = change(bot.cache.clone());
        if bot.cache == cache {
            return Ok(());
        }
        // One that was set before may have gone since, and is in nobody's way.
        if let Some(name) = cache
            .similar_by
            .as_deref()
            .filter(|_| cache.similar_by != bot.cache.similar_by)
            && !self.0.gateway.embedders().iter().any(|known| known == name)
        {
            return Err(Error::Invalid("an embedding model of the list"));
        }
        bot_pages::set_cache(&mut tx, id, &cache).await?;
        let (before, after) = (cache_words(&bot.cache), cache_words(&cache));
        self.note(&mut tx, actor, "bot.cache", (id, &bot.name), before, after)
            .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(())
    }

    /// Polling or webhook; intake starts anew on the replica that holds the bot.
    pub async fn set_mode(&self, actor: &Actor, id: BotId, mode: IntakeMode) -> Result<(), Error> {
        if mode == IntakeMode::Webhook && !self.0.webhooks {
            return Err(Error::Invalid("polling, since BOTDECK_PUBLIC_URL is not set"));
        }
        let mut tx = self.0.db.begin().await?;
        let bot = bots::lock(&mut tx, id).await?.ok_or(Error::NotFound("the bot"))?;
        if bot.transport != BotTransport::Telegram {
            return Err(Error::Invalid("a bot of Telegram"));
        }
        if bot.mode == mode {
            return Ok(());
        }
        bot_pages::set_mode(&mut tx, id, mode, true).await?;
        let (before, after) = (json!({ "mode": bot.mode }), json!({ "mode": mode }));
        self.note(&mut tx, actor, "bot.mode", (id, &bot.name), before, after)
            .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.0.bots_changed.notify_waiters();
        Ok(())
    }

    /// A new token of the same bot, after Telegram has said that it is one.
    pub async fn replace_token(&self, actor: &Actor, id: BotId, token: SecretString) -> Result<(), Error> {
        if !actor.may(Permission::WriteSecrets) {
            return Err(Error::Forbidden(Permission::WriteSecrets));
        }
        let token = well_formed(&token)?;
        let known = bots::get(&mut *self.0.db.acquire().await?, id).await?;
        let known = known.ok_or(Error::NotFound("the bot"))?;
        if known.transport != BotTransport::Telegram {
            return Err(Error::Invalid("a bot of Telegram"));
        }
        let identity = self.0.telegram.identify(&token).await?;
        if known.telegram_id != Some(identity.telegram_id) {
            return Err(Error::Conflict("this token is of another bot"));
        }
        let (cipher, key_id) = self.0.keys.seal(&token, &identity.telegram_id.to_be_bytes())?;
        let mut tx = self.0.db.begin().await?;
        let bot = bots::lock(&mut tx, id).await?.ok_or(Error::NotFound("the bot"))?;
        let username = identity.username.as_deref();
        bot_pages::set_token(&mut tx, id, &cipher, &key_id, &identity.name, username).await?;
        // Never the token itself, nor anything made from it.
        let before = json!({ "name": bot.name, "username": bot.username, "token": "old" });
        let after = json!({ "name": identity.name, "username": identity.username, "token": "new" });
        self.note(&mut tx, actor, "bot.replace_token", (id, &bot.name), before, after)
            .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.0.bots_changed.notify_waiters();
        Ok(())
    }

    /// Lets the intake of a bot start anew at once instead of at its next attempt.
    pub async fn restart(&self, actor: &Actor, id: BotId) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        let bot = bots::lock(&mut tx, id).await?.ok_or(Error::NotFound("the bot"))?;
        if bot.transport != BotTransport::Telegram {
            return Err(Error::Invalid("a bot of Telegram"));
        }
        if !bot.enabled {
            return Err(Error::Conflict("the bot is stopped; start it first"));
        }
        let fault = bot_pages::restart(&mut tx, id).await?;
        let (before, after) = (json!({ "fault": fault }), json!({ "fault": null }));
        self.note(&mut tx, actor, "bot.restart", (id, &bot.name), before, after)
            .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.0.bots_changed.notify_waiters();
        Ok(())
    }

    async fn note(
        &self,
        tx: &mut PgConnection,
        actor: &Actor,
        action: &'static str,
        (id, name): (BotId, &str),
        before: Value,
        after: Value,
    ) -> Result<(), Error> {
        let target = Target {
            kind: "bot",
            id: id.to_string(),
            name,
        };
        record(&self.0, tx, actor, action, target, Some(before), Some(after)).await
    }

    /// What Telegram says it still holds back for a bot.
    pub async fn set_pending(&self, id: BotId, pending: i64) -> Result<(), Error> {
        let mut db = self.0.db.acquire().await?;
        Ok(bot_pages::set_pending(&mut db, id, pending, self.0.now()).await?)
    }

    /// For the metrics.
    pub async fn health(&self) -> Result<Vec<BotHealth>, Error> {
        let health = bot_pages::health(&mut *self.0.db.acquire().await?).await?;
        Ok(health
            .into_iter()
            .map(|bot| BotHealth {
                id: bot.id,
                enabled: bot.enabled,
                up: bot.enabled && bot.fault.is_none() && (bot.lease_holder.is_some() || !bot.telegram),
                last_update_at: bot.last_update_at,
                lag_ms: bot.lag_ms.unwrap_or(0),
                pending: bot.pending.map(|(count, _)| count),
            })
            .collect())
    }
}

/// As the trail keeps it.
fn cache_words(cache: &BotCache) -> Value {
    json!({
        "cache": cache.sharing,
        "seconds": cache.kept_for,
        "similar_by": cache.similar_by,
        "similar_from": cache.similar_from.to_string(),
    })
}

/// How a bot is doing, in figures.
#[derive(Clone, Debug)]
pub struct BotHealth {
    pub id: BotId,
    /// Staff want it to run.
    pub enabled: bool,
    /// It does: some replica listens for it, and it has no fault.
    pub up: bool,
    pub last_update_at: Option<DateTime<Utc>>,
    /// Age of its oldest job that waits, in milliseconds.
    pub lag_ms: i64,
    /// What Telegram holds back for it, where that has been asked.
    pub pending: Option<i64>,
}
