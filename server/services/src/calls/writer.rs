//! The task that writes: lines first, then what their calls have used is counted on the limits.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{ApiKeyId, ReservationId};
use repositories::{
    api_calls::{self, Line},
    api_keys,
};
use uuid::Uuid;

use super::{BEAT_EVERY, Entry, subject};
use crate::{Error, Services, Use};

/// A replica that has said nothing for so long takes no part in limits per minute any more.
const BEATS_MISSED: Duration = Duration::from_secs(30);
/// Between two attempts while the database is away.
const PAUSE: Duration = Duration::from_millis(500);
const NOTE_USE_EVERY: TimeDelta = TimeDelta::minutes(1);

/// Writes what has come together, and settles it.
pub(super) struct Writer {
    services: Services,
    asks: bool,
    /// Calls that were noted in a transaction before this one.
    noted: HashSet<Uuid>,
    /// When the use of each key was noted last.
    used: HashMap<ApiKeyId, DateTime<Utc>>,
    beaten: Option<Instant>,
    /// What could not be settled while the database was away.
    unsettled: Vec<(ReservationId, Use)>,
}

impl Writer {
    pub(super) fn new(services: Services, asks: bool) -> Self {
        Self {
            services,
            asks,
            noted: HashSet::new(),
            used: HashMap::new(),
            beaten: None,
            unsettled: Vec::new(),
        }
    }

    pub(super) async fn beat(&mut self) {
        if let Err(error) = self.try_beat().await {
            tracing::warn!(error = %error, "The calls of this replica could not be kept alive, trying again");
        }
        self.settle_rest().await;
    }

    async fn try_beat(&mut self) -> Result<(), Error> {
        let replica = self.services.call_log.replica;
        let missed = BEATS_MISSED.as_secs_f64();
        let live = api_calls::beat(&mut *self.services.db.acquire().await?, replica, self.asks, missed).await?;
        self.services.rate.set_replicas(live);
        self.beaten = Some(Instant::now());
        Ok(())
    }

    /// Until it is written, whatever the database says, but of a row itself: one that it refuses is left out and told of, since it
    /// would hold up all others. What comes meanwhile is bounded by the places.
    pub(super) async fn write(&mut self, batch: &mut Vec<Entry>) {
        let mut is_second = false;
        loop {
            let error = match self.try_write(batch).await {
                Ok(written) => {
                    self.settle(batch, &written).await;
                    break;
                }
                Err(error) => error,
            };
            if let Error::Database(refused) = &error
                && refused.refuses_row()
            {
                if self.isolate(batch, refused, is_second).await {
                    break;
                }
                is_second = true;
                continue;
            }
            // A crash may have taken back what was leased.
            self.services.limits().changed();
            tracing::warn!(error = %error, calls = batch.len(), "Calls could not be written, trying again");
            tokio::time::sleep(PAUSE).await;
        }
        batch.clear();
    }

    /// Writes what can be written of a batch in which a row was refused. False when all of it is to be tried once more.
    async fn isolate(&mut self, batch: &mut Vec<Entry>, error: &repositories::Error, is_second: bool) -> bool {
        if batch.len() > 1 {
            let mut rest = batch.split_off(batch.len() / 2);
            Box::pin(self.write(batch)).await;
            Box::pin(self.write(&mut rest)).await;
            return true;
        }
        if !is_second {
            // What it needs may be missing only now: its month, or its key, which was taken away under our hands.
            if error.lacks_partition()
                && let Err(error) = self.services.db.ensure_partitions().await
            {
                tracing::warn!(error = %error, "The month of a call could not be made");
            }
            return false;
        }
        match batch.first() {
            Some(Entry::Ended { line, .. }) => {
                self.noted.remove(&line.id);
                metrics::counter!("botdeck_api_calls_lost_total").increment(1);
                tracing::error!(error = error as &dyn std::error::Error, "A call could not be written");
            }
            // Its line is written all the same when it ends.
            Some(Entry::Begun(_)) => {
                tracing::warn!(error = error as &dyn std::error::Error, "A call could not be noted");
            }
            Some(Entry::Unused(_)) | None => {}
        }
        true
    }

