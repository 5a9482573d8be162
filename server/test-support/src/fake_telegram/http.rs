//! From a request to `/bot<token>/<method>` to its answer: token, method, faults, limits, handling, record.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, respond};
use super::faults::{Fault, Verdict};
use super::params::Params;
use super::state::{Bot, Call, Drafts, Shared};
use super::{messages, profile, updates};
use crate::net::{Kill, lock};

/// The methods that are understood, in Telegram's spelling. To add one: its name here, its arm in `handle`.
const METHODS: [&str; 19] = [
    "answerCallbackQuery",
    "answerPreCheckoutQuery",
    "deleteMessage",
    "deleteMyCommands",
    "deleteWebhook",
    "editMessageCaption",
    "editMessageReplyMarkup",
    "editMessageText",
    "getMe",
    "getMyCommands",
    "getUpdates",
    "getWebhookInfo",
    "sendChatAction",
    "sendDocument",
    "sendMessage",
    "sendMessageDraft",
    "sendPhoto",
    "setMyCommands",
    "setWebhook",
];

async fn handle(shared: &Arc<Shared>, bot: &Arc<Bot>, method: &str, params: &Params) -> Answer {
    match method {
        "answerCallbackQuery" => profile::answer_callback_query(bot, params),
        "answerPreCheckoutQuery" => profile::answer_pre_checkout_query(bot, params),
        "deleteMessage" => messages::delete_message(bot, params),
        "deleteMyCommands" => profile::delete_my_commands(bot, params),
        "deleteWebhook" => updates::delete_webhook(bot, params),
        "editMessageCaption" => messages::edit_caption(shared, bot, params),
        "editMessageReplyMarkup" => messages::edit_reply_markup(bot, params),
        "editMessageText" => messages::edit_text(shared, bot, params),
        "getMe" => profile::get_me(bot),
        "getMyCommands" => profile::get_my_commands(bot, params),
        "getUpdates" => updates::get_updates(shared, bot, params).await,
        "getWebhookInfo" => updates::get_webhook_info(bot),
        "sendChatAction" => messages::send_chat_action(shared, bot, params),
        "sendDocument" => messages::send_file(shared, bot, params, "document"),
        "sendMessage" => messages::send_message(shared, bot, params),
        "sendMessageDraft" => match *lock(&shared.drafts) {
            Drafts::Unknown => Err(not_found()),
            drafts => messages::send_draft(shared, bot, params, drafts == Drafts::Refused),
        },
        "sendPhoto" => messages::send_file(shared, bot, params, "photo"),
        "setMyCommands" => profile::set_my_commands(bot, params),
        "setWebhook" => updates::set_webhook(shared, bot, params),
        _ => Err(not_found()),
    }
}

fn not_found() -> Refusal {
    Refusal::new(404, "Not Found")
}

/// A bot's id is the number before the colon of its token; `None` when that is not what a token looks like.
pub(crate) fn bot_id(token: &str) -> Option<i64> {
    let (id, key) = token.split_once(':')?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (!key.is_empty() && key.bytes().all(fits)).then(|| id.parse().ok().filter(|id| *id > 0))?
}

/// Every path that is not of the control interface.
pub(crate) async fn entry(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(kill): ConnectInfo<Kill>,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    // Some clients escape the colon of the token.
    let path = path.replace("%3A", ":").replace("%3a", ":");
    let manners = *lock(&shared.manners);
    let Some((token, method)) = path.strip_prefix("/bot").and_then(|rest| rest.split_once('/')) else {
        return respond(Err(not_found()), manners.absent);
    };
    let known = METHODS.into_iter().find(|name| name.eq_ignore_ascii_case(method));
    let params = match Params::read(request).await {
        Ok(params) => params,
        Err(refusal) => return respond(Err(refusal), manners.absent),
    };
    let at = SystemTime::now();
    let answer = if manners.knows(known.unwrap_or(method)) {
        process(&shared, token, known, &params).await
    } else {
        manners.refusal().map(Err)
    };
    let (status, description) = match &answer {
        None => (None, None),
        Some(Ok(_)) => (Some(200), None),
        Some(Err(refusal)) => (Some(refusal.code), Some(refusal.description.clone())),
    };
    shared.log_call(Call {
        method: known.unwrap_or(method).to_owned(),
        bot_id: bot_id(token).unwrap_or(0),
        params: Value::Object(params.values),
        files: params.files,
        at,
        status,
        description,
    });
    match answer {
        Some(answer) => respond(answer, manners.absent),
        None if !manners.knows(known.unwrap_or(method)) => std::future::pending().await,
        None => {
            kill.kill();
            std::future::pending().await
        }
    }
}

