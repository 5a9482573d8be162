//! The provider of `OPENAI_*` as a row.

use chrono::{DateTime, Utc};
use domain::{ModelId, ModelKind, Price, ProviderId, ProviderKind};
use repositories::{
    PgConnection,
    catalogue::{self, Alias, Catalogue, Model, Provider},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{Models, add_alias, provider_target};
use crate::{Actor, Error};

/// What `OPENAI_API_KEY` and its kin say.
pub struct FromSettings {
    pub base_url: String,
    pub key: SecretString,
    /// The default one first.
    pub models: Vec<gateway::Model>,
}

/// Under this name prices were set that follow the settings; those set by staff stay.
const SETTINGS: &str = "settings";

impl Models {
    /// Makes the rows say what the settings say. Without a key the provider of an earlier start is switched off.
    pub async fn ensure_from_settings(&self, wanted: Option<FromSettings>) -> Result<(), Error> {
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        catalogue::lock(&mut tx).await?;
        let rows = catalogue::load(&mut tx, now).await?;
        let old = rows.providers.iter().find(|provider| provider.from_settings).cloned();
        match (wanted, old) {
            (None, Some(old)) if old.enabled => {
                let provider = Provider { enabled: false, ..old };
                catalogue::save_provider(&mut tx, &provider, now).await?;
                self.log(&mut tx, &provider, "provider.edit").await?;
            }
            (None, _) => {}
            (Some(wanted), old) => self.follow(&mut tx, &rows, wanted, old, now).await?,
        }
        self.commit(tx).await
    }

    async fn follow(
        &self,
        tx: &mut PgConnection,
        rows: &Catalogue,
        wanted: FromSettings,
        old: Option<Provider>,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let id = old
            .as_ref()
            .map_or_else(|| ProviderId(uuid::Uuid::now_v7()), |old| old.id);
        let mut name = name_of(&wanted.base_url);
        let taken = |name: &str| {
            rows.providers
                .iter()
                .any(|known| known.id != id && known.name.to_lowercase() == name.to_lowercase())
        };
        if taken(&name) {
            name.push_str(" (settings)");
        }
        let provider = Provider {
            id,
            name,
            kind: ProviderKind::OpenAi,
            base_url: wanted.base_url,
            organisation: None,
            proxy_cipher: None,
            headers_cipher: None,
            secrets_key_id: None,
            max_concurrent: None,
            enabled: true,
            from_settings: true,
        };
        let same =
            |old: &Provider| (&old.name, &old.base_url, old.enabled) == (&provider.name, &provider.base_url, true);
        if !old.as_ref().is_some_and(same) {
            catalogue::save_provider(tx, &provider, now).await?;
            let action = if old.is_some() { "provider.edit" } else { "provider.add" };
            self.log(tx, &provider, action).await?;
        }
        self.follow_key(tx, rows, &provider, &wanted.key, now).await?;
        follow_models(tx, rows, id, &wanted.models, now).await
    }

    async fn follow_key(
        &self,
        tx: &mut PgConnection,
        rows: &Catalogue,
        provider: &Provider,
        key: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let known: Vec<_> = rows.keys.iter().filter(|known| known.provider == provider.id).collect();
        let same = known.iter().any(|known| {
            let opened = self
                .0
                .keys
                .open(&known.cipher, &known.cipher_key, known.id.0.as_bytes());
            known.cipher_key == self.0.keys.current_id()
                && opened.is_ok_and(|opened| opened.expose_secret() == key.expose_secret())
        });
        if same && known.len() == 1 {
            return Ok(());
        }
        for old in known {
            catalogue::delete_key(tx, old.id).await?;
        }
        catalogue::insert_key(tx, &self.sealed_key(provider.id, key)?, now).await?;
        self.log(tx, provider, "provider.add_key").await
    }

    async fn log(&self, tx: &mut PgConnection, provider: &Provider, action: &'static str) -> Result<(), Error> {
        let after = json!({ "name": provider.name, "base_url": provider.base_url, "enabled": provider.enabled });
        let target = provider_target(provider);
        self.note(tx, &Actor::system(SETTINGS), action, target, None, Some(after))
            .await
    }
}

/// As it is called in metrics: the host, with its port.
fn name_of(base_url: &str) -> String {
    gateway::OpenAi::new(base_url, String::new().into()).map_or_else(
        |_| base_url.to_owned(),
        |provider| gateway::Provider::name(&provider).to_owned(),
    )
}

/// How far back it is looked for who made a model, in prices.
const PAST: i64 = 1000;

/// Models that the settings made and name no more go; the names that led to them alone go with them.
async fn follow_models(
    tx: &mut PgConnection,
    rows: &Catalogue,
    provider: ProviderId,
    wanted: &[gateway::Model],
    now: DateTime<Utc>,
) -> Result<(), Error> {
    for old in rows.models.iter().filter(|model| model.provider == provider) {
        if wanted.iter().any(|model| model.name == old.name) {
            continue;
        }
        let past = catalogue::prices(tx, old.id, PAST).await?;
        if past.last().is_some_and(|first| first.set_by != SETTINGS) {
            continue;
        }
        catalogue::delete_model(tx, old.id).await?;
        let elsewhere = rows
            .routes
            .iter()
            .any(|route| route.alias == old.name && route.model != old.id);
        if !elsewhere {
            catalogue::delete_alias(tx, &old.name).await?;
        }
    }
    for model in wanted {
        let known = rows
            .models
            .iter()
            .find(|known| known.provider == provider && known.name == model.name);
        let price = price(model);
        let row = Model {
            id: known.map_or_else(|| ModelId(uuid::Uuid::now_v7()), |known| known.id),
            provider,
            name: model.name.clone(),
            kind: ModelKind::Chat,
            context_tokens: i32::try_from(model.context_tokens).unwrap_or(i32::MAX),
            max_answer_tokens: i32::try_from(model.max_answer_tokens).unwrap_or(i32::MAX),
            enabled: true,
            price,
        };
        if known.is_none() {
            catalogue::save_model(tx, &row, now).await?;
        }
        let last = catalogue::prices(tx, row.id, 1).await?;
        if last
            .first()
            .is_none_or(|last| last.set_by == SETTINGS && last.price != price)
        {
            catalogue::set_price(tx, row.id, price, now, SETTINGS).await?;
        }
        if !rows.aliases.iter().any(|alias| alias.name == model.name) {
            add_alias(tx, &row, i32::MAX, true, now).await?;
        }
    }
    put_first(tx, wanted, now).await
}

/// The first name is what bots without a model of their own use, so the settings' order holds, until staff make another; theirs
/// stays until the settings change.
async fn put_first(tx: &mut PgConnection, wanted: &[gateway::Model], now: DateTime<Utc>) -> Result<(), Error> {
    let names: Vec<&str> = wanted.iter().map(|model| model.name.as_str()).collect();
    let said = names.join(",");
    if catalogue::followed(tx).await? == said {
        return Ok(());
    }
    let mut aliases = catalogue::load(tx, now).await?.aliases;
    aliases.sort_by_key(|alias| names.iter().position(|name| *name == alias.name).unwrap_or(usize::MAX));
    for (place, alias) in (0_i32..).zip(aliases) {
        catalogue::save_alias(tx, &Alias { place, ..alias }, now).await?;
    }
    Ok(catalogue::set_followed(tx, &said).await?)
}

fn price(model: &gateway::Model) -> Price {
    Price {
        input: model.input_per_million,
        cached_input: model.cached_input_per_million,
        output: model.output_per_million,
        reasoning: None,
        image: domain::Money::ZERO,
        audio_input: model.input_per_million,
        audio_output: model.output_per_million,
    }
}
