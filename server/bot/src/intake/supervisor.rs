//! Keeps one listener running for each enabled bot whose lease this replica holds.

use std::{collections::HashMap, time::Duration};

use domain::{
    BotId, Lang,
    views::{BotTransport, IntakeMode},
};
use secrecy::ExposeSecret;
use services::{BotIdentity, BotRecord, Fault};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ALLOWED_UPDATES, polling};
use crate::{
    runtime::Runtime,
    telegram::{TelegramClient, TelegramError},
    texts,
};

/// A lease is renewed every third of this; after a crash another replica takes over within it. Shorter than what is left of a job's
/// lease (`services::LEASE`): when the jobs of a dead replica are run again and look for what it had sent, it is known what people
/// have written since.
const LEASE: Duration = Duration::from_secs(6);
const ROUND: Duration = Duration::from_secs(2);
const WEBHOOK_CONNECTIONS: u32 = 40;
/// Between attempts to prepare a bot.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Before a bot is prepared anew: what stands in the way may be there still.
const BEFORE_ANEW: Duration = Duration::from_secs(1);
/// How often Telegram is asked how much it holds back.
const ASK_WHAT_WAITS: Duration = Duration::from_secs(10);

/// What intake needs to know of the deployment.
#[derive(Clone, Debug)]
pub struct IntakeSettings {
    /// Names this replica in leases.
    pub replica: String,
    /// Where Telegram reaches us; without it there are no webhooks.
    pub public_url: Option<String>,
}

struct Listener {
    /// What the listener was started with; a change starts it anew.
    fingerprint: String,
    bot: BotRecord,
    /// When its lease was renewed last.
    renewed: watch::Sender<Instant>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Runs until `stop`, then gives all leases back, so that another replica need not wait.
pub async fn supervise(runtime: Runtime, settings: IntakeSettings, stop: CancellationToken) {
    let mut listeners: HashMap<BotId, Listener> = HashMap::new();
    let bots = runtime.services().bots();
    loop {
        // Without the database the listeners go on until their leases have run out.
        match timeout(ROUND, bots.all()).await {
            Ok(Ok(all)) => round(&runtime, &settings, &mut listeners, all).await,
            Ok(Err(error)) => warn!(error = %error, "The list of bots could not be read"),
            Err(_) => warn!("The list of bots could not be read: the database does not answer"),
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = bots.changed() => {}
            () = tokio::time::sleep(ROUND) => {}
        }
    }
    for (id, listener) in listeners {
        end(&runtime, &settings, id, listener).await;
    }
}

async fn round(
    runtime: &Runtime,
    settings: &IntakeSettings,
    listeners: &mut HashMap<BotId, Listener>,
    bots: Vec<BotRecord>,
) {
    let wanted = |bot: &BotRecord| bot.enabled && bot.transport == BotTransport::Telegram;
    let gone: Vec<BotId> = listeners
        .iter()
        .filter(|(id, listener)| {
            let bot = bots.iter().find(|bot| bot.id == **id);
            bot.is_none_or(|bot| !wanted(bot) || fingerprint(bot) != listener.fingerprint)
        })
        .map(|(id, _)| *id)
        .collect();
    for id in gone {
        if let Some(listener) = listeners.remove(&id) {
            let stopped = bots.iter().any(|bot| bot.id == id && !bot.enabled);
            if stopped && listener.bot.mode == IntakeMode::Webhook {
                leave_with_telegram(runtime, &listener.bot).await;
            }
            end(runtime, settings, id, listener).await;
        }
    }
    for bot in bots.into_iter().filter(wanted) {
        let asked = Instant::now();
        let bots = runtime.services().bots();
        let held = match timeout(ROUND, bots.lease(bot.id, &settings.replica, LEASE)).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                warn!(bot.id = %bot.id, error = %error, "A lease could not be renewed");
                continue;
            }
            Err(_) => {
                warn!(bot.id = %bot.id, "A lease could not be renewed: the database does not answer");
                continue;
            }
        };
        measure_lease(bot.id, held);
        let running = listeners.get(&bot.id).filter(|listener| !listener.task.is_finished());
        if held && let Some(listener) = running {
            listener.renewed.send_replace(asked);
        } else if held {
            listeners.insert(bot.id, start(runtime, settings, bot, asked));
        } else if !held && let Some(listener) = listeners.remove(&bot.id) {
            warn!(bot.id = %bot.id, "The lease of bot {} went to another replica", bot.id);
            listener.stop.cancel();
        }
    }
}

