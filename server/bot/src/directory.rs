//! Asking Telegram who a token belongs to.

use async_trait::async_trait;
use secrecy::SecretString;
use services::{BotIdentity, TelegramDirectory, Unidentified};

use crate::telegram::{BotProfile, TelegramClient, TelegramError};

/// [`TelegramDirectory`] over the Bot API.
pub struct Directory {
    http: reqwest::Client,
    api_url: String,
}

impl Directory {
    pub fn new(http: reqwest::Client, api_url: &str) -> Self {
        Self {
            http,
            api_url: api_url.to_owned(),
        }
    }
}

impl From<BotProfile> for BotIdentity {
    fn from(profile: BotProfile) -> Self {
        let BotProfile {
            id,
            username,
            first_name,
            ..
        } = profile;
        let named = [first_name, username.clone()].into_iter().find(|name| !name.is_empty());
        Self {
            telegram_id: id,
            name: named.unwrap_or_else(|| format!("Bot {id}")),
            username: Some(username).filter(|name| !name.is_empty()),
        }
    }
}

#[async_trait]
impl TelegramDirectory for Directory {
    async fn identify(&self, token: &SecretString) -> Result<BotIdentity, Unidentified> {
        let client = TelegramClient::new(self.http.clone(), &self.api_url, token.clone());
        match client.get_me().await {
            Ok(profile) => Ok(profile.into()),
            Err(TelegramError::Unauthorized) => Err(Unidentified::Unknown),
            Err(other) => Err(Unidentified::Unreachable(other.to_string())),
        }
    }
}
