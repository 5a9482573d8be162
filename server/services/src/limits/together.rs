//! Calls of one key that come at once are admitted together. One by one they would queue for the same rows, and each would hold them
//! while its statements go to and fro; so whoever comes while others are being admitted waits for the next round, which takes all that
//! wait in one statement. Different keys do not wait for each other here.
//!
//! What bounded the round before is remembered, so that a round is mostly one statement: the one that takes, which also says whether
//! that is still right. Only where something has changed, or there may not be enough for all, the database is asked first.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use domain::{ApiKeyId, ReservationId, Scope};
use repositories::counters::{self, Before, Bound, Taken, Taking};
use tokio::sync::oneshot;

use super::{Refusal, Wanted, affordable, amount};
use crate::{Error, Services};

/// Calls of one round.
const ROUND: usize = 256;
/// Somebody changes limits just then, again and again.
const MOST_TRIES: usize = 8;

/// What a call wants that no job stands behind.
#[derive(Clone)]
pub(super) struct Wish {
    pub call: ReservationId,
    /// On what it counts.
    pub pairs: Vec<(Scope, String)>,
    pub wanted: Wanted,
    pub expires_at: DateTime<Utc>,
}

/// A call for which there is room in all budgets.
pub(super) struct Admitted {
    /// By which it is settled.
    pub call: ReservationId,
    /// The tokens that its answer may have.
    pub answer: u32,
    /// Something was set aside.
    pub held: bool,
    /// What applies to it, as it was before it.
    pub bounds: Vec<Bound>,
}

pub(super) type Decision = Result<Admitted, Refusal>;

struct Waiting {
    wish: Wish,
    answer: oneshot::Sender<Result<Decision, Error>>,
}

/// What calls count on.
pub(super) type Pairs = Vec<(Scope, String)>;

/// There are few keys and few names of models; who has more loses nothing but a statement.
const MOST_REMEMBERED: usize = 1000;

/// Who waits, by key. A lane that is here is being worked on.
#[derive(Default)]
pub(crate) struct Lanes {
    waiting: Mutex<HashMap<Option<ApiKeyId>, Vec<Waiting>>>,
    /// What bounded the last round that counted on the same.
    remembered: Mutex<HashMap<Pairs, Vec<Bound>>>,
}

