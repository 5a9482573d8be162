//! The bots of this deployment.

use domain::{
    BotId, Permission, Sharing,
    views::{BotRow, IntakeMode, bots::BotBoard},
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
    (RestartBot::PATH, Some(Permission::WriteBots)),
    (EditBot::PATH, Some(Permission::WriteBots)),
    (SetBotMode::PATH, Some(Permission::WriteBots)),
    (SetBotCache::PATH, Some(Permission::WriteBots)),
    (ReplaceBotToken::PATH, Some(Permission::WriteSecrets)),
];

#[server(prefix = "/api/fn", endpoint = "bots/list", input = GetUrl)]
pub async fn list_bots() -> Answer<BotBoard> {
    use crate::ssr;
    let actor = ssr::require(Permission::ReadBots).await?;
    Ok(ssr::services()?.bots().board(&actor).await?)
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

#[server(prefix = "/api/fn", endpoint = "bots/restart")]
pub async fn restart_bot(id: BotId) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteBots).await?;
    Ok(ssr::services()?.bots().restart(&actor, id).await?)
}

/// An empty `model` is the default one. The answer says which bot was saved.
#[server(prefix = "/api/fn", endpoint = "bots/edit")]
pub async fn edit_bot(id: BotId, persona: String, model: String) -> Answer<BotId> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteBots).await?;
    let bots = ssr::services()?.bots();
    bots.set_manner(&actor, id, persona.parse()?, Some(model)).await?;
    Ok(id)
}

#[server(prefix = "/api/fn", endpoint = "bots/mode")]
pub async fn set_bot_mode(id: BotId, mode: IntakeMode) -> Answer<BotId> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteBots).await?;
    ssr::services()?.bots().set_mode(&actor, id, mode).await?;
    Ok(id)
}

/// An empty `similar_by`: similar questions do not count.
#[server(prefix = "/api/fn", endpoint = "bots/cache")]
pub async fn set_bot_cache(
    id: BotId,
    sharing: Sharing,
    kept_for: String,
    similar_by: String,
    similar_from: String,
) -> Answer<BotId> {
    use domain::BotCache;

    use crate::ssr;
    let actor = ssr::require(Permission::WriteBots).await?;
    let cache = BotCache {
        sharing,
        kept_for: kept_for.parse()?,
        similar_by: Some(similar_by).filter(|name| !name.is_empty()),
        similar_from: similar_from.parse()?,
    };
    ssr::services()?.bots().set_cache(&actor, id, cache).await?;
    Ok(id)
}

#[server(prefix = "/api/fn", endpoint = "bots/token")]
pub async fn replace_bot_token(id: BotId, token: String) -> Answer<BotId> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteSecrets).await?;
    let bots = ssr::services()?.bots();
    bots.replace_token(&actor, id, token.trim().to_owned().into()).await?;
    Ok(id)
}
