//! The one-time link of the first visit.

use domain::{Permission, views::SetupState};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (RedeemSetup::PATH, None),
    (GetSetupState::PATH, Some(Permission::ReadOverview)),
];

// public_endpoint: whoever holds the one-time link makes the owner; the service checks the token and that there is no owner yet.
#[server(prefix = "/api/fn", endpoint = "setup/redeem")]
pub async fn redeem_setup(token: String, name: String, email: String, password: String) -> Answer<String> {
    use crate::ssr;
    let (email, password) = (email.parse()?, password.parse()?);
    let auth = ssr::services()?.auth();
    let owner = auth.redeem_setup(&token, &name, email, password, ssr::origin()).await?;
    ssr::start_session(owner).await?;
    ssr::redirect_plain_form("/");
    Ok("/".to_owned())
}

#[server(prefix = "/api/fn", endpoint = "setup/state", input = GetUrl)]
pub async fn get_setup_state() -> Answer<SetupState> {
    use crate::ssr;
    ssr::require(Permission::ReadOverview).await?;
    Ok(ssr::services()?.setup().state().await?)
}
