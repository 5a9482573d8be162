//! What is done by the clock. Safe on every replica at once: each step is idempotent and locks what it must.

use std::time::Duration;

use services::{BotHealth, Services};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

const TIDY_EVERY: Duration = Duration::from_secs(600);
const GIVE_BACK_EVERY: Duration = Duration::from_secs(60);
const ROLL_UP_EVERY: Duration = Duration::from_secs(60);
/// While there is more to sum up: the database has other things to do.
const ROLL_UP_PAUSE: Duration = Duration::from_secs(1);
const CHARGE_EVERY: Duration = Duration::from_secs(30);
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// Runs until `stop`.
pub async fn schedule(services: Services, stop: CancellationToken) {
    info!("Scheduler starts");
    tokio::join!(keep_house(&services, &stop), roll_up(&services, &stop));
}

/// Beside all else, which must not wait while years of a ledger are summed up for the first time.
async fn roll_up(services: &Services, stop: &CancellationToken) {
    let mut turn = tokio::time::interval(ROLL_UP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turn.tick() => {}
        }
        match services.overview().roll_up().await {
            Ok(true) => turn.reset_after(ROLL_UP_PAUSE),
            // From now on: a turn that took long is not made up for.
            Ok(false) => turn.reset(),
            Err(error) => {
                turn.reset();
                error!(error = %error, "The ledger could not be summed up; it is tried again in {} s", ROLL_UP_EVERY.as_secs());
            }
        }
    }
}

async fn keep_house(services: &Services, stop: &CancellationToken) {
    let mut tidy = tokio::time::interval(TIDY_EVERY);
    let mut give_back = tokio::time::interval(GIVE_BACK_EVERY);
    let mut charge = tokio::time::interval(CHARGE_EVERY);
    let mut measure = tokio::time::interval(MEASURE_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tidy.tick() => {
                if let Err(error) = services.overview().forget_old_usage().await {
                    error!(error = %error, "Old months of the ledger could not be dropped; it is tried again in {} s", TIDY_EVERY.as_secs());
                }
                if let Err(error) = services.similar().tidy().await {
                    error!(error = %error, "Old answers could not be forgotten; it is tried again in {} s", TIDY_EVERY.as_secs());
                }
                if let Err(error) = services.queue().tidy().await {
                    error!(error = %error, "Housekeeping failed; it is tried again in {} s", TIDY_EVERY.as_secs());
                }
            }
            _ = give_back.tick() => {
                if let Err(error) = services.limits().give_back().await {
                    error!(error = %error, "Reservations could not be given back; it is tried again in a minute");
                }
            }
            _ = charge.tick() => {
                if let Err(error) = services.calls().charge_lost().await {
                    error!(error = %error, "Lost calls could not be charged; it is tried again in {} s", CHARGE_EVERY.as_secs());
                }
            }
            _ = measure.tick() => measure_once(services).await,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and milliseconds are far below 2^52")]
async fn measure_once(services: &Services) {
    let _ = services.rate().ping().await;
    match services.queue().state().await {
        Ok(state) => {
            metrics::gauge!("botdeck_queue_depth", "state" => "waiting").set(state.waiting as f64);
            metrics::gauge!("botdeck_queue_depth", "state" => "running").set(state.running as f64);
            metrics::gauge!("botdeck_queue_depth", "state" => "dead").set(state.dead as f64);
            metrics::gauge!("botdeck_queue_oldest_seconds").set(state.oldest_ms.unwrap_or(0) as f64 / 1000.0);
        }
        Err(error) => error!(error = %error, "The queue could not be measured"),
    }
    match services.jobs_board().retrying().await {
        Ok(retrying) => metrics::gauge!("botdeck_queue_retrying").set(retrying as f64),
        Err(error) => error!(error = %error, "The retries could not be counted"),
    }
    // One row for each bot that staff have added: the number of labels stays small.
    match services.bots().health().await {
        Ok(bots) => bots.iter().for_each(measure_bot),
        Err(error) => error!(error = %error, "The bots could not be measured"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and moments are far below 2^52")]
fn measure_bot(health: &BotHealth) {
    let bot = health.id.to_string();
    metrics::gauge!("botdeck_bot_enabled", "bot" => bot.clone()).set(f64::from(u8::from(health.enabled)));
    metrics::gauge!("botdeck_bot_up", "bot" => bot.clone()).set(f64::from(u8::from(health.up)));
    metrics::gauge!("botdeck_bot_lag_seconds", "bot" => bot.clone()).set(health.lag_ms as f64 / 1000.0);
    if let Some(at) = health.last_update_at {
        metrics::gauge!("botdeck_bot_last_update_timestamp_seconds", "bot" => bot.clone()).set(at.timestamp() as f64);
    }
    if let Some(pending) = health.pending {
        metrics::gauge!("botdeck_bot_pending_updates", "bot" => bot).set(pending as f64);
    }
}
