//! Asking Telegram who a token belongs to.

use async_trait::async_trait;
use secrecy::SecretString;
use services::{BotIdentity, TelegramDirectory};

use crate::telegram::{BotProfile, TelegramClient};

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
        Self {
            telegram_id: profile.id,
            name: profile.first_name,
            username: Some(profile.username),
        }
    }
}

#[async_trait]
impl TelegramDirectory for Directory {
    async fn identify(&self, token: &SecretString) -> Result<BotIdentity, String> {
        let client = TelegramClient::new(self.http.clone(), &self.api_url, token.clone());
        let profile = client.get_me().await.map_err(|error| error.to_string())?;
        Ok(profile.into())
    }
}
