//! Keys of other programs: listed, made, revoked.

use domain::{
    ApiKeyId, ApiScope, Lifetime, Permission,
    views::api_keys::{FreshKey, KeyBoard, KeyQuery},
};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (ListKeys::PATH, Some(Permission::ReadKeys)),
    (CreateKey::PATH, Some(Permission::WriteKeys)),
    (RevokeKey::PATH, Some(Permission::WriteKeys)),
];

/// With it comes, once, the key that was made by a form without script.
#[server(prefix = "/api/fn", endpoint = "keys/list", input = GetUrl)]
pub async fn list_keys(#[server(default)] query: KeyQuery) -> Answer<(KeyBoard, Option<FreshKey>)> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadKeys).await?;
    let services = ssr::services()?;
    let page = services.api_keys().list(&actor, query).await?;
    let board = KeyBoard {
        now: services.now(),
        keys: page.rows,
        next: page.next,
        models: services.gateway().names(),
        example: services.gateway().default_model().name.clone(),
        base_url: format!("{}/v1", ssr::base_url()),
    };
    Ok((board, ssr::take_fresh_key().await?))
}

/// No model chosen is every model. What it answers is the only copy of the key.
#[server(prefix = "/api/fn", endpoint = "keys/create")]
pub async fn create_key(
    name: String,
    lifetime: Lifetime,
    #[server(default)] scopes: Vec<ApiScope>,
    #[server(default)] models: Vec<String>,
) -> Answer<FreshKey> {
    use services::KeyWish;

    use crate::ssr;
    let actor = ssr::require(Permission::WriteKeys).await?;
    let wish = KeyWish {
        name: name.parse()?,
        scopes,
        models: (!models.is_empty()).then_some(models),
        lifetime,
    };
    let fresh = ssr::services()?.api_keys().create(&actor, wish).await?;
    ssr::keep_fresh_key(&fresh).await?;
    Ok(fresh)
}

#[server(prefix = "/api/fn", endpoint = "keys/revoke")]
pub async fn revoke_key(id: ApiKeyId) -> Answer<ApiKeyId> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteKeys).await?;
    ssr::services()?.api_keys().revoke(&actor, id).await?;
    Ok(id)
}
