//! Talking to a bot in the browser, through the whole pipeline. What streams in arrives at `/api/playground/{bot}/events`.

use domain::{BotId, Permission, views::Playground};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (OpenPlayground::PATH, Some(Permission::UsePlayground)),
    (SendToPlayground::PATH, Some(Permission::UsePlayground)),
];

#[server(prefix = "/api/fn", endpoint = "playground/open", input = GetUrl)]
pub async fn open_playground(bot: BotId) -> Answer<Playground> {
    use crate::{ssr, state::not_found};
    let actor = ssr::require(Permission::UsePlayground).await?;
    ssr::services()?
        .playground()
        .open(&actor, bot)
        .await?
        .ok_or_else(not_found)
}

#[server(prefix = "/api/fn", endpoint = "playground/send")]
pub async fn send_to_playground(bot: BotId, text: String) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::UsePlayground).await?;
    Ok(ssr::services()?.playground().send(&actor, bot, text).await?)
}
