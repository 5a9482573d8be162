//! From rows to the picture that the gateway works with, and how replicas keep it the same.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::{ErrorCode, Invalid, ModelId, ModelKind, ProviderKeyId};
use gateway::{BreakerEvents, BreakerState, Catalogue, KeySpec, ModelSpec, ProviderSpec, SharedBreaker, Transition};
use repositories::catalogue::{self, OpenBreaker, Provider};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Models;
use crate::{Error, KeyRing};

impl Models {
    /// Gives the gateway a new picture if the rows have changed since the last one, and the breakers that other replicas opened.
    /// False when nothing had changed.
    pub async fn refresh(&self) -> Result<bool, Error> {
        let now = self.0.now();
        let mut seen = self.0.catalogue_seen.lock().await;
        let mut db = self.0.db.acquire().await?;
        let minute = now.timestamp().div_euclid(60);
        let revision = catalogue::revision(&mut db).await?;
        // Once a minute in any case: a price may begin without a change of the rows.
        if *seen == Some((revision, minute)) {
            return Ok(false);
        }
        let rows = catalogue::load(&mut db, now).await?;
        let breakers = catalogue::open_breakers(&mut db).await?;
        let revision = rows.revision;
        let picture = picture(&self.0.keys, &rows).with_concurrency(self.0.provider_calls);
        self.0.gateway.replace(picture);
        self.share(&breakers, now);
        *seen = Some((revision, minute));
        Ok(true)
    }

    fn share(&self, breakers: &[OpenBreaker], now: DateTime<Utc>) {
        let open: Vec<SharedBreaker> = breakers.iter().map(|breaker| shared(breaker, now)).collect();
        self.0.gateway.share_breakers(&open);
    }

    /// Tells the other replicas of breakers that open and close here, until the process ends.
    pub async fn spread_breakers(&self) {
        let (events, mut changes) = mpsc::channel(256);
        self.0.gateway.on_breaker(Arc::new(Spread(events)));
        while let Some(change) = changes.recv().await {
            if let Err(error) = self.spread(&change).await {
                tracing::warn!(error = %error, "Other replicas could not be told of a circuit breaker");
            }
        }
    }

    async fn spread(&self, change: &Transition) -> Result<(), Error> {
        let key = change.key.map_or_else(Uuid::nil, |key| key.0);
        let mut db = self.0.db.acquire().await?;
        match (change.state, change.open_for) {
            (BreakerState::Open, Some(time)) => {
                let now = self.0.now();
                let breaker = OpenBreaker {
                    provider: change.provider,
                    key,
                    until: now + chrono::TimeDelta::from_std(time).unwrap_or_default(),
                    reason: change.code.map(|code| code.as_str().to_owned()).unwrap_or_default(),
                };
                Ok(catalogue::open_breaker(&mut db, &breaker, now).await?)
            }
            (BreakerState::Closed, _) => Ok(catalogue::close_breaker(&mut db, change.provider, key).await?),
            _ => Ok(()),
        }
    }
}

fn shared(breaker: &OpenBreaker, now: DateTime<Utc>) -> SharedBreaker {
    let reason = ErrorCode::ALL.iter().find(|code| code.as_str() == breaker.reason);
    SharedBreaker {
        provider: breaker.provider,
        key: (!breaker.key.is_nil()).then_some(ProviderKeyId(breaker.key)),
        open_for: (breaker.until - now).to_std().unwrap_or_default(),
        // A newer release may know more reasons.
        code: reason.copied().unwrap_or(ErrorCode::AiDown),
    }
}

/// Never in the way of an answer: what does not fit is left out, and the other replicas find out for themselves.
struct Spread(mpsc::Sender<Transition>);

impl BreakerEvents for Spread {
    fn changed(&self, transition: &Transition) {
        let _ = self.0.try_send(transition.clone());
    }
}

/// Rows whose secrets cannot be opened are left out: the others go on. Where nothing was ever set up for chat, the demo is added.
fn picture(keys: &KeyRing, rows: &catalogue::Catalogue) -> Catalogue {
    let mut providers = Vec::new();
    for row in &rows.providers {
        match provider(keys, row, &rows.keys) {
            Ok(spec) => providers.push(spec),
            Err(error) => {
                tracing::error!(provider.id = %row.id, "The secrets of provider {} cannot be opened: {error}", row.id);
            }
        }
    }
    let models = rows.models.iter().filter(|model| model.enabled).map(|model| ModelSpec {
        id: model.id,
        provider: model.provider,
        name: model.name.clone(),
        kind: model.kind,
        context_tokens: u32::try_from(model.context_tokens).unwrap_or(u32::MAX),
        max_answer_tokens: u32::try_from(model.max_answer_tokens).unwrap_or(u32::MAX),
        price: model.price,
    });
    let aliases = rows.aliases.iter().map(|alias| {
        let routes = || rows.routes.iter().filter(|route| route.alias == alias.name);
        let mut tiers: Vec<i16> = routes().map(|route| route.tier).collect();
        tiers.sort_unstable();
        tiers.dedup();
        let tier = |tier: i16| {
            routes()
                .filter(|route| route.tier == tier)
                .map(|route| gateway::Target {
                    model: route.model,
                    weight: u32::try_from(route.weight).unwrap_or(1),
                })
                .collect()
        };
        gateway::Alias {
            name: alias.name.clone(),
            shown: alias.shown,
            tiers: tiers.into_iter().map(tier).collect(),
        }
    });
    let catalogue = Catalogue::new(providers, models.collect(), aliases.collect());
    match default_name(rows) {
        // What staff have set up and cannot be asked now is missed by people; the demo would only hide that.
        Some(name) => catalogue.with_fallback(name),
        None => catalogue.with_demo(),
    }
}

