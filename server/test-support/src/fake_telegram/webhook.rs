//! Delivers a bot's updates to its webhook until each was answered with 2xx.
//!
//! As in Telegram's own server, the updates of one chat go one after another and those of different chats side by side, up
//! to `max_connections`. A refused update waits and is tried again, 100 ms at first and 2 s at most, where Telegram takes
//! longer; the later ones of its chat wait with it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::state::{Bot, Delivery, Shared, Webhook, unix_now};
use super::{manners, updates};
use crate::net::lock;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Updates with the same number are delivered in order.
fn lane(id: i64, update: &Value) -> i64 {
    let body = &update[updates::kind(update)];
    let chat = [&body["chat"]["id"], &body["message"]["chat"]["id"], &body["from"]["id"]];
    chat.into_iter().find_map(Value::as_i64).unwrap_or(id)
}

/// An update on its way.
struct Outgoing {
    id: i64,
    lane: i64,
    attempt: u32,
    update: Value,
}

/// What is to be done now, and when to look again at the latest.
struct Plan {
    webhook: Webhook,
    start: Vec<Outgoing>,
    wake: Instant,
}

/// What a deliverer knows beside the queue.
#[derive(Default)]
struct Progress {
    busy: HashSet<i64>,
    /// Attempts so far, and the earliest time of the next.
    failed: HashMap<i64, (u32, Instant)>,
}

impl Progress {
    /// `None` when this webhook is no longer the bot's.
    fn plan(&self, bot: &Bot, generation: u64) -> Option<Plan> {
        let state = lock(&bot.state);
        let webhook = state
            .webhook
            .clone()
            .filter(|webhook| webhook.generation == generation)?;
        let mut taken = self.busy.clone();
        let mut start = Vec::new();
        let now = Instant::now();
        let mut wake = now + Duration::from_secs(3600);
        for (id, update) in &state.updates {
            if self.busy.len() + start.len() >= webhook.max_connections {
                break;
            }
            let lane = lane(*id, update);
            if !taken.insert(lane) {
                continue;
            }
            match self.failed.get(id) {
                Some((_, at)) if *at > now => wake = wake.min(*at),
                before => {
                    let attempt = before.map_or(1, |(attempts, _)| attempts + 1);
                    start.push(Outgoing {
                        id: *id,
                        lane,
                        attempt,
                        update: update.clone(),
                    });
                }
            }
        }
        Some(Plan { webhook, start, wake })
    }
}

/// Runs until the webhook is replaced, deleted, or the fake is gone.
pub(crate) async fn deliver(shared: Arc<Shared>, bot: Arc<Bot>, generation: u64) {
    let mut progress = Progress::default();
    let mut sending = JoinSet::new();
    let mut news = bot.news.subscribe();
    let mut stopped = shared.stopped.subscribe();
    loop {
        news.borrow_and_update();
        if *stopped.borrow() {
            return;
        }
        let Some(Plan { webhook, start, wake }) = progress.plan(&bot, generation) else {
            return;
        };
        for outgoing in start {
            progress.busy.insert(outgoing.lane);
            sending.spawn(send(Arc::clone(&shared), Arc::clone(&bot), webhook.clone(), outgoing));
        }
        tokio::select! {
            _ = stopped.changed() => return,
            _ = news.changed() => {}
            () = tokio::time::sleep_until(wake) => {}
            Some(done) = sending.join_next() => {
                let Ok((Outgoing { id, lane, attempt, .. }, outcome)) = done else { continue };
                progress.busy.remove(&lane);
                let mut state = lock(&bot.state);
                match outcome {
                    Ok(()) => {
                        progress.failed.remove(&id);
                        state.updates.retain(|(queued, _)| *queued != id);
                    }
                    Err(why) => {
                        let pause = FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(8)).min(LONGEST_PAUSE);
                        progress.failed.insert(id, (attempt, Instant::now() + pause));
                        if let Some(webhook) = &mut state.webhook {
                            webhook.last_error = Some((unix_now(), why));
                        }
                    }
                }
                drop(state);
                shared.changed.send_replace(());
            }
        }
    }
}

/// One attempt, with its wanted duplicates beside it; the first of them decides.
async fn send(
    shared: Arc<Shared>,
    bot: Arc<Bot>,
    webhook: Webhook,
    outgoing: Outgoing,
) -> (Outgoing, Result<(), String>) {
    let update = manners::write(lock(&shared.manners).absent, outgoing.update.clone());
    let copies = 1 + shared.duplicates.load(Ordering::Relaxed);
    let requests = (0..copies).map(|_| {
        let mut request = shared.client.post(&webhook.url).json(&update);
        if let Some(secret) = &webhook.secret {
            request = request.header("X-Telegram-Bot-Api-Secret-Token", secret);
        }
        request.send()
    });
    let outcomes = futures::future::join_all(requests).await;
    lock(&shared.log).counters.deliveries += copies as u64;
    let mut state = lock(&bot.state);
    let mut first = None;
    for (copy, outcome) in outcomes.into_iter().enumerate() {
        let status = outcome.as_ref().ok().map(|response| response.status().as_u16());
        if shared.records() {
            let Outgoing { id, attempt, .. } = outgoing;
            state.deliveries.push(Delivery {
                update_id: id,
                attempt,
                status,
                duplicate: copy > 0,
            });
        }
        first.get_or_insert(match outcome {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(format!("Wrong response from the webhook: {}", response.status())),
            Err(error) => Err(error.to_string()),
        });
    }
    drop(state);
    (outgoing, first.unwrap_or(Ok(())))
}
