//! One worker process: takes what may run, as long as it has hands free.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bot::Runtime;
use domain::BotId;
use services::{Claimed, Ended, LEASE, Room, Services, Which};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

/// How long an idle worker waits before it looks again for what other processes have accepted. Work accepted in this process
/// wakes it at once.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// After a failure that must not last.
const SOON: Duration = Duration::from_secs(1);
/// `/stop` is to be felt within a second.
const LOOK_FOR_STOPS: Duration = Duration::from_millis(250);
/// Longer than most answers take, shorter than the patience of whoever stops processes (Kubernetes: 30 s).
pub const GRACE: Duration = Duration::from_secs(20);
/// Hands beside the others, for what overtakes: `/stop` must not wait for the answers that it is to stop, nor they for many of it.
/// They do little but wait for Telegram.
const SPARE_HANDS: usize = 32;
/// Of these for one bot: Telegram may hold one back for minutes.
const SPARE_HANDS_PER_BOT: usize = 24;
/// Jobs of workers that went away are looked for this often.
const RECOVER_EVERY: Duration = Duration::from_secs(2);
/// Nobody waits longer than this for the database where leases depend on it.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a worker needs to know.
#[derive(Clone, Debug)]
pub struct RunnerSettings {
    /// Names this process in the queue.
    pub worker: String,
    /// Jobs at once.
    pub concurrency: usize,
    /// Jobs of one bot at once: one whose provider hangs leaves hands for the others.
    pub per_bot: usize,
    /// What is running gets this long to end when the process is asked to stop; [`GRACE`] but in tests.
    pub grace: Duration,
}

/// The jobs in hand, by lease token.
type InHand = Arc<Mutex<HashMap<Uuid, Held>>>;

struct Held {
    bot: BotId,
    overtakes: bool,
    /// Stops it in good order.
    cancel: CancellationToken,
    /// Stops it where it is.
    abort: Option<AbortHandle>,
}

/// Works until `stop`, then lets what is running end for up to 20 seconds and gives the rest back.
pub async fn run(runtime: Runtime, settings: RunnerSettings, stop: CancellationToken) {
    info!(worker = %settings.worker, concurrency = settings.concurrency, "Worker {} starts", settings.worker);
    let services = runtime.services().clone();
    let queue = services.queue();
    let in_hand = InHand::default();
    let keepers = CancellationToken::new();
    let mut keeping = JoinSet::new();
    keeping.spawn(keep_leases(services.clone(), in_hand.clone(), keepers.clone()));
    keeping.spawn(watch_stops(services.clone(), in_hand.clone(), keepers.clone()));
    keeping.spawn(recover(services.clone(), keepers.clone()));

    let ordinary = Arc::new(Semaphore::new(settings.concurrency));
    let spare = Arc::new(Semaphore::new(SPARE_HANDS));
    let freed = Arc::new(Notify::new());
    let mut running = JoinSet::new();
    while !stop.is_cancelled() {
        while running.try_join_next().is_some() {}
        let hands = Hands::free(&ordinary, &spare, settings.per_bot);
        let claimed = claim(&services, &settings, &in_hand, hands).await;
        // Said once a second at most while the database is away.
        let look_again = if claimed.is_ok() { LOOK_AGAIN } else { SOON };
        let claimed = claimed.unwrap_or_else(|error| {
            error!(error = %error, "Jobs could not be taken");
            Vec::new()
        });
        let taken = claimed.len();
        for job in claimed {
            let Some(permit) = hand(&job, &ordinary, &spare).await else {
                break;
            };
            let (runtime, services, in_hand) = (runtime.clone(), services.clone(), in_hand.clone());
            let cancel = CancellationToken::new();
            let held = Held {
                bot: job.bot,
                overtakes: job.overtakes,
                cancel: cancel.clone(),
                abort: None,
            };
            lock(&in_hand).insert(job.token, held);
            let freed = freed.clone();
            running.spawn(async move {
                work(&runtime, &services, &in_hand, job, cancel).await;
                drop(permit);
                freed.notify_one();
            });
        }
        // Whether there may be more that is not taken for want of hands.
        let short = taken >= hands.limit || hands.which != Which::All || is_full(&in_hand, settings.per_bot);
        if taken == 0 || !short {
            tokio::select! {
                () = stop.cancelled() => {}
                () = queue.work_arrived() => {}
                () = freed.notified(), if short => {}
                () = tokio::time::sleep(look_again) => {}
            }
        }
        metrics::gauge!("botdeck_jobs_running").set(lossy(running.len()));
    }
    finish(running, settings.grace, &services, &in_hand).await;
    keepers.cancel();
    while keeping.join_next().await.is_some() {}
    info!(worker = %settings.worker, "Worker {} has stopped", settings.worker);
}

