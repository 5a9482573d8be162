//! Reading what was said. Each reading is in the audit trail, written before anything is shown.

use std::collections::BTreeSet;

use domain::{ConversationId, MessageId, views::Transcript};
use repositories::messages;
use serde_json::json;

use crate::{
    Actor, Error, Services,
    audit::{Target, record},
};

const PAGE: i64 = 100;

/// Transcripts.
pub struct Conversations(pub(crate) Services);

impl Conversations {
    /// The latest page, or the one before `older` (from [`Transcript::older`]).
    pub async fn transcript(
        &self,
        actor: &Actor,
        id: ConversationId,
        older: Option<String>,
    ) -> Result<Option<Transcript>, Error> {
        let before = crate::parse_cursor(older.as_deref())?.map(|(at, id)| (at, MessageId(id)));
        let mut tx = self.0.db.begin().await?;
        let Some((mut transcript, more)) = messages::transcript(&mut tx, id, before, PAGE).await? else {
            return Ok(None);
        };
        transcript.older = transcript
            .messages
            .first()
            .filter(|_| more)
            .map(|message| crate::cursor(message.at, message.id.0));
        // Whose words were read: by that the trail is found from a person.
        let count = transcript.messages.len();
        let (name, what) = if transcript.is_group {
            let speakers = transcript
                .messages
                .iter()
                .filter_map(|message| message.speaker.as_ref());
            let users: BTreeSet<_> = speakers.map(|speaker| speaker.id.to_string()).collect();
            (
                &transcript.conversation.chat,
                json!({ "users": users, "messages": count }),
            )
        } else {
            (
                &transcript.user,
                json!({ "user": transcript.user_id, "messages": count }),
            )
        };
        let target = Target {
            kind: "conversation",
            id: id.to_string(),
            name,
        };
        record(&self.0, &mut tx, actor, "conversation.read", target, None, Some(what)).await?;
        tx.commit().await.map_err(repositories::Error::from)?;
        Ok(Some(transcript))
    }
}
