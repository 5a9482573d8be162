//! One person: what happened, and what staff may do about it.

use domain::{Permission, PlanId, UserId, views::UserDetail};
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
