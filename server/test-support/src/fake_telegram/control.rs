//! A small HTTP interface under `/control`, so that scripts and browser tests in other languages can play the people.
//!
//! `POST send_text {chat, text, first_name?, language_code?}` · `POST push_update {update}` · `POST press_button {chat,
//! message_id, data}` · `POST block|unblock {chat}` · `POST add_bot {token, username}` · `POST fail_next {method, times?,
//! fault, value?}` · `POST drafts {mode: unknown|refused|taken}` · `POST flood {chat?, calls, window_ms}` · `GET messages?chat=` · `GET calls` · `GET state`.
//! `token` goes with any of them and may be left out while there is one bot only.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::check::{MAX_TEXT, utf16_len};
use super::params::Params;
use super::state::Shared;
use super::{Drafts, FakeTelegram, Fault, User, http};

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new().route("/{action}", any(control))
}

async fn control(State(shared): State<Arc<Shared>>, Path(action): Path<String>, request: Request) -> Response {
    let params = match Params::read(request).await {
        Ok(params) => params,
        Err(refusal) => return failed(refusal.description),
    };
    match act(&FakeTelegram { shared, running: None }, &action, &params) {
        Ok(answer) => Json(answer).into_response(),
        Err(why) => failed(why),
    }
}

fn failed(why: String) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"error": why}))).into_response()
}

fn act(fake: &FakeTelegram, action: &str, params: &Params) -> Result<Value, String> {
    let need = |name: &str| params.int(name).ok_or_else(|| format!("{name} is missing"));
    let text = |name: &str| params.text(name).ok_or_else(|| format!("{name} is missing"));
    if action == "add_bot" {
        let token = text("token")?;
        http::bot_id(&token).ok_or("not a bot token")?;
        return Ok(json!({"bot_id": fake.add_bot(&token, &text("username")?)}));
    }
    let token = token(fake, params)?;
    let done = json!({"ok": true});
    match action {
        "send_text" => {
            let message = text("text")?;
            if !(1..=MAX_TEXT).contains(&utf16_len(&message)) {
                return Err("text must be of 1–4096 UTF-16 units".to_owned());
            }
            let (update_id, message_id) = fake.send_text(&token, &user(params)?, &message);
            Ok(json!({"update_id": update_id, "message_id": message_id}))
        }
        "push_update" => match params.get("update") {
            Some(update) if update.is_object() => Ok(json!({"update_id": fake.push_update(&token, update.clone())})),
            _ => Err("update must be an object".to_owned()),
        },
        "press_button" => {
            let id = fake.press_button(&token, &user(params)?, need("message_id")?, &text("data")?);
            Ok(json!({"callback_query_id": id}))
        }
        "block" => {
            fake.block(&token, need("chat")?);
            Ok(done)
        }
        "unblock" => {
            fake.unblock(&token, need("chat")?);
            Ok(done)
        }
        "fail_next" => {
            let times = u32::try_from(params.int("times").unwrap_or(1)).map_err(|error| error.to_string())?;
            fake.fail_next(&text("method")?, times, fault(params)?);
            Ok(done)
        }
        "drafts" => {
            fake.drafts_are(match text("mode")?.as_str() {
                "unknown" => Drafts::Unknown,
                "refused" => Drafts::Refused,
                "taken" => Drafts::Taken,
                _ => return Err("mode must be unknown, refused or taken".to_owned()),
            });
            Ok(done)
        }
        "flood" => {
            let count = |name: &str| need(name).and_then(|n| usize::try_from(n).map_err(|error| error.to_string()));
            let window = Duration::from_millis(count("window_ms")? as u64);
            fake.flood(params.int("chat"), count("calls")?, window);
            Ok(done)
        }
        "messages" => Ok(json!(fake.messages(&token, need("chat")?))),
        "calls" => Ok(json!(fake.calls())),
        "state" => Ok(json!({
            "counters": fake.counters(),
            "pending_updates": fake.pending_updates(&token),
            "confirmed_offset": fake.confirmed_offset(&token),
            "webhook": fake.webhook_url(&token),
            "polls_open": fake.polls_open(&token),
        })),
        _ => Err(format!("no such action: {action}")),
    }
}

/// The bot that is meant: the one named, or the only one.
fn token(fake: &FakeTelegram, params: &Params) -> Result<String, String> {
    let bots = fake.shared.bots.read().unwrap_or_else(PoisonError::into_inner);
    match params.text("token") {
        Some(token) if bots.contains_key(&token) => Ok(token),
        Some(_) => Err("no bot with this token".to_owned()),
        None if bots.len() == 1 => bots.keys().next().cloned().ok_or_else(String::new),
        None => Err("token is missing, and there is not exactly one bot".to_owned()),
    }
}

fn user(params: &Params) -> Result<User, String> {
    Ok(User {
        id: params.int("chat").ok_or("chat is missing")?,
        first_name: params.text("first_name").unwrap_or_else(|| "Anna".to_owned()),
        username: params.text("username"),
        language_code: params.text("language_code"),
    })
}

/// `fault`: status (value = code), html (value = code), retry_after (seconds), delay (milliseconds), drop_before, drop_after.
fn fault(params: &Params) -> Result<Fault, String> {
    let value = u64::try_from(params.int("value").unwrap_or(1)).map_err(|error| error.to_string())?;
    match params.text("fault").as_deref() {
        Some("status") => {
            let code = u16::try_from(value).map_err(|error| error.to_string())?;
            Ok(Fault::Status(
                code,
                params.text("description").unwrap_or_else(|| "Bad Gateway".to_owned()),
            ))
        }
        Some("html") => Ok(Fault::Html(u16::try_from(value).map_err(|error| error.to_string())?)),
        Some("retry_after") => Ok(Fault::RetryAfter(value)),
        Some("delay") => Ok(Fault::Delay(value)),
        Some("drop_before") => Ok(Fault::DropBeforeHandling),
        Some("drop_after") => Ok(Fault::DropAfterHandling),
        _ => Err("fault must be status, html, retry_after, delay, drop_before or drop_after".to_owned()),
    }
}