/// `None` when the connection is to be cut instead of an answer.
async fn process(shared: &Arc<Shared>, token: &str, method: Option<&'static str>, params: &Params) -> Option<Answer> {
    if bot_id(token).is_none() {
        return Some(Err(not_found()));
    }
    let Some(bot) = shared.bot(token).filter(|bot| !lock(&bot.state).revoked) else {
        return Some(Err(Refusal::new(401, "Unauthorized")));
    };
    let Some(method) = method else {
        return Some(Err(not_found()));
    };
    if let Err(refusal) = check_limits(shared, &bot, method, params) {
        return Some(Err(refusal));
    }
    let fault = lock(&shared.faults).take(method);
    match fault {
        Some(Fault::Status(code, description)) => Some(Err(Refusal::new(code, description))),
        Some(Fault::Html(code)) => Some(Err(Refusal::html(code))),
        Some(Fault::RetryAfter(seconds)) => {
            let mut state = lock(&bot.state);
            state
                .limiters
                .entry((params.chat(), method))
                .or_default()
                .mute(Instant::now(), seconds);
            Some(Err(Refusal::retry_after(seconds)))
        }
        Some(Fault::MigrateTo(chat)) => {
            let mut refusal = Refusal::bad("group chat was upgraded to a supergroup chat");
            refusal.parameters = Some(json!({"migrate_to_chat_id": chat}));
            Some(Err(refusal))
        }
        Some(Fault::DropBeforeHandling) => None,
        Some(Fault::DropAfterHandling) => {
            let _ = handle(shared, &bot, method, params).await;
            None
        }
        Some(Fault::StatusAfterHandling(code)) => {
            let _ = handle(shared, &bot, method, params).await;
            Some(Err(Refusal::new(code, "Bad Gateway")))
        }
        Some(Fault::Delay(milliseconds)) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            Some(handle(shared, &bot, method, params).await)
        }
        Some(Fault::Late(milliseconds)) => {
            let (shared, bot, params) = (Arc::clone(shared), Arc::clone(&bot), params.clone());
            let handled = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                let answer = handle(&shared, &bot, method, &params).await;
                // Where nobody waits there will be no call to be logged.
                shared.changed.send_replace(());
                answer
            });
            handled.await.ok()
        }
        None => Some(handle(shared, &bot, method, params).await),
    }
}

/// The limit on all sends and edits to a chat, and the waits imposed on single methods by a fault.
fn check_limits(shared: &Shared, bot: &Bot, method: &'static str, params: &Params) -> Result<(), Refusal> {
    let now = Instant::now();
    let chat = params.chat();
    let paced = method.starts_with("send") || method.starts_with("edit");
    let flood = if paced { lock(&shared.faults).flood(chat) } else { None };
    let mut state = lock(&bot.state);
    let mut verdict = match state.limiters.get_mut(&(chat, method)) {
        Some(limiter) => limiter.check(now, None),
        None => Verdict::Pass,
    };
    if let (Verdict::Pass, Some(flood)) = (&verdict, &flood) {
        verdict = state.limiters.entry((chat, "")).or_default().check(now, Some(flood));
    }
    drop(state);
    match verdict {
        Verdict::Pass => Ok(()),
        Verdict::Wait { seconds, violation } => {
            lock(&shared.log).counters.flood_violations += u64::from(violation);
            Err(Refusal::retry_after(seconds))
        }
    }
}
