//! What all services share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use domain::BotId;
use gateway::Gateway;
use repositories::Database;
use tokio::sync::{Notify, Semaphore};

use crate::{Clock, KeyRing, RateLimiter, SharedPace, TelegramDirectory};

/// The state behind [`crate::Services`]; seen only inside this crate.
pub struct Inner {
    pub(crate) db: Database,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keys: KeyRing,
    pub(crate) rate: RateLimiter,
    pub(crate) pace: Arc<SharedPace>,
    pub(crate) gateway: Gateway,
    pub(crate) telegram: Arc<dyn TelegramDirectory>,
    pub(crate) webhooks: bool,
    pub(crate) usage_months: u32,
    pub(crate) crowded: crate::intake::Crowded,
    pub(crate) throttle_hashing: Semaphore,
    pub(crate) call_log: crate::calls::CallLog,
    pub(crate) no_limits: crate::limits::NoLimits,
    pub(crate) lanes: crate::limits::Lanes,
    pub(crate) leases: crate::limits::Leases,
    pub(crate) known_keys: crate::api_keys::KnownKeys,
    pub(crate) similar: crate::similar::Spaces,
    /// Woken when a job may be ready in this process; others find theirs by looking.
    pub(crate) work: Notify,
    /// Woken when a message of a playground was written or changed in this process.
    pub(crate) talk: Notify,
    /// Which bots are running, and when that was seen.
    pub(crate) running: Mutex<HashMap<BotId, (bool, Instant)>>,
    /// Woken when the set of bots has changed.
    pub(crate) bots_changed: Notify,
    /// What of the catalogue's rows the gateway knows: their revision, and the minute in which it was looked at.
    pub(crate) catalogue_seen: tokio::sync::Mutex<Option<(i64, i64)>>,
    /// Requests of all replicas at once to a provider that has no number of its own.
    pub(crate) provider_calls: usize,
    pub(crate) flood_waits: crate::floods::FloodWaits,
}