/// What may be taken now.
#[derive(Clone, Copy)]
struct Hands {
    which: Which,
    limit: usize,
}

impl Hands {
    fn free(ordinary: &Semaphore, spare: &Semaphore, per_bot: usize) -> Self {
        let (which, free) = match (ordinary.available_permits(), spare.available_permits()) {
            (0, spare) => (Which::Overtaking, spare),
            (ordinary, 0) => (Which::Ordinary, ordinary),
            (ordinary, _) => (Which::All, ordinary),
        };
        // A bot with nothing in hand has room for all that comes in one go.
        Self {
            which,
            limit: free.min(per_bot).min(32),
        }
    }
}

/// Takes what there are hands for.
async fn claim(
    services: &Services,
    settings: &RunnerSettings,
    in_hand: &InHand,
    hands: Hands,
) -> Result<Vec<Claimed>, services::Error> {
    if hands.limit == 0 {
        return Ok(Vec::new());
    }
    let limit = i64::try_from(hands.limit).unwrap_or(i64::MAX);
    let room = room(in_hand, settings.per_bot);
    services
        .queue()
        .claim(&settings.worker, limit, hands.which, &room)
        .await
}

/// Whether of some bot nothing more is taken.
fn is_full(in_hand: &InHand, per_bot: usize) -> bool {
    room(in_hand, per_bot)
        .iter()
        .any(|room| room.ordinary == 0 || room.overtaking == 0)
}

/// What overtakes takes a spare hand if one is left; when it is all that was taken, there are as many.
async fn hand(job: &Claimed, ordinary: &Arc<Semaphore>, spare: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    if job.overtakes
        && let Ok(hand) = spare.clone().try_acquire_owned()
    {
        return Some(hand);
    }
    ordinary.clone().acquire_owned().await.ok()
}

