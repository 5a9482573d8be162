//! Calls of one key that come at once are admitted together. One by one they would queue for the same rows, and each would hold them
//! while its statements go to and fro; so whoever comes while others are being admitted waits for the next round, which takes all that
//! wait in one statement. Different keys do not wait for each other here.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use domain::{ApiKeyId, ReservationId, Scope};
use repositories::counters::{self, Bound, Taking};
use tokio::sync::oneshot;

use super::{Refusal, Wanted, affordable, amount};
use crate::{Error, Services};

/// Calls of one round.
const ROUND: usize = 256;

/// What a call wants that no job stands behind.
pub(super) struct Wish {
    pub call: ReservationId,
    /// On what it counts.
    pub pairs: Vec<(Scope, String)>,
    pub wanted: Wanted,
    pub expires_at: DateTime<Utc>,
}

/// A call for which there is room in all budgets.
pub(super) struct Admitted {
    /// The tokens that its answer may have.
    pub answer: u32,
    /// Something was set aside.
    pub held: bool,
    /// What applies to it, as it was before it.
    pub bounds: Vec<Bound>,
}

type Decision = Result<Admitted, Refusal>;

struct Waiting {
    wish: Wish,
    answer: oneshot::Sender<Result<Decision, Error>>,
}

/// Who waits, by key. A lane that is here is being worked on.
#[derive(Default)]
pub(crate) struct Lanes(Mutex<HashMap<Option<ApiKeyId>, Vec<Waiting>>>);

impl Lanes {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Option<ApiKeyId>, Vec<Waiting>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// True when nobody works on this lane so far.
    fn enter(&self, key: Option<ApiKeyId>, waiting: Waiting) -> bool {
        self.with(|lanes| {
            let is_new = !lanes.contains_key(&key);
            lanes.entry(key).or_default().push(waiting);
            is_new
        })
    }

    /// Those of the next round, the first to come first; with nobody there the lane is closed.
    fn next(&self, key: Option<ApiKeyId>) -> Option<Vec<Waiting>> {
        self.with(|lanes| {
            let lane = lanes.get_mut(&key)?;
            if lane.is_empty() {
                lanes.remove(&key);
                return None;
            }
            Some(lane.drain(..lane.len().min(ROUND)).collect())
        })
    }
}

/// Sets the budgets of a call aside, together with those of others that wait.
pub(super) async fn admit(services: &Services, key: Option<ApiKeyId>, wish: Wish) -> Result<Decision, Error> {
    let (answer, decision) = oneshot::channel();
    if services.lanes.enter(key, Waiting { wish, answer }) {
        // A task of its own: whoever came first may leave while others wait.
        tokio::spawn(work(services.clone(), key));
    }
    decision
        .await
        .unwrap_or(Err(Error::Internal("nobody decided about a call")))
}

async fn work(services: Services, key: Option<ApiKeyId>) {
    let lane = Lane { services, key };
    while let Some(waiting) = lane.services.lanes.next(key) {
        let (wishes, answers): (Vec<Wish>, Vec<_>) = waiting.into_iter().map(|one| (one.wish, one.answer)).unzip();
        let decisions = decide(&lane.services, &wishes).await;
        for (answer, decision) in answers.into_iter().zip(decisions) {
            // Whoever has left meanwhile: what was set aside is given back when it expires.
            let _ = answer.send(decision);
        }
    }
}

/// Closes the lane also when its worker panics, so that nobody waits there for ever.
struct Lane {
    services: Services,
    key: Option<ApiKeyId>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.services.lanes.with(|lanes| lanes.remove(&self.key));
        }
    }
}

/// One decision for each wish.
async fn decide(services: &Services, wishes: &[Wish]) -> Vec<Result<Decision, Error>> {
    match try_all(services, wishes).await {
        Ok(Some(decisions)) => return decisions.into_iter().map(Ok).collect(),
        // Nobody is helped by asking the database for each of them.
        Err(Error::Database(error)) if error.is_outage() => {
            let mut first = Some(error);
            let all = wishes
                .iter()
                .map(|_| first.take().unwrap_or_else(repositories::Error::outage));
            return all.map(|error| Err(error.into())).collect();
        }
        Ok(None) => {}
        Err(error) if wishes.len() == 1 => return vec![Err(error)],
        Err(_) => {}
    }
    // Not all of them fit, or one of them cannot be asked for: each by itself, in the order in which they came.
    let mut decisions = Vec::with_capacity(wishes.len());
    for wish in wishes {
        let decision = try_all(services, std::slice::from_ref(wish)).await;
        let decision = decision.map(|alone| alone.and_then(|mut alone| alone.pop()));
        decisions.push(decision.and_then(|decision| decision.ok_or(Error::Internal("a call without a decision"))));
    }
    decisions
}

/// Looks at what bounds these calls and sets their budgets aside in one statement. `None`: of several not all fit, since others have
/// taken from the same budgets meanwhile, and nothing was set aside.
async fn try_all(services: &Services, wishes: &[Wish]) -> Result<Option<Vec<Decision>>, Error> {
    let now = services.now();
    let mut db = services.db.acquire().await?;
    let mut pairs: Vec<(Scope, String)> = wishes.iter().flat_map(|wish| wish.pairs.iter().cloned()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let mut bounds = counters::bounds(&mut db, None, &pairs, now).await?;
    let (mut decisions, mut takings) = (Vec::with_capacity(wishes.len()), Vec::new());
    for wish in wishes {
        let applies = |bound: &Bound| {
            let mut pairs = wish.pairs.iter();
            pairs.any(|(scope, subject)| (*scope, subject) == (bound.scope, &bound.subject))
        };
        let own: Vec<Bound> = bounds.iter().filter(|bound| applies(bound)).cloned().collect();
        let answer = match affordable(&own, &wish.wanted) {
            Ok(answer) => answer,
            Err(refusal) => {
                decisions.push(Err(refusal));
                continue;
            }
        };
        let mut shares = Vec::new();
        for (place, bound) in bounds.iter_mut().enumerate() {
            if let Some(amount) = amount(bound, &wish.wanted, answer).filter(|_| applies(bound)) {
                // Those who come after it in this round find less.
                bound.reserved = bound.reserved.saturating_add(amount);
                shares.push((place, amount));
            }
        }
        decisions.push(Ok(Admitted {
            answer,
            held: !shares.is_empty(),
            bounds: own,
        }));
        takings.push(Taking {
            call: wish.call,
            expires_at: wish.expires_at,
            shares,
        });
    }
    let missing = counters::take(&mut db, &bounds, &takings, now).await?;
    match Refusal::longest(missing.iter().filter_map(|place| bounds.get(*place))) {
        None => Ok(Some(decisions)),
        Some(refusal) if wishes.len() == 1 => Ok(Some(vec![Err(refusal)])),
        Some(_) => Ok(None),
    }
}
