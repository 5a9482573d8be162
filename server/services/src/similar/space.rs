//! The vectors of a space in memory: read from their rows when they are first asked for, then followed.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::Likeness;
use gateway::CacheKey;
use repositories::similar::{self as rows, Compared};
use tokio::sync::Mutex as AsyncMutex;
use uuid::Uuid;

use super::Looked;
use crate::{Error, Services};

/// Answers of each bot that are kept, and of each space that are compared.
pub(super) const MOST: i64 = 10_000;
/// All vectors in this process; the spaces that were asked in longest ago go first.
const MOST_BYTES: usize = 64 * 1024 * 1024;
const MOST_SPACES: usize = 10_000;
/// How long what another replica has written may be unknown here.
const BELIEVED: Duration = Duration::from_secs(2);
/// Rows of so long a transaction may appear behind newer ones.
const OVERLAP: TimeDelta = TimeDelta::minutes(1);

/// The spaces that this process is asked in.
#[derive(Default)]
pub(crate) struct Spaces(Mutex<HashMap<CacheKey, Held>>);

struct Held {
    space: Space,
    asked: Instant,
}

/// One space; clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Space {
    vectors: Arc<AsyncMutex<Vectors>>,
    bytes: Arc<AtomicUsize>,
    /// Something was written here that has not been read yet.
    stale: Arc<AtomicBool>,
}

#[derive(Default)]
struct Vectors {
    read: Option<Instant>,
    /// Oldest first.
    entries: Vec<Compared>,
}

impl Spaces {
    fn held(&self) -> MutexGuard<'_, HashMap<CacheKey, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The space as its rows are now, or were a moment ago.
    pub(super) async fn fresh(&self, services: &Services, key: CacheKey) -> Result<Space, Error> {
        let space = {
            let mut held = self.held();
            let one = held.entry(key).or_insert_with(|| Held {
                space: Space::default(),
                asked: Instant::now(),
            });
            one.asked = Instant::now();
            one.space.clone()
        };
        if space.follow(services, key).await? {
            self.make_room();
        }
        Ok(space)
    }

    /// What was written for a space in this process is to be read before anything is compared in it again.
    pub(crate) fn changed(&self, looked: &Looked) {
        if let Some(held) = self.held().get(looked.space()) {
            held.space.stale.store(true, Ordering::Relaxed);
        }
    }

    fn make_room(&self) {
        let mut held = self.held();
        let bytes = |held: &HashMap<CacheKey, Held>| -> usize {
            held.values().map(|one| one.space.bytes.load(Ordering::Relaxed)).sum()
        };
        while held.len() > 1 && (held.len() > MOST_SPACES || bytes(&held) > MOST_BYTES) {
            let oldest = held.iter().min_by_key(|(_, one)| one.asked).map(|(key, _)| *key);
            let Some(oldest) = oldest else { return };
            held.remove(&oldest);
        }
    }
}

impl Space {
    /// True when something new was read.
    async fn follow(&self, services: &Services, key: CacheKey) -> Result<bool, Error> {
        let mut vectors = self.vectors.lock().await;
        let is_fresh = vectors.read.is_some_and(|at| at.elapsed() < BELIEVED);
        if is_fresh && !self.stale.swap(false, Ordering::Relaxed) {
            return Ok(false);
        }
        let (began, now) = (Instant::now(), services.now());
        let since = vectors.entries.last().map(|entry| entry.created_at - OVERLAP);
        let mut db = services.db.acquire().await?;
        let rows = rows::load(&mut db, &key, since, now, MOST).await?;
        drop(db);
        vectors.read = Some(began);
        let changed = vectors.take(rows, now);
        self.bytes.store(vectors.bytes(), Ordering::Relaxed);
        Ok(changed)
    }

    /// The entry that points most nearly the same way.
    pub(super) async fn nearest(&self, vector: Vec<f32>, now: DateTime<Utc>) -> Option<(Uuid, Likeness)> {
        let vectors = Arc::clone(&self.vectors).lock_owned().await;
        // Some milliseconds of a full space: others are not to wait for them.
        let found = tokio::task::spawn_blocking(move || vectors.nearest(&vector, now));
        found.await.ok().flatten()
    }
}