fn start(runtime: &Runtime, settings: &IntakeSettings, bot: BotRecord, leased: Instant) -> Listener {
    let stop = CancellationToken::new();
    let fingerprint = fingerprint(&bot);
    let (renewed, lease) = watch::channel(leased);
    let (id, listening) = (
        bot.id,
        listen(runtime.clone(), settings.clone(), bot.clone(), stop.clone()),
    );
    let task = tokio::spawn(async move {
        tokio::select! {
            () = listening => {}
            // Another replica may listen by now; two of them would get a conflict each from Telegram.
            () = lapsed(lease) => warn!(bot.id = %id, "The lease of bot {id} could not be renewed: its intake ends here"),
        }
    });
    Listener {
        fingerprint,
        bot,
        renewed,
        stop,
        task,
    }
}

/// Returns when the lease has not been renewed for as long as it holds.
async fn lapsed(mut renewed: watch::Receiver<Instant>) {
    loop {
        let until = *renewed.borrow_and_update() + LEASE;
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            changed = renewed.changed() => if changed.is_err() {
                // Whoever lets go of a listener stops it, too.
                std::future::pending::<()>().await;
            },
        }
    }
}

/// Every replica says for itself whether it is the one that listens.
fn measure_lease(id: BotId, held: bool) {
    metrics::gauge!("botdeck_bot_lease_held", "bot" => id.to_string()).set(f64::from(u8::from(held)));
}

async fn end(runtime: &Runtime, settings: &IntakeSettings, id: BotId, listener: Listener) {
    info!(bot.id = %id, "Intake of bot {id} stops");
    measure_lease(id, false);
    listener.stop.cancel();
    let _ = listener.task.await;
    if let Err(error) = runtime.services().bots().release(id, &settings.replica).await {
        warn!(bot.id = %id, error = %error, "A lease could not be given back; it runs out by itself");
    }
}

/// Messages of a stopped bot are to wait at Telegram: it would give up a webhook that refuses them for too long.
async fn leave_with_telegram(runtime: &Runtime, bot: &BotRecord) {
    let Some(token) = &bot.token else { return };
    // All other bots of this replica wait for their leases meanwhile.
    let client = runtime.client(token).with_timeout(ROUND);
    if let Err(error) = client.delete_webhook().await {
        warn!(bot.id = %bot.id, error = %error, "The webhook of a stopped bot could not be taken back; what it delivers is refused");
    }
}

/// Whatever makes it necessary to listen anew. Holds the token, so it is never shown.
fn fingerprint(bot: &BotRecord) -> String {
    format!(
        "{:?} {} {}",
        bot.mode,
        bot.restarts,
        bot.token.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default()
    )
}

async fn listen(runtime: Runtime, settings: IntakeSettings, mut bot: BotRecord, stop: CancellationToken) {
    let Some(token) = &bot.token else { return };
    let client = runtime.client(token);
    loop {
        if !prepared(&runtime, &settings, &mut bot, &client, &stop).await {
            return;
        }
        let intake = async {
            match bot.mode {
                IntakeMode::Polling => {
                    let services = runtime.services().clone();
                    polling::poll(services, &settings.replica, bot.clone(), client.clone(), stop.clone()).await
                }
                // The webhook route does the rest; this task only keeps the place.
                IntakeMode::Webhook => {
                    stop.cancelled().await;
                    polling::Ended::Stopped
                }
            }
        };
        // Nothing of this holds intake up, or is needed for it.
        let beside = async {
            show_menu(&bot, &client).await;
            ask_what_waits(&runtime, &settings, &bot, &client).await
        };
        let ended = tokio::select! {
            ended = intake => ended,
            ended = beside => ended,
        };
        if ended == polling::Ended::Stopped {
            return;
        }
        warn!(bot.id = %bot.id, "Somebody else has changed how bot {} listens, or its token; it is prepared anew", bot.id);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BEFORE_ANEW) => {}
        }
    }
}

