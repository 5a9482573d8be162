//! Providers, models, prices and the names that lead to them: kept as rows, edited live, given to the gateway as one picture.
//!
//! The provider of `OPENAI_*` is a row as well; it follows the settings at every start and is not edited by staff.

mod picture;
mod settings;
mod views;

use std::time::Duration;

use domain::{
    Invalid, ModelId, ModelKind, Money, Permission, Price, ProviderId, ProviderKeyId, ProviderKind, Scope,
    views::models::{Change, KeyTested, ModelBoard, Tested, TestedBy},
};
use gateway::Probe;
use repositories::{
    PgConnection, audit,
    catalogue::{self, Alias, Model, Provider, ProviderKey, Route},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

pub use settings::FromSettings;

use crate::{
    Actor, Error, Services,
    audit::{Target, record},
    limits::shared_bars,
};

/// How soon a change on one replica is seen on the others.
pub const REFRESH: Duration = Duration::from_secs(1);
/// How much of the past of a model's price is shown.
const PRICES_SHOWN: i64 = 20;
const MOST_TARGETS: usize = 20;
/// Why a provider that has a row cannot be asked at all.
const SEALED: &str = "its secrets cannot be opened: they were stored with a key that BOTDECK_SECRET_KEY does not hold";
/// Actions by which the page of models says what was saved.
const SAVES: &[&str] = &[
    "provider.add",
    "provider.edit",
    "model.add",
    "model.edit",
    "alias.add",
    "alias.edit",
];

/// What staff say of a provider.
#[derive(Clone, Debug)]
pub struct ProviderForm {
    pub name: String,
    pub kind: ProviderKind,
    pub base_url: String,
    pub organisation: Option<String>,
    pub max_concurrent: Option<i32>,
    pub enabled: bool,
    /// `None` leaves the one there is; an empty one takes it away.
    pub proxy: Option<SecretString>,
    /// The same, as lines `Name: value`.
    pub headers: Option<SecretString>,
}

/// What staff say of a model.
#[derive(Clone, Debug)]
pub struct ModelForm {
    pub name: String,
    pub kind: ModelKind,
    pub context_tokens: i32,
    pub max_answer_tokens: i32,
    pub enabled: bool,
    pub price: Price,
}

/// What staff say of a name: places it leads to, as (tier, model, weight).
#[derive(Clone, Debug)]
pub struct AliasForm {
    pub name: String,
    pub shown: bool,
    pub targets: Vec<(i16, ModelId, i32)>,
}

/// Whose row was saved, and what is different in it now.
#[derive(Debug)]
pub struct Saved<T> {
    pub id: T,
    pub change: Change,
}

/// Who can be asked for what.
pub struct Models(pub(crate) Services);

impl Models {
    pub async fn board(&self, actor: &Actor) -> Result<ModelBoard, Error> {
        let now = self.0.now();
        let mut db = self.0.db.acquire().await?;
        let rows = catalogue::load(&mut db, now).await?;
        let prices = catalogue::all_prices(&mut db, PRICES_SHOWN).await?;
        let mut bars = Vec::new();
        if actor.may(Permission::ReadLimits) {
            let names = rows.aliases.iter().map(|alias| (Scope::Model, alias.name.clone()));
            bars = shared_bars(&self.0, &mut db, &names.collect::<Vec<_>>()).await?;
        }
        Ok(views::board(&self.0, rows, &prices, &bars, now))
    }

    /// Adds a provider (`id` is `None`) or changes one; `key` is one more key of it.
    pub async fn save_provider(
        &self,
        actor: &Actor,
        id: Option<ProviderId>,
        form: ProviderForm,
        key: Option<SecretString>,
    ) -> Result<Saved<ProviderId>, Error> {
        let secrets = form.proxy.is_some() || form.headers.is_some() || key.is_some();
        if secrets && !actor.may(Permission::WriteSecrets) {
            return Err(Error::Forbidden(Permission::WriteSecrets));
        }
        let name = line(&form.name, 40, Invalid("a name of 1 to 40 characters"))?;
        let base_url = base_url(&form.base_url)?;
        let key = key.map(|key| well_formed(&key)).transpose()?;
        if form.max_concurrent.is_some_and(|most| most < 1) {
            return Err(Error::Invalid("a whole number from 1, or nothing"));
        }
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let rows = catalogue::load(&mut tx, self.0.now()).await?;
        let old = match id {
            None => None,
            Some(id) => Some(
                rows.providers
                    .into_iter()
                    .find(|known| known.id == id)
                    .ok_or(Error::NotFound("the provider"))?,
            ),
        };
        if old.as_ref().is_some_and(|old| old.from_settings) {
            return Err(Error::Conflict("this provider follows OPENAI_* of the settings"));
        }
        let before = old.as_ref().map(shown_provider);
        let id = id.unwrap_or_else(|| ProviderId(uuid::Uuid::now_v7()));
        let mut provider = Provider {
            id,
            name,
            kind: form.kind,
            base_url,
            organisation: form
                .organisation
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty()),
            proxy_cipher: old.as_ref().and_then(|old| old.proxy_cipher.clone()),
            headers_cipher: old.as_ref().and_then(|old| old.headers_cipher.clone()),
            secrets_key_id: old.as_ref().and_then(|old| old.secrets_key_id.clone()),
            max_concurrent: form.max_concurrent,
            enabled: form.enabled,
            from_settings: false,
        };
        if secrets {
            self.seal(&mut provider, form.proxy, form.headers)?;
        }
        catalogue::save_provider(&mut tx, &provider, self.0.now())
            .await
            .map_err(|error| duplicate(error, Error::Conflict("there is a provider of this name already")))?;
        if let Some(key) = &key {
            let row = self.sealed_key(id, key)?;
            catalogue::insert_key(&mut tx, &row, self.0.now()).await?;
        }
        let action = if before.is_some() {
            "provider.edit"
        } else {
            "provider.add"
        };
        let mut after = shown_provider(&provider);
        if secrets {
            after["secrets_replaced"] = true.into();
        }
        let change = change(&provider.name, before.as_ref(), Some(&after));
        if before.as_ref() != Some(&after) {
            self.note(&mut tx, actor, action, provider_target(&provider), before, Some(after))
                .await?;
        }
        self.commit(tx).await?;
        Ok(Saved { id, change })
    }

    /// With all its keys, models and routes. What was used of it stays in the ledger.
    pub async fn remove_provider(&self, actor: &Actor, id: ProviderId) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let provider = self.editable(&mut tx, id).await?;
        catalogue::delete_provider(&mut tx, id).await?;
        let before = Some(shown_provider(&provider));
        self.note(
            &mut tx,
            actor,
            "provider.remove",
            provider_target(&provider),
            before,
            None,
        )
        .await?;
        self.commit(tx).await
    }

    /// One more key, to take turns with those there are. It is never shown again.
    pub async fn add_key(&self, actor: &Actor, id: ProviderId, key: SecretString) -> Result<ProviderKeyId, Error> {
        if !actor.may(Permission::WriteSecrets) {
            return Err(Error::Forbidden(Permission::WriteSecrets));
        }
        let key = well_formed(&key)?;
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let provider = self.editable(&mut tx, id).await?;
        let row = self.sealed_key(id, &key)?;
        catalogue::insert_key(&mut tx, &row, self.0.now()).await?;
        let after = Some(json!({ "key": row.hint }));
        self.note(
            &mut tx,
            actor,
            "provider.add_key",
            provider_target(&provider),
            None,
            after,
        )
        .await?;
        self.commit(tx).await?;
        Ok(row.id)
    }

    pub async fn remove_key(&self, actor: &Actor, id: ProviderKeyId) -> Result<(), Error> {
        if !actor.may(Permission::WriteSecrets) {
            return Err(Error::Forbidden(Permission::WriteSecrets));
        }
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let rows = catalogue::load(&mut tx, self.0.now()).await?;
        let key = rows.keys.into_iter().find(|known| known.id == id);
        let key = key.ok_or(Error::NotFound("the key"))?;
        let provider = self.editable(&mut tx, key.provider).await?;
        catalogue::delete_key(&mut tx, id).await?;
        let before = Some(json!({ "key": key.hint }));
        self.note(
            &mut tx,
            actor,
            "provider.remove_key",
            provider_target(&provider),
            before,
            None,
        )
        .await?;
        self.commit(tx).await
    }

    /// Adds a model to a provider (`id` is `None`) or changes one; a changed price begins now. A new model gets a name of its own
    /// under which it can be asked for, unless there is one.
    pub async fn save_model(
        &self,
        actor: &Actor,
        provider: ProviderId,
        id: Option<ModelId>,
        form: ModelForm,
    ) -> Result<Saved<ModelId>, Error> {
        let name = line(&form.name, 120, Invalid("a name of 1 to 120 characters"))?;
        if form.context_tokens < 1 || form.max_answer_tokens < 1 {
            return Err(Error::Invalid("a whole number of tokens from 1"));
        }
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let rows = catalogue::load(&mut tx, now).await?;
        let owner = rows.providers.iter().find(|known| known.id == provider);
        let owner = owner.ok_or(Error::NotFound("the provider"))?;
        let old = match id {
            None => None,
            Some(id) => Some(
                rows.models
                    .iter()
                    .find(|known| known.id == id && known.provider == provider)
                    .ok_or(Error::NotFound("the model"))?,
            ),
        };
        let renamed = old.is_none_or(|old| old.name != name);
        if owner.from_settings && renamed {
            return Err(Error::Conflict("the models of this provider are those of OPENAI_MODEL"));
        }
        let model = Model {
            id: id.unwrap_or_else(|| ModelId(uuid::Uuid::now_v7())),
            provider,
            name,
            kind: form.kind,
            context_tokens: form.context_tokens,
            max_answer_tokens: form.max_answer_tokens,
            enabled: form.enabled,
            price: form.price,
        };
        catalogue::save_model(&mut tx, &model, now)
            .await
            .map_err(|error| duplicate(error, Error::Conflict("this provider has a model of this name already")))?;
        if old.is_none_or(|old| old.price != form.price) {
            catalogue::set_price(&mut tx, model.id, form.price, now, &actor.name).await?;
        }
        if old.is_none() && !rows.aliases.iter().any(|alias| alias.name == model.name) {
            let place = last_place(&rows);
            add_alias(&mut tx, &model, place, form.kind == ModelKind::Chat, now).await?;
        }
        let (before, after) = (old.map(shown_model), shown_model(&model));
        let change = change(&model.name, before.as_ref(), Some(&after));
        if before.as_ref() != Some(&after) {
            let action = if before.is_some() { "model.edit" } else { "model.add" };
            self.note(&mut tx, actor, action, model_target(&model), before, Some(after))
                .await?;
        }
        self.commit(tx).await?;
        Ok(Saved { id: model.id, change })
    }

    pub async fn remove_model(&self, actor: &Actor, id: ModelId) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let rows = catalogue::load(&mut tx, self.0.now()).await?;
        let model = rows.models.into_iter().find(|known| known.id == id);
        let model = model.ok_or(Error::NotFound("the model"))?;
        self.editable(&mut tx, model.provider).await?;
        catalogue::delete_model(&mut tx, id).await?;
        let before = Some(shown_model(&model));
        self.note(&mut tx, actor, "model.remove", model_target(&model), before, None)
            .await?;
        self.commit(tx).await
    }

    /// Makes a name, or says anew where one leads.
    pub async fn save_alias(&self, actor: &Actor, form: AliasForm) -> Result<Saved<String>, Error> {
        let name = line(&form.name, 120, Invalid("a name of 1 to 120 characters"))?;
        if form.targets.is_empty() || form.targets.len() > MOST_TARGETS {
            return Err(Error::Invalid("1 to 20 models for a name to lead to"));
        }
        if form.targets.iter().any(|(tier, _, weight)| *tier < 0 || *weight < 1) {
            return Err(Error::Invalid("places and weights from 1"));
        }
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let rows = catalogue::load(&mut tx, self.0.now()).await?;
        let kinds: Vec<_> = form
            .targets
            .iter()
            .map(|(_, id, _)| rows.models.iter().find(|model| model.id == *id).map(|model| model.kind))
            .collect();
        if kinds.contains(&None) {
            return Err(Error::NotFound("the model"));
        }
        if kinds.iter().any(|kind| *kind != kinds[0]) {
            return Err(Error::Invalid("models of one kind behind a name"));
        }
        let known = rows.aliases.iter().find(|alias| alias.name == name);
        let before = known.map(|alias| views::shown_alias(alias, &rows));
        let place = known.map_or_else(|| last_place(&rows), |alias| alias.place);
        let alias = Alias {
            name,
            shown: form.shown,
            place,
        };
        let routes: Vec<Route> = form
            .targets
            .into_iter()
            .map(|(tier, model, weight)| Route {
                alias: alias.name.clone(),
                model,
                tier,
                weight,
            })
            .collect();
        catalogue::save_alias(&mut tx, &alias, self.0.now()).await?;
        catalogue::set_routes(&mut tx, &alias.name, &routes)
            .await
            .map_err(|error| duplicate(error, Error::Conflict("a model stands behind a name once")))?;
        let rows = catalogue::load(&mut tx, self.0.now()).await?;
        let after = views::shown_alias(&alias, &rows);
        let change = change(&alias.name, before.as_ref(), Some(&after));
        if before.as_ref() != Some(&after) {
            let action = if before.is_some() { "alias.edit" } else { "alias.add" };
            self.note(&mut tx, actor, action, alias_target(&alias.name), before, Some(after))
                .await?;
        }
        self.commit(tx).await?;
        Ok(Saved { id: alias.name, change })
    }

    /// What the last save of a provider, a model or a name has changed, by `provider:ID`, `model:ID` or `alias:NAME`.
    pub async fn last_change(&self, _actor: &Actor, saved: &str) -> Result<Option<Change>, Error> {
        let Some((kind, id)) = saved.split_once(':') else {
            return Ok(None);
        };
        let rows = audit::about(&mut *self.0.db.acquire().await?, kind, id, SAVES, 1).await?;
        let row = rows.into_iter().next();
        Ok(row.map(|row| change(&row.target_name, row.before.as_ref(), row.after.as_ref())))
    }

    /// One place up in what people are offered; the first one is the default.
    pub async fn raise_alias(&self, actor: &Actor, name: &str) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let rows = catalogue::load(&mut tx, self.0.now()).await?;
        let at = rows.aliases.iter().position(|alias| alias.name == name);
        let at = at.ok_or(Error::NotFound("the name"))?;
        let mut order: Vec<Alias> = rows.aliases;
        let names =
            |order: &[Alias]| json!({ "order": order.iter().map(|alias| alias.name.clone()).collect::<Vec<_>>() });
        let before = names(&order);
        if at == 0 {
            return Ok(());
        }
        order.swap(at - 1, at);
        for (place, alias) in order.iter_mut().enumerate() {
            alias.place = i32::try_from(place).unwrap_or(i32::MAX);
            catalogue::save_alias(&mut tx, alias, self.0.now()).await?;
        }
        let after = names(&order);
        self.note(
            &mut tx,
            actor,
            "alias.order",
            alias_target(name),
            Some(before),
            Some(after),
        )
        .await?;
        self.commit(tx).await
    }

    /// Has a model behind a name asked one place earlier: before those that are asked before it, or, where it shares its place with
    /// others, before these. The first one stays where it is.
    pub async fn raise_target(&self, actor: &Actor, name: &str, model: ModelId) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let mut rows = catalogue::load(&mut tx, self.0.now()).await?;
        let alias = rows.aliases.iter().find(|alias| alias.name == name).cloned();
        let alias = alias.ok_or(Error::NotFound("the name"))?;
        let before = views::shown_alias(&alias, &rows);
        let (mut ours, others): (Vec<Route>, Vec<Route>) = rows.routes.drain(..).partition(|route| route.alias == name);
        if !raise(&mut ours, model).ok_or(Error::NotFound("the model"))? {
            return Ok(());
        }
        catalogue::set_routes(&mut tx, name, &ours).await?;
        ours.sort_by_key(|route| route.tier);
        rows.routes = others;
        rows.routes.extend(ours);
        let after = views::shown_alias(&alias, &rows);
        self.note(
            &mut tx,
            actor,
            "alias.edit",
            alias_target(name),
            Some(before),
            Some(after),
        )
        .await?;
        self.commit(tx).await
    }

    pub async fn remove_alias(&self, actor: &Actor, name: &str) -> Result<(), Error> {
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let rows = catalogue::load(&mut tx, self.0.now()).await?;
        let alias = rows.aliases.iter().find(|alias| alias.name == name);
        let before = views::shown_alias(alias.ok_or(Error::NotFound("the name"))?, &rows);
        catalogue::delete_alias(&mut tx, name).await?;
        self.note(&mut tx, actor, "alias.remove", alias_target(name), Some(before), None)
            .await?;
        self.commit(tx).await
    }

    /// Asks a provider with each of its keys, so that staff see whether address, keys and names are right: for one token or embedding
    /// of `model`, or of a model that it has; where there is none, for the list of its models.
    pub async fn test(&self, _actor: &Actor, id: ProviderId, model: Option<ModelId>) -> Result<Tested, Error> {
        let rows = catalogue::load(&mut *self.0.db.acquire().await?, self.0.now()).await?;
        if !rows.providers.iter().any(|provider| provider.id == id) {
            return Err(Error::NotFound("the provider"));
        }
        let ours = |known: &&Model| known.provider == id && model.is_none_or(|model| known.id == model);
        let models: Vec<&Model> = rows.models.iter().filter(ours).collect();
        if model.is_some() && models.is_empty() {
            return Err(Error::NotFound("the model"));
        }
        let by = tested_by(&models);
        let probe = match &by {
            TestedBy::Token(name) => Probe::Token(name),
            TestedBy::Embedding(name) => Probe::Embedding(name),
            TestedBy::Models => Probe::Models,
        };
        let hint = |key: Option<ProviderKeyId>| {
            let row = rows.keys.iter().find(|row| Some(row.id) == key);
            row.map(|row| row.hint.clone())
        };
        let keys = match self.0.gateway.probe_provider(id, probe).await {
            Some(probed) => probed
                .into_iter()
                .map(|one| KeyTested {
                    hint: hint(one.key),
                    ms: i64::try_from(one.took.as_millis()).unwrap_or(i64::MAX),
                    failure: one.failure.map(|failure| failure.cause()),
                })
                .collect(),
            None => vec![KeyTested {
                hint: None,
                ms: 0,
                failure: Some(SEALED.to_owned()),
            }],
        };
        Ok(Tested {
            provider: id,
            model,
            by,
            keys,
        })
    }

    async fn editable(&self, tx: &mut PgConnection, id: ProviderId) -> Result<Provider, Error> {
        let rows = catalogue::load(tx, self.0.now()).await?;
        let provider = rows.providers.into_iter().find(|known| known.id == id);
        let provider = provider.ok_or(Error::NotFound("the provider"))?;
        if provider.from_settings {
            return Err(Error::Conflict("this provider follows OPENAI_* of the settings"));
        }
        Ok(provider)
    }

    fn sealed_key(&self, provider: ProviderId, key: &SecretString) -> Result<ProviderKey, Error> {
        let id = ProviderKeyId(uuid::Uuid::now_v7());
        let (cipher, cipher_key) = self.0.keys.seal(key, id.0.as_bytes())?;
        Ok(ProviderKey {
            id,
            provider,
            cipher,
            cipher_key,
            hint: hint(key),
            enabled: true,
        })
    }

    /// Both are sealed with one key, so the one that is kept is sealed anew as well.
    fn seal(
        &self,
        provider: &mut Provider,
        proxy: Option<SecretString>,
        headers: Option<SecretString>,
    ) -> Result<(), Error> {
        let (old_proxy, old_headers) = picture::secrets(&self.0.keys, provider)?;
        let filled = |secret: SecretString| (!secret.expose_secret().trim().is_empty()).then_some(secret);
        let proxy = proxy.map_or(old_proxy, filled);
        let headers = headers.map_or(old_headers, filled);
        if let Some(proxy) = &proxy {
            picture::proxy_address(proxy)?;
        }
        if let Some(headers) = &headers {
            picture::header_lines(headers)?;
        }
        let aad = provider.id.0.as_bytes();
        let mut key_id = None;
        let mut seal = |secret: Option<SecretString>| -> Result<Option<Vec<u8>>, Error> {
            let Some(secret) = secret else { return Ok(None) };
            let (cipher, key) = self.0.keys.seal(&secret, aad)?;
            key_id = Some(key);
            Ok(Some(cipher))
        };
        (provider.proxy_cipher, provider.headers_cipher) = (seal(proxy)?, seal(headers)?);
        provider.secrets_key_id = key_id;
        Ok(())
    }

    async fn note(
        &self,
        tx: &mut PgConnection,
        actor: &Actor,
        action: &'static str,
        target: Target<'_>,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), Error> {
        record(&self.0, tx, actor, action, target, before, after).await
    }

    /// What was changed here holds here at once.
    async fn commit(&self, tx: repositories::Transaction) -> Result<(), Error> {
        tx.commit().await.map_err(repositories::Error::from)?;
        self.refresh().await.map(|_| ())
    }
}

