//! How alike questions to a bot were. The service records each reading.

use domain::{BotId, Permission, views::similar::NearBoard};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[
    (GetNearBoard::PATH, Some(Permission::ReadConversations)),
    (SetBotThreshold::PATH, Some(Permission::WriteBots)),
];

#[server(prefix = "/api/fn", endpoint = "bots/near", input = GetUrl)]
pub async fn get_near_board(id: BotId) -> Answer<NearBoard> {
    use crate::{ssr, state::not_found};
    let actor = ssr::require(Permission::ReadConversations).await?;
    let board = ssr::services()?.similar().board(&actor, id).await?;
    board.ok_or_else(not_found)
}

#[server(prefix = "/api/fn", endpoint = "bots/threshold")]
pub async fn set_bot_threshold(id: BotId, similar_from: String) -> Answer<()> {
    use crate::ssr;
    let actor = ssr::require(Permission::WriteBots).await?;
    let bots = ssr::services()?.bots();
    Ok(bots.set_threshold(&actor, id, similar_from.parse()?).await?)
}
