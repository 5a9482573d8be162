//! How often Telegram asks a bot to wait (429), for staff to see. Counted in memory and written at most once a second for each
//! bot, so that a storm of refusals does not become a storm of writes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use domain::BotId;
use repositories::bot_pages;

use crate::{Bots, Error, Services};

const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Counted, and not written yet.
#[derive(Debug, Default)]
pub(crate) struct FloodWaits(Mutex<HashMap<BotId, i64>>);

impl FloodWaits {
    /// True for the first since the last writing.
    fn add(&self, bot: BotId) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(bot).or_insert(0);
        *count += 1;
        *count == 1
    }

    fn take(&self, bot: BotId) -> i64 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.remove(&bot).unwrap_or(0)
    }
}

impl Bots {
    /// Telegram has answered 429 to this bot. Returns at once; what is counted is written within a second.
    pub fn flood_wait(&self, bot: BotId) {
        metrics::counter!("botdeck_flood_waits_total", "bot" => bot.to_string()).increment(1);
        if self.0.flood_waits.add(bot) {
            let services = self.0.clone();
            tokio::spawn(async move {
                tokio::time::sleep(WRITE_EVERY).await;
                if let Err(error) = write(&services, bot).await {
                    tracing::warn!(error = %error, "Flood waits could not be counted");
                }
            });
        }
    }

    /// Writes what is counted of a bot now, without waiting for the second to pass.
    pub async fn write_flood_waits(&self, bot: BotId) -> Result<(), Error> {
        write(&self.0, bot).await
    }
}

async fn write(services: &Services, bot: BotId) -> Result<(), Error> {
    let waits = services.flood_waits.take(bot);
    if waits > 0 {
        bot_pages::add_flood_waits(&mut *services.db.acquire().await?, bot, waits).await?;
    }
    Ok(())
}
