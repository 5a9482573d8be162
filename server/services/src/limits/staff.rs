//! What staff sees of limits, and what it does to them.

use chrono::{DateTime, Utc};
use domain::{
    BotId, LimitKind, Permission, Scope, UserId,
    views::{LimitBar, LimitEvent, ScopeLimits},
};
use repositories::{
    PgConnection, api_keys, bots,
    counters::{self, Bound},
    limits as rows, users,
};
use serde_json::{Map, Value, json};

use super::Limits;
use crate::{
    Actor, Error, Services,
    audit::{Target, record},
    plans::shown,
    rate::Minute,
};

/// Whose limits are set, where it is not a plan's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitOwner {
    User(UserId),
    Bot(BotId),
    ApiKey(domain::ApiKeyId),
    /// The name by which it is asked for; it need not be offered now.
    Model(String),
    Deployment,
}

impl LimitOwner {
    fn parts(&self) -> (Scope, String) {
        match self {
            Self::User(id) => (Scope::User, id.to_string()),
            Self::Bot(id) => (Scope::Bot, id.to_string()),
            Self::ApiKey(id) => (Scope::ApiKey, id.to_string()),
            Self::Model(name) => (Scope::Model, name.clone()),
            Self::Deployment => (Scope::Deployment, String::new()),
        }
    }
}

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

/// Checks zone and threshold; the database knows the zones.
pub(crate) async fn manner(
    db: &mut PgConnection,
    settings: &[LimitSetting],
    current: (String, i64),
) -> Result<(String, i16), Error> {
    let (mut zone, mut soft) = current;
    for setting in settings {
        match setting {
            LimitSetting::Zone(name) if *name != zone => {
                if !rows::is_zone(db, name).await? {
                    return Err(Error::Invalid("a time zone such as UTC or Europe/Berlin"));
                }
                zone.clone_from(name);
            }
            LimitSetting::Soft(percent) => soft = *percent,
            LimitSetting::Zone(_) | LimitSetting::Limit(..) => {}
        }
    }
    match i16::try_from(soft) {
        Ok(soft @ 1..=100) => Ok((zone, soft)),
        _ => Err(Error::Invalid("a threshold of 1 to 100 percent")),
    }
}

impl Limits {
    /// Limits of everything but plans; of users only for who may know their names.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<ScopeLimits>, Error> {
        let mut list = rows::list(&mut *self.0.db.acquire().await?).await?;
        list.retain(|one| one.scope != Scope::User || actor.may(Permission::ReadUsers));
        Ok(list)
    }

    /// The thresholds that were passed last; those of users only for who may know their names.
    pub async fn events(&self, actor: &Actor) -> Result<Vec<LimitEvent>, Error> {
        let users = actor.may(Permission::ReadUsers);
        Ok(rows::events(&mut *self.0.db.acquire().await?, users, 20).await?)
    }

    /// Sets what is named and leaves the rest. Holds from the next call on (for a program that had no limit at all, after two seconds on
    /// other replicas); a call that changes nothing leaves no trace.
    pub async fn set(&self, actor: &Actor, owner: &LimitOwner, settings: &[LimitSetting]) -> Result<(), Error> {
        let (scope, subject) = owner.parts();
        let mut tx = self.0.db.begin().await?;
        let name = match owner {
            LimitOwner::User(id) => {
                let user = users::get(&mut tx, *id).await?.ok_or(Error::NotFound("the user"))?;
                user.name
            }
            LimitOwner::Bot(id) => {
                let bot = bots::get(&mut tx, *id).await?.ok_or(Error::NotFound("the bot"))?;
                bot.name
            }
            LimitOwner::Model(name) if name.trim().is_empty() => return Err(Error::Invalid("the name of a model")),
            LimitOwner::Model(name) => name.clone(),
            LimitOwner::ApiKey(id) => {
                let key = api_keys::lock(&mut tx, *id).await?.ok_or(Error::NotFound("the key"))?;
                key.name
            }
            LimitOwner::Deployment => subject.clone(),
        };
        let current = rows::lock(&mut tx, scope, &subject).await?;
        let was = current
            .first()
            .map_or(("UTC".to_owned(), 80), |(_, _, zone, soft)| (zone.clone(), *soft));
        let is = manner(&mut tx, settings, was.clone()).await?;
        let (mut before, mut after) = (Map::new(), Map::new());
        for setting in settings {
            let LimitSetting::Limit(kind, amount) = setting else {
                continue;
            };
            let old = current.iter().find(|known| known.0 == *kind).map(|known| known.1);
            if old != *amount {
                rows::set(&mut tx, scope, &subject, *kind, *amount).await?;
                before.insert(kind.name().to_owned(), shown(*kind, old));
                after.insert(kind.name().to_owned(), shown(*kind, *amount));
            }
        }
        let left = rows::lock(&mut tx, scope, &subject).await?;
        if left.is_empty() && after.is_empty() && (was.0 != is.0 || was.1 != i64::from(is.1)) {
            return Err(Error::Conflict("there is no limit that could be counted so"));
        }
        note_manner(&mut before, &mut after, &was, &is);
        if after.is_empty() {
            return Ok(());
        }
        rows::set_manner(&mut tx, scope, &subject, &is.0, is.1).await?;
        let target = Target {
            kind: scope.name(),
            id: subject,
            name: &name,
        };
        let (before, after) = (Some(before.into()), Some(after.into()));
        record(&self.0, &mut tx, actor, "limits.set", target, before, after).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        self.0.no_limits.forget();
        Ok(())
    }

    /// Lets a user have more of one limit until a date; `None` ends that.
    pub async fn boost(
        &self,
        actor: &Actor,
        user: UserId,
        kind: LimitKind,
        boost: Option<(i64, DateTime<Utc>)>,
    ) -> Result<(), Error> {
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        let known = users::lock(&mut tx, user).await?.ok_or(Error::NotFound("the user"))?;
        if let Some((amount, until)) = boost {
            if until <= now {
                return Err(Error::Invalid("a date that is still to come"));
            }
            match rows::limit_without_boost(&mut tx, user, kind).await? {
                Some(limit) if amount > limit => {}
                Some(_) => return Err(Error::Invalid("more than the limit without it")),
                None => return Err(Error::Conflict("the user has no such limit")),
            }
        }
        let old = rows::boost(&mut tx, user, kind).await?;
        if old == boost {
            return Err(Error::Conflict("nothing would change"));
        }
        rows::set_boost(&mut tx, user, kind, boost).await?;
        let state = |boost: Option<(i64, DateTime<Utc>)>| {
            boost.map(|(amount, until)| json!({ kind.name(): shown(kind, Some(amount)), "until": until }))
        };
        let target = Target {
            kind: "user",
            id: user.to_string(),
            name: &known.name,
        };
        record(&self.0, &mut tx, actor, "user.boost", target, state(old), state(boost)).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(())
    }

    /// Begins the current window of a user's limit anew.
    pub async fn reset(&self, actor: &Actor, user: UserId, kind: LimitKind) -> Result<(), Error> {
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        let known = users::lock(&mut tx, user).await?.ok_or(Error::NotFound("the user"))?;
        let bound = bound_of(&mut tx, user, kind, now).await?;
        let bound = bound.ok_or(Error::Conflict("the user has no such limit"))?;
        let used = counters::reset(&mut tx, &bound, user).await?;
        let target = Target {
            kind: "user",
            id: user.to_string(),
            name: &known.name,
        };
        let state = |used: i64| Some(json!({ kind.name(): shown(kind, Some(used)) }));
        record(
            &self.0,
            &mut tx,
            actor,
            "user.reset_limit",
            target,
            state(used),
            state(0),
        )
        .await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        if kind.is_rate() {
            self.0.rate.forget(user).await;
        }
        Ok(())
    }
}

