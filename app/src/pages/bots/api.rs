//! The bots of this deployment.

use domain::{
    BotId, Permission,
    views::{BotRow, IntakeMode},
};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (ListBots::PATH, Some(Permission::ReadBots)),
    (AddBot::PATH, Some(Permission::WriteSecrets)),
    (SetBotEnabled::PATH, Some(Permission::WriteBots)),
];

#[server(prefix = "/api/fn", endpoint = "bots/list", input = GetUrl)]
pub async fn list_bots() -> Answer<Vec<BotRow>> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadBots).await?;
    Ok(ssr::services()?.bots().list(&actor).await?)
}

#[server(prefix = "/api/fn", endpoint = "bots/add")]
pub async fn add_bot(token: String, mode: IntakeMode) -> Answer<BotRow> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteSecrets).await?;
    Ok(ssr::services()?
        .bots()
        .add(&actor, token.trim().to_owned().into(), mode)
        .await?)
}

#[server(prefix = "/api/fn", endpoint = "bots/enabled")]
pub async fn set_bot_enabled(id: BotId, enabled: bool) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteBots).await?;
    Ok(ssr::services()?.bots().set_enabled(&actor, id, enabled).await?)
}