/// The first name that leads to a chat model, be that switched on or off; those that people are offered come before the others.
/// `None`: nothing was set up for chat.
fn default_name(rows: &catalogue::Catalogue) -> Option<&str> {
    let is_chat = |id: ModelId| {
        rows.models
            .iter()
            .any(|model| model.id == id && model.kind == ModelKind::Chat)
    };
    let leads = |alias: &&catalogue::Alias| {
        rows.routes
            .iter()
            .any(|route| route.alias == alias.name && is_chat(route.model))
    };
    let chats = rows.aliases.iter().filter(leads);
    chats.min_by_key(|alias| !alias.shown).map(|alias| alias.name.as_str())
}

pub(super) fn provider_kind(kind: domain::ProviderKind) -> gateway::ProviderKind {
    match kind {
        domain::ProviderKind::OpenAi => gateway::ProviderKind::OpenAi,
        domain::ProviderKind::Anthropic => gateway::ProviderKind::Anthropic,
    }
}

/// With all its secrets opened.
pub(super) fn provider(keys: &KeyRing, row: &Provider, all: &[catalogue::ProviderKey]) -> Result<ProviderSpec, Error> {
    let (proxy, headers) = secrets(keys, row)?;
    let opened = all
        .iter()
        .filter(|key| key.provider == row.id && key.enabled)
        .map(|key| {
            Ok(KeySpec {
                id: key.id,
                secret: keys.open(&key.cipher, &key.cipher_key, key.id.0.as_bytes())?,
            })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let mut spec = ProviderSpec::named(row.id, &row.name, provider_kind(row.kind), &row.base_url);
    spec.keys = opened;
    spec.headers = headers
        .map(|lines| header_lines(&lines))
        .transpose()?
        .unwrap_or_default();
    spec.organisation = row.organisation.clone();
    spec.proxy = proxy;
    spec.max_concurrent = row.max_concurrent.and_then(|most| u32::try_from(most).ok());
    spec.enabled = row.enabled;
    Ok(spec)
}

/// Proxy and headers of a provider, opened.
pub(super) fn secrets(keys: &KeyRing, row: &Provider) -> Result<(Option<SecretString>, Option<SecretString>), Error> {
    let open = |cipher: &Option<Vec<u8>>| match (cipher, &row.secrets_key_id) {
        (Some(cipher), Some(key)) => keys.open(cipher, key, row.id.0.as_bytes()).map(Some),
        _ => Ok(None),
    };
    Ok((open(&row.proxy_cipher)?, open(&row.headers_cipher)?))
}

pub(super) fn proxy_address(proxy: &SecretString) -> Result<(), Invalid> {
    let text = proxy.expose_secret().trim();
    let fits = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) && text.len() <= 500;
    fits.then_some(())
        .ok_or(Invalid("a proxy such as http://user:password@host:3128"))
}

/// Lines `Name: value`.
pub(super) fn header_lines(lines: &SecretString) -> Result<Vec<(String, SecretString)>, Invalid> {
    let expected = Invalid("headers as lines such as X-Team: support");
    lines
        .expose_secret()
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let (name, value) = line.split_once(':').ok_or_else(|| expected.clone())?;
            let (name, value) = (name.trim(), value.trim());
            let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            let valued = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            if named && valued && value.len() <= 1000 {
                Ok((name.to_ascii_lowercase(), value.to_owned().into()))
            } else {
                Err(expected.clone())
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_lines_and_keep_their_colons() {
        let lines = "X-Team: support\n\n Authorization : Basic a:b \n".to_owned().into();
        let read = header_lines(&lines).unwrap();
        let plain: Vec<_> = read
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose_secret()))
            .collect();
        assert_eq!(plain, [("x-team", "support"), ("authorization", "Basic a:b")]);
        for bad in ["no colon", ": nothing", "x y: z", "x: \u{442}"] {
            assert!(header_lines(&bad.to_owned().into()).is_err(), "{bad} was taken");
        }
    }
}
