//! Budgets of calls to come, leased in blocks. A key that is in heavy use would wait for a statement with each of its calls; so this
//! replica sets the next ones aside ahead, as calls like those before, and gives out what it holds. Each is a reservation as any other:
//! no limit is overshot, a call that got one is settled by what it used, and of a replica that dies they expire.
//!
//! A block is short-lived, so that it holds nothing back for long; it is no more than a small part of what is left, and near its end a
//! budget is taken call by call; and nobody is refused what lies here unused. When limits change or the database was away, all is given
//! back.

use std::{
    collections::{HashMap, VecDeque},
    slice,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{ApiKeyId, Money, ReservationId, Scope};
use repositories::counters::Bound;
use uuid::Uuid;

use super::{
    Wanted, amount,
    together::{self, Admitted, Decision, Pairs, Wish},
};
use crate::{Error, Services, Use};

/// How long a block is given out.
const LIFE: Duration = Duration::from_secs(1);
/// A block is what comes in this time. Half of it is left when the next is fetched.
const AHEAD: Duration = Duration::from_millis(400);
const MOST: u32 = 256;
/// With fewer calls a second each asks for itself.
const BUSY: f64 = 20.0;
/// A block holds no more than this part of what is left of any budget.
const PART: i64 = 16;
/// A budget that lasts for less than this at the present rate is taken call by call, so that all of it can be had on any replica.
const LASTS: Duration = Duration::from_secs(3);
/// Calls of different sizes have blocks of their own.
const MOST_BLOCKS: usize = 4;
/// The prompts of calls differ: room is leased up to the next multiple.
const TOKENS: i64 = 256;
/// Over how long calls are counted.
const COUNTED: Duration = Duration::from_secs(1);
/// Keys and names of models in heavy use at once; others ask for each call.
const MOST_LANES: usize = 1000;

/// What this replica holds for calls to come, by what they count on.
#[derive(Default)]
pub(crate) struct Leases(Mutex<State>);

#[derive(Default)]
struct State {
    lanes: HashMap<Pairs, Lane>,
    /// How often everything was called back.
    recalls: u64,
}

struct Lane {
    counted_since: Instant,
    calls: u32,
    /// Of the period before.
    per_second: f64,
    /// Since when the next block is being fetched.
    fetching: Option<Instant>,
    /// The oldest first.
    blocks: VecDeque<Block>,
    next: u64,
}

struct Block {
    number: u64,
    /// Each call of it may be as large as this.
    wanted: Wanted,
    until: Instant,
    /// In the order in which they were set aside.
    calls: VecDeque<Admitted>,
}

/// A block is to be fetched.
struct Errand {
    /// For so many calls.
    count: u32,
    /// A budget has to have room for so many.
    lasting: u32,
    /// From when on it lives: before it was asked for.
    at: Instant,
    /// How often everything had been called back by then.
    recalls: u64,
}

impl Errand {
    fn ends(&self) -> Instant {
        self.at + LIFE
    }
}

impl Lane {
    fn new(now: Instant) -> Self {
        Self {
            counted_since: now,
            calls: 0,
            per_second: 0.0,
            fetching: None,
            blocks: VecDeque::new(),
            next: 0,
        }
    }

    fn count(&mut self, now: Instant) {
        self.calls += 1;
        let over = now.duration_since(self.counted_since);
        if over >= COUNTED {
            self.per_second = f64::from(self.calls) / over.as_secs_f64();
            (self.counted_since, self.calls) = (now, 0);
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.blocks.is_empty() && !self.is_fetching(now) && now.duration_since(self.counted_since) > COUNTED * 2
    }

    /// Whoever fetches for longer has come to grief.
    fn is_fetching(&self, now: Instant) -> bool {
        self.fetching.is_some_and(|since| now.duration_since(since) < LIFE * 10)
    }

    /// How many come in a time at the present rate.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates, which is what is wanted"
    )]
    fn come_in(&self, time: Duration) -> u32 {
        (self.per_second * time.as_secs_f64()).ceil() as u32
    }

    /// How many calls the next block is for, when it is time to fetch it.
    fn missing(&self, wanted: &Wanted, now: Instant) -> Option<u32> {
        let count = self.come_in(AHEAD).min(MOST);
        let fitting = self.blocks.iter().filter(|block| block.fits(wanted));
        let held: usize = fitting.map(|block| block.calls.len()).sum();
        let is_time = !self.is_fetching(now) && self.blocks.len() < MOST_BLOCKS && held <= count as usize / 2;
        (is_time && self.per_second >= BUSY).then_some(count)
    }
}