/// Tries until Telegram knows how the bot listens; false when it is to stop before that.
async fn prepared(
    runtime: &Runtime,
    settings: &IntakeSettings,
    bot: &mut BotRecord,
    client: &TelegramClient,
    stop: &CancellationToken,
) -> bool {
    let mut pause = Duration::from_millis(500);
    loop {
        let prepared = tokio::select! {
            () = stop.cancelled() => return false,
            prepared = prepare(runtime, settings, bot, client) => prepared,
        };
        let bots = runtime.services().bots();
        let Err(error) = prepared else {
            let _ = bots.set_fault(bot.id, &settings.replica, Fault::NONE).await;
            return true;
        };
        warn!(bot.id = %bot.id, error = %error, "Bot {} cannot start yet", bot.id);
        let words = error.to_string();
        let fault = polling::fault(&error).unwrap_or(Fault::words(&words));
        let _ = bots.set_fault(bot.id, &settings.replica, fault).await;
        let wait = match error {
            TelegramError::RetryAfter(wait) => wait,
            _ => pause,
        };
        pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Keeps asking Telegram how much it holds back, for staff to see. Ends when a webhook is not ours any more or its token is refused:
/// nothing else would say so, the bot would simply hear no more.
async fn ask_what_waits(
    runtime: &Runtime,
    settings: &IntakeSettings,
    bot: &BotRecord,
    client: &TelegramClient,
) -> polling::Ended {
    let id = bot.id;
    let ours = webhook_url(settings, bot);
    loop {
        tokio::time::sleep(ASK_WHAT_WAITS).await;
        let stored = match client.get_webhook_info().await {
            Ok(info) if ours.as_ref().is_some_and(|ours| *ours != info.url) => return polling::Ended::WebhookSet,
            Ok(info) => {
                let pending = i64::try_from(info.pending_update_count).unwrap_or(i64::MAX);
                runtime.services().bots().set_pending(id, pending).await
            }
            Err(TelegramError::Unauthorized) if ours.is_some() => return polling::Ended::WebhookSet,
            // Polling itself says what is wrong with Telegram.
            Err(_) => continue,
        };
        if let Err(error) = stored {
            warn!(bot.id = %id, error = %error, "What Telegram holds back could not be noted");
        }
    }
}

/// Where Telegram is to deliver; `None` for a bot that polls, or without a public address.
fn webhook_url(settings: &IntakeSettings, bot: &BotRecord) -> Option<String> {
    let url = settings.public_url.as_ref()?.trim_end_matches('/');
    (bot.mode == IntakeMode::Webhook).then(|| format!("{url}/telegram/{}", bot.id))
}

/// Learns who the bot is, then tells Telegram how it listens. Pending updates are never dropped.
async fn prepare(
    runtime: &Runtime,
    settings: &IntakeSettings,
    bot: &mut BotRecord,
    client: &TelegramClient,
) -> Result<(), TelegramError> {
    let identity = BotIdentity::from(client.get_me().await?);
    if bot.username != identity.username || bot.name != identity.name {
        if let Err(error) = runtime.services().bots().set_identity(bot.id, &identity).await {
            warn!(bot.id = %bot.id, error = %error, "The bot's name could not be stored");
        }
        (bot.name, bot.username) = (identity.name, identity.username);
    }
    match (bot.mode, webhook_url(settings, bot)) {
        (IntakeMode::Webhook, Some(url)) => {
            let secret = runtime.services().keys().webhook_secret(bot.id);
            let set = client.set_webhook(&url, &secret, ALLOWED_UPDATES, WEBHOOK_CONNECTIONS);
            let set = set.await;
            if let Err(TelegramError::RetryAfter(_)) = &set {
                runtime.services().bots().flood_wait(bot.id);
            }
            set?;
            info!(bot.id = %bot.id, "The webhook of bot {} is registered", bot.id);
        }
        (IntakeMode::Webhook, None) => {
            return Err(TelegramError::BadRequest(
                "BOTDECK_PUBLIC_URL is not set, so Telegram cannot reach a webhook".to_owned(),
            ));
        }
        // The token has just been shown to be good. A server that does not know this call has no webhooks, and one that has is heard
        // of again: polling is refused while a webhook is set.
        (IntakeMode::Polling, _) => {
            if let Err(error) = client.delete_webhook().await {
                warn!(bot.id = %bot.id, error = %error, "The Bot API server does not take deleteWebhook; polling begins all the same");
            }
        }
    }
    Ok(())
}

/// Nice to have: a bot without its menu of commands still answers.
async fn show_menu(bot: &BotRecord, client: &TelegramClient) {
    for (tag, lang) in [(None, Lang::En), (Some(Lang::Ru), Lang::Ru)] {
        if let Err(error) = client.set_my_commands(tag, &texts::commands(lang)).await {
            warn!(bot.id = %bot.id, error = %error, "The menu of commands could not be set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_listener_whose_lease_is_not_renewed_ends_with_it_and_one_that_is_goes_on() {
        let begun = Instant::now();
        let (renewed, lease) = watch::channel(begun);
        let ended = tokio::spawn(async move {
            lapsed(lease).await;
            begun.elapsed()
        });
        for _ in 0..10 {
            tokio::time::sleep(ROUND).await;
            renewed.send_replace(Instant::now());
        }
        assert!(!ended.is_finished());
        assert_eq!(ended.await.unwrap(), ROUND * 10 + LEASE);
    }
}
