//! What staff does to limits.

use std::{convert::Infallible, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    LimitKind, LimitOwner, Scope, UserId,
    views::limits::{LimitChange, LimitChanges},
};
use repositories::{
    PgConnection, api_keys, bots,
    counters::{self, Bound},
    limits as rows, plans, users,
};
use serde_json::{Map, Value, json};

use super::{Limits, rate};
use crate::{
    Actor, Error,
    audit::{Target, record},
    plans::shown,
};

/// One thing that can be set about the limits of a plan or of another owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitSetting {
    /// `None` takes the limit away.
    Limit(LimitKind, Option<i64>),
    /// By whose days and months is counted: an IANA name. A new one begins new windows.
    Zone(String),
    /// From which use on staff is told, in percent of a limit.
    Soft(i64),
}

impl From<(LimitKind, Option<i64>)> for LimitSetting {
    fn from((kind, amount): (LimitKind, Option<i64>)) -> Self {
        Self::Limit(kind, amount)
    }
}

/// The limits of one owner as they are set.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub limits: Vec<(LimitKind, i64)>,
    pub zone: String,
    pub soft_percent: i64,
}

impl Current {
    /// What is set on something that is not a plan.
    pub(super) async fn of(db: &mut PgConnection, scope: Scope, subject: &str) -> Result<Self, Error> {
        let rows = rows::of(db, scope, subject).await?;
        let manner = rows.first().map(|(_, _, zone, soft)| (zone.clone(), *soft));
        let (zone, soft_percent) = manner.unwrap_or_else(|| ("UTC".to_owned(), 80));
        Ok(Self {
            limits: rows.into_iter().map(|(kind, amount, ..)| (kind, amount)).collect(),
            zone,
            soft_percent,
        })
    }

    /// What is set on a plan.
    pub(crate) async fn of_plan(db: &mut PgConnection, id: domain::PlanId) -> Result<Self, Error> {
        let limits = plans::limits(db, id).await?;
        let (zone, soft_percent) = plans::manner(db, id).await?.ok_or(Error::NotFound("the plan"))?;
        Ok(Self {
            limits: limits.into_iter().map(|limit| (limit.kind, limit.amount)).collect(),
            zone,
            soft_percent,
        })
    }

    pub(super) fn amount(&self, kind: LimitKind) -> Option<i64> {
        let known = self.limits.iter().find(|(known, _)| *known == kind);
        known.map(|(_, amount)| *amount)
    }

    /// What the settings would make different; of several for the same thing the last one counts. The database knows the zones.
    pub(crate) async fn changes(
        &self,
        db: &mut PgConnection,
        settings: &[LimitSetting],
    ) -> Result<LimitChanges, Error> {
        let mut limits: Vec<LimitChange> = Vec::new();
        let (mut zone, mut soft) = (self.zone.clone(), self.soft_percent);
        for setting in settings {
            match setting {
                LimitSetting::Limit(kind, after) => {
                    limits.retain(|change| change.kind != *kind);
                    limits.push(LimitChange {
                        kind: *kind,
                        before: self.amount(*kind),
                        after: *after,
                    });
                }
                LimitSetting::Zone(name) => zone.clone_from(name),
                LimitSetting::Soft(percent) => soft = *percent,
            }
        }
        limits.retain(|change| change.before != change.after);
        limits.sort_by_key(|change| change.kind);
        if zone != self.zone && !rows::is_zone(db, &zone).await? {
            return Err(Error::Invalid("a time zone such as UTC or Europe/Berlin"));
        }
        if !(1..=100).contains(&soft) {
            return Err(Error::Invalid("a threshold of 1 to 100 percent"));
        }
        Ok(LimitChanges {
            limits,
            zone: (zone != self.zone).then(|| [self.zone.clone(), zone]),
            soft_percent: (soft != self.soft_percent).then_some([self.soft_percent, soft]),
        })
    }

    /// Zone and threshold after the changes.
    pub(crate) fn manner_after(&self, changes: &LimitChanges) -> (String, i16) {
        let zone = changes.zone.as_ref().map_or(&self.zone, |[_, zone]| zone);
        let soft = changes.soft_percent.map_or(self.soft_percent, |[_, soft]| soft);
        // `changes` lets through only what fits.
        (zone.clone(), i16::try_from(soft).unwrap_or(100))
    }

    /// A zone or a threshold of something that is not a plan stands with its limits.
    pub(super) fn check_manner(&self, changes: &LimitChanges) -> Result<(), Error> {
        let manner = changes.zone.is_some() || changes.soft_percent.is_some();
        if manner && self.limits.is_empty() && changes.limits.iter().all(|change| change.after.is_none()) {
            return Err(Error::Conflict("there is no limit that could be counted so"));
        }
        Ok(())
    }
}

