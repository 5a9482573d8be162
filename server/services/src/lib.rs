//! Use cases, one file per topic. A service asks repositories and the gateway, opens one transaction per use case and writes the
//! audit row inside it. Nothing here knows of HTTP, pages or Telegram's wire format; SQL is not written here.
//!
//! To add one: a method that takes an [`Actor`] where staff acts, parsed values otherwise, and returns [`Error`].

mod actor;
mod answer_cache;
mod api_keys;
mod audit;
mod auth;
mod bot_board;
mod bots;
mod calls;
mod chats;
mod clock;
mod conversations;
mod error;
mod floods;
mod inner;
mod intake;
mod jobs_board;
mod keys;
mod limits;
pub mod models;
mod overview;
mod pace;
mod places;
mod plans;
mod playground;
mod queue;
mod rate;
mod requests;
mod similar;
mod trace;
mod users;

use std::sync::Arc;

pub use actor::{Actor, Origin};
use answer_cache::AnswerCache;
pub use api_keys::{ApiKey, ApiKeys, KeyWish};
pub use audit::{Audit, Verified};
pub use auth::{Auth, SESSION_STAFF, password_hash_for_bench};
pub use bot_board::BotHealth;
pub use bots::{BotIdentity, BotRecord, Bots, TelegramDirectory, Unidentified, well_formed};
pub use calls::{Call, CallWish, Calls, Line};
pub use chats::{Absorbed, Begin, Change, Chats, Incoming, Question, Reply};
pub use clock::{Clock, ManualClock, SystemClock};
pub use conversations::Conversations;
pub use error::Error;
pub use gateway::Gateway;
use inner::Inner;
pub use intake::{Intake, Peek, is_command, lane, peek};
pub use jobs_board::JobsService;
pub use keys::{EXPECTED_KEY, KeyRing};
pub use limits::{
    Headroom, LimitOwner, LimitSetting, Limits, Reached, Refusal, Refused, Reserved, Subject, Use, Wanted,
};
pub use overview::OverviewService;
pub use pace::{Ask, Held, RECOVERY, SharedPace, Urgency, window};
pub use plans::Plans;
pub use playground::PlaygroundService;
pub use queue::{Claimed, Ended, LEASE, MOST_CRASHES, PANIC, Queue, Room, Which, draft_id};
pub use rate::{Minute, Rate, RateLimiter, Verdict};
pub use repositories::{
    Database,
    bots::Fault,
    deliveries::{KnownIds, Lost, Owner, Part, Taken},
    people::Known,
    updates::Asked,
};
pub use requests::Requests;
pub use similar::Similar;
use tokio::sync::Notify;
pub use trace::{current_trace, within_trace};
pub use users::Users;

/// What the services are built from.
pub struct Parts {
    pub db: Database,
    pub clock: Arc<dyn Clock>,
    pub keys: KeyRing,
    pub rate: RateLimiter,
    pub gateway: Gateway,
    pub telegram: Arc<dyn TelegramDirectory>,
    /// Webhooks are possible: there is a public address.
    pub webhooks: bool,
    /// With so many jobs of one bot still to do, no more of its updates are taken.
    pub queue_limit: u32,
    /// Requests of all replicas at once to a provider that has no number of its own.
    pub provider_calls: usize,
    /// How many months of the ledger are kept beside the current one.
    pub usage_months: u32,
}

/// The door to every use case. Cheap to clone.
#[derive(Clone)]
pub struct Services(Arc<Inner>);

