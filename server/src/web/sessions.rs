//! Sessions of staff, kept in Postgres.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use repositories::sessions as rows;
use services::Database;
use time::OffsetDateTime;
use tower_sessions::{
    Expiry, SessionManagerLayer, SessionStore,
    cookie::SameSite,
    session::{Id, Record},
    session_store::{Error, Result},
};

use super::AppState;

/// [`SessionStore`] over the table `sessions`. The published stores lag behind tower-sessions.
#[derive(Clone, Debug)]
pub struct PostgresSessions(Database);

fn backend(error: impl std::fmt::Display) -> Error {
    Error::Backend(error.to_string())
}

fn to_chrono(time: OffsetDateTime) -> DateTime<Utc> {
    DateTime::from_timestamp(time.unix_timestamp(), time.nanosecond()).unwrap_or_default()
}

fn from_chrono(time: DateTime<Utc>) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.timestamp()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[async_trait]
impl SessionStore for PostgresSessions {
    async fn create(&self, record: &mut Record) -> Result<()> {
        let data = serde_json::to_value(&record.data).map_err(|error| Error::Encode(error.to_string()))?;
        let mut db = self.0.acquire().await.map_err(backend)?;
        // An id that is taken is replaced by a fresh one; with 128 random bits it does not happen.
        while !rows::create(&mut db, &record.id.to_string(), &data, to_chrono(record.expiry_date))
            .await
            .map_err(backend)?
        {
            record.id = Id::default();
        }
        Ok(())
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let data = serde_json::to_value(&record.data).map_err(|error| Error::Encode(error.to_string()))?;
        let mut db = self.0.acquire().await.map_err(backend)?;
        rows::save(&mut db, &record.id.to_string(), &data, to_chrono(record.expiry_date))
            .await
            .map_err(backend)
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        let mut db = self.0.acquire().await.map_err(backend)?;
        let Some((data, expires)) = rows::load(&mut db, &id.to_string()).await.map_err(backend)? else {
            return Ok(None);
        };
        let data = serde_json::from_value(data).map_err(|error| Error::Decode(error.to_string()))?;
        Ok(Some(Record {
            id: *id,
            data,
            expiry_date: from_chrono(expires),
        }))
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let mut db = self.0.acquire().await.map_err(backend)?;
        rows::delete(&mut db, &id.to_string()).await.map_err(backend)
    }
}

/// Seven days without a visit end a session.
const IDLE: time::Duration = time::Duration::days(7);

/// The cookie: not for scripts, not for other sites, and with https bound to this host.
pub fn layer(state: &AppState) -> SessionManagerLayer<PostgresSessions> {
    let https = state.edge.https;
    SessionManagerLayer::new(PostgresSessions(state.services.database().clone()))
        .with_name(if https { "__Host-botdeck" } else { "botdeck" })
        .with_secure(https)
        .with_http_only(true)
        .with_same_site(SameSite::Lax)
        .with_path("/")
        .with_expiry(Expiry::OnInactivity(IDLE))
}
