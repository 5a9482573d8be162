//! What is left of limits, as programs are told; and who has none, so that nobody asks for each of their calls.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use domain::{ApiKeyId, LimitKind, Measure};
use repositories::counters::Bound;

use super::{Limits, Refusal, Subject, Wanted, affordable, rate};
use crate::{Error, Services};

/// How long a replica goes on believing that nothing bounds a caller; so long may a first limit that was set elsewhere be unknown here.
const BELIEVED: Duration = Duration::from_secs(2);

/// What a limit has left after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headroom {
    pub kind: LimitKind,
    /// In the unit of the kind.
    pub limit: i64,
    pub left: i64,
    /// When all of it is there again; `None` for a total.
    pub resets_at: Option<DateTime<Utc>>,
}

/// A call that was refused, with what its program is told of the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub refusal: Refusal,
    /// What is left of the limits that apply.
    pub room: Vec<Headroom>,
    /// Only what others have set aside stands in its way: there may be room as soon as they end.
    pub is_passing: bool,
}

impl Limits {
    /// Looks again at what bounds a call that was refused.
    pub(crate) async fn explain(
        &self,
        subject: &Subject<'_>,
        wanted: &Wanted,
        refusal: Refusal,
    ) -> Result<Refused, Error> {
        let now = self.0.now();
        let bounds = super::bounds(&mut *self.0.db.acquire().await?, subject, now).await?;
        let room = rooms(&self.0, &bounds, (0, 0), now).await;
        let is_budget = refusal.limit.is_some_and(|reached| !reached.kind.is_rate());
        let unreserved: Vec<Bound> = bounds.into_iter().map(|bound| Bound { reserved: 0, ..bound }).collect();
        Ok(Refused {
            is_passing: is_budget && affordable(&unreserved, wanted).is_ok(),
            refusal,
            room,
        })
    }
}

/// Of limits on requests and tokens. `tokens`: what the call has set aside. A rate that nobody knows while Redis is away is left out.
pub(super) async fn left(services: &Services, bounds: &[Bound], tokens: i64, now: DateTime<Utc>) -> Vec<Headroom> {
    rooms(services, bounds, (1, tokens), now).await
}

/// `taken`: requests and tokens that are in none of the bounds yet.
async fn rooms(
    services: &Services,
    bounds: &[Bound],
    (requests, tokens): (i64, i64),
    now: DateTime<Utc>,
) -> Vec<Headroom> {
    let mut rooms = Vec::new();
    for bound in bounds {
        let Some(limit) = bound.cap else { continue };
        let taken = match bound.kind.measure() {
            Measure::Messages => requests,
            Measure::Tokens => tokens,
            Measure::Money | Measure::Images => continue,
        };
        let (left, resets_at) = match rate(bound) {
            None => (limit - bound.used - bound.reserved - taken, bound.resets_at),
            Some(rate) => match services.rate.left(&rate).await {
                Some((left, full_in)) => (left, Some(now + full_in)),
                None => continue,
            },
        };
        rooms.push(Headroom {
            kind: bound.kind,
            limit,
            left: left.max(0),
            resets_at,
        });
    }
    rooms
}

/// Callers for whom no limit was found a moment ago.
#[derive(Default)]
pub(crate) struct NoLimits(Mutex<HashMap<(ApiKeyId, String), Instant>>);

impl NoLimits {
    pub(super) fn knows(&self, subject: &Subject<'_>) -> bool {
        let Some(caller) = caller(subject) else {
            return false;
        };
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&caller).is_some_and(|at| at.elapsed() < BELIEVED)
    }

    pub(super) fn note(&self, subject: &Subject<'_>) {
        let Some(caller) = caller(subject) else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, at| at.elapsed() < BELIEVED);
        known.insert(caller, Instant::now());
    }

    /// Some limit was set in this process.
    pub(super) fn forget(&self) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
    }
}

/// Only of programs: there are few keys and few names of models, so this stays small.
fn caller(subject: &Subject<'_>) -> Option<(ApiKeyId, String)> {
    match *subject {
        Subject {
            user: None,
            bot: None,
            key: Some(key),
            model: Some(model),
        } => Some((key, model.to_owned())),
        _ => None,
    }
}
