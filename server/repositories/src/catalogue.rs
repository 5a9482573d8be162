//! Providers with their keys, models with their prices, and the names that lead to them.

use chrono::{DateTime, Utc};
use domain::{ModelId, ModelKind, Money, Price, ProviderId, ProviderKeyId, ProviderKind};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Error, Result};

/// Somebody who can be asked. Proxy and headers are sealed together with the key named by `secrets_key_id`.
#[derive(Clone, Debug)]
pub struct Provider {
    pub id: ProviderId,
    pub name: String,
    pub kind: ProviderKind,
    pub base_url: String,
    pub organisation: Option<String>,
    pub proxy_cipher: Option<Vec<u8>>,
    pub headers_cipher: Option<Vec<u8>>,
    pub secrets_key_id: Option<String>,
    /// Requests at once in each process.
    pub max_concurrent: Option<i32>,
    pub enabled: bool,
    pub from_settings: bool,
}

/// A sealed key of a provider.
#[derive(Clone, Debug)]
pub struct ProviderKey {
    pub id: ProviderKeyId,
    pub provider: ProviderId,
    pub cipher: Vec<u8>,
    pub cipher_key: String,
    pub hint: String,
    pub enabled: bool,
}

/// A model of a provider with the price in force.
#[derive(Clone, Debug)]
pub struct Model {
    pub id: ModelId,
    pub provider: ProviderId,
    pub name: String,
    pub kind: ModelKind,
    pub context_tokens: i32,
    pub max_answer_tokens: i32,
    pub enabled: bool,
    pub price: Price,
}

/// A name under which people and programs ask.
#[derive(Clone, Debug)]
pub struct Alias {
    pub name: String,
    pub shown: bool,
    pub place: i32,
}

/// One place a name leads to.
#[derive(Clone, Debug)]
pub struct Route {
    pub alias: String,
    pub model: ModelId,
    pub tier: i16,
    pub weight: i32,
}

/// All of it at one moment.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    pub revision: i64,
    pub providers: Vec<Provider>,
    pub keys: Vec<ProviderKey>,
    pub models: Vec<Model>,
    pub aliases: Vec<Alias>,
    pub routes: Vec<Route>,
}

/// Rises with every change of what [`load`] reads.
pub async fn revision(db: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar!("SELECT revision FROM catalogue_revision")
        .fetch_one(db)
        .await?)
}

/// The whole catalogue, small as it is. The revision is read first, so what changes meanwhile is seen as newer.
pub async fn load(db: &mut PgConnection, now: DateTime<Utc>) -> Result<Catalogue> {
    let revision = revision(&mut *db).await?;
    let providers = sqlx::query!(
        "SELECT id, name, kind, base_url, organisation, proxy_cipher, headers_cipher, secrets_key_id, max_concurrent, enabled, from_settings
         FROM providers ORDER BY created_at, id"
    )
    .fetch_all(&mut *db)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Provider {
            id: row.id.into(),
            name: row.name,
            kind: row.kind.parse().map_err(|_| Error::Stored("providers.kind"))?,
            base_url: row.base_url,
            organisation: row.organisation,
            proxy_cipher: row.proxy_cipher,
            headers_cipher: row.headers_cipher,
            secrets_key_id: row.secrets_key_id,
            max_concurrent: row.max_concurrent,
            enabled: row.enabled,
            from_settings: row.from_settings,
        })
    })
    .collect::<Result<Vec<_>>>()?;
    let keys = sqlx::query!(
        "SELECT id, provider_id, cipher, cipher_key, hint, enabled FROM provider_keys ORDER BY created_at, id"
    )
    .fetch_all(&mut *db)
    .await?
    .into_iter()
    .map(|row| ProviderKey {
        id: row.id.into(),
        provider: row.provider_id.into(),
        cipher: row.cipher,
        cipher_key: row.cipher_key,
        hint: row.hint,
        enabled: row.enabled,
    })
    .collect();
    let models = sqlx::query!(
        r#"SELECT m.id, m.provider_id, m.name, m.kind, m.context_tokens, m.max_answer_tokens, m.enabled,
                  coalesce(p.input, 0) AS "input!", coalesce(p.cached_input, 0) AS "cached_input!",
                  coalesce(p.output, 0) AS "output!", p.reasoning AS "reasoning?", coalesce(p.image, 0) AS "image!",
                  coalesce(p.audio_input, 0) AS "audio_input!", coalesce(p.audio_output, 0) AS "audio_output!"
           FROM models m LEFT JOIN LATERAL (
               SELECT * FROM prices WHERE model_id = m.id AND since <= $1 ORDER BY since DESC LIMIT 1
           ) p ON true ORDER BY m.created_at, m.id"#,
        now
    )
    .fetch_all(&mut *db)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Model {
            id: row.id.into(),
            provider: row.provider_id.into(),
            name: row.name,
            kind: row.kind.parse().map_err(|_| Error::Stored("models.kind"))?,
            context_tokens: row.context_tokens,
            max_answer_tokens: row.max_answer_tokens,
            enabled: row.enabled,
            price: Price {
                input: Money::from_nanos(row.input),
                cached_input: Money::from_nanos(row.cached_input),
                output: Money::from_nanos(row.output),
                reasoning: row.reasoning.map(Money::from_nanos),
                image: Money::from_nanos(row.image),
                audio_input: Money::from_nanos(row.audio_input),
                audio_output: Money::from_nanos(row.audio_output),
            },
        })
    })
    .collect::<Result<Vec<_>>>()?;
    let aliases = sqlx::query_as!(Alias, "SELECT name, shown, place FROM aliases ORDER BY place, name")
        .fetch_all(&mut *db)
        .await?;
    let routes = sqlx::query!("SELECT alias, model_id, tier, weight FROM routes ORDER BY alias, tier, model_id")
        .fetch_all(db)
        .await?
        .into_iter()
        .map(|row| Route {
            alias: row.alias,
            model: row.model_id.into(),
            tier: row.tier,
            weight: row.weight,
        })
        .collect();
    Ok(Catalogue {
        revision,
        providers,
        keys,
        models,
        aliases,
        routes,
    })
}

