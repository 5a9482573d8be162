//! What staff sees of limits.

use domain::{
    BotId, LimitKind, LimitOwner, Permission, Scope, UserId,
    views::{
        LimitBar, LimitEvent, ScopeLimits,
        limits::{LimitSheet, NamedOwner, OwnerLimits},
    },
};
use repositories::{
    PgConnection, audit,
    counters::{self, Bound},
    limits as rows, plans, users,
};

use super::{
    Limits, rate,
    staff::{Current, name_of},
};
use crate::{Actor, Error, Services, rate::Minute};

/// Changes of one owner's limits that a page shows; all of them are in the audit trail.
const HISTORY: i64 = 20;

impl Limits {
    /// Limits of everything but plans; of users only for who may know their names.
    pub async fn list(&self, actor: &Actor) -> Result<Vec<ScopeLimits>, Error> {
        let mut list = rows::list(&mut *self.0.db.acquire().await?).await?;
        list.retain(|one| one.scope != Scope::User || actor.may(Permission::ReadUsers));
        Ok(list)
    }

    /// The same with what is used of those that many share.
    pub async fn in_use(&self, actor: &Actor) -> Result<Vec<OwnerLimits>, Error> {
        let list = self.list(actor).await?;
        let subjects = list.iter().filter(|one| one.scope != Scope::User);
        let subjects: Vec<_> = subjects.map(|one| (one.scope, one.subject.clone())).collect();
        let bars = shared_bars(&self.0, &mut *self.0.db.acquire().await?, &subjects).await?;
        let with_bars = list.into_iter().filter_map(|one| {
            let ours = bars
                .iter()
                .filter(|(scope, subject, _)| *scope == one.scope && *subject == one.subject);
            Some(OwnerLimits {
                owner: LimitOwner::of(one.scope, &one.subject).ok()?,
                name: one.name,
                limits: one.limits,
                bars: ours.map(|(.., bar)| bar.clone()).collect(),
            })
        });
        Ok(with_bars.collect())
    }

    /// What a limit can be set on, beside plans and users.
    pub async fn owners(&self, _actor: &Actor) -> Result<Vec<NamedOwner>, Error> {
        let subjects = rows::subjects(&mut *self.0.db.acquire().await?).await?;
        let deployment = NamedOwner {
            owner: LimitOwner::Deployment,
            name: String::new(),
        };
        let others = subjects.into_iter().filter_map(|(scope, subject, name)| {
            let owner = LimitOwner::of(scope, &subject).ok()?;
            Some(NamedOwner { owner, name })
        });
        Ok(std::iter::once(deployment).chain(others).collect())
    }

    /// All that is set on one owner, how much of it is used, and how it came to be so.
    pub async fn sheet(&self, actor: &Actor, owner: &LimitOwner) -> Result<LimitSheet, Error> {
        if matches!(owner, LimitOwner::User(_)) && !actor.may(Permission::ReadUsers) {
            return Err(Error::Forbidden(Permission::ReadUsers));
        }
        let mut tx = self.0.db.begin().await?;
        let name = name_of(&mut tx, owner).await?;
        let mut current = current(&mut tx, owner).await?;
        let (mut users_of_plan, mut models, mut bars) = (None, None, Vec::new());
        match owner {
            LimitOwner::Plan(id) => {
                users_of_plan = Some(plans::users(&mut tx, *id).await?);
                let listed = plans::models(&mut tx, *id).await?;
                let choice = self.0.plans().choice(&listed).into_iter();
                models = Some(choice.map(|name| (listed.contains(&name), name)).collect());
            }
            LimitOwner::User(id) => {
                let user = users::get(&mut tx, *id).await?.ok_or(Error::NotFound("the user"))?;
                let of_plan = plans::manner(&mut tx, user.plan).await?;
                (current.zone, current.soft_percent) = of_plan.ok_or(Error::NotFound("the plan"))?;
                bars = self::bars(&self.0, &mut tx, *id, &[], false).await?;
            }
            _ => bars = bars_of(&self.0, &mut tx, owner).await?,
        }
        let (kind, id) = match (owner, owner.parts()) {
            (_, Some((scope, subject))) => (scope.name(), subject),
            (LimitOwner::Plan(id), None) => ("plan", id.to_string()),
            (_, None) => return Err(Error::Internal("an owner without a scope")),
        };
        let mut history = Vec::new();
        if actor.may(Permission::ReadAudit) {
            let actions = [
                "limits.set",
                "plan.limits",
                "plan.models",
                "limits.boost",
                "limits.reset",
                "plan.create",
                "user.boost",
                "user.reset_limit",
            ];
            history = audit::about(&mut tx, kind, &id, &actions, HISTORY).await?;
        }
        Ok(LimitSheet {
            owner: owner.clone(),
            name,
            users: users_of_plan,
            models,
            limits: LimitKind::ALL
                .iter()
                .map(|&kind| (kind, current.amount(kind)))
                .collect(),
            zone: current.zone,
            soft_percent: current.soft_percent,
            bars,
            history,
        })
    }

    /// The thresholds that were passed last; those of users only for who may know their names.
    pub async fn events(&self, actor: &Actor) -> Result<Vec<LimitEvent>, Error> {
        let users = actor.may(Permission::ReadUsers);
        Ok(rows::events(&mut *self.0.db.acquire().await?, users, 20).await?)
    }
}

/// What is set on an owner.
pub(super) async fn current(db: &mut PgConnection, owner: &LimitOwner) -> Result<Current, Error> {
    match (owner, owner.parts()) {
        (LimitOwner::Plan(id), _) => Current::of_plan(db, *id).await,
        (_, Some((scope, subject))) => Current::of(db, scope, &subject).await,
        (_, None) => Err(Error::Internal("an owner without a scope")),
    }
}

/// The limits of what many share, with their use, in the order of their kinds.
pub(crate) async fn shared_bars(
    services: &Services,
    db: &mut PgConnection,
    subjects: &[(Scope, String)],
) -> Result<Vec<(Scope, String, LimitBar)>, Error> {
    let now = services.now();
    let mut bars = Vec::new();
    for bound in counters::bounds(db, None, subjects, now).await? {
        let mut bar = bar(&bound, &[], None);
        if let Some(rate) = rate(&bound) {
            let left = services.rate.left(&rate).await;
            bar.used = left.zip(bound.cap).map(|((left, _), cap)| cap - left);
            bar.resets_at = left
                .filter(|(_, full_in)| !full_in.is_zero())
                .map(|(_, full_in)| now + full_in);
        }
        bars.push((bound.scope, bound.subject, bar));
    }
    bars.sort_by_key(|(.., bar)| bar.kind);
    Ok(bars)
}

/// The bars of one owner that is neither a plan nor a user.
pub(crate) async fn bars_of(
    services: &Services,
    db: &mut PgConnection,
    owner: &LimitOwner,
) -> Result<Vec<LimitBar>, Error> {
    let parts: Vec<_> = owner.parts().into_iter().collect();
    let bars = shared_bars(services, db, &parts).await?;
    Ok(bars.into_iter().map(|(.., bar)| bar).collect())
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