/// By what a provider with these models is tested: those in use come first, chat before embeddings.
fn tested_by(models: &[&Model]) -> TestedBy {
    let of = |kind: ModelKind| {
        let fitting = models.iter().filter(|model| model.kind == kind);
        fitting
            .min_by_key(|model| !model.enabled)
            .map(|model| model.name.clone())
    };
    let embedding = || of(ModelKind::Embedding).map(TestedBy::Embedding);
    let by = of(ModelKind::Chat).map(TestedBy::Token).or_else(embedding);
    by.unwrap_or(TestedBy::Models)
}

/// What is different of two sides of a row of the trail.
fn change(name: &str, before: Option<&Value>, after: Option<&Value>) -> Change {
    let differing = |side: Option<&Value>, other: Option<&Value>| -> Option<Value> {
        let fields = side?.as_object()?.iter();
        let fields: serde_json::Map<String, Value> = fields
            .filter(|(field, value)| other.and_then(|other| other.get(field)) != Some(value))
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect();
        (!fields.is_empty()).then_some(Value::Object(fields))
    };
    Change {
        name: name.to_owned(),
        before: differing(before, after),
        after: differing(after, before),
    }
}

async fn add_alias(
    tx: &mut PgConnection,
    model: &Model,
    place: i32,
    shown: bool,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<(), Error> {
    let alias = Alias {
        name: model.name.clone(),
        shown,
        place,
    };
    catalogue::save_alias(tx, &alias, now).await?;
    let route = Route {
        alias: alias.name.clone(),
        model: model.id,
        tier: 0,
        weight: 1,
    };
    Ok(catalogue::set_routes(tx, &alias.name, &[route]).await?)
}

/// Moves one route up and numbers the tiers anew; `None` when it is not among them, false when it is the first already.
fn raise(routes: &mut [Route], model: ModelId) -> Option<bool> {
    let tier = routes.iter().find(|route| route.model == model)?.tier;
    let shares = routes.iter().filter(|route| route.tier == tier).count() > 1;
    let first = routes.iter().all(|route| route.tier >= tier);
    if first && !shares {
        return Some(false);
    }
    let earlier = routes
        .iter()
        .map(|route| route.tier)
        .filter(|known| *known < tier)
        .max();
    let place = |route: &Route| match (route.model == model, shares, earlier) {
        // Alone: it changes places with the tier before. Of several: it gets a place between that and the rest.
        (true, false, Some(earlier)) => 2 * i32::from(earlier) - 1,
        (true, ..) => 2 * i32::from(tier) - 1,
        (false, ..) => 2 * i32::from(route.tier),
    };
    let places: Vec<i32> = routes.iter().map(place).collect();
    let mut order = places.clone();
    order.sort_unstable();
    order.dedup();
    for (route, place) in routes.iter_mut().zip(places) {
        let at = order.iter().position(|known| *known == place).unwrap_or(0);
        route.tier = i16::try_from(at).unwrap_or(i16::MAX);
    }
    Some(true)
}

/// Behind all others.
fn last_place(rows: &catalogue::Catalogue) -> i32 {
    rows.aliases
        .iter()
        .map(|alias| alias.place)
        .max()
        .map_or(0, |last| last.saturating_add(1))
}

fn provider_target(provider: &Provider) -> Target<'_> {
    Target {
        kind: "provider",
        id: provider.id.to_string(),
        name: &provider.name,
    }
}

