//! The Bot API as JSON over our own HTTP client.
//!
//! teloxide's sender sleeps for ten seconds inside the call after any 5xx and cannot tell whether a failed request had
//! been sent, so only its types are used, and elsewhere.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use domain::{Lang, views::RichText};
use futures::stream;
use reqwest::{
    Body, RequestBuilder, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::error::TelegramError;
use crate::lenient::null_is_absent;

pub const DEFAULT_API_URL: &str = "https://api.telegram.org";

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A preview that comes late is of no use, and the answer waits for it.
const PREVIEW_TIMEOUT: Duration = Duration::from_secs(2);

type Result<T> = std::result::Result<T, TelegramError>;

/// What was to be written by then has not been written.
#[derive(Debug, thiserror::Error)]
#[error("too late")]
struct TooLate;

fn is_too_late(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<TooLate>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

/// The body of a request, asked for when it goes to the socket. A process may be stopped anywhere between a look at the clock and that:
/// the later the look, the less room. A request without its body is none for the server.
async fn written_before(before: Instant, body: String) -> std::result::Result<String, TooLate> {
    if Instant::now() >= before {
        Err(TooLate)
    } else {
        Ok(body)
    }
}

/// One bot's access to the Bot API; cheap to clone.
#[derive(Clone)]
pub struct TelegramClient {
    http: reqwest::Client,
    api_url: Arc<str>,
    token: Arc<SecretString>,
    timeout: Duration,
}

impl fmt::Debug for TelegramClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelegramClient").finish_non_exhaustive()
    }
}

/// What `getMe` says about a bot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BotProfile {
    #[serde(default, deserialize_with = "null_is_absent")]
    pub id: i64,
    #[serde(default, deserialize_with = "null_is_absent")]
    pub username: String,
    #[serde(default, deserialize_with = "null_is_absent")]
    pub first_name: String,
    #[serde(default, deserialize_with = "null_is_absent")]
    pub can_join_groups: bool,
    #[serde(default, deserialize_with = "null_is_absent")]
    pub can_read_all_group_messages: bool,
}

/// What `getWebhookInfo` says; an empty `url` means that none is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WebhookInfo {
    #[serde(deserialize_with = "null_is_absent")]
    pub url: String,
    #[serde(deserialize_with = "null_is_absent")]
    pub pending_update_count: u64,
    pub last_error_date: Option<i64>,
    pub last_error_message: Option<String>,
    pub max_connections: Option<u32>,
    #[serde(deserialize_with = "null_is_absent")]
    pub allowed_updates: Vec<String>,
}

#[derive(Deserialize)]
struct Envelope {
    ok: bool,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error_code: Option<u16>,
    #[serde(default, deserialize_with = "null_is_absent")]
    description: String,
    #[serde(default, deserialize_with = "null_is_absent")]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    retry_after: Option<u64>,
    migrate_to_chat_id: Option<i64>,
}

#[derive(Deserialize)]
struct Sent {
    message_id: i64,
}

impl TelegramClient {
    /// `http` should have a connect timeout of a few seconds: a connection that was never made is safe to try again,
    /// one that timed out later is not.
    pub fn new(http: reqwest::Client, api_url: &str, token: SecretString) -> Self {
        Self {
            http,
            api_url: api_url.trim_end_matches('/').into(),
            token: Arc::new(token),
            timeout: CALL_TIMEOUT,
        }
    }

    /// With another time than ten seconds for a call to be answered; `getUpdates` and previews keep theirs.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// This method exists everywhere: where it is not found, what stands for the token is none. A server that does not say who the
    /// bot is has at least accepted the token, which begins with its number.
    pub async fn get_me(&self) -> Result<BotProfile> {
        let mut profile: BotProfile = match self.call("getMe", json!({})).await {
            Err(TelegramError::NoMethod) => return Err(TelegramError::Unauthorized),
            other => other?,
        };
        if profile.id == 0 {
            let number = self.token.expose_secret().split(':').next();
            profile.id = number.and_then(|number| number.parse().ok()).unwrap_or_default();
        }
        Ok(profile)
    }

    /// Waits up to `timeout` for updates and returns them raw, so that kinds not known yet are kept. Asking for an
    /// `offset` confirms all updates before it: store them first.
    pub async fn get_updates(&self, offset: i64, timeout: Duration, allowed_updates: &[&str]) -> Result<Vec<Value>> {
        let params = json!({
            "offset": offset,
            "limit": 100,
            "timeout": timeout.as_secs(),
            "allowed_updates": allowed_updates,
        });
        let patience = timeout + Duration::from_secs(10);
        self.call_within("getUpdates", params, patience).await
    }