/// The models of the settings as they were last followed; empty before the first time.
pub async fn followed(db: &mut PgConnection) -> Result<String> {
    Ok(sqlx::query_scalar!("SELECT followed FROM catalogue_revision")
        .fetch_one(db)
        .await?)
}

pub async fn set_followed(db: &mut PgConnection, models: &str) -> Result<()> {
    sqlx::query!("UPDATE catalogue_revision SET followed = $1", models)
        .execute(db)
        .await?;
    Ok(())
}

/// Whoever changes the catalogue holds this until the transaction ends, so that a before/after record is true.
pub async fn lock(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("SELECT FROM catalogue_revision FOR UPDATE")
        .fetch_optional(db)
        .await?;
    Ok(())
}

/// Adds the provider, or changes the one with this id.
pub async fn save_provider(db: &mut PgConnection, provider: &Provider, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO providers (id, name, kind, base_url, organisation, proxy_cipher, headers_cipher, secrets_key_id, max_concurrent, enabled,
                                from_settings, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, kind = excluded.kind, base_url = excluded.base_url,
             organisation = excluded.organisation, proxy_cipher = excluded.proxy_cipher, headers_cipher = excluded.headers_cipher,
             secrets_key_id = excluded.secrets_key_id, max_concurrent = excluded.max_concurrent, enabled = excluded.enabled",
        provider.id.0,
        provider.name,
        provider.kind.name(),
        provider.base_url,
        provider.organisation,
        provider.proxy_cipher,
        provider.headers_cipher,
        provider.secrets_key_id,
        provider.max_concurrent,
        provider.enabled,
        provider.from_settings,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// With its keys, models, prices and routes; usage keeps what it was billed.
pub async fn delete_provider(db: &mut PgConnection, id: ProviderId) -> Result<bool> {
    let gone = sqlx::query!("DELETE FROM providers WHERE id = $1", id.0)
        .execute(db)
        .await?;
    Ok(gone.rows_affected() > 0)
}

pub async fn insert_key(db: &mut PgConnection, key: &ProviderKey, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO provider_keys (id, provider_id, cipher, cipher_key, hint, enabled, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        key.id.0,
        key.provider.0,
        key.cipher,
        key.cipher_key,
        key.hint,
        key.enabled,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

pub async fn delete_key(db: &mut PgConnection, id: ProviderKeyId) -> Result<bool> {
    let gone = sqlx::query!("DELETE FROM provider_keys WHERE id = $1", id.0)
        .execute(db)
        .await?;
    Ok(gone.rows_affected() > 0)
}

/// Adds the model, or changes the one with this id; its price is set apart.
pub async fn save_model(db: &mut PgConnection, model: &Model, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO models (id, provider_id, name, kind, context_tokens, max_answer_tokens, enabled, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, kind = excluded.kind, context_tokens = excluded.context_tokens,
             max_answer_tokens = excluded.max_answer_tokens, enabled = excluded.enabled",
        model.id.0,
        model.provider.0,
        model.name,
        model.kind.name(),
        model.context_tokens,
        model.max_answer_tokens,
        model.enabled,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

pub async fn delete_model(db: &mut PgConnection, id: ModelId) -> Result<bool> {
    let gone = sqlx::query!("DELETE FROM models WHERE id = $1", id.0)
        .execute(db)
        .await?;
    Ok(gone.rows_affected() > 0)
}

/// The price from `since` on.
pub async fn set_price(
    db: &mut PgConnection,
    model: ModelId,
    price: Price,
    since: DateTime<Utc>,
    set_by: &str,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO prices (model_id, since, input, cached_input, output, reasoning, image, audio_input, audio_output, set_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        model.0,
        since,
        price.input.nanos(),
        price.cached_input.nanos(),
        price.output.nanos(),
        price.reasoning.map(Money::nanos),
        price.image.nanos(),
        price.audio_input.nanos(),
        price.audio_output.nanos(),
        set_by
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A price a model had or will have.
#[derive(Clone, Debug)]
pub struct PriceRow {
    pub since: DateTime<Utc>,
    pub price: Price,
    pub set_by: String,
}

/// The prices of every model, at most `limit` of each, newest first.
pub async fn all_prices(db: &mut PgConnection, limit: i64) -> Result<Vec<(ModelId, PriceRow)>> {
    let rows = sqlx::query!(
        "SELECT m.id, p.since, p.input, p.cached_input, p.output, p.reasoning, p.image, p.audio_input, p.audio_output, p.set_by
         FROM models m CROSS JOIN LATERAL (SELECT * FROM prices WHERE model_id = m.id ORDER BY since DESC LIMIT $1) AS p
         ORDER BY m.id, p.since DESC",
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let price = PriceRow {
                since: row.since,
                price: Price {
                    input: Money::from_nanos(row.input),
                    cached_input: Money::from_nanos(row.cached_input),
                    output: Money::from_nanos(row.output),
                    reasoning: row.reasoning.map(Money::from_nanos),
                    image: Money::from_nanos(row.image),
                    audio_input: Money::from_nanos(row.audio_input),
                    audio_output: Money::from_nanos(row.audio_output),
                },
                set_by: row.set_by,
            };
            (ModelId(row.id), price)
        })
        .collect())
}

/// Newest first.
pub async fn prices(db: &mut PgConnection, model: ModelId, limit: i64) -> Result<Vec<PriceRow>> {
    let rows = sqlx::query!(
        "SELECT since, input, cached_input, output, reasoning, image, audio_input, audio_output, set_by FROM prices
         WHERE model_id = $1 ORDER BY since DESC LIMIT $2",
        model.0,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| PriceRow {
            since: row.since,
            price: Price {
                input: Money::from_nanos(row.input),
                cached_input: Money::from_nanos(row.cached_input),
                output: Money::from_nanos(row.output),
                reasoning: row.reasoning.map(Money::from_nanos),
                image: Money::from_nanos(row.image),
                audio_input: Money::from_nanos(row.audio_input),
                audio_output: Money::from_nanos(row.audio_output),
            },
            set_by: row.set_by,
        })
        .collect())
}

/// Adds the name, or changes what is known of it.
pub async fn save_alias(db: &mut PgConnection, alias: &Alias, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO aliases (name, shown, place, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO UPDATE SET shown = excluded.shown, place = excluded.place",
        alias.name,
        alias.shown,
        alias.place,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

pub async fn delete_alias(db: &mut PgConnection, name: &str) -> Result<bool> {
    let gone = sqlx::query!("DELETE FROM aliases WHERE name = $1", name)
        .execute(db)
        .await?;
    Ok(gone.rows_affected() > 0)
}

/// Where `alias` leads from now on; what it led to before is forgotten.
pub async fn set_routes(db: &mut PgConnection, alias: &str, routes: &[Route]) -> Result<()> {
    sqlx::query!("DELETE FROM routes WHERE alias = $1", alias)
        .execute(&mut *db)
        .await?;
    sqlx::query!(
        "INSERT INTO routes (alias, model_id, tier, weight)
         SELECT $1, model, tier, weight FROM unnest($2::uuid[], $3::smallint[], $4::integer[]) AS t (model, tier, weight)",
        alias,
        &routes.iter().map(|route| route.model.0).collect::<Vec<_>>(),
        &routes.iter().map(|route| route.tier).collect::<Vec<_>>(),
        &routes.iter().map(|route| route.weight).collect::<Vec<_>>()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A circuit breaker that is not closed: nobody asks this provider with this key until then, and then somebody finds out. The nil key
/// stands for the provider itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBreaker {
    pub provider: ProviderId,
    pub key: Uuid,
    pub until: DateTime<Utc>,
    pub reason: String,
}

/// Also those whose time is over: only of one that has closed there is no row.
pub async fn open_breakers(db: &mut PgConnection) -> Result<Vec<OpenBreaker>> {
    let rows = sqlx::query!("SELECT provider_id, key_id, until, reason FROM breakers")
        .fetch_all(db)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| OpenBreaker {
            provider: row.provider_id.into(),
            key: row.key_id,
            until: row.until,
            reason: row.reason,
        })
        .collect())
}

/// Opened later wins. A provider that has just been removed has no breaker.
pub async fn open_breaker(db: &mut PgConnection, breaker: &OpenBreaker, now: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO breakers AS b (provider_id, key_id, until, reason, changed_at)
         SELECT id, $2, $3, $4, $5 FROM providers WHERE id = $1
         ON CONFLICT (provider_id, key_id) DO UPDATE SET until = excluded.until, reason = excluded.reason, changed_at = excluded.changed_at
         WHERE b.until < excluded.until",
        breaker.provider.0,
        breaker.key,
        breaker.until,
        breaker.reason,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

pub async fn close_breaker(db: &mut PgConnection, provider: ProviderId, key: Uuid) -> Result<()> {
    sqlx::query!(
        "DELETE FROM breakers WHERE provider_id = $1 AND key_id = $2",
        provider.0,
        key
    )
    .execute(db)
    .await?;
    Ok(())
}
