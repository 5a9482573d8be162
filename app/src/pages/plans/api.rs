//! Plans and their limits, and those of everything else.

use std::collections::BTreeMap;

use domain::{
    LimitKind, LimitOwner, Permission, PlanId,
    views::{
        LimitEvent, PlanView,
        limits::{LimitChanges, LimitEffect, LimitSheet, NamedOwner, OwnerLimits},
    },
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
    (ListOwners::PATH, Some(Permission::ReadLimits)),
    (ShowLimits::PATH, Some(Permission::ReadLimits)),
    (PreviewLimits::PATH, Some(Permission::WriteLimits)),
    (SaveLimits::PATH, Some(Permission::WriteLimits)),
    (SetPlanModels::PATH, Some(Permission::WriteLimits)),
    (BoostLimit::PATH, Some(Permission::WriteLimits)),
    (ResetLimit::PATH, Some(Permission::WriteLimits)),
    (CreatePlan::PATH, Some(Permission::WriteLimits)),
];

/// What a save has changed, to be shown where it was saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedLimits {
    pub owner: LimitOwner,
    pub changes: LimitChanges,
}

#[server(prefix = "/api/fn", endpoint = "plans/list", input = GetUrl)]
pub async fn list_plans() -> Answer<Vec<PlanView>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadLimits).await?;
    Ok(ssr::services()?.plans().list(&actor).await?)
}

/// Limits of API keys, bots, models, users and the deployment.
#[server(prefix = "/api/fn", endpoint = "limits/list", input = GetUrl)]
pub async fn list_other_limits() -> Answer<Vec<OwnerLimits>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadLimits).await?;
    Ok(ssr::services()?.limits().in_use(&actor).await?)
}

/// Thresholds that were passed, newest first.
#[server(prefix = "/api/fn", endpoint = "limits/thresholds", input = GetUrl)]
pub async fn list_thresholds() -> Answer<Vec<LimitEvent>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadLimits).await?;
    Ok(ssr::services()?.limits().events(&actor).await?)
}

/// What a limit can be set on, beside plans and users.
#[server(prefix = "/api/fn", endpoint = "limits/owners", input = GetUrl)]
pub async fn list_owners() -> Answer<Vec<NamedOwner>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadLimits).await?;
    Ok(ssr::services()?.limits().owners(&actor).await?)
}

#[server(prefix = "/api/fn", endpoint = "limits/show", input = GetUrl)]
pub async fn show_limits(owner: LimitOwner) -> Answer<LimitSheet> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadLimits).await?;
    Ok(ssr::services()?.limits().sheet(&actor, &owner).await?)
}

/// What a save of the same would do. Amounts as typed, by name of the limit; an empty one means no limit, one that is not there is
/// left alone.
#[server(prefix = "/api/fn", endpoint = "limits/preview", input = GetUrl)]
pub async fn preview_limits(
    owner: LimitOwner,
    #[server(default)] amounts: BTreeMap<String, String>,
    #[server(default)] zone: String,
    #[server(default)] soft: String,
) -> Answer<LimitEffect> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    let settings = typed::settings(&amounts, &zone, &soft)?;
    Ok(ssr::services()?.limits().preview(&actor, &owner, &settings).await?)
}

#[server(prefix = "/api/fn", endpoint = "limits/save")]
pub async fn save_limits(
    owner: LimitOwner,
    #[server(default)] amounts: BTreeMap<String, String>,
    #[server(default)] zone: String,
    #[server(default)] soft: String,
) -> Answer<SavedLimits> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    let settings = typed::settings(&amounts, &zone, &soft)?;
    let changes = ssr::services()?.limits().set(&actor, &owner, &settings).await?;
    ssr::redirect_plain_form(&format!("{}&saved=yes", super::edit_href(&owner)));
    Ok(SavedLimits { owner, changes })
}

/// Which models the users of a plan may choose; none: all that are shown.
#[server(prefix = "/api/fn", endpoint = "plans/models")]
pub async fn set_plan_models(plan: PlanId, #[server(default)] models: Vec<String>) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    ssr::services()?.plans().set_models(&actor, plan, &models).await?;
    ssr::redirect_plain_form(&format!("{}&saved=yes", super::edit_href(&LimitOwner::Plan(plan))));
    Ok(())
}