    /// Counts what the calls whose lines were written now have used. A line that was there before was counted before, or is counted
    /// when what the call has set aside expires.
    async fn settle(&mut self, batch: &[Entry], written: &HashSet<Uuid>) {
        self.settle_rest().await;
        let ended: Vec<(&Line, Use)> = batch
            .iter()
            .filter_map(|entry| match entry {
                Entry::Ended { line, used, .. } if written.contains(&line.id) => Some((&**line, (*used)?)),
                _ => None,
            })
            .collect();
        let unused = batch.iter().filter_map(|entry| match entry {
            Entry::Unused(calls) => Some(calls),
            Entry::Begun(_) | Entry::Ended { .. } => None,
        });
        let nothing = unused.flatten().map(|call| (*call, Use::default()));
        let used = ended.iter().map(|(line, used)| (ReservationId(line.id), *used));
        let calls: Vec<_> = used.chain(nothing).collect();
        if calls.is_empty() {
            return;
        }
        if let Err(error) = self.try_settle(&ended, &calls).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                calls = calls.len(),
                "Calls could not be settled yet"
            );
            self.keep_unsettled(calls, &error);
        }
    }

    /// Settles what could not be settled before. What is set aside no more may have been settled then, with only the answer lost.
    pub(super) async fn settle_rest(&mut self) {
        let calls = std::mem::take(&mut self.unsettled);
        if calls.is_empty() {
            return;
        }
        if let Err(error) = self.services.limits().settle(&calls).await {
            self.keep_unsettled(calls, &error);
        }
    }

    /// Unless it is the database that is away, it is left to whoever settles what has expired.
    fn keep_unsettled(&mut self, calls: Vec<(ReservationId, Use)>, error: &Error) {
        if error.is_outage() {
            self.unsettled.extend(calls);
        }
    }

    async fn try_settle(&self, ended: &[(&Line, Use)], calls: &[(ReservationId, Use)]) -> Result<(), Error> {
        let limits = self.services.limits();
        let done: HashSet<ReservationId> = limits.settle(calls).await?.into_iter().collect();
        for (line, used) in ended.iter().filter(|(line, _)| !done.contains(&ReservationId(line.id))) {
            // It has run for longer than anything is set aside for, or a crash of the database has taken that back.
            limits.count_late(&subject(line.api_key_id, &line.alias), *used).await?;
        }
        Ok(())
    }

    /// The calls whose lines were not there before.
    async fn try_write(&mut self, batch: &mut [Entry]) -> Result<HashSet<Uuid>, Error> {
        if self.beaten.is_none_or(|at| at.elapsed() > BEAT_EVERY) {
            self.try_beat().await?;
        }
        let ended: HashSet<Uuid> = batch
            .iter()
            .filter_map(|entry| match entry {
                Entry::Ended { line, .. } => Some(line.id),
                Entry::Begun(_) | Entry::Unused(_) => None,
            })
            .collect();
        for entry in &mut *batch {
            if let Entry::Ended { line, .. } = entry {
                line.intended = self.noted.contains(&line.id);
            }
        }
        let (mut begun, mut lines) = (Vec::new(), Vec::new());
        for entry in &*batch {
            match entry {
                // Of one that has ended meanwhile nothing needs to be noted.
                Entry::Begun(intent) if ended.contains(&intent.id) => {}
                Entry::Begun(intent) => begun.push(intent),
                Entry::Ended { line, .. } => lines.push(&**line),
                Entry::Unused(_) => {}
            }
        }
        let now = self.services.now();
        let used: HashSet<ApiKeyId> = batch
            .iter()
            .filter_map(|entry| match entry {
                Entry::Begun(intent) => Some(intent.api_key_id),
                Entry::Ended { .. } | Entry::Unused(_) => None,
            })
            .filter(|key| self.used.get(key).is_none_or(|at| now - *at >= NOTE_USE_EVERY))
            .collect();
        if begun.is_empty() && lines.is_empty() {
            return Ok(HashSet::new());
        }
        let mut tx = self.services.db.begin().await?;
        if !begun.is_empty() {
            api_calls::begin(&mut tx, self.services.call_log.replica, &begun).await?;
        }
        let mut written = HashSet::new();
        if !lines.is_empty() {
            written.extend(api_calls::end(&mut tx, &lines).await?);
        }
        if !used.is_empty() {
            api_keys::used(&mut tx, &used.iter().copied().collect::<Vec<_>>(), now).await?;
        }
        tx.commit().await.map_err(repositories::Error::from)?;
        self.noted.extend(begun.iter().map(|intent| intent.id));
        for id in &ended {
            self.noted.remove(id);
        }
        self.used.extend(used.into_iter().map(|key| (key, now)));
        Ok(written)
    }
}
