//! Finding people.

use domain::{
    Permission, PlanId,
    views::{Page, UserRow, UserStatus},
};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[(ListUsers::PATH, Some(Permission::ReadUsers))];

#[server(prefix = "/api/fn", endpoint = "users/list", input = GetUrl)]
pub async fn list_users(
    search: String,
    status: UserStatus,
    plan: Option<PlanId>,
    after: Option<String>,
) -> Answer<Page<UserRow>> {
    use domain::views::UserQuery;

    use crate::ssr;
    let actor = ssr::require(Permission::ReadUsers).await?;
    let query = UserQuery {
        search: search.parse()?,
        status,
        plan,
        after,
    };
    Ok(ssr::services()?.users().list(&actor, query).await?)
}
