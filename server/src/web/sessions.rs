//! Sessions of staff, kept in Postgres.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{extract::Request, middleware::Next, response::Response};
use chrono::{DateTime, Utc};
use domain::StaffId;
use repositories::sessions as rows;
use services::Database;
use time::OffsetDateTime;
use tower_sessions::{
    Expiry, Session, SessionManagerLayer, SessionStore,
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
        // One that has been ended meanwhile is not begun again: the browser is signed out with its next request.
        rows::save(&mut db, &record.id.to_string(), &data, to_chrono(record.expiry_date))
            .await
            .map_err(backend)?;
        Ok(())
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

/// The session of this id as it stands in the database now.
pub fn read(state: &AppState, id: Option<Id>) -> Session {
    Session::new(id, Arc::new(PostgresSessions(state.services.database().clone())), None)
}

/// A visit prolongs the session, at most once an hour: more would be a write for every page.
const PROLONG_EVERY: i64 = 3600;
const VISITED: &str = "visited";

/// Keeps those who come back signed in. Inside the session's layer, which saves what is changed here and sends the cookie anew.
pub async fn prolong(session: Session, request: Request, next: Next) -> Response {
    // Files come with the cookie too, but are no visits.
    let page = !request.uri().path().starts_with("/pkg/");
    if page && let Ok(Some(_)) = session.get::<StaffId>(app::ssr::STAFF).await {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let visited = session.get::<i64>(VISITED).await.ok().flatten().unwrap_or(0);
        if now - visited >= PROLONG_EVERY {
            // A visit that cannot be noted is a visit all the same.
            let _ = session.insert(VISITED, now).await;
        }
    }
    next.run(request).await
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