/// Before and after of the changes, for the trail.
pub(crate) fn recorded(changes: &LimitChanges) -> (Option<Value>, Option<Value>) {
    let (mut before, mut after) = (Map::new(), Map::new());
    for change in &changes.limits {
        before.insert(change.kind.name().to_owned(), shown(change.kind, change.before));
        after.insert(change.kind.name().to_owned(), shown(change.kind, change.after));
    }
    if let Some([was, is]) = &changes.zone {
        before.insert("zone".to_owned(), was.as_str().into());
        after.insert("zone".to_owned(), is.as_str().into());
    }
    if let Some([was, is]) = changes.soft_percent {
        before.insert("soft".to_owned(), was.into());
        after.insert("soft".to_owned(), is.into());
    }
    (Some(before.into()), Some(after.into()))
}

/// What the owner is called; empty for the deployment. An owner that is not there is an error.
pub(super) async fn name_of(db: &mut PgConnection, owner: &LimitOwner) -> Result<String, Error> {
    Ok(match owner {
        LimitOwner::Plan(id) => plans::name(db, *id).await?.ok_or(Error::NotFound("the plan"))?,
        LimitOwner::User(id) => users::get(db, *id).await?.ok_or(Error::NotFound("the user"))?.name,
        LimitOwner::Bot(id) => bots::get(db, *id).await?.ok_or(Error::NotFound("the bot"))?.name,
        LimitOwner::Model(name) if name.trim().is_empty() => return Err(Error::Invalid("the name of a model")),
        LimitOwner::Model(name) => name.clone(),
        LimitOwner::ApiKey(id) => api_keys::name(db, *id).await?.ok_or(Error::NotFound("the key"))?,
        LimitOwner::Deployment => String::new(),
    })
}

impl Limits {
    /// What this replica believed or holds for calls to come may be so no longer.
    pub(crate) fn changed(&self) {
        self.0.no_limits.forget();
        self.0.call_log.give_back(self.0.leases.recall_all());
    }

    /// Hears of changes of limits that are made in whatever process, until `stop`.
    pub async fn watch(&self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                Err(error) = self.hear() => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "Nobody tells of changed limits, asking again");
                }
            }
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(HEARING_PAUSE) => {}
            }
        }
    }

    async fn hear(&self) -> Result<Infallible, Error> {
        let mut changes = self.0.db.limit_changes().await?;
        loop {
            // Also of what was changed before anybody listened.
            self.changed();
            changes.next().await?;
        }
    }

    /// Sets what is named and leaves the rest; the answer is what that has changed. Holds from the next call on, on other
    /// replicas as soon as they hear of it (or, while they do not, after two seconds at most). A call that changes nothing leaves no
    /// trace.
    pub async fn set(
        &self,
        actor: &Actor,
        owner: &LimitOwner,
        settings: &[LimitSetting],
    ) -> Result<LimitChanges, Error> {
        let (scope, subject) = match (owner, owner.parts()) {
            (LimitOwner::Plan(id), _) => return self.0.plans().set_limits(actor, *id, settings.to_vec()).await,
            (_, Some(parts)) => parts,
            (_, None) => return Err(Error::Internal("an owner without a scope")),
        };
        let mut tx = self.0.db.begin().await?;
        let name = name_of(&mut tx, owner).await?;
        rows::lock(&mut tx, scope, &subject).await?;
        let current = Current::of(&mut tx, scope, &subject).await?;
        let changes = current.changes(&mut tx, settings).await?;
        current.check_manner(&changes)?;
        if changes == LimitChanges::default() {
            return Ok(changes);
        }
        for change in &changes.limits {
            rows::set(&mut tx, scope, &subject, change.kind, change.after).await?;
        }
        let (zone, soft_percent) = current.manner_after(&changes);
        rows::set_manner(&mut tx, scope, &subject, &zone, soft_percent).await?;
        let target = Target {
            kind: scope.name(),
            id: subject,
            name: &name,
        };
        let (before, after) = recorded(&changes);
        record(&self.0, &mut tx, actor, "limits.set", target, before, after).await?;
        rows::tell_of_change(&mut tx).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.changed();
        Ok(changes)
    }

    /// Lets an owner have more of one limit until a date; `None` ends that. Holds from the next call on.
    pub async fn boost(
        &self,
        actor: &Actor,
        owner: impl Into<LimitOwner>,
        kind: LimitKind,
        boost: Option<(i64, DateTime<Utc>)>,
    ) -> Result<(), Error> {
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        let held = Held::lock(&mut tx, &owner.into()).await?;
        if let Some((amount, until)) = boost {
            if until <= now {
                return Err(Error::Invalid("a date that is still to come"));
            }
            match held.limit_without_boost(&mut tx, kind).await? {
                Some(limit) if amount > limit => {}
                Some(_) => return Err(Error::Invalid("more than the limit without it")),
                None => return Err(NO_SUCH_LIMIT),
            }
        }
        let old = held.boost(&mut tx, kind).await?;
        if old == boost {
            return Err(Error::Conflict("nothing would change"));
        }
        held.set_boost(&mut tx, kind, boost).await?;
        let state = |boost: Option<(i64, DateTime<Utc>)>| {
            boost.map(|(amount, until)| json!({ kind.name(): shown(kind, Some(amount)), "until": until }))
        };
        let action = held.action("user.boost", "limits.boost");
        record(&self.0, &mut tx, actor, action, held.target(), state(old), state(boost)).await?;
        rows::tell_of_change(&mut tx).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.changed();
        Ok(())
    }

    /// Begins the current window of an owner's limit anew.
    pub async fn reset(&self, actor: &Actor, owner: impl Into<LimitOwner>, kind: LimitKind) -> Result<(), Error> {
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        let held = Held::lock(&mut tx, &owner.into()).await?;
        let bound = held.bound(&mut tx, kind, now).await?.ok_or(NO_SUCH_LIMIT)?;
        let used = counters::reset(&mut tx, &bound, held.user).await?;
        let state = |used: i64| Some(json!({ kind.name(): shown(kind, Some(used)) }));
        let action = held.action("user.reset_limit", "limits.reset");
        record(&self.0, &mut tx, actor, action, held.target(), state(used), state(0)).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        if let Some(rate) = rate(&bound) {
            self.0.rate.forget(&rate).await;
        }
        Ok(())
    }
}

