//! What a change of limits would do, shown before it is saved.

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    LimitKind, LimitOwner, Period, Permission, Scope,
    views::limits::{HeavyUser, KindEffect, LimitChange, LimitEffect, Reach},
};
use repositories::{
    PgConnection,
    limit_reach::{self, People, Person, Whose},
    limits::{self as rows, SharedLimit},
};

use super::{LimitSetting, Limits, paced, sheet::current, staff::name_of};
use crate::{Actor, Error};

/// The time in which people's busiest minutes are looked for.
const MINUTES_OF: TimeDelta = TimeDelta::days(7);
/// Of the latest so many calls, where there are more in that time.
const MOST_CALLS: i64 = 100_000;

impl Limits {
    /// What the settings would change and whom that would concern now. Nothing is changed.
    pub async fn preview(
        &self,
        actor: &Actor,
        owner: &LimitOwner,
        settings: &[LimitSetting],
    ) -> Result<LimitEffect, Error> {
        let now = self.0.now();
        let mut tx = self.0.db.begin().await?;
        name_of(&mut tx, owner).await?;
        let current = current(&mut tx, owner).await?;
        let changes = current.changes(&mut tx, settings).await?;
        if owner.parts().is_some() {
            current.check_manner(&changes)?;
        }
        let zones = match &changes.zone {
            Some([was, is]) => [was.as_str(), is.as_str()],
            None => [current.zone.as_str(); 2],
        };
        let mut kinds = Vec::new();
        for &kind in LimitKind::ALL {
            let changed = changes.limits.iter().find(|change| change.kind == kind);
            let moved = changes.zone.is_some() && matches!(kind.period(), Period::Day | Period::Month);
            let before = current.amount(kind);
            let change = match changed {
                Some(change) => *change,
                None if moved && before.is_some() => LimitChange {
                    kind,
                    before,
                    after: before,
                },
                None => continue,
            };
            let mut reach = self.reach(&mut tx, owner, change, zones, now).await?;
            if !actor.may(Permission::ReadUsers) {
                reach.heaviest.clear();
            }
            // The usual windows of a user are counted whether there is a limit or not.
            let of_user = matches!(owner, LimitOwner::Plan(_) | LimitOwner::User(_));
            let always = of_user && LimitKind::USUAL.contains(&kind);
            kinds.push(KindEffect {
                change,
                counts_from_now: moved || (before.is_none() && !always),
                reach,
            });
        }
        Ok(LimitEffect { changes, kinds })
    }

    async fn reach(
        &self,
        db: &mut PgConnection,
        owner: &LimitOwner,
        change: LimitChange,
        zones: [&str; 2],
        now: DateTime<Utc>,
    ) -> Result<Reach, Error> {
        let whose = match (owner, owner.parts()) {
            (LimitOwner::Plan(id), _) => Whose::Plan(*id),
            (LimitOwner::User(id), _) => Whose::User(*id),
            (_, Some((scope, subject))) => {
                return self.shared_reach(db, scope, &subject, change, zones, now).await;
            }
            (_, None) => return Err(Error::Internal("an owner without a scope")),
        };
        if change.kind.is_rate() {
            return minutes_reach(db, whose, change, now).await;
        }
        // A user's own limits follow the days of the plan.
        let zone = |zone| matches!(whose, Whose::Plan(_)).then_some(zone);
        let [was, is] = zones.map(zone);
        let before = limit_reach::people(db, whose, change.kind, change.before, was, now).await?;
        let People {
            count,
            stopped,
            resets_at,
            heaviest,
        } = limit_reach::people(db, whose, change.kind, change.after, is, now).await?;
        Ok(Reach {
            people: count,
            stopped_before: before.stopped,
            stopped_after: stopped,
            shared_used: None,
            used_up_after: stopped > 0,
            minutes_since: None,
            heaviest: heaviest.into_iter().map(heavy).collect(),
            resets_at,
        })
    }

    /// All who use what is shared are stopped together.
    async fn shared_reach(
        &self,
        db: &mut PgConnection,
        scope: Scope,
        subject: &str,
        change: LimitChange,
        zones: [&str; 2],
        now: DateTime<Utc>,
    ) -> Result<Reach, Error> {
        let kind = change.kind;
        let boost = rows::shared(db, scope, subject, kind)
            .await?
            .and_then(|limit| limit.boost);
        // A boost outlives a change of its limit.
        let cap = |limit: Option<i64>| limit.map(|amount| SharedLimit { amount, boost }.cap(now));
        let (cap_before, cap_after) = (cap(change.before), cap(change.after));
        let before = limit_reach::window(db, scope, subject, kind, zones[0], now).await?;
        let after = limit_reach::window(db, scope, subject, kind, zones[1], now).await?;
        let (people, heaviest) = limit_reach::users_since(db, scope, subject, kind, after.starts_at).await?;
        let (used, resets_at) = if kind.is_rate() {
            (self.minute(scope, subject, cap_before).await, None)
        } else {
            (Some((before.used, after.used)), after.resets_at)
        };
        let is_used_up =
            |used: Option<i64>, limit: Option<i64>| used.zip(limit).is_some_and(|(used, limit)| used >= limit);
        let stopped = |is_used_up| if is_used_up { people } else { 0 };
        let used_up_after = is_used_up(used.map(|used| used.1), cap_after);
        Ok(Reach {
            people,
            stopped_before: stopped(is_used_up(used.map(|used| used.0), cap_before)),
            stopped_after: stopped(used_up_after),
            shared_used: used.map(|used| used.1),
            used_up_after,
            minutes_since: None,
            heaviest: heaviest.into_iter().map(heavy).collect(),
            resets_at,
        })
    }

    /// Requests of the minute under a limit of so many, twice; they are paced, so there are none without a limit.
    async fn minute(&self, scope: Scope, subject: &str, limit: Option<i64>) -> Option<(i64, i64)> {
        let Some(limit) = limit else { return Some((0, 0)) };
        let (left, _) = self.0.rate.left(&paced(scope, subject, limit)).await?;
        Some((limit - left, limit - left))
    }
}

/// The minute that runs is over before anybody has read of it, so those that were are looked at.
async fn minutes_reach(
    db: &mut PgConnection,
    whose: Whose,
    change: LimitChange,
    now: DateTime<Utc>,
) -> Result<Reach, Error> {
    let since = now - MINUTES_OF;
    let before = limit_reach::minutes(db, whose, change.kind, change.before, since, MOST_CALLS, now).await?;
    let after = limit_reach::minutes(db, whose, change.kind, change.after, since, MOST_CALLS, now).await?;
    Ok(Reach {
        people: after.people.count,
        stopped_before: before.people.stopped,
        stopped_after: after.people.stopped,
        shared_used: None,
        // Nobody is stopped now by what was.
        used_up_after: false,
        minutes_since: Some(after.since),
        heaviest: after.people.heaviest.into_iter().map(heavy).collect(),
        resets_at: None,
    })
}

fn heavy(person: Person) -> HeavyUser {
    HeavyUser {
        id: person.id,
        name: person.name,
        used: person.used,
        limit: person.cap,
    }
}
