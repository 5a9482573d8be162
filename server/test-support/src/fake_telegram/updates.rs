//! How updates leave: `getUpdates` with its offsets and conflicts, and the webhook methods.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Answer, Refusal, Success};
use super::params::Params;
use super::state::{Bot, BotState, Shared, Webhook};
use super::webhook;
use crate::net::lock;

/// Not sent unless asked for by name (documentation of `allowed_updates`).
const NOT_BY_DEFAULT: [&str; 3] = ["chat_member", "message_reaction", "message_reaction_count"];

/// Kinds of Bot API 10.3. What is not among them stands for the future and is delivered whatever was asked for.
const KINDS: [&str; 27] = [
    "message",
    "edited_message",
    "channel_post",
    "edited_channel_post",
    "business_connection",
    "business_message",
    "edited_business_message",
    "deleted_business_messages",
    "guest_message",
    "stopped_message_generation",
    "message_reaction",
    "message_reaction_count",
    "inline_query",
    "chosen_inline_result",
    "callback_query",
    "shipping_query",
    "pre_checkout_query",
    "purchased_paid_media",
    "poll",
    "poll_answer",
    "my_chat_member",
    "chat_member",
    "chat_join_request",
    "chat_boost",
    "removed_chat_boost",
    "managed_bot",
    "subscription",
];

/// Gives the update an id unless it has one, and queues it if the bot asked for its kind.
pub(crate) fn queue(state: &mut BotState, mut update: Value) -> i64 {
    let id = update["update_id"].as_i64().unwrap_or(state.next_update_id);
    state.next_update_id = id + 1;
    update["update_id"] = json!(id);
    let kind = kind(&update);
    let wanted = match kind.as_str() {
        other if !KINDS.contains(&other) => true,
        kind if state.allowed.is_empty() => !NOT_BY_DEFAULT.contains(&kind),
        kind => state.allowed.iter().any(|allowed| allowed == kind),
    };
    if wanted {
        state.updates.push_back((id, update));
    } else {
        state.not_allowed.push(update);
    }
    id
}

/// The one field beside `update_id`.
pub(crate) fn kind(update: &Value) -> String {
    let mut names = update.as_object().into_iter().flat_map(|fields| fields.keys());
    names.find(|name| *name != "update_id").cloned().unwrap_or_default()
}

/// Remembers the list; absent keeps the last one, empty means the default.
fn remember_allowed(state: &mut BotState, params: &Params) -> Result<(), Refusal> {
    match params.get("allowed_updates") {
        None => Ok(()),
        Some(Value::Array(names)) => {
            state.allowed = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            Ok(())
        }
        Some(_) => Err(Refusal::bad("can't parse allowed_updates: expected an Array of String")),
    }
}

/// Counts the polls that are being held open; a dropped connection drops its poll.
struct Held<'a>(&'a Bot);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).polling -= 1;
    }
}