impl std::ops::Deref for Services {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Services {
    pub fn new(parts: Parts) -> Self {
        if let Some(shared) = AnswerCache::beside(&parts.rate) {
            parts.gateway.share_cache(Arc::new(shared));
        }
        parts
            .gateway
            .share_places(Arc::new(places::LentPlaces::beside(&parts.rate)));
        Self(Arc::new(Inner {
            db: parts.db,
            clock: parts.clock,
            keys: parts.keys,
            pace: SharedPace::beside(&parts.rate),
            rate: parts.rate,
            gateway: parts.gateway,
            telegram: parts.telegram,
            webhooks: parts.webhooks,
            usage_months: parts.usage_months,
            // Each hash takes a core for a tenth of a second and some memory; more at once would only slow everything.
            throttle_hashing: tokio::sync::Semaphore::new(2),
            call_log: calls::CallLog::default(),
            no_limits: limits::NoLimits::default(),
            lanes: limits::Lanes::default(),
            leases: limits::Leases::default(),
            known_keys: api_keys::KnownKeys::default(),
            similar: similar::Spaces::default(),
            work: Notify::new(),
            talk: Notify::new(),
            running: std::sync::Mutex::default(),
            bots_changed: Notify::new(),
            catalogue_seen: tokio::sync::Mutex::default(),
            provider_calls: parts.provider_calls,
            flood_waits: floods::FloodWaits::default(),
            crowded: intake::Crowded::new(parts.queue_limit.into()),
        }))
    }

    pub fn auth(&self) -> Auth {
        Auth(self.clone())
    }

    pub fn setup(&self) -> auth::Setup {
        auth::Setup(self.clone())
    }

    pub fn overview(&self) -> OverviewService {
        OverviewService(self.clone())
    }

    pub fn users(&self) -> Users {
        Users(self.clone())
    }

    pub fn conversations(&self) -> Conversations {
        Conversations(self.clone())
    }

    pub fn plans(&self) -> Plans {
        Plans(self.clone())
    }

    pub fn models(&self) -> models::Models {
        models::Models(self.clone())
    }

    pub fn limits(&self) -> Limits {
        Limits(self.clone())
    }

    pub fn bots(&self) -> Bots {
        Bots(self.clone())
    }

    pub fn jobs_board(&self) -> JobsService {
        JobsService(self.clone())
    }

    pub fn playground(&self) -> PlaygroundService {
        PlaygroundService(self.clone())
    }

    pub fn api_keys(&self) -> ApiKeys {
        ApiKeys(self.clone())
    }

    pub fn calls(&self) -> Calls {
        Calls(self.clone())
    }

    pub fn requests(&self) -> Requests {
        Requests(self.clone())
    }

    pub fn similar(&self) -> Similar {
        Similar(self.clone())
    }

    pub fn audit(&self) -> Audit {
        Audit(self.clone())
    }

    pub fn intake(&self) -> Intake {
        Intake(self.clone())
    }

    pub fn queue(&self) -> Queue {
        Queue(self.clone())
    }

    pub fn chats(&self) -> Chats {
        Chats(self.clone())
    }

    pub fn gateway(&self) -> &Gateway {
        &self.0.gateway
    }

    pub fn database(&self) -> &Database {
        &self.0.db
    }

    pub fn keys(&self) -> &KeyRing {
        &self.0.keys
    }

    pub fn rate(&self) -> &RateLimiter {
        &self.0.rate
    }

    /// When a bot may call Telegram, for all replicas together.
    pub fn pace(&self) -> &Arc<SharedPace> {
        &self.0.pace
    }

    /// The current time, as the services see it.
    pub fn now(&self) -> chrono::DateTime<chrono::Utc> {
        self.0.clock.now()
    }
}

/// Key of the page after a row, as `time~id`; opaque to pages.
pub(crate) fn cursor(at: chrono::DateTime<chrono::Utc>, id: uuid::Uuid) -> String {
    format!("{}~{id}", at.timestamp_micros())
}

pub(crate) fn parse_cursor(text: Option<&str>) -> Result<Option<(chrono::DateTime<chrono::Utc>, uuid::Uuid)>, Error> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed = text.split_once('~').and_then(|(micros, id)| {
        Some((
            chrono::DateTime::from_timestamp_micros(micros.parse().ok()?)?,
            id.parse().ok()?,
        ))
    });
    parsed
        .map(Some)
        .ok_or(Error::Invalid("a page key from a link of this list"))
}
