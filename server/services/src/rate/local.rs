//! The count of one process while Redis is away: its share of what is allowed, by how many replicas live.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use domain::{ReservationId, UserId};

use super::{KEPT, WINDOW};

/// The count of this process alone.
#[derive(Default)]
pub(super) struct Local {
    /// Sorted by time.
    windows: HashMap<UserId, Vec<(i64, ReservationId)>>,
    /// Until when all that was admitted would be through at an even pace.
    paces: HashMap<String, Instant>,
}

impl Local {
    /// When there is room again in the user's window; `None`: now.
    pub(super) fn window(&mut self, user: UserId, call: ReservationId, at: i64, share: Share) -> Option<i64> {
        let (limit, window) = share.window();
        let seen = self.windows.entry(user).or_default();
        seen.retain(|(then, _)| at - then < KEPT.max(window));
        if seen.iter().any(|(_, known)| *known == call) {
            return None;
        }
        let mut with = seen.clone();
        let place = with.partition_point(|(then, _)| *then <= at);
        with.insert(place, (at, call));
        let one_too_many = (place.saturating_sub(limit)..=place).any(|first| {
            let ends = first.checked_add(limit).and_then(|last| with.get(last));
            ends.zip(with.get(first))
                .is_some_and(|((last, _), (first, _))| last - first < window)
        });
        let newest = seen.iter().rev().nth(limit.wrapping_sub(1));
        one_too_many.then(|| newest.map_or(at, |(then, _)| *then) + window)
    }

    /// What has been used of the minute is forgotten.
    pub(super) fn forget(&mut self, user: UserId) {
        self.windows.remove(&user);
    }

    /// As [`forget`](Self::forget), of what goes at a pace.
    pub(super) fn forget_pace(&mut self, key: &str) {
        self.paces.remove(key);
    }

    pub(super) fn count(&mut self, user: UserId, call: ReservationId, at: i64) {
        if self.windows.len() > MOST {
            self.windows
                .retain(|_, seen| seen.last().is_some_and(|(last, _)| at - last < KEPT));
        }
        let seen = self.windows.entry(user).or_default();
        seen.retain(|(then, _)| at - then < KEPT);
        if !seen.iter().any(|(_, known)| *known == call) {
            let place = seen.partition_point(|(then, _)| *then <= at);
            seen.insert(place, (at, call));
        }
    }

    pub(super) fn pace(&mut self, key: &str, at: i64, share: Share, now: Instant) -> Option<i64> {
        let Some(step) = share.step() else {
            return Some(at + WINDOW);
        };
        let ahead = self.ahead(key, now) + step;
        let early = ahead.saturating_sub(MINUTE.max(step) + Duration::from_micros(1));
        (!early.is_zero()).then(|| at + i64::try_from(early.as_millis()).unwrap_or(WINDOW) + 1)
    }

    /// Of what Redis lets through more may be counted than is a share: a share is used up then, and no more.
    pub(super) fn count_paced(&mut self, key: &str, share: Share, now: Instant) {
        if self.paces.len() > MOST {
            self.paces.retain(|_, through| *through > now);
        }
        let step = share.step().unwrap_or(MINUTE);
        let ahead = (self.ahead(key, now) + step).min(MINUTE.max(step));
        self.paces.insert(key.to_owned(), now + ahead);
    }

    fn ahead(&self, key: &str, now: Instant) -> Duration {
        let through = self.paces.get(key);
        through.map_or(Duration::ZERO, |through| through.saturating_duration_since(now))
    }
}

/// Of users and of what they share; of more, those are forgotten that have been quiet.
const MOST: usize = 10_000;

const MINUTE: Duration = Duration::from_secs(60);

/// As many replicas are reckoned with at least: another one may have come a moment ago.
pub(super) const FEWEST_REPLICAS: u32 = 2;

/// What one of several replicas may let through alone.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) limit: i64,
    pub(super) replicas: u32,
}

impl Share {
    /// So many within so many milliseconds: in a minute, or one in a longer time where the share is less than one a minute.
    fn window(self) -> (usize, i64) {
        let replicas = i64::from(self.replicas);
        match self.limit {
            ..=0 => (0, WINDOW),
            limit if limit < replicas => (1, (WINDOW * replicas + limit - 1) / limit),
            limit => (usize::try_from(limit / replicas).unwrap_or(usize::MAX), WINDOW),
        }
    }

    /// The time that one request takes at an even pace; `None`: nothing passes.
    fn step(self) -> Option<Duration> {
        let limit = u32::try_from(self.limit.max(0)).unwrap_or(u32::MAX);
        (limit > 0).then(|| MINUTE * self.replicas / limit)
    }
}