pub(crate) async fn get_updates(shared: &Shared, bot: &Bot, params: &Params) -> Answer {
    let limit = params
        .int("limit")
        .filter(|limit| (1..=100).contains(limit))
        .unwrap_or(100);
    let limit = usize::try_from(limit).unwrap_or(100);
    let timeout = if lock(&shared.manners).never_holds {
        0
    } else {
        u64::try_from(params.int("timeout").unwrap_or(0).clamp(0, 50)).unwrap_or(0)
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(timeout);
    let mut news = bot.news.subscribe();
    let mine = {
        let mut state = lock(&bot.state);
        if state.webhook.is_some() {
            return Err(Refusal::conflict(
                "can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first",
            ));
        }
        remember_allowed(&mut state, params)?;
        confirm(&mut state, params.int("offset").unwrap_or(0));
        state.poll += 1;
        state.polling += 1;
        state.poll
    };
    let _held = Held(bot);
    // The poll before this one learns that it was taken over; waiting tests learn what was confirmed.
    bot.news.send_replace(());
    shared.changed.send_replace(());
    loop {
        {
            let state = lock(&bot.state);
            if state.revoked {
                return Err(Refusal::new(401, "Unauthorized"));
            }
            if state.webhook.is_some() {
                return Err(Refusal::conflict("terminated by setWebhook request"));
            }
            if state.poll != mine {
                return Err(Refusal::conflict(
                    "terminated by other getUpdates request; make sure that only one bot instance is running",
                ));
            }
            if !state.updates.is_empty() || tokio::time::Instant::now() >= deadline {
                let batch: Vec<&Value> = state.updates.iter().take(limit).map(|(_, update)| update).collect();
                return Ok(json!(batch).into());
            }
        }
        let _ = tokio::time::timeout_at(deadline, news.changed()).await;
    }
}

/// A positive offset confirms all updates below it; a negative one forgets all but the last so many.
fn confirm(state: &mut BotState, offset: i64) {
    if offset > 0 {
        state.updates.retain(|(id, _)| *id >= offset);
        state.confirmed_offset = state.confirmed_offset.max(offset);
    } else if offset < 0 {
        let keep = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
        let forgotten = state.updates.len().saturating_sub(keep);
        if let Some((id, _)) = state.updates.drain(..forgotten).next_back() {
            state.confirmed_offset = state.confirmed_offset.max(id + 1);
        }
    }
}

fn drop_pending(state: &mut BotState, params: &Params) {
    if params.flag("drop_pending_updates") {
        state.pending_dropped += 1;
        state.updates.clear();
    }
}

pub(crate) fn set_webhook(shared: &Arc<Shared>, bot: &Arc<Bot>, params: &Params) -> Answer {
    let url = params.text("url").unwrap_or_default();
    if url.is_empty() {
        return delete_webhook(bot, params);
    }
    // Telegram insists on https; on a developer's machine there is none.
    if reqwest::Url::parse(&url).is_err() || !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(Refusal::bad("bad webhook: invalid webhook URL specified"));
    }
    let secret = params.text("secret_token");
    if let Some(secret) = &secret {
        if !(1..=256).contains(&secret.len()) {
            return Err(Refusal::bad("secret token must be 1-256 characters long"));
        }
        if !secret
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        {
            return Err(Refusal::bad("secret token contains unallowed characters"));
        }
    }
    let max_connections = params.int("max_connections").unwrap_or(40);
    if !(1..=100).contains(&max_connections) {
        return Err(Refusal::bad("max_connections must be between 1 and 100"));
    }
    let mut state = lock(&bot.state);
    remember_allowed(&mut state, params)?;
    drop_pending(&mut state, params);
    state.webhooks_set += 1;
    let generation = state.webhooks_set;
    let max_connections = usize::try_from(max_connections).unwrap_or(1);
    state.webhook = Some(Webhook {
        url,
        secret,
        max_connections,
        last_error: None,
        generation,
    });
    drop(state);
    bot.news.send_replace(());
    tokio::spawn(webhook::deliver(Arc::clone(shared), Arc::clone(bot), generation));
    Ok(Success {
        result: json!(true),
        description: Some("Webhook was set"),
    })
}

pub(crate) fn delete_webhook(bot: &Bot, params: &Params) -> Answer {
    let mut state = lock(&bot.state);
    drop_pending(&mut state, params);
    let description = match state.webhook.take() {
        Some(_) => "Webhook was deleted",
        None => "Webhook is already deleted",
    };
    drop(state);
    bot.news.send_replace(());
    Ok(Success {
        result: json!(true),
        description: Some(description),
    })
}

pub(crate) fn get_webhook_info(bot: &Bot) -> Answer {
    let state = lock(&bot.state);
    let mut info = json!({"url": "", "has_custom_certificate": false, "pending_update_count": state.updates.len()});
    if let Some(webhook) = &state.webhook {
        info["url"] = json!(webhook.url);
        info["max_connections"] = json!(webhook.max_connections);
        if let Some((date, message)) = &webhook.last_error {
            info["last_error_date"] = json!(date);
            info["last_error_message"] = json!(message);
        }
    }
    if !state.allowed.is_empty() {
        info["allowed_updates"] = json!(state.allowed);
    }
    Ok(info.into())
}