    pub async fn set_webhook(
        &self,
        url: &str,
        secret: &SecretString,
        allowed_updates: &[&str],
        max_connections: u32,
    ) -> Result<()> {
        let params = json!({
            "url": url,
            "secret_token": secret.expose_secret(),
            "allowed_updates": allowed_updates,
            "max_connections": max_connections,
        });
        self.call("setWebhook", params).await.map(|_: Value| ())
    }

    /// Pending updates are never dropped: they can hold a payment.
    pub async fn delete_webhook(&self) -> Result<()> {
        self.call("deleteWebhook", json!({})).await.map(|_: Value| ())
    }

    pub async fn get_webhook_info(&self) -> Result<WebhookInfo> {
        self.call("getWebhookInfo", json!({})).await
    }

    /// Sends a message and returns its id. The message replied to may have been deleted.
    pub async fn send_message(
        &self,
        chat_id: i64,
        body: &RichText,
        reply_to: Option<i64>,
        thread: Option<i64>,
        markup: Option<Value>,
        before: Option<Instant>,
    ) -> Result<i64> {
        let mut params = message(chat_id, body, markup);
        if let Some(id) = reply_to {
            params["reply_parameters"] = json!({"message_id": id, "allow_sending_without_reply": true});
        }
        if let Some(id) = thread {
            params["message_thread_id"] = json!(id);
        }
        let request = self.request("sendMessage", self.timeout);
        let request = match before {
            None => request.json(&params),
            Some(before) => {
                let params = params.to_string();
                request
                    .header(CONTENT_TYPE, "application/json")
                    // Known, so that it is not sent in chunks, which not every server reads.
                    .header(CONTENT_LENGTH, params.len())
                    .body(Body::wrap_stream(stream::once(written_before(before, params))))
            }
        };
        let sent: Sent = self.answer(request).await?;
        Ok(sent.message_id)
    }

    /// Shows in a private chat for 30 seconds, or until the next message, what an answer says so far. `draft_id` is not zero;
    /// calls with the same one change the same draft. Its reader gets a button, and pressing it makes an update
    /// `stopped_message_generation` (Bot API 10; refused by older servers, some of which say so in words of their own).
    pub async fn send_message_draft(
        &self,
        chat_id: i64,
        thread: Option<i64>,
        draft_id: i64,
        body: &RichText,
    ) -> Result<()> {
        let mut params = json!({
            "chat_id": chat_id,
            "draft_id": draft_id,
            "text": body.text,
            "can_stop": true,
            // It stands until the answer, as far as it came, takes its place.
            "keep_on_stop": true,
        });
        if !body.entities.is_empty() {
            params["entities"] = json!(body.entities);
        }
        if let Some(id) = thread {
            params["message_thread_id"] = json!(id);
        }
        let sent = self.call_within("sendMessageDraft", params, self.brief());
        match sent.await {
            Err(error) if is_unknown_method(&error) => Err(TelegramError::NoMethod),
            other => other.map(|_: Value| ()),
        }
    }

    pub async fn edit_message_text(
        &self,
        chat_id: i64,
        message_id: i64,
        body: &RichText,
        markup: Option<Value>,
    ) -> Result<()> {
        self.edit_within(chat_id, message_id, body, markup, self.timeout).await
    }

    /// Changes a message that will change again soon: without waiting long for the answer.
    pub async fn edit_preview(&self, chat_id: i64, message_id: i64, body: &RichText) -> Result<()> {
        self.edit_within(chat_id, message_id, body, None, self.brief()).await
    }

    async fn edit_within(
        &self,
        chat_id: i64,
        message_id: i64,
        body: &RichText,
        markup: Option<Value>,
        timeout: Duration,
    ) -> Result<()> {
        let mut params = message(chat_id, body, markup);
        params["message_id"] = json!(message_id);
        match self.call_within("editMessageText", params, timeout).await {
            // What cannot be changed is sent anew.
            Err(error) if is_unknown_method(&error) => Err(TelegramError::CantEdit),
            other => other.map(|_: Value| ()),
        }
    }

    fn brief(&self) -> Duration {
        PREVIEW_TIMEOUT.min(self.timeout)
    }

    pub async fn delete_message(&self, chat_id: i64, message_id: i64) -> Result<()> {
        let params = json!({"chat_id": chat_id, "message_id": message_id});
        self.call("deleteMessage", params).await.map(|_: Value| ())
    }

    /// Shows for at most five seconds that the bot does something, such as `typing`.
    pub async fn send_chat_action(&self, chat_id: i64, thread: Option<i64>, action: &str) -> Result<()> {
        let mut params = json!({"chat_id": chat_id, "action": action});
        if let Some(id) = thread {
            params["message_thread_id"] = json!(id);
        }
        self.call("sendChatAction", params).await.map(|_: Value| ())
    }