/// Between two attempts to hear of changes.
const HEARING_PAUSE: Duration = Duration::from_millis(500);

const NO_SUCH_LIMIT: Error = Error::Conflict("there is no such limit");

/// An owner whose limits are used up in windows of its own: everything but a plan. Locked until the transaction ends.
struct Held {
    scope: Scope,
    subject: String,
    name: String,
    /// A user, of whom plan and own limit count together.
    user: Option<UserId>,
}

impl Held {
    async fn lock(db: &mut PgConnection, owner: &LimitOwner) -> Result<Self, Error> {
        let of_each = Error::Conflict("each user of a plan uses up its limits alone");
        let (scope, subject) = owner.parts().ok_or(of_each)?;
        let (user, name) = match owner {
            LimitOwner::User(id) => {
                let known = users::lock(db, *id).await?.ok_or(Error::NotFound("the user"))?;
                (Some(*id), known.name)
            }
            _ => {
                rows::lock(db, scope, &subject).await?;
                (None, name_of(db, owner).await?)
            }
        };
        Ok(Self {
            scope,
            subject,
            name,
            user,
        })
    }

    async fn limit_without_boost(&self, db: &mut PgConnection, kind: LimitKind) -> Result<Option<i64>, Error> {
        Ok(match self.user {
            Some(user) => rows::limit_without_boost(db, user, kind).await?,
            None => {
                let shared = rows::shared(db, self.scope, &self.subject, kind).await?;
                shared.map(|limit| limit.amount)
            }
        })
    }

    async fn boost(&self, db: &mut PgConnection, kind: LimitKind) -> Result<Option<(i64, DateTime<Utc>)>, Error> {
        Ok(match self.user {
            Some(user) => rows::boost(db, user, kind).await?,
            None => {
                let shared = rows::shared(db, self.scope, &self.subject, kind).await?;
                shared.and_then(|limit| limit.boost)
            }
        })
    }

    async fn set_boost(
        &self,
        db: &mut PgConnection,
        kind: LimitKind,
        boost: Option<(i64, DateTime<Utc>)>,
    ) -> Result<(), Error> {
        match self.user {
            Some(user) => rows::set_boost(db, user, kind, boost).await?,
            None => rows::set_shared_boost(db, self.scope, &self.subject, kind, boost).await?,
        }
        Ok(())
    }

    async fn bound(&self, db: &mut PgConnection, kind: LimitKind, now: DateTime<Utc>) -> Result<Option<Bound>, Error> {
        let shared = self.user.is_none().then(|| (self.scope, self.subject.clone()));
        let bounds = counters::bounds(db, self.user, shared.as_slice(), now).await?;
        Ok(bounds.into_iter().find(|bound| bound.kind == kind))
    }

    fn action(&self, of_user: &'static str, of_others: &'static str) -> &'static str {
        if self.user.is_some() { of_user } else { of_others }
    }

    fn target(&self) -> Target<'_> {
        Target {
            kind: self.scope.name(),
            id: self.subject.clone(),
            name: &self.name,
        }
    }
}
