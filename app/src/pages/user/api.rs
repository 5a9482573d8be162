//! One person: what happened, and what staff may do about it.

use domain::{LimitKind, Permission, PlanId, UserId, views::UserDetail};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (GetUser::PATH, Some(Permission::ReadUsers)),
    (BlockUser::PATH, Some(Permission::BlockUsers)),
    (UnblockUser::PATH, Some(Permission::BlockUsers)),
    (SetUserPlan::PATH, Some(Permission::ChangePlans)),
    (BoostUser::PATH, Some(Permission::WriteLimits)),
    (ResetLimit::PATH, Some(Permission::WriteLimits)),
];

#[server(prefix = "/api/fn", endpoint = "users/get", input = GetUrl)]
pub async fn get_user(id: UserId, talks: Option<String>) -> Answer<UserDetail> {
    use crate::{ssr, state::not_found};
    let actor = ssr::require(Permission::ReadUsers).await?;
    let user = ssr::services()?.users().get(&actor, id, talks).await?;
    user.ok_or_else(not_found)
}

#[server(prefix = "/api/fn", endpoint = "users/block")]
pub async fn block_user(id: UserId, reason: String) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::BlockUsers).await?;
    Ok(ssr::services()?.users().block(&actor, id, reason.parse()?).await?)
}

#[server(prefix = "/api/fn", endpoint = "users/unblock")]
pub async fn unblock_user(id: UserId) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::BlockUsers).await?;
    Ok(ssr::services()?.users().unblock(&actor, id).await?)
}

#[server(prefix = "/api/fn", endpoint = "users/plan")]
pub async fn set_user_plan(id: UserId, plan: PlanId) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::ChangePlans).await?;
    Ok(ssr::services()?.users().set_plan(&actor, id, plan).await?)
}

/// Lets a user have more of one limit until the end of a day (by UTC); no amount ends that.
#[server(prefix = "/api/fn", endpoint = "users/boost")]
pub async fn boost_user(id: UserId, kind: LimitKind, amount: String, #[server(default)] until: String) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    let boost = boost(kind, &amount, &until)?;
    Ok(ssr::services()?.limits().boost(&actor, id, kind, boost).await?)
}

/// Begins the current window of a user's limit anew.
#[server(prefix = "/api/fn", endpoint = "users/reset")]
pub async fn reset_limit(id: UserId, kind: LimitKind) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteLimits).await?;
    Ok(ssr::services()?.limits().reset(&actor, id, kind).await?)
}

#[cfg(feature = "ssr")]
fn boost(
    kind: LimitKind,
    amount: &str,
    until: &str,
) -> Result<Option<(i64, chrono::DateTime<chrono::Utc>)>, domain::Invalid> {
    let Some(amount) = kind.parse_amount(amount)? else {
        return Ok(None);
    };
    let day: Option<chrono::NaiveDate> = until.trim().parse().ok();
    let ends = day
        .and_then(|day| day.succ_opt())
        .ok_or(domain::Invalid("a date that is still to come"))?;
    Ok(Some((amount, ends.and_time(chrono::NaiveTime::MIN).and_utc())))
}

#[cfg(all(test, feature = "ssr"))]
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
}
