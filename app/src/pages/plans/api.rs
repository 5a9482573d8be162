//! Plans and their limits.

use domain::{LimitKind, Permission, PlanId, views::PlanView};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};
use serde::{Deserialize, Serialize};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (ListPlans::PATH, Some(Permission::ReadLimits)),
    (SavePlan::PATH, Some(Permission::WriteLimits)),
    (CreatePlan::PATH, Some(Permission::WriteLimits)),
];

/// What a save has changed, to be shown where it was saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanChange {
    pub plan: PlanId,
    pub changes: Vec<(LimitKind, Option<i64>, Option<i64>)>,
}

#[server(prefix = "/api/fn", endpoint = "plans/list", input = GetUrl)]
pub async fn list_plans() -> Answer<Vec<PlanView>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadLimits).await?;
    Ok(ssr::services()?.plans().list(&actor).await?)
}

/// Amounts as typed; an empty one means no limit. `shown` are those that the form began with: one that was left alone is left as it is,
/// whatever somebody else has made of it meanwhile.
#[server(prefix = "/api/fn", endpoint = "plans/limits")]
pub async fn save_plan(
    plan: PlanId,
    messages_per_minute: String,
    messages_per_day: String,
    tokens_per_day: String,
    money_per_month: String,
    #[server(default)] shown: String,
) -> Answer<PlanChange> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    let typed = [messages_per_minute, messages_per_day, tokens_per_day, money_per_month];
    let limits = touched(parse(typed)?, &shown);
    let plans = ssr::services()?.plans();
    let before = plans.list(&actor).await?.into_iter().find(|known| known.id == plan);
    plans.set_limits(&actor, plan, limits.clone()).await?;
    Ok(PlanChange {
        plan,
        changes: changes(before.map(|plan| plan.limits).unwrap_or_default(), limits),
    })
}

#[server(prefix = "/api/fn", endpoint = "plans/create")]
pub async fn create_plan(name: String) -> Answer<PlanId> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    Ok(ssr::services()?.plans().create(&actor, name.parse()?).await?)
}

#[cfg(feature = "ssr")]
type Limits = Vec<(LimitKind, Option<i64>)>;

#[cfg(feature = "ssr")]
fn parse(typed: [String; 4]) -> Result<Limits, domain::Invalid> {
    LimitKind::ALL
        .into_iter()
        .zip(typed)
        .map(|(kind, amount)| Ok((kind, kind.parse_amount(&amount)?)))
        .collect()
}

#[cfg(feature = "ssr")]
fn touched(limits: Limits, shown: &str) -> Limits {
    let shown: Vec<&str> = shown.split(';').collect();
    let same = |place: usize, (kind, amount): &(LimitKind, Option<i64>)| {
        let shown = shown.get(place).filter(|_| shown.len() == LimitKind::ALL.len());
        shown.is_some_and(|shown| kind.parse_amount(shown).is_ok_and(|shown| shown == *amount))
    };
    let places = limits.into_iter().enumerate();
    places
        .filter(|(place, limit)| !same(*place, limit))
        .map(|(_, limit)| limit)
        .collect()
}

#[cfg(feature = "ssr")]
fn changes(before: Limits, after: Limits) -> Vec<(LimitKind, Option<i64>, Option<i64>)> {
    after
        .into_iter()
        .filter_map(|(kind, amount)| {
            let was = before
                .iter()
                .find(|(known, _)| *known == kind)
                .and_then(|(_, amount)| *amount);
            (was != amount).then_some((kind, was, amount))
        })
        .collect()
}

#[cfg(all(test, feature = "ssr"))]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_alone_is_not_saved() {
        let typed = ["20", "300", "", "2.00"].map(str::to_owned);
        let limits = parse(typed).unwrap();
        let saved: Vec<LimitKind> = touched(limits.clone(), "20;200;200000;2.00")
            .into_iter()
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(saved, [LimitKind::MessagesPerDay, LimitKind::TokensPerDay]);
        // Another program need not know of it: then all count.
        assert_eq!(touched(limits, "").len(), 4);
    }
}
