//! The log of calls to models.

use domain::{
    Permission,
    views::{
        Page,
        requests::{RequestQuery, RequestRow},
    },
};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};
use uuid::Uuid;

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (ListRequests::PATH, Some(Permission::ReadRequests)),
    (GetRequest::PATH, Some(Permission::ReadRequests)),
];

#[server(prefix = "/api/fn", endpoint = "requests/list", input = GetUrl)]
pub async fn list_requests(query: RequestQuery) -> Answer<Page<RequestRow>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadRequests).await?;
    Ok(ssr::services()?.requests().list(&actor, query).await?)
}

#[server(prefix = "/api/fn", endpoint = "requests/get", input = GetUrl)]
pub async fn get_request(id: Uuid) -> Answer<Option<RequestRow>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadRequests).await?;
    Ok(ssr::services()?.requests().get(&actor, id).await?)
}