impl Block {
    fn fits(&self, wanted: &Wanted) -> bool {
        let Some(call) = self.calls.front() else { return false };
        call.bounds.iter().all(|bound| {
            let needs = amount(bound, wanted, wanted.answer);
            needs.is_none_or(|needs| amount(bound, &self.wanted, self.wanted.answer).is_some_and(|has| needs <= has))
        })
    }

    fn unused(self) -> Vec<ReservationId> {
        self.calls
            .into_iter()
            .filter(|call| call.held)
            .map(|call| call.call)
            .collect()
    }

    /// Its windows and boosts are those of now.
    fn holds(&self, at: Instant, now: DateTime<Utc>) -> bool {
        let ends = |bound: &Bound| {
            [bound.resets_at, bound.boosted_until]
                .into_iter()
                .flatten()
                .any(|end| end <= now)
        };
        at < self.until && self.calls.front().is_some_and(|call| !call.bounds.iter().any(ends))
    }
}

impl Leases {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that is held for such a wish; and the errand for the next block, if it is time for that.
    fn take(
        &self,
        pairs: &Pairs,
        wanted: &Wanted,
        at: Instant,
        now: DateTime<Utc>,
    ) -> (Option<Admitted>, Option<Errand>) {
        let State { lanes, recalls } = &mut *self.state();
        if !lanes.contains_key(pairs) {
            if lanes.len() >= MOST_LANES {
                lanes.retain(|_, lane| !lane.is_idle(at));
            }
            if lanes.len() >= MOST_LANES {
                return (None, None);
            }
        }
        let lane = lanes.entry(pairs.clone()).or_insert_with(|| Lane::new(at));
        lane.count(at);
        let block = lane
            .blocks
            .iter_mut()
            .find(|block| block.holds(at, now) && block.fits(wanted));
        let call = block.and_then(|block| block.calls.pop_front());
        let errand = lane.missing(wanted, at).map(|count| Errand {
            count,
            lasting: lane.come_in(LASTS),
            at,
            recalls: *recalls,
        });
        if errand.is_some() {
            lane.fetching = Some(at);
        }
        let call = call.map(|call| Admitted {
            answer: wanted.answer,
            ..call
        });
        (call, errand)
    }

    /// What was fetched, if anything; its number, by which it is ended. If everything was called back meanwhile, this is not given out.
    fn put(&self, pairs: &Pairs, errand: &Errand, fetched: Option<(Wanted, Vec<Admitted>)>) -> Option<u64> {
        let State { lanes, recalls } = &mut *self.state();
        let lane = lanes.get_mut(pairs)?;
        lane.fetching = None;
        let (wanted, calls) = fetched?;
        let number = lane.next;
        lane.next += 1;
        lane.blocks.push_back(Block {
            number,
            wanted,
            until: if errand.recalls == *recalls {
                errand.ends()
            } else {
                errand.at
            },
            calls: calls.into(),
        });
        Some(number)
    }

    /// What is left of a block, which is given out no longer.
    fn end(&self, pairs: &Pairs, number: u64) -> Vec<ReservationId> {
        let mut state = self.state();
        let Some(lane) = state.lanes.get_mut(pairs) else {
            return Vec::new();
        };
        let place = lane.blocks.iter().position(|block| block.number == number);
        let ended = place.and_then(|place| lane.blocks.remove(place));
        ended.map(Block::unused).unwrap_or_default()
    }

    /// Everything that lies here unused and counts on any of these.
    fn recall(&self, pairs: &[(Scope, String)]) -> Vec<ReservationId> {
        self.unused(|lane| lane.iter().any(|pair| pairs.contains(pair)))
    }

    /// Everything: limits have changed, or the process stops.
    pub(crate) fn recall_all(&self) -> Vec<ReservationId> {
        self.unused(|_| true)
    }

    /// What is fetched just now is not given out either.
    fn unused(&self, of: impl Fn(&Pairs) -> bool) -> Vec<ReservationId> {
        let mut state = self.state();
        state.recalls += 1;
        let lanes = state.lanes.iter_mut().filter(|(pairs, _)| of(pairs));
        lanes
            .flat_map(|(_, lane)| lane.blocks.drain(..))
            .flat_map(Block::unused)
            .collect()
    }
}

