//! Long polling of one bot, by the replica that holds its lease.

use std::time::Duration;

use services::{BotRecord, Services};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ALLOWED_UPDATES;
use crate::telegram::{TelegramClient, TelegramError};

/// How long Telegram may hold an empty answer back.
const HOLD: Duration = Duration::from_secs(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// While the queue holds as much of the bot as it may.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(500);

/// Why polling ended.
#[derive(PartialEq)]
pub(super) enum Ended {
    Stopped,
    /// Somebody has set a webhook meanwhile: it has to be taken back first.
    WebhookSet,
}

/// Polls until `stop`. The offset is not kept: Telegram gives again what was not confirmed, and what was is recognised.
pub(super) async fn poll(services: Services, bot: BotRecord, client: TelegramClient, stop: CancellationToken) -> Ended {
    info!(bot.id = %bot.id, "Polling for bot {}", bot.id);
    let mut offset = 0;
    let mut pause = Duration::ZERO;
    let mut faulty = false;
    let mut held = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            () = tokio::time::sleep(pause) => {}
        }
        // What cannot be seen is found out when the updates are stored.
        if !services.intake().has_room(bot.id).await.unwrap_or(true) {
            if !std::mem::replace(&mut held, true) {
                warn!(bot.id = %bot.id, "Too many jobs of bot {} wait: its updates are left with Telegram", bot.id);
            }
            pause = LOOK_FOR_ROOM;
            continue;
        }
        held = false;
        // The request is dropped at `stop`: what it would have brought stays with Telegram.
        let batch = tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            batch = client.get_updates(offset, HOLD, ALLOWED_UPDATES) => batch,
        };
        pause = match batch {
            Ok(updates) if updates.is_empty() => Duration::ZERO,
            Ok(updates) => {
                let last = updates.iter().filter_map(|update| update["update_id"].as_i64()).max();
                match services.intake().accept(bot.id, updates).await {
                    Ok(_) => {
                        offset = last.map_or(offset, |last| last + 1);
                        Duration::ZERO
                    }
                    Err(error) => {
                        warn!(bot.id = %bot.id, error = %error, "Updates could not be stored; they will be asked for again");
                        longer(pause)
                    }
                }
            }
            Err(error) => {
                faulty = true;
                if !report(&services, &bot, &error).await {
                    return Ended::Stopped;
                }
                match error {
                    TelegramError::Conflict(why) if why.to_lowercase().contains("webhook is active") => {
                        return Ended::WebhookSet;
                    }
                    TelegramError::RetryAfter(wait) => wait,
                    _ => longer(pause),
                }
            }
        };
        if pause.is_zero() && std::mem::take(&mut faulty) {
            // Telegram answers: an old fault is over.
            clear_fault(&services, &bot).await;
        }
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(Duration::from_millis(500), LONGEST_PAUSE)
}

/// Says what is wrong where staff sees it; false when there is no use in going on.
async fn report(services: &Services, bot: &BotRecord, error: &TelegramError) -> bool {
    warn!(bot.id = %bot.id, error = %error, "getUpdates failed");
    metrics::counter!("botdeck_poll_failures_total").increment(1);
    if let TelegramError::RetryAfter(_) = error {
        services.bots().flood_wait(bot.id);
    }
    if let Some(fault) = fault(error) {
        let _ = services.bots().set_fault(bot.id, Some(fault)).await;
    }
    !matches!(error, TelegramError::Unauthorized)
}

/// What staff is told, when there is something for them to do.
pub(super) fn fault(error: &TelegramError) -> Option<&'static str> {
    match error {
        TelegramError::Unauthorized => {
            Some("Telegram refuses the token: it was revoked or mistyped. Add the bot again with a new one.")
        }
        TelegramError::Conflict(_) => {
            Some("Somebody else is receiving this bot's messages (409). Stop the other program.")
        }
        _ => None,
    }
}

async fn clear_fault(services: &Services, bot: &BotRecord) {
    if let Err(error) = services.bots().set_fault(bot.id, None).await {
        warn!(bot.id = %bot.id, error = %error, "A fault could not be cleared");
    }
}