    /// Ends the waiting of a pressed button; `text` is shown to the person who pressed it.
    pub async fn answer_callback_query(&self, id: &str, text: Option<&str>, show_alert: bool) -> Result<()> {
        let mut params = json!({"callback_query_id": id, "show_alert": show_alert});
        if let Some(text) = text {
            params["text"] = json!(text.chars().take(100).collect::<String>());
        }
        self.call("answerCallbackQuery", params).await.map(|_: Value| ())
    }

    /// Refuses a payment before it is made; `why` is shown to the person who is about to pay.
    pub async fn refuse_pre_checkout_query(&self, id: &str, why: &str) -> Result<()> {
        let params = json!({"pre_checkout_query_id": id, "ok": false, "error_message": why});
        self.call("answerPreCheckoutQuery", params).await.map(|_: Value| ())
    }

    /// The command menu for people of a language; `None` for all who have no menu of their own.
    pub async fn set_my_commands(&self, lang: Option<Lang>, commands: &[(&str, String)]) -> Result<()> {
        let commands: Vec<Value> = commands
            .iter()
            .map(|(command, description)| json!({"command": command, "description": description}))
            .collect();
        let mut params = json!({"commands": commands});
        if let Some(lang) = lang {
            params["language_code"] = json!(lang.tag());
        }
        self.call("setMyCommands", params).await.map(|_: Value| ())
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T> {
        self.call_within(method, params, self.timeout).await
    }

    async fn call_within<T: DeserializeOwned>(&self, method: &str, params: Value, timeout: Duration) -> Result<T> {
        self.answer(self.request(method, timeout).json(&params)).await
    }

    fn request(&self, method: &str, timeout: Duration) -> RequestBuilder {
        let url = format!("{}/bot{}/{method}", self.api_url, self.token.expose_secret());
        self.http.post(url).timeout(timeout)
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = request.send().await.map_err(|error| self.unsent(error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unsent(error))?;
        let Ok(envelope) = serde_json::from_slice::<Envelope>(&bytes) else {
            return Err(self.not_the_bot_api(status));
        };
        if envelope.ok {
            return T::deserialize(envelope.result).map_err(|_| self.not_the_bot_api(status));
        }
        Err(TelegramError::refusal(
            envelope.error_code.unwrap_or(status.as_u16()),
            self.redact(envelope.description),
            envelope.parameters.retry_after,
            envelope.parameters.migrate_to_chat_id,
        ))
    }

    /// Something on the way answered, or the answer was cut: only a plain refusal tells that nothing was done.
    fn not_the_bot_api(&self, status: StatusCode) -> TelegramError {
        match status {
            StatusCode::TOO_MANY_REQUESTS => TelegramError::RetryAfter(Duration::from_secs(3)),
            _ => TelegramError::Server {
                status: status.as_u16(),
                sent_maybe: !(status.is_client_error()
                    || status.is_redirection()
                    || status == StatusCode::SERVICE_UNAVAILABLE),
            },
        }
    }

    /// An HTTP error carries the address, and the address the token: only its causes are kept.
    fn unsent(&self, error: reqwest::Error) -> TelegramError {
        if is_too_late(&error) {
            return TelegramError::Stale;
        }
        let sent_maybe = !(error.is_connect() || error.is_builder());
        if error.is_timeout() {
            return TelegramError::Timeout { sent_maybe };
        }
        let error = error.without_url();
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            cause.push_str(": ");
            cause.push_str(&inner.to_string());
            source = inner.source();
        }
        TelegramError::Network {
            sent_maybe,
            cause: self.redact(cause),
        }
    }

    fn redact(&self, text: String) -> String {
        match self.token.expose_secret() {
            "" => text,
            token => text.replace(token, "[token]"),
        }
    }
}

/// Servers that are not Telegram's refuse what they do not know in words of their own.
fn is_unknown_method(error: &TelegramError) -> bool {
    let foreign = |status| matches!(status, 404 | 405 | 501);
    matches!(error, TelegramError::NoMethod)
        || matches!(error, TelegramError::Server { status, .. } if foreign(*status))
}

fn message(chat_id: i64, body: &RichText, markup: Option<Value>) -> Value {
    let mut params = json!({
        "chat_id": chat_id,
        "text": body.text,
        "link_preview_options": {"is_disabled": true},
    });
    if !body.entities.is_empty() {
        params["entities"] = json!(body.entities);
    }
    if let Some(markup) = markup {
        params["reply_markup"] = markup;
    }
    params
}
