//! Reading a conversation. The service records each reading.

use domain::{ConversationId, Permission, views::Transcript};
use leptos::{
    prelude::*,
    server_fn::{ServerFn, codec::GetUrl},
};

use crate::{Answer, pages::Function};

pub const FUNCTIONS: &[Function] = &[(GetTranscript::PATH, Some(Permission::ReadConversations))];

#[server(prefix = "/api/fn", endpoint = "conversations/transcript", input = GetUrl)]
pub async fn get_transcript(id: ConversationId, older: Option<String>) -> Answer<Transcript> {
    use crate::{ssr, state::not_found};
    let actor = ssr::require(Permission::ReadConversations).await?;
    let transcript = ssr::services()?.conversations().transcript(&actor, id, older).await?;
    transcript.ok_or_else(not_found)
}
