//! Keys with which other programs call the gateway: shown once when they are made, kept as a hash, given back by revoking.

mod known;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    ApiKeyId, ApiScope, KeyName, Lifetime, Scope, SearchText,
    views::{
        Page,
        api_keys::{FreshKey, KeyOrder, KeyQuery, KeyRow, KeyState},
    },
};
pub(crate) use known::KnownKeys;
use rand::Rng;
use repositories::{
    api_keys::{self as rows, After, Filter, NewKey},
    limits,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    Actor, Error, Services,
    audit::{Target, record},
};

const PAGE: i64 = 50;
/// What a sealed fresh key is bound to.
const FRESH: &[u8] = b"fresh api key";
const BYTES: usize = 32;
/// Of `bd-` and 32 bytes in base64.
const LENGTH: usize = 46;
/// How much of a key is shown afterwards: enough to recognise it, far too little to guess it.
const SHOWN: usize = 9;

/// What a new key is to open.
#[derive(Clone, Debug)]
pub struct KeyWish {
    pub name: KeyName,
    pub scopes: Vec<ApiScope>,
    /// `None` is every model.
    pub models: Option<Vec<String>>,
    pub lifetime: Lifetime,
}

/// A key that was found good.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub name: String,
    pub scopes: Vec<ApiScope>,
    pub models: Option<Vec<String>>,
}

impl ApiKey {
    pub fn may(&self, scope: ApiScope) -> bool {
        self.scopes.contains(&scope)
    }

    pub fn may_use(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|known| known == model))
    }
}

/// API keys.
pub struct ApiKeys(pub(crate) Services);

impl ApiKeys {
    pub async fn list(&self, _actor: &Actor, query: KeyQuery) -> Result<Page<KeyRow>, Error> {
        let search: SearchText = query.search.parse()?;
        let filter = Filter {
            search: search.as_str(),
            states: query.states,
            order: query.order,
            after: parse_after(query.after.as_deref(), query.order)?,
        };
        let mut db = self.0.db.acquire().await?;
        let mut keys = rows::list(&mut db, &filter, self.0.now(), PAGE + 1).await?;
        let more = crate::users::cut(&mut keys, PAGE);
        for limited in limits::list(&mut db).await? {
            let owner = |key: &&mut KeyRow| limited.scope == Scope::ApiKey && limited.subject == key.id.to_string();
            if let Some(key) = keys.iter_mut().find(owner) {
                key.limits = limited.limits;
            }
        }
        let next = keys.last().filter(|_| more).map(|key| after(key, query.order));
        Ok(Page { rows: keys, next })
    }

