//! Where Telegram delivers updates of bots in webhook mode.

use axum::{
    body::Bytes,
    extract::{FromRequest, Path, Request, State},
    http::StatusCode,
};
use domain::BotId;
use secrecy::ExposeSecret;
use serde_json::Value;
use subtle::ConstantTimeEq;
use tracing::warn;

use super::AppState;

/// Answers 200 only after the update and its job are committed; anything else makes Telegram deliver it again.
pub async fn receive(State(state): State<AppState>, Path(bot_id): Path<String>, request: Request) -> StatusCode {
    let Ok(bot) = bot_id.parse::<BotId>() else {
        return StatusCode::NOT_FOUND;
    };
    let given = request
        .headers()
        .get("x-telegram-bot-api-secret-token")
        .map(|value| value.as_bytes())
        .unwrap_or_default();
    let wanted = state.services.keys().webhook_secret(bot);
    // Before the body is read, and in constant time.
    if !bool::from(given.ct_eq(wanted.expose_secret().as_bytes())) {
        metrics::counter!("botdeck_webhook_refused_total").increment(1);
        return StatusCode::UNAUTHORIZED;
    }
    // Whatever its Content-Type says: it is JSON or it is refused.
    let body = Bytes::from_request(request, &state).await.unwrap_or_default();
    let Ok(update) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    // What overtakes the queue does not wait for room in it, up to a point. What cannot be seen is found out when the update is stored.
    let intake = state.services.intake();
    let has_room = if services::peek(&update).is_some_and(|peek| peek.overtakes) {
        intake.has_room_for_overtaking(bot).await
    } else {
        intake.has_room(bot).await
    };
    if !has_room.unwrap_or(true) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    match state.services.bots().takes_updates(bot).await {
        Ok(true) => {}
        // Telegram keeps it and delivers it again: it is answered when the bot runs again.
        Ok(false) => return StatusCode::SERVICE_UNAVAILABLE,
        Err(error) => {
            warn!(bot.id = %bot, error = %error, "It could not be seen whether the bot runs");
            return StatusCode::SERVICE_UNAVAILABLE;
        }
    }
    match state.services.intake().accept(bot, vec![update]).await {
        Ok(_) => StatusCode::OK,
        Err(services::Error::Invalid(_)) => StatusCode::BAD_REQUEST,
        Err(error) => {
            warn!(bot.id = %bot, error = %error, "A delivered update could not be stored; Telegram will deliver it again");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