/// Lets an owner have more of one limit until the end of a day (by UTC); no amount ends that.
#[server(prefix = "/api/fn", endpoint = "limits/boost")]
pub async fn boost_limit(
    owner: LimitOwner,
    kind: LimitKind,
    amount: String,
    #[server(default)] until: String,
) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    let boost = typed::boost(kind, &amount, &until)?;
    Ok(ssr::services()?.limits().boost(&actor, owner, kind, boost).await?)
}

/// Begins the current window of an owner's limit anew.
#[server(prefix = "/api/fn", endpoint = "limits/reset")]
pub async fn reset_limit(owner: LimitOwner, kind: LimitKind) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    Ok(ssr::services()?.limits().reset(&actor, owner, kind).await?)
}

#[server(prefix = "/api/fn", endpoint = "plans/create")]
pub async fn create_plan(name: String) -> Answer<PlanId> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    Ok(ssr::services()?.plans().create(&actor, name.parse()?).await?)
}

/// From what was typed to what services take.
#[cfg(feature = "ssr")]
mod typed {
    use std::collections::BTreeMap;

    use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
    use domain::{Invalid, LimitKind};
    use services::LimitSetting;

    pub(super) fn settings(
        amounts: &BTreeMap<String, String>,
        zone: &str,
        soft: &str,
    ) -> Result<Vec<LimitSetting>, Invalid> {
        let mut settings = amounts
            .iter()
            .map(|(name, amount)| {
                let kind: LimitKind = name.parse()?;
                Ok(LimitSetting::Limit(kind, kind.parse_amount(amount)?))
            })
            .collect::<Result<Vec<_>, Invalid>>()?;
        if !zone.trim().is_empty() {
            settings.push(LimitSetting::Zone(zone.trim().to_owned()));
        }
        if !soft.trim().is_empty() {
            let percent = soft.trim().parse();
            settings.push(LimitSetting::Soft(
                percent.map_err(|_| Invalid("a threshold of 1 to 100 percent"))?,
            ));
        }
        Ok(settings)
    }

    /// More of a limit to the end of a day; no amount is none.
    pub(super) fn boost(kind: LimitKind, amount: &str, until: &str) -> Result<Option<(i64, DateTime<Utc>)>, Invalid> {
        let Some(amount) = kind.parse_amount(amount)? else {
            return Ok(None);
        };
        let day: Option<NaiveDate> = until.trim().parse().ok();
        let ends = day
            .and_then(|day| day.succ_opt())
            .ok_or(Invalid("a date that is still to come"))?;
        Ok(Some((amount, ends.and_time(NaiveTime::MIN).and_utc())))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_boost_lasts_to_the_end_of_its_day_and_is_ended_by_no_amount() {
            let kind = LimitKind::MessagesPerDay;
            let (amount, until) = boost(kind, "50", "2026-12-31").unwrap().unwrap();
            assert_eq!((amount, until.to_string()), (50, "2027-01-01 00:00:00 UTC".to_owned()));
            assert_eq!(boost(kind, "", "").unwrap(), None);
            assert!(boost(kind, "50", "").is_err() && boost(kind, "x", "2026-12-31").is_err());
        }

        #[test]
        fn nothing_is_no_limit_zero_is_zero_and_what_does_not_exist_is_refused() {
            let amounts = |name: &str, amount: &str| BTreeMap::from([(name.to_owned(), amount.to_owned())]);
            let set = |amount| vec![LimitSetting::Limit(LimitKind::TokensTotal, amount)];
            assert_eq!(settings(&amounts("tokens_total", " "), " ", ""), Ok(set(None)));
            assert_eq!(settings(&amounts("tokens_total", "0"), "", ""), Ok(set(Some(0))));
            let manner = settings(&BTreeMap::new(), " Europe/Berlin ", "75").unwrap();
            assert_eq!(
                manner,
                [LimitSetting::Zone("Europe/Berlin".to_owned()), LimitSetting::Soft(75)]
            );
            assert!(settings(&amounts("tokens_per_year", "1"), "", "").is_err());
            assert!(settings(&amounts("tokens_total", "many"), "", "").is_err());
            assert!(settings(&BTreeMap::new(), "", "many").is_err());
        }
    }
}