/// Admits a call that no job stands behind: that of a program from what is held for it, or by asking.
pub(super) async fn admit(services: &Services, key: Option<ApiKeyId>, wish: Wish) -> Result<Decision, Error> {
    if let Some(call) = key.and_then(|_| held(services, &wish)) {
        return Ok(Ok(call));
    }
    let decision = together::admit(services, key, wish.clone()).await?;
    if decision.is_ok() || !spare(services, &wish.pairs).await {
        return Ok(decision);
    }
    together::admit(services, key, wish).await
}

/// A call that is held for such a wish. Sends for the next ones when it is time.
fn held(services: &Services, wish: &Wish) -> Option<Admitted> {
    let pairs = together::pairs(slice::from_ref(wish));
    let (held, errand) = services
        .leases
        .take(&pairs, &wish.wanted, Instant::now(), services.now());
    if let Some(errand) = errand {
        tokio::spawn(keep_block(services.clone(), pairs, wish.clone(), errand));
    }
    held
}

/// Before somebody is refused: gives back what lies here unused and counts on any of these. False when there was nothing, or it cannot
/// be done now.
pub(crate) async fn spare(services: &Services, pairs: &[(Scope, String)]) -> bool {
    let unused = services.leases.recall(pairs);
    if unused.is_empty() {
        return false;
    }
    let nothing: Vec<_> = unused.iter().map(|call| (*call, Use::default())).collect();
    let settled = services.limits().settle(&nothing).await;
    if settled.is_err() {
        services.call_log.give_back(unused);
    }
    settled.is_ok()
}

/// Fetches a block, and ends it when its time has come.
async fn keep_block(services: Services, pairs: Pairs, like: Wish, errand: Errand) {
    let wanted = room_for(&like.wanted);
    let fetched = match fetch(&services, &pairs, Wish { wanted, ..like }, &errand).await {
        Ok(calls) => (!calls.is_empty()).then_some((wanted, calls)),
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "Budgets could not be leased");
            None
        }
    };
    if let Some(number) = services.leases.put(&pairs, &errand, fetched) {
        tokio::time::sleep_until(errand.ends().into()).await;
        services.call_log.give_back(services.leases.end(&pairs, number));
    }
}

/// Sets so many calls aside, or as many as are a small part of what was left of each budget.
async fn fetch(services: &Services, pairs: &Pairs, like: Wish, errand: &Errand) -> Result<Vec<Admitted>, Error> {
    let Some(bounds) = services.lanes.remembered(pairs) else {
        return Ok(Vec::new());
    };
    let room = bounds.iter().filter_map(|bound| calls_left(bound, &like.wanted)).min();
    let count = match room {
        Some(room) if room < errand.lasting.into() => return Ok(Vec::new()),
        Some(room) => i64::from(errand.count).min(room / PART),
        None => errand.count.into(),
    };
    let life = TimeDelta::from_std(LIFE).unwrap_or(TimeDelta::zero());
    let wishes: Vec<Wish> = (0..count)
        .map(|_| Wish {
            call: ReservationId(Uuid::now_v7()),
            expires_at: like.expires_at + life,
            ..like.clone()
        })
        .collect();
    if wishes.is_empty() {
        return Ok(Vec::new());
    }
    let decisions = together::try_all(services, &wishes).await?.unwrap_or_default();
    // A call is not made shorter for having been foreseen.
    let (whole, shorter): (Vec<Admitted>, Vec<Admitted>) = decisions
        .into_iter()
        .flatten()
        .partition(|call| call.answer == like.wanted.answer);
    let shorter = shorter.into_iter().filter(|call| call.held).map(|call| call.call);
    services.call_log.give_back(shorter.collect());
    Ok(whole)
}

/// For how many such calls there is room; `None` where that does not matter.
fn calls_left(bound: &Bound, wanted: &Wanted) -> Option<i64> {
    let each = amount(bound, wanted, wanted.answer).filter(|each| *each > 0)?;
    Some(bound.left()?.max(0) / each)
}

/// A call like this one, with a prompt that may be somewhat longer.
fn room_for(wanted: &Wanted) -> Wanted {
    let tokens = wanted.tokens.saturating_add(TOKENS - 1) / TOKENS * TOKENS;
    let more = i128::from(wanted.cost.nanos()) * i128::from(tokens) / i128::from(wanted.tokens.max(1));
    let cost = if wanted.tokens > 0 {
        i64::try_from(more + 1).unwrap_or(i64::MAX)
    } else {
        wanted.cost.nanos()
    };
    Wanted {
        tokens,
        cost: Money::from_nanos(cost.max(wanted.cost.nanos())),
        ..*wanted
    }
}
