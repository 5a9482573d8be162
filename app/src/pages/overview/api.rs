//! The figures of today.

use domain::{Permission, views::Overview};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[(GetOverview::PATH, Some(Permission::ReadOverview))];

#[server(prefix = "/api/fn", endpoint = "overview/today", input = GetUrl)]
pub async fn get_overview() -> Answer<Overview> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadOverview).await?;
    Ok(ssr::services()?.overview().today(&actor).await?)
}