fn model_target(model: &Model) -> Target<'_> {
    Target {
        kind: "model",
        id: model.id.to_string(),
        name: &model.name,
    }
}

fn alias_target(name: &str) -> Target<'_> {
    Target {
        kind: "alias",
        id: name.to_owned(),
        name,
    }
}

fn shown_provider(provider: &Provider) -> Value {
    json!({
        "name": provider.name,
        "kind": provider.kind,
        "base_url": provider.base_url,
        "organisation": provider.organisation,
        "max_concurrent": provider.max_concurrent,
        "enabled": provider.enabled,
    })
}

fn shown_model(model: &Model) -> Value {
    let dollars = |money: Money| {
        money
            .to_decimal(9)
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    };
    json!({
        "name": model.name,
        "kind": model.kind,
        "context_tokens": model.context_tokens,
        "max_answer_tokens": model.max_answer_tokens,
        "enabled": model.enabled,
        "price_input": dollars(model.price.input),
        "price_cached_input": dollars(model.price.cached_input),
        "price_output": dollars(model.price.output),
        "price_reasoning": model.price.reasoning.map(dollars),
        "price_image": dollars(model.price.image),
        "price_audio_input": dollars(model.price.audio_input),
        "price_audio_output": dollars(model.price.audio_output),
    })
}

fn duplicate(error: repositories::Error, conflict: Error) -> Error {
    if error.is_duplicate() { conflict } else { error.into() }
}

fn line(text: &str, most: usize, expected: Invalid) -> Result<String, Invalid> {
    let text = text.trim();
    let fits = (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned()).ok_or(expected)
}

fn base_url(text: &str) -> Result<String, Error> {
    let text = text.trim().trim_end_matches('/');
    gateway::OpenAi::takes_url(text)
        .then(|| text.to_owned())
        .ok_or(Error::Invalid(
            "an http or https address such as https://api.openai.com/v1",
        ))
}

/// It becomes a header.
fn well_formed(key: &SecretString) -> Result<SecretString, Invalid> {
    let text = key.expose_secret().trim();
    let fits = (1..=500).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned().into())
        .ok_or(Invalid("a key of one line without spaces"))
}

/// `sk-…wxyz`: enough to know it again, too little to use it.
fn hint(key: &SecretString) -> String {
    let text = key.expose_secret();
    if text.len() < 16 {
        return "…".to_owned();
    }
    format!("{}…{}", &text[..3], &text[text.len() - 4..])
}