impl Lanes {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Option<ApiKeyId>, Vec<Waiting>>) -> T) -> T {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn remembered(&self, pairs: &Pairs) -> Option<Vec<Bound>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(pairs).cloned()
    }

    fn remember(&self, pairs: Pairs, bounds: Vec<Bound>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(pairs, bounds);
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
            // A crash may have taken back what was leased.
            services.limits().changed();
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

/// What these calls count on, each once.
pub(super) fn pairs(wishes: &[Wish]) -> Pairs {
    let mut pairs: Pairs = wishes.iter().flat_map(|wish| wish.pairs.iter().cloned()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// Sets the budgets of these calls aside in one statement, by what is remembered where that will do. `None`: of several not all fit,
/// since others have taken from the same budgets meanwhile, and nothing was set aside.
pub(super) async fn try_all(services: &Services, wishes: &[Wish]) -> Result<Option<Vec<Decision>>, Error> {
    let mut db = services.db.acquire().await?;
    let pairs = pairs(wishes);
    let mut remembered = services.lanes.remembered(&pairs);
    for _ in 0..MOST_TRIES {
        let now = services.now();
        let from_memory = remembered.take();
        let is_fresh = from_memory.is_none();
        let bounds = match from_memory {
            Some(bounds) => bounds,
            None => counters::bounds(&mut db, None, &pairs, now).await?,
        };
        let plan = Plan::of(bounds, wishes);
        if !is_fresh && !plan.all_get_all(wishes) {
            continue;
        }
        if is_fresh && plan.takings.iter().all(|taking| taking.shares.is_empty()) {
            if !plan.bounds.is_empty() {
                services.lanes.remember(pairs, plan.bounds.clone());
            }
            return Ok(Some(plan.decisions(wishes, &[])));
        }
        match counters::take(
            &mut db,
            services.call_log.replica(),
            &pairs,
            &plan.bounds,
            &plan.takings,
            now,
        )
        .await?
        {
            Taken::All(before) => {
                services.lanes.remember(pairs, plan.after(&before));
                return Ok(Some(plan.decisions(wishes, &before)));
            }
            Taken::Missing(places) if is_fresh => {
                let refusal = Refusal::longest(places.iter().filter_map(|place| plan.bounds.get(*place)));
                return Ok(match refusal {
                    Some(refusal) if wishes.len() == 1 => Some(vec![Err(refusal)]),
                    _ => None,
                });
            }
            // By what the database says now.
            Taken::Missing(_) | Taken::Changed => {}
        }
    }
    Err(Error::Internal("limits change while they are looked at"))
}

/// What each call of a round gets, by what is known of the windows.
struct Plan {
    bounds: Vec<Bound>,
    /// In the order of the wishes: how long the answer may be, or why there is none.
    answers: Vec<Result<u32, Refusal>>,
    /// Of those that get an answer, in the same order.
    takings: Vec<Taking>,
}

impl Plan {
    fn of(bounds: Vec<Bound>, wishes: &[Wish]) -> Self {
        let mut left = bounds.clone();
        let (mut answers, mut takings) = (Vec::with_capacity(wishes.len()), Vec::new());
        for wish in wishes {
            let own: Vec<Bound> = left.iter().filter(|bound| applies(wish, bound)).cloned().collect();
            let answer = affordable(&own, &wish.wanted);
            if let Ok(answer) = answer {
                let shares = shares(wish, &left, answer);
                // Those who come after it in this round find less.
                reserve(&mut left, &shares);
                takings.push(Taking {
                    call: wish.call,
                    expires_at: wish.expires_at,
                    shares,
                });
            }
            answers.push(answer);
        }
        Self {
            bounds,
            answers,
            takings,
        }
    }

    /// Nobody is refused or gets a shorter answer, so that it does not matter how old the figures are.
    fn all_get_all(&self, wishes: &[Wish]) -> bool {
        let mut both = self.answers.iter().zip(wishes);
        both.all(|(answer, wish)| answer.as_ref() == Ok(&wish.wanted.answer))
    }

    /// The windows with what stood in them.
    fn before(&self, before: &[Before]) -> Vec<Bound> {
        let mut bounds = self.bounds.clone();
        for Before { place, used, reserved } in before {
            if let Some(bound) = bounds.get_mut(*place) {
                (bound.used, bound.reserved) = (*used, *reserved);
            }
        }
        bounds
    }

    fn after(&self, before: &[Before]) -> Vec<Bound> {
        let mut bounds = self.before(before);
        for taking in &self.takings {
            reserve(&mut bounds, &taking.shares);
        }
        bounds
    }

    fn decisions(self, wishes: &[Wish], before: &[Before]) -> Vec<Decision> {
        let mut bounds = self.before(before);
        let mut takings = self.takings.into_iter();
        let answers = self.answers.into_iter().zip(wishes);
        let decided = answers.map(|(answer, wish)| {
            let answer = answer?;
            let own = bounds.iter().filter(|bound| applies(wish, bound)).cloned().collect();
            let shares = takings.next().map(|taking| taking.shares).unwrap_or_default();
            reserve(&mut bounds, &shares);
            Ok(Admitted {
                call: wish.call,
                answer,
                held: !shares.is_empty(),
                bounds: own,
            })
        });
        decided.collect()
    }
}

fn applies(wish: &Wish, bound: &Bound) -> bool {
    let mut pairs = wish.pairs.iter();
    pairs.any(|(scope, subject)| (*scope, subject) == (bound.scope, &bound.subject))
}

/// The places of the windows that a call takes from, and how much.
fn shares(wish: &Wish, bounds: &[Bound], answer: u32) -> Vec<(usize, i64)> {
    let places = bounds.iter().enumerate();
    let own = places.filter(|(_, bound)| applies(wish, bound));
    own.filter_map(|(place, bound)| Some((place, amount(bound, &wish.wanted, answer)?)))
        .collect()
}

fn reserve(bounds: &mut [Bound], shares: &[(usize, i64)]) {
    for (place, amount) in shares {
        if let Some(bound) = bounds.get_mut(*place) {
            bound.reserved = bound.reserved.saturating_add(*amount);
        }
    }
}
