//! The methods about the bot itself, and answers to button presses.

use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::check::utf16_len;
use super::params::Params;
use super::state::{Bot, CallbackAnswer, CheckoutAnswer};
use crate::net::lock;

pub(crate) fn get_me(bot: &Bot) -> Answer {
    let mut me = bot.user_json();
    for flag in [
        "can_join_groups",
        "can_read_all_group_messages",
        "supports_inline_queries",
        "can_connect_to_business",
        "has_main_web_app",
        "has_topics_enabled",
    ] {
        me[flag] = json!(flag == "can_join_groups");
    }
    Ok(me.into())
}

/// Where a list of commands applies: its scope (by default all chats) and language.
fn scope(params: &Params) -> Result<(String, String), Refusal> {
    let scope = match params.get("scope") {
        None => json!({"type": "default"}),
        Some(scope) if scope.get("type").is_some_and(Value::is_string) => scope.clone(),
        Some(_) => return Err(Refusal::bad("can't parse BotCommandScope")),
    };
    let language = params.text("language_code").unwrap_or_default();
    if !(language.is_empty() || language.len() == 2 && language.bytes().all(|byte| byte.is_ascii_lowercase())) {
        return Err(Refusal::bad("LANG_CODE_INVALID"));
    }
    Ok((scope.to_string(), language))
}

/// At most 100 commands of 1–32 `a-z0-9_`, described in 1–256 characters.
pub(crate) fn set_my_commands(bot: &Bot, params: &Params) -> Answer {
    let key = scope(params)?;
    let commands = params.get("commands").and_then(Value::as_array);
    let commands = commands.ok_or_else(|| Refusal::bad("can't parse commands: expected an Array of BotCommand"))?;
    if commands.len() > 100 {
        return Err(Refusal::bad("BOT_COMMANDS_TOO_MUCH"));
    }
    for command in commands {
        let name = command["command"].as_str().unwrap_or_default();
        let name = name.strip_prefix('/').unwrap_or(name);
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !(1..=32).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(Refusal::bad("BOT_COMMAND_INVALID"));
        }
        if !(1..=256).contains(&utf16_len(command["description"].as_str().unwrap_or_default())) {
            return Err(Refusal::bad("BOT_COMMAND_DESCRIPTION_INVALID"));
        }
    }
    lock(&bot.state).commands.insert(key, json!(commands));
    Ok(json!(true).into())
}

pub(crate) fn get_my_commands(bot: &Bot, params: &Params) -> Answer {
    let key = scope(params)?;
    Ok(lock(&bot.state)
        .commands
        .get(&key)
        .cloned()
        .unwrap_or_else(|| json!([]))
        .into())
}

pub(crate) fn delete_my_commands(bot: &Bot, params: &Params) -> Answer {
    let key = scope(params)?;
    lock(&bot.state).commands.remove(&key);
    Ok(json!(true).into())
}

/// Each press is answered once; the text shown is at most 200 characters.
pub(crate) fn answer_pre_checkout_query(bot: &Bot, params: &Params) -> Answer {
    let (ok, error_message) = (params.flag("ok"), params.text("error_message"));
    if !ok && error_message.as_deref().is_none_or(str::is_empty) {
        return Err(Refusal::bad("error_message is empty"));
    }
    let id = params.text("pre_checkout_query_id").unwrap_or_default();
    match lock(&bot.state).checkouts.get_mut(&id) {
        Some(answer @ None) => {
            *answer = Some(CheckoutAnswer { ok, error_message });
            Ok(json!(true).into())
        }
        _ => Err(Refusal::bad(
            "query is too old and response timeout expired or query ID is invalid",
        )),
    }
}

pub(crate) fn answer_callback_query(bot: &Bot, params: &Params) -> Answer {
    let text = params.text("text");
    if utf16_len(text.as_deref().unwrap_or_default()) > 200 {
        return Err(Refusal::bad("MESSAGE_TOO_LONG"));
    }
    let id = params.text("callback_query_id").unwrap_or_default();
    match lock(&bot.state).callbacks.get_mut(&id) {
        Some(answer @ None) => {
            *answer = Some(CallbackAnswer {
                text,
                show_alert: params.flag("show_alert"),
            });
            Ok(json!(true).into())
        }
        _ => Err(Refusal::bad(
            "query is too old and response timeout expired or query ID is invalid",
        )),
    }
}
