//! Limits as the pages show them that set them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{AuditRow, LimitBar};
use crate::{LimitKind, LimitOwner, UserId};

/// Something that limits can be set on, and what it is called; empty for the deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedOwner {
    pub owner: LimitOwner,
    pub name: String,
}

/// The limits that are set on something that is not a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnerLimits {
    pub owner: LimitOwner,
    pub name: String,
    /// Only those that are set.
    pub limits: Vec<(LimitKind, i64)>,
    /// The same with their use; not for users, who have pages of their own.
    pub bars: Vec<LimitBar>,
}

/// All that is set on one owner, with its past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitSheet {
    pub owner: LimitOwner,
    pub name: String,
    /// How many users a plan has; `None` for everything else.
    pub users: Option<i64>,
    /// All models that a plan can list, and whether it does; with none listed its users choose from all that are shown. `None` for
    /// everything else.
    pub models: Option<Vec<(bool, String)>>,
    /// By whose days and months it counts: an IANA name such as `Europe/Berlin`. That of the plan for a user.
    pub zone: String,
    /// From which use on staff is told, in percent.
    pub soft_percent: i64,
    /// Every kind, in order; `None` is no limit.
    pub limits: Vec<(LimitKind, Option<i64>)>,
    /// What is used of them now; not for a plan, of which each user has their own.
    pub bars: Vec<LimitBar>,
    /// Each change of them, newest first; empty without `audit:read`.
    pub history: Vec<AuditRow>,
}

/// What a save changes or has changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitChanges {
    pub limits: Vec<LimitChange>,
    /// Before and after, where it is another.
    pub zone: Option<[String; 2]>,
    pub soft_percent: Option<[i64; 2]>,
}

/// One limit, before and after; `None` is no limit, 0 lets nothing through.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitChange {
    pub kind: LimitKind,
    pub before: Option<i64>,
    pub after: Option<i64>,
}

/// What a change would do if it were saved now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitEffect {
    pub changes: LimitChanges,
    /// Of each limit that would change, or begin to count anew in another time zone.
    pub kinds: Vec<KindEffect>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindEffect {
    pub change: LimitChange,
    /// What was used before does not count: the limit is new, or its days begin at another hour.
    pub counts_from_now: bool,
    pub reach: Reach,
}

/// Whom a limit concerns in its current window; or, of messages a minute that each user has, whom it would have concerned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reach {
    /// How many users: all of a plan, or those who have used what is shared.
    pub people: i64,
    /// For how many of them the limit is used up as it is, and as it would be.
    pub stopped_before: i64,
    pub stopped_after: i64,
    /// What all of them together have used, where they share the limit.
    pub shared_used: Option<i64>,
    /// It would be used up, for somebody or, where it is shared, for all; also where nobody is known to use it.
    pub used_up_after: bool,
    /// Since when people's minutes were looked at: `stopped` are then those who had one with more messages than the limit, and the use
    /// is that of the busiest one. `None`: the current window counts.
    pub minutes_since: Option<DateTime<Utc>>,
    /// Those with most use.
    pub heaviest: Vec<HeavyUser>,
    /// When the window ends; `None` for a total.
    pub resets_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeavyUser {
    pub id: UserId,
    pub name: String,
    pub used: i64,
    /// What would hold for this user: of the new limit, an own one and a boost. `None` is no limit, or one that is shared.
    pub limit: Option<i64>,
}
