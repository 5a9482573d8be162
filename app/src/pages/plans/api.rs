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

/// Amounts as typed; an empty one means no limit.
#[server(prefix = "/api/fn", endpoint = "plans/limits")]
pub async fn save_plan(
    plan: PlanId,
    messages_per_minute: String,
    messages_per_day: String,
    tokens_per_day: String,
    money_per_month: String,
) -> Answer<PlanChange> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    let typed = [messages_per_minute, messages_per_day, tokens_per_day, money_per_month];
    let limits = parse(typed)?;
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