    /// Makes a key. What is returned is shown once and kept nowhere.
    pub async fn create(&self, actor: &Actor, wish: KeyWish) -> Result<FreshKey, Error> {
        if wish.scopes.is_empty() {
            return Err(Error::Invalid("at least one kind of call"));
        }
        if wish.models.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::Invalid("at least one model, or all of them"));
        }
        let now = self.0.now();
        let (id, secret) = (ApiKeyId(uuid::Uuid::now_v7()), generate());
        let key = NewKey {
            id,
            name: wish.name.as_str(),
            prefix: &secret.expose_secret()[..SHOWN],
            hash: &hash_of(&secret),
            scopes: &wish.scopes,
            models: wish.models.as_deref(),
            created_by: &actor.name,
            expires_at: wish.lifetime.days().map(|days| now + TimeDelta::days(days)),
        };
        let mut tx = self.0.db.begin().await?;
        rows::insert(&mut tx, &key, now).await?;
        let after =
            json!({ "prefix": key.prefix, "scopes": wish.scopes, "models": wish.models, "expires": key.expires_at });
        record(
            &self.0,
            &mut tx,
            actor,
            "api_key.create",
            target(id, wish.name.as_str()),
            None,
            Some(after),
        )
        .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(FreshKey {
            id,
            name: wish.name.into(),
            secret: secret.expose_secret().to_owned(),
        })
    }

    /// Seals a fresh key for the one page that is to show it.
    pub fn conceal(&self, fresh: &FreshKey) -> Result<String, Error> {
        let text = serde_json::to_string(fresh).map_err(|_| Error::Internal("a key that is no JSON"))?;
        let (cipher, key_id) = self.0.keys.seal(&text.into(), FRESH)?;
        Ok(format!("{key_id}.{}", URL_SAFE_NO_PAD.encode(cipher)))
    }

    /// `None` where it cannot be opened.
    pub fn reveal(&self, sealed: &str) -> Option<FreshKey> {
        let (key_id, cipher) = sealed.split_once('.')?;
        let text = self
            .0
            .keys
            .open(&URL_SAFE_NO_PAD.decode(cipher).ok()?, key_id, FRESH)
            .ok()?;
        serde_json::from_str(text.expose_secret()).ok()
    }

    /// For good: a key that was given up never opens anything again.
    pub async fn revoke(&self, actor: &Actor, id: ApiKeyId) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        let key = rows::lock(&mut tx, id).await?.ok_or(Error::NotFound("the key"))?;
        if key.revoked.is_some() {
            return Err(Error::Conflict("the key is revoked already"));
        }
        rows::revoke(&mut tx, id, &actor.name, self.0.now()).await?;
        let (before, after) = (json!({ "revoked": false }), json!({ "revoked": true }));
        record(
            &self.0,
            &mut tx,
            actor,
            "api_key.revoke",
            target(id, &key.name),
            Some(before),
            Some(after),
        )
        .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.0.known_keys.forget(id);
        Ok(())
    }

    /// Whose key it is; `None` for one that is unknown, expired or revoked. [`Error::Throttled`] while too many that nobody has seen
    /// are being looked up.
    pub async fn authenticate(&self, secret: &SecretString) -> Result<Option<ApiKey>, Error> {
        if !well_formed(secret) {
            return Ok(None);
        }
        let hash = hash_of(secret);
        let key = match self.0.known_keys.get(&hash) {
            Some(key) => key,
            None => match self.look_up(&hash).await? {
                Some(key) => key,
                None => return Ok(None),
            },
        };
        Ok((key.state(self.0.now()) == KeyState::Good).then_some(ApiKey {
            id: key.id,
            name: key.name,
            scopes: key.scopes,
            models: key.models,
        }))
    }

    async fn look_up(&self, hash: &[u8; 32]) -> Result<Option<KeyRow>, Error> {
        let known = &self.0.known_keys;
        let _turn = known.turn(hash).await?;
        // Whoever had the turn before may have asked for the same.
        if let Some(key) = known.get(hash) {
            return Ok(Some(key));
        }
        let key = rows::by_hash(&mut *self.0.db.acquire().await?, hash).await?;
        if let Some(key) = &key {
            known.put(*hash, key.clone());
        }
        Ok(key)
    }

    /// Notes that keys were used; told again within a minute, it changes nothing.
    pub async fn used(&self, ids: &[ApiKeyId], at: DateTime<Utc>) -> Result<(), Error> {
        Ok(rows::used(&mut *self.0.db.acquire().await?, ids, at).await?)
    }
}

/// The key of the page after this row.
fn after(key: &KeyRow, order: KeyOrder) -> String {
    let (micros, id) = (|at: DateTime<Utc>| at.timestamp_micros().to_string(), key.id);
    match order {
        KeyOrder::Created => format!("{}~{id}", micros(key.created)),
        KeyOrder::Name => format!("{}~{id}", key.name),
        KeyOrder::Used => format!("{}~{id}", key.last_used.map(micros).unwrap_or_default()),
    }
}

fn parse_after(text: Option<&str>, order: KeyOrder) -> Result<Option<After>, Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed = || {
        // A name may hold the sign, an id does not.
        let (place, id) = text.rsplit_once('~')?;
        let id = ApiKeyId(id.parse().ok()?);
        let time = |micros: &str| DateTime::from_timestamp_micros(micros.parse().ok()?);
        Some(match order {
            KeyOrder::Created => After::Created(time(place)?, id),
            KeyOrder::Name => After::Name(place.to_owned(), id),
            KeyOrder::Used if place.is_empty() => After::Used(None, id),
            KeyOrder::Used => After::Used(Some(time(place)?), id),
        })
    };
    parsed()
        .map(Some)
        .ok_or(Error::Invalid("a page key from a link of this list"))
}

fn target(id: ApiKeyId, name: &str) -> Target<'_> {
    Target {
        kind: "api_key",
        id: id.to_string(),
        name,
    }
}

fn generate() -> SecretString {
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    rand::rng().fill(bytes.as_mut_slice());
    format!("bd-{}", URL_SAFE_NO_PAD.encode(bytes.as_slice())).into()
}

fn well_formed(secret: &SecretString) -> bool {
    let text = secret.expose_secret();
    text.len() == LENGTH
        && text.strip_prefix("bd-").is_some_and(|rest| {
            rest.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

/// A plain hash: nobody guesses 32 random bytes, so nothing has to be slow. Looking it up in an index tells no more by its time than
/// how a hash begins, from which no key can be made.
fn hash_of(secret: &SecretString) -> [u8; 32] {
    *blake3::hash(secret.expose_secret().as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_never_the_same() {
        let (one, two) = (generate(), generate());
        assert!(well_formed(&one) && well_formed(&two));
        assert_ne!(one.expose_secret(), two.expose_secret());
        for bad in [
            "",
            "bd-",
            "sk-0123456789012345678901234567890123456789012",
            "bd-012345678901234567890123456789012345678901é",
        ] {
            assert!(!well_formed(&bad.to_owned().into()), "{bad} was taken");
        }
    }
}
