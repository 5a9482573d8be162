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
    pub(crate) known_keys: crate::api_keys::KnownKeys,
    /// Woken when a job may be ready in this process; others find theirs by looking.
    pub(crate) work: Notify,
    /// Woken when a message of a playground was written or changed in this process.
    pub(crate) talk: Notify,
    /// Which bots are running, and when that was seen.
    pub(crate) running: Mutex<HashMap<BotId, (bool, Instant)>>,
    /// Woken when the set of bots has changed.
    pub(crate) bots_changed: Notify,
    pub(crate) flood_waits: crate::floods::FloodWaits,
}