/// Works one job off. A panic in it is that job's failure and nobody else's.
async fn work(runtime: &Runtime, services: &Services, in_hand: &InHand, job: Claimed, cancel: CancellationToken) {
    let token = job.token;
    let started = std::time::Instant::now();
    let handled = tokio::spawn({
        let (runtime, job) = (runtime.clone(), job.clone());
        async move { runtime.handle(job, cancel).await.1 }
    });
    if let Some(held) = lock(in_hand).get_mut(&token) {
        held.abort = Some(handled.abort_handle());
    }
    let ended = handled.await.unwrap_or_else(|end| {
        // Stopped where it was, by a process that ends: that is not its fault.
        if end.is_cancelled() {
            return Ended::Retry {
                after: Some(Duration::ZERO),
                error: "the worker stopped".to_owned(),
            };
        }
        error!(job.id = %job.id, "A job panicked");
        // Not its words: they may hold what somebody wrote.
        Ended::Crashed {
            error: "panic".to_owned(),
        }
    });
    let outcome = outcome(&ended);
    // A short absence of the database must not make a finished job run again.
    for pause in [100, 300, 1000, 1000, 1500, 1500, 0] {
        match services.queue().end(&job, ended.clone()).await {
            Ok(true) => break,
            Ok(false) => {
                debug!(job.id = %job.id, "A job was ended by somebody else");
                break;
            }
            Err(error) => warn!(job.id = %job.id, error = %error, "A job could not be ended"),
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    lock(in_hand).remove(&token);
    metrics::counter!("botdeck_jobs_total", "outcome" => outcome).increment(1);
    metrics::histogram!("botdeck_job_seconds").record(started.elapsed().as_secs_f64());
}

fn outcome(ended: &Ended) -> &'static str {
    match ended {
        Ended::Done | Ended::Delivered(_) => "done",
        Ended::Retry { .. } | Ended::Crashed { .. } => "retry",
        Ended::Dead { .. } => "dead",
        Ended::Returned => "returned",
    }
}

/// Renews all leases with one statement; a job whose lease is lost is stopped, since another worker has it.
async fn keep_leases(services: Services, in_hand: InHand, stop: CancellationToken) {
    let mut pause = LEASE / 3;
    while sleep_or_stop(pause, &stop).await {
        pause = LEASE / 3;
        let tokens: Vec<Uuid> = lock(&in_hand).keys().copied().collect();
        if tokens.is_empty() {
            continue;
        }
        match in_time(PATIENCE, services.queue().renew(&tokens)).await {
            Ok(kept) => {
                let held = lock(&in_hand);
                for token in tokens.iter().filter(|token| !kept.contains(token)) {
                    if let Some(held) = held.get(token) {
                        held.cancel.cancel();
                    }
                }
            }
            Err(error) => {
                warn!(error = %error, "Leases could not be renewed");
                pause = SOON;
            }
        }
    }
}

/// Finds the jobs that somebody wants stopped, on whichever replica that was said.
async fn watch_stops(services: Services, in_hand: InHand, stop: CancellationToken) {
    while sleep_or_stop(LOOK_FOR_STOPS, &stop).await {
        let tokens: Vec<Uuid> = lock(&in_hand)
            .iter()
            .filter(|(_, held)| !held.cancel.is_cancelled())
            .map(|(token, _)| *token)
            .collect();
        if tokens.is_empty() {
            continue;
        }
        match services.queue().cancelled(&tokens).await {
            Ok(wanted) => {
                let held = lock(&in_hand);
                wanted
                    .iter()
                    .filter_map(|token| held.get(token))
                    .for_each(|held| held.cancel.cancel());
            }
            Err(error) => warn!(error = %error, "It could not be seen which jobs are to stop"),
        }
    }
}

async fn recover(services: Services, stop: CancellationToken) {
    let mut absent = false;
    loop {
        let mut pause = RECOVER_EVERY;
        if absent {
            let back = async { Ok(services.database().ping().await?) };
            absent = in_time(PATIENCE, back).await.is_err();
            if !absent {
                // The living could not renew their leases either: now they come first.
                pause = LEASE;
            }
        } else if let Err(error) = in_time(LEASE, services.queue().recover()).await {
            warn!(error = %error, "Jobs of workers that went away could not be recovered");
            absent = true;
        }
        if !sleep_or_stop(pause, &stop).await {
            return;
        }
    }
}

/// What does not end in time goes back to the queue at once, for another worker; the reservation and what was shown are kept.
async fn finish(mut running: JoinSet<()>, grace: Duration, services: &Services, in_hand: &InHand) {
    if running.is_empty() {
        return;
    }
    info!(
        jobs = running.len(),
        "{} running jobs get {} s to end",
        running.len(),
        grace.as_secs()
    );
    let all = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, all).await.is_ok() {
        return;
    }
    // Nothing of them may go on while another worker has them.
    let left: Vec<(Uuid, Held)> = lock(in_hand).drain().collect();
    left.iter()
        .filter_map(|(_, held)| held.abort.as_ref())
        .for_each(AbortHandle::abort);
    running.shutdown().await;
    let left: Vec<Uuid> = left.into_iter().map(|(token, _)| token).collect();
    warn!(
        jobs = left.len(),
        "{} jobs did not end in time; others go on with them",
        left.len()
    );
    if let Err(error) = services.queue().hand_over(&left).await {
        warn!(error = %error, "They could not be handed over; others take them when their leases run out");
    }
}

/// How many more jobs may be taken of each bot that has some in hand.
fn room(in_hand: &InHand, per_bot: usize) -> Vec<Room> {
    let mut counts: HashMap<BotId, (usize, usize)> = HashMap::new();
    for held in lock(in_hand).values() {
        let (ordinary, overtaking) = counts.entry(held.bot).or_default();
        *if held.overtakes { overtaking } else { ordinary } += 1;
    }
    let left = |most: usize, count| i64::try_from(most.saturating_sub(count)).unwrap_or(i64::MAX);
    counts
        .into_iter()
        .map(|(bot, (ordinary, overtaking))| Room {
            bot,
            ordinary: left(per_bot, ordinary),
            overtaking: left(SPARE_HANDS_PER_BOT, overtaking),
        })
        .collect()
}

/// A database that does not answer is as bad as one that says no.
async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, services::Error>>,
) -> Result<T, services::Error> {
    let late = |_| Err(services::Error::Internal("the database does not answer"));
    tokio::time::timeout(patience, work).await.unwrap_or_else(late)
}

async fn sleep_or_stop(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}

fn lock(in_hand: &InHand) -> std::sync::MutexGuard<'_, HashMap<Uuid, Held>> {
    in_hand.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::cast_precision_loss, reason = "a number of jobs is far below 2^52")]
fn lossy(count: usize) -> f64 {
    count as f64
}