impl Vectors {
    /// Takes rows, the newest of which come first, and lets go of what is over.
    fn take(&mut self, rows: Vec<Compared>, now: DateTime<Utc>) -> bool {
        let overlap = rows.last().map(|row| row.created_at);
        let known: Vec<Uuid> = self
            .entries
            .iter()
            .rev()
            .take_while(|entry| overlap.is_some_and(|overlap| entry.created_at >= overlap))
            .map(|entry| entry.id)
            .collect();
        let before = self.entries.len();
        self.entries
            .extend(rows.into_iter().rev().filter(|row| !known.contains(&row.id)));
        let changed = self.entries.len() > before;
        if changed {
            self.entries.sort_by_key(|entry| entry.created_at);
        }
        self.entries.retain(|entry| entry.expires_at > now);
        let most = usize::try_from(MOST).unwrap_or(usize::MAX);
        self.entries.drain(..self.entries.len().saturating_sub(most));
        changed
    }

    fn bytes(&self) -> usize {
        let vectors: usize = self.entries.iter().map(|entry| size_of_val(&*entry.vector)).sum();
        vectors + self.entries.len() * size_of::<Compared>()
    }

    fn nearest(&self, vector: &[f32], now: DateTime<Utc>) -> Option<(Uuid, Likeness)> {
        self.entries
            .iter()
            .filter(|entry| entry.expires_at > now && entry.vector.len() == vector.len())
            .map(|entry| (entry.id, cosine(&entry.vector, vector)))
            .max_by(|one, other| one.1.total_cmp(&other.1))
            .map(|(id, cosine)| (id, Likeness::of_cosine(cosine)))
    }
}

/// Of two vectors of unit length and the same size. Eight sums side by side, which the processor adds at once.
fn cosine(one: &[f32], other: &[f32]) -> f32 {
    let (ones, rest) = one.as_chunks::<8>();
    let (others, other_rest) = other.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for (one, other) in ones.iter().zip(others) {
        for (sum, (one, other)) in sums.iter_mut().zip(one.iter().zip(other)) {
            *sum += one * other;
        }
    }
    let rest: f32 = rest.iter().zip(other_rest).map(|(one, other)| one * other).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u128, vector: &[f32], seconds: i64) -> Compared {
        Compared {
            id: Uuid::from_u128(n),
            vector: vector.into(),
            created_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds),
            expires_at: DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds + 100),
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    #[test]
    fn the_nearest_is_found_among_those_that_hold_and_fit() {
        let mut vectors = Vectors::default();
        assert!(vectors.take(vec![row(2, &[0.0, 1.0], 50), row(1, &[1.0, 0.0], 0)], at(60)));
        let nearest = |vectors: &Vectors, seconds| vectors.nearest(&[0.8, 0.6], at(seconds));
        assert_eq!(
            nearest(&vectors, 60),
            Some((Uuid::from_u128(1), Likeness::of_thousandths(800)))
        );
        assert_eq!(
            nearest(&vectors, 120),
            Some((Uuid::from_u128(2), Likeness::of_thousandths(600)))
        );
        assert_eq!(nearest(&vectors, 200), None);
        assert_eq!(vectors.nearest(&[1.0], at(60)), None);
        // Of two that are as near, the newer one.
        vectors.take(vec![row(3, &[1.0, 0.0], 55)], at(60));
        assert_eq!(nearest(&vectors, 60).map(|(id, _)| id), Some(Uuid::from_u128(3)));
    }

    #[test]
    fn rows_are_taken_once_also_those_that_come_late_and_go_with_their_time() {
        let mut vectors = Vectors::default();
        vectors.take(vec![row(1, &[1.0], 0), row(2, &[1.0], 0)], at(1));
        // Written a second before the last one was seen, and committed after it.
        assert!(vectors.take(vec![row(4, &[1.0], 20), row(3, &[1.0], 0), row(2, &[1.0], 0)], at(20)));
        assert!(!vectors.take(vec![row(4, &[1.0], 20)], at(21)));
        assert_eq!(vectors.entries.len(), 4);
        vectors.take(Vec::new(), at(110));
        assert_eq!(vectors.entries.len(), 1);
    }

    #[test]
    fn the_cosine_is_that_of_all_numbers() {
        let one: Vec<f32> = (0..19_u8).map(f32::from).collect();
        let plain: f32 = one.iter().map(|number| number * number).sum();
        assert!((cosine(&one, &one) - plain).abs() < 0.5, "{plain}");
    }
}