/// Puts a change of zone or threshold into the record.
pub(crate) fn note_manner(
    before: &mut Map<String, Value>,
    after: &mut Map<String, Value>,
    was: &(String, i64),
    is: &(String, i16),
) {
    if was.0 != is.0 {
        before.insert("zone".to_owned(), was.0.as_str().into());
        after.insert("zone".to_owned(), is.0.as_str().into());
    }
    if was.1 != i64::from(is.1) {
        before.insert("soft".to_owned(), was.1.into());
        after.insert("soft".to_owned(), is.1.into());
    }
}

async fn bound_of(
    db: &mut PgConnection,
    user: UserId,
    kind: LimitKind,
    now: DateTime<Utc>,
) -> Result<Option<Bound>, Error> {
    let bounds = counters::bounds(db, Some(user), &[], now).await?;
    Ok(bounds.into_iter().find(|bound| bound.kind == kind))
}

/// The limits of a user with their use: the usual ones in any case, others where they are set. With `shared`, those that hold for
/// this user and others together as well: the deployment's, and those of the bots that the user has written to.
pub(crate) async fn bars(
    services: &Services,
    db: &mut PgConnection,
    user: UserId,
    shared: &[(BotId, String)],
    deployment: bool,
) -> Result<Vec<LimitBar>, Error> {
    let now = services.now();
    let mut subjects: Vec<_> = shared.iter().map(|(id, _)| (Scope::Bot, id.to_string())).collect();
    if deployment {
        subjects.push((Scope::Deployment, String::new()));
    }
    let bounds = counters::bounds(db, Some(user), &subjects, now).await?;
    let minute = services.rate.minute(user, now).await;
    let mut bars: Vec<LimitBar> = bounds
        .iter()
        .filter(|bound| bound.scope == Scope::User || !bound.kind.is_rate())
        .map(|bound| bar(bound, shared, minute))
        .collect();
    if !bars.iter().any(|bar| bar.scope == Scope::User && bar.kind.is_rate()) {
        // Counted only where there is a limit.
        bars.push(LimitBar {
            scope: Scope::User,
            name: String::new(),
            kind: LimitKind::MessagesPerMinute,
            limit: None,
            boosted_until: None,
            near: false,
            used: None,
            reserved: 0,
            resets_at: None,
        });
    }
    bars.sort_by_key(|bar| (bar.scope, bar.name.clone(), bar.kind));
    Ok(bars)
}

fn bar(bound: &Bound, bots: &[(BotId, String)], minute: Option<Minute>) -> LimitBar {
    let name = bots
        .iter()
        .find(|(id, _)| bound.scope == Scope::Bot && id.to_string() == bound.subject);
    let (used, resets_at) = if bound.kind.is_rate() {
        (
            minute.map(|minute| minute.used),
            minute.and_then(|minute| minute.resets_at),
        )
    } else {
        (Some(bound.used), bound.resets_at)
    };
    LimitBar {
        scope: bound.scope,
        name: name.map(|(_, name)| name.clone()).unwrap_or_default(),
        kind: bound.kind,
        limit: bound.cap,
        boosted_until: bound.boosted_until,
        near: bound.soft().is_some_and(|soft| bound.used > 0 && bound.used >= soft),
        used,
        reserved: bound.reserved,
        resets_at,
    }
}
