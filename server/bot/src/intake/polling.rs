//! Long polling of one bot, by the replica that holds its lease.

use std::time::{Duration, Instant};

use services::{BotRecord, Fault, Services};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ALLOWED_UPDATES;
use crate::telegram::{TelegramClient, TelegramError};

/// How long Telegram may hold an empty answer back.
const HOLD: Duration = Duration::from_secs(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An answer without anything new that comes faster than this was not held back: the server does not know long polling, or
/// does not heed the offset.
const HELD_BACK: Duration = Duration::from_secs(1);
/// Between questions to such a server.
const WITHOUT_HOLD: Duration = Duration::from_millis(400);
/// While the queue holds as much of the bot as it may.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(500);

/// Why polling ended.
#[derive(PartialEq)]
pub(super) enum Ended {
    Stopped,
    /// Somebody has set a webhook meanwhile: it has to be taken back first.
    WebhookSet,
}

/// Polls until `stop`, as `replica`. The offset is not kept: Telegram gives again what was not confirmed, and what was is recognised.
pub(super) async fn poll(
    services: Services,
    replica: &str,
    bot: BotRecord,
    client: TelegramClient,
    stop: CancellationToken,
) -> Ended {
    info!(bot.id = %bot.id, "Polling for bot {}", bot.id);
    let mut offset = 0;
    let mut pause = Duration::ZERO;
    // A fault may stand there from before.
    let mut faulty = true;
    let mut held = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            () = tokio::time::sleep(pause) => {}
        }
        // What cannot be seen is found out when the updates are stored.
        let has_room = services.intake().has_room(bot.id).await.unwrap_or(true);
        if !has_room && !std::mem::replace(&mut held, true) {
            warn!(bot.id = %bot.id, "Too many jobs of bot {} wait: its updates are left with Telegram", bot.id);
        }
        held = !has_room;
        if held && !services.intake().has_room_for_overtaking(bot.id).await.unwrap_or(true) {
            pause = LOOK_FOR_ROOM;
            continue;
        }
        let hold = if held { Duration::ZERO } else { HOLD };
        let asked = Instant::now();
        let nothing_new = || {
            if asked.elapsed() < HELD_BACK {
                WITHOUT_HOLD
            } else {
                Duration::ZERO
            }
        };
        // The request is dropped at `stop`: what it would have brought stays with Telegram.
        let batch = tokio::select! {
            () = stop.cancelled() => return Ended::Stopped,
            batch = client.get_updates(offset, hold, ALLOWED_UPDATES) => batch,
        };
        let mut answered = false;
        pause = match batch {
            // What waits in front of Telegram's row is looked at, but not confirmed: `/stop` and buttons pass a full queue.
            Ok(updates) if held => {
                if let Err(error) = services.intake().accept_overtaking(bot.id, updates).await {
                    warn!(bot.id = %bot.id, error = %error, "Updates could not be stored; they will be asked for again");
                }
                LOOK_FOR_ROOM
            }
            Ok(updates) if updates.is_empty() => {
                answered = true;
                nothing_new()
            }
            Ok(updates) => {
                let last = updates.iter().filter_map(|update| update["update_id"].as_i64()).max();
                match services.intake().accept(bot.id, updates).await {
                    Ok(new) => {
                        answered = true;
                        offset = last.map_or(offset, |last| last + 1);
                        if new == 0 { nothing_new() } else { Duration::ZERO }
                    }
                    Err(error) => {
                        warn!(bot.id = %bot.id, error = %error, "Updates could not be stored; they will be asked for again");
                        longer(pause)
                    }
                }
            }
            Err(error) => {
                faulty = true;
                if !report(&services, replica, &bot, &error).await {
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
        if answered && std::mem::take(&mut faulty) {
            // Telegram answers: an old fault is over.
            clear_fault(&services, replica, &bot).await;
        }
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(Duration::from_millis(500), LONGEST_PAUSE)
}

/// Says what is wrong where staff sees it; false when there is no use in going on.
async fn report(services: &Services, replica: &str, bot: &BotRecord, error: &TelegramError) -> bool {
    warn!(bot.id = %bot.id, error = %error, "getUpdates failed");
    metrics::counter!("botdeck_poll_failures_total").increment(1);
    if let TelegramError::RetryAfter(_) = error {
        services.bots().flood_wait(bot.id);
    }
    if let Some(fault) = fault(error) {
        let _ = services.bots().set_fault(bot.id, replica, fault).await;
    }
    !matches!(error, TelegramError::Unauthorized)
}

/// What staff is told, when there is something for them to do.
pub(super) fn fault(error: &TelegramError) -> Option<Fault<'static>> {
    match error {
        TelegramError::Unauthorized => Some(Fault {
            words: Some("Telegram refuses the token: it was revoked or mistyped. Add the bot again with a new one."),
            token_refused: true,
        }),
        TelegramError::Conflict(_) => Some(Fault::words(
            "Somebody else is receiving this bot's messages (409). Stop the other program.",
        )),
        _ => None,
    }
}

async fn clear_fault(services: &Services, replica: &str, bot: &BotRecord) {
    if let Err(error) = services.bots().set_fault(bot.id, replica, Fault::NONE).await {
        warn!(bot.id = %bot.id, error = %error, "A fault could not be cleared");
    }
}
