//! The playground's side of [`ChatOut`]: messages go into a table that the dashboard reads.

use std::collections::HashSet;

use async_trait::async_trait;
use domain::{BotId, views::RichText};
use services::{KnownIds, Services};

use crate::telegram::{Address, ChatOut, Found, OutError};

/// Speaks in the playground of one bot.
pub struct BrowserOut {
    services: Services,
    bot: BotId,
}

impl BrowserOut {
    pub fn new(services: Services, bot: BotId) -> Self {
        Self { services, bot }
    }

    async fn insert(&self, chat: &Address, body: &RichText, complete: bool) -> Result<i64, OutError> {
        let sent = self
            .services
            .playground()
            .deliver(self.bot, chat.chat_id, body, complete)
            .await;
        // The insert either was committed or was not; a lost answer of the database is found again by `find_lost`.
        sent.map_err(|_| OutError::Undecided)
    }
}

const SOON: std::time::Duration = std::time::Duration::from_secs(1);

#[async_trait]
impl ChatOut for BrowserOut {
    async fn send(&self, chat: &Address, body: &RichText) -> Result<i64, OutError> {
        self.insert(chat, body, true).await
    }

    async fn begin(&self, chat: &Address, body: &RichText) -> Result<Option<i64>, OutError> {
        self.insert(chat, body, false).await.map(Some)
    }

    async fn edit(&self, chat: &Address, message_id: i64, body: &RichText, complete: bool) -> Result<(), OutError> {
        match self
            .services
            .playground()
            .edit(self.bot, chat.chat_id, message_id, body, complete)
            .await
        {
            Ok(true) => Ok(()),
            Ok(false) => Err(OutError::NoMessage),
            Err(_) => Err(OutError::Retry(SOON)),
        }
    }

    async fn preview_edit(&self, chat: &Address, message_id: i64, body: &RichText) -> Result<bool, OutError> {
        self.edit(chat, message_id, body, false).await.map(|()| true)
    }

    async fn typing(&self, _chat: &Address) -> Result<(), OutError> {
        Ok(())
    }

    async fn find_lost(
        &self,
        chat: &Address,
        known: &KnownIds,
        _next: &[i64],
        _tried: &mut HashSet<i64>,
        body: &RichText,
    ) -> Result<Option<Found>, OutError> {
        let Some(taken) = known.in_chat.as_ref().or(known.in_row.as_ref()) else {
            return Ok(None);
        };
        let sent = self
            .services
            .playground()
            .sent_after(self.bot, chat.chat_id, taken.after)
            .await;
        let lost = sent
            .map_err(|_| OutError::Retry(SOON))?
            .into_iter()
            .find(|id| !taken.ids.contains(id));
        if let Some(id) = lost {
            self.edit(chat, id, body, true).await?;
        }
        Ok(lost.map(|id| Found { id, as_it_was: true }))
    }
}
