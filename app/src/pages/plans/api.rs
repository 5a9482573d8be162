//! Plans and their limits, and those of everything else.

use std::collections::BTreeMap;

use domain::{
    LimitKind, Permission, PlanId,
    views::{LimitEvent, PlanView, ScopeLimits},
};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};
use serde::{Deserialize, Serialize};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (ListPlans::PATH, Some(Permission::ReadLimits)),
    (ListOtherLimits::PATH, Some(Permission::ReadLimits)),
    (ListThresholds::PATH, Some(Permission::ReadLimits)),
    (SavePlan::PATH, Some(Permission::WriteLimits)),
    (CreatePlan::PATH, Some(Permission::WriteLimits)),
];

/// What a save has changed, to be shown where it was saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanChange {
    pub plan: PlanId,
    pub changes: Vec<(LimitKind, Option<i64>, Option<i64>)>,
    /// Time zone and threshold, as they were and as they are, where these were changed.
    pub manner: Option<[(String, i64); 2]>,
}

#[server(prefix = "/api/fn", endpoint = "plans/list", input = GetUrl)]
pub async fn list_plans() -> Answer<Vec<PlanView>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadLimits).await?;
    Ok(ssr::services()?.plans().list(&actor).await?)
}

/// Limits of API keys, bots, models, users and the deployment.
#[server(prefix = "/api/fn", endpoint = "limits/list", input = GetUrl)]
pub async fn list_other_limits() -> Answer<Vec<ScopeLimits>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadLimits).await?;
    Ok(ssr::services()?.limits().list(&actor).await?)
}

/// Thresholds that were passed, newest first.
#[server(prefix = "/api/fn", endpoint = "limits/thresholds", input = GetUrl)]
pub async fn list_thresholds() -> Answer<Vec<LimitEvent>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadLimits).await?;
    Ok(ssr::services()?.limits().events(&actor).await?)
}

/// Amounts as typed; an empty one means no limit. `more` are those beyond the usual four, by name; one that is not there is left alone.
/// `shown` are those that the form began with: one that was left alone is left as it is, whatever somebody else has made of it meanwhile.
#[server(prefix = "/api/fn", endpoint = "plans/limits")]
pub async fn save_plan(
    plan: PlanId,
    messages_per_minute: String,
    messages_per_day: String,
    tokens_per_day: String,
    money_per_month: String,
    #[server(default)] more: BTreeMap<String, String>,
    #[server(default)] zone: String,
    #[server(default)] soft: String,
    #[server(default)] shown: String,
) -> Answer<PlanChange> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    let typed = [messages_per_minute, messages_per_day, tokens_per_day, money_per_month];
    let limits = touched(parse(typed, &more)?, &shown);
    let plans = ssr::services()?.plans();
    let find = |plans: Vec<PlanView>| plans.into_iter().find(|known| known.id == plan);
    let before = find(plans.list(&actor).await?);
    plans.set_limits(&actor, plan, settings(&limits, &zone, &soft)?).await?;
    let after = find(plans.list(&actor).await?);
    let manner = |plan: &PlanView| (plan.zone.clone(), plan.soft_percent);
    let manners = before.as_ref().map(manner).zip(after.as_ref().map(manner));
    Ok(PlanChange {
        plan,
        changes: changes(before.map(|plan| plan.limits).unwrap_or_default(), limits),
        manner: manners.filter(|(was, is)| was != is).map(|(was, is)| [was, is]),
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
fn parse(typed: [String; 4], more: &BTreeMap<String, String>) -> Result<Limits, domain::Invalid> {
    let usual = LimitKind::USUAL.into_iter().zip(&typed);
    let more = more.iter().map(|(name, amount)| Ok((name.parse()?, amount)));
    usual
        .map(Ok)
        .chain(more)
        .map(|one: Result<(LimitKind, &String), domain::Invalid>| {
            let (kind, amount) = one?;
            Ok((kind, kind.parse_amount(amount)?))
        })
        .collect()
}

/// Those that the form did not begin with. `shown` is every kind as `name=amount`, or nothing from a program that knows no better.
#[cfg(feature = "ssr")]
fn touched(limits: Limits, shown: &str) -> Limits {
    let same = |(kind, amount): &(LimitKind, Option<i64>)| {
        let mut shown = shown.split(';').filter_map(|one| one.split_once('='));
        let shown = shown.find(|(name, _)| *name == kind.name());
        shown.is_some_and(|(_, shown)| kind.parse_amount(shown).is_ok_and(|shown| shown == *amount))
    };
    limits.into_iter().filter(|limit| !same(limit)).collect()
}

#[cfg(feature = "ssr")]
fn settings(limits: &Limits, zone: &str, soft: &str) -> Result<Vec<services::LimitSetting>, domain::Invalid> {
    use services::LimitSetting;
    let mut settings: Vec<LimitSetting> = limits.iter().copied().map(Into::into).collect();
    if !zone.trim().is_empty() {
        settings.push(LimitSetting::Zone(zone.trim().to_owned()));
    }
    if !soft.trim().is_empty() {
        let percent = soft.trim().parse();
        settings.push(LimitSetting::Soft(
            percent.map_err(|_| domain::Invalid("a threshold of 1 to 100 percent"))?,
        ));
    }
    Ok(settings)
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
        let more =
            [("images_total", "7"), ("tokens_total", "5")].map(|(name, amount)| (name.to_owned(), amount.to_owned()));
        let limits = parse(typed, &BTreeMap::from(more)).unwrap();
        let shown = "messages_per_minute=20;messages_per_day=200;tokens_per_day=200000;money_per_month=2.00;tokens_total=5;images_total=";
        let saved: Vec<LimitKind> = touched(limits.clone(), shown)
            .into_iter()
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(
            saved,
            [
                LimitKind::MessagesPerDay,
                LimitKind::TokensPerDay,
                LimitKind::ImagesTotal
            ]
        );
        // Another program need not know of it: then all count.
        assert_eq!(touched(limits, "").len(), 6);
    }

    #[test]
    fn a_limit_that_does_not_exist_is_refused() {
        let nothing = || ["", "", "", ""].map(str::to_owned);
        assert!(
            parse(
                nothing(),
                &BTreeMap::from([("tokens_per_year".to_owned(), "1".to_owned())])
            )
            .is_err()
        );
        assert!(settings(&Vec::new(), "", "many").is_err());
        assert_eq!(settings(&Vec::new(), " ", "").unwrap(), []);
    }
}
