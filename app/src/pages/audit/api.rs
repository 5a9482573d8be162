//! Who did what.

use domain::{
    Permission,
    views::{AuditRow, Page},
};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (ListAudit::PATH, Some(Permission::ReadAudit)),
    (ListActions::PATH, Some(Permission::ReadAudit)),
];

#[server(prefix = "/api/fn", endpoint = "audit/list", input = GetUrl)]
pub async fn list_audit(
    actor: Option<String>,
    action: Option<String>,
    target: Option<String>,
    from: Option<String>,
    to: Option<String>,
    after: Option<String>,
) -> Answer<Page<AuditRow>> {
    use domain::views::AuditQuery;

    use crate::ssr;
    let query = AuditQuery {
        actor,
        action,
        target,
        from,
        to,
        after,
    };
    let actor = ssr::require(Permission::ReadAudit).await?;
    Ok(ssr::services()?.audit().list(&actor, query).await?)
}

#[server(prefix = "/api/fn", endpoint = "audit/actions", input = GetUrl)]
pub async fn list_actions() -> Answer<Vec<String>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadAudit).await?;
    Ok(ssr::services()?.audit().actions(&actor).await?)
}
