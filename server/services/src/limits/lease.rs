//! Budgets of calls to come, leased in blocks. A key that is in heavy use would wait for a statement with each of its calls; so this
//! replica sets the next ones aside ahead, as calls like those before, and gives out what it holds. Each is a reservation as any other:
//! no limit is overshot, a call that got one is settled by what it used, and of a replica that dies they expire.
//!
//! A block is short-lived, so that it holds nothing back for long and a limit that was changed elsewhere is soon known; it is no more
//! than a small part of what is left, so that near its end a budget is taken call by call; and nobody is refused what lies here unused.

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

/// How long a block is given out. Within this a limit that was changed on another replica may not be known here.
const LIFE: Duration = Duration::from_secs(1);
/// A block is what comes in this time. Half of it is left when the next is fetched.
const AHEAD: Duration = Duration::from_millis(100);
const MOST: usize = 256;
/// Fewer are not worth a statement.
const LEAST: usize = 2;
/// A block holds no more than this part of what is left of any budget.
const PART: i64 = 16;
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
    /// Somebody fetches the next block.
    fetching: bool,
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
    count: usize,
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
            fetching: false,
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
        self.blocks.is_empty() && !self.fetching && now.duration_since(self.counted_since) > COUNTED * 2
    }

    /// How many calls the next block is for, when it is time to fetch it.
    fn missing(&self, wanted: &Wanted) -> Option<usize> {
        let count = (self.per_second * AHEAD.as_secs_f64()).clamp(0.0, MOST as f64) as usize;
        let held: usize = self
            .blocks
            .iter()
            .filter(|block| block.fits(wanted))
            .map(|block| block.calls.len())
            .sum();
        (!self.fetching && count >= LEAST && held <= count / 2).then_some(count)
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
        let errand = lane.missing(wanted).map(|count| Errand {
            count,
            at,
            recalls: *recalls,
        });
        lane.fetching |= errand.is_some();
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
        lane.fetching = false;
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
        self.unused(|lane, block| lane == pairs && block.number == number)
    }

    /// Everything that lies here unused and counts on this.
    fn recall(&self, scope: Scope, subject: &str) -> Vec<ReservationId> {
        self.unused(|lane, _| lane.iter().any(|pair| (pair.0, pair.1.as_str()) == (scope, subject)))
    }

    /// Everything: limits have changed, or the process stops.
    pub(crate) fn recall_all(&self) -> Vec<ReservationId> {
        self.state().recalls += 1;
        self.unused(|_, _| true)
    }

    fn unused(&self, of: impl Fn(&Pairs, &Block) -> bool) -> Vec<ReservationId> {
        let mut unused = Vec::new();
        for (pairs, lane) in &mut self.state().lanes {
            lane.blocks.retain_mut(|block| {
                let ends = of(pairs, block);
                if ends {
                    unused.extend(block.calls.drain(..).filter(|call| call.held).map(|call| call.call));
                }
                !ends
            });
        }
        unused
    }
}

/// Admits the call of a program: from what is held for it, or by asking.
pub(super) async fn admit(services: &Services, key: ApiKeyId, wish: Wish) -> Result<Decision, Error> {
    let pairs = together::pairs(slice::from_ref(&wish));
    let (held, errand) = services
        .leases
        .take(&pairs, &wish.wanted, Instant::now(), services.now());
    if let Some(errand) = errand {
        tokio::spawn(keep_block(services.clone(), pairs, wish.clone(), errand));
    }
    if let Some(call) = held {
        return Ok(Ok(call));
    }
    let decision = together::admit(services, Some(key), wish.clone()).await?;
    let Err(refusal) = &decision else { return Ok(decision) };
    let Some(limit) = refusal.limit else {
        return Ok(decision);
    };
    let subject = wish.pairs.iter().find(|(scope, _)| *scope == limit.scope);
    let unused = subject
        .map(|(scope, subject)| services.leases.recall(*scope, subject))
        .unwrap_or_default();
    if unused.is_empty() {
        return Ok(decision);
    }
    give_back(services, &unused).await?;
    together::admit(services, Some(key), wish).await
}

/// Fetches a block, and ends it when its time has come.
async fn keep_block(services: Services, pairs: Pairs, like: Wish, errand: Errand) {
    let wanted = room_for(&like.wanted);
    let fetched = match fetch(&services, &pairs, Wish { wanted, ..like }, errand.count).await {
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
async fn fetch(services: &Services, pairs: &Pairs, like: Wish, count: usize) -> Result<Vec<Admitted>, Error> {
    let Some(bounds) = services.lanes.remembered(pairs) else {
        return Ok(Vec::new());
    };
    let count = bounds
        .iter()
        .filter_map(|bound| affordable(bound, &like.wanted))
        .min()
        .map_or(count, |most| count.min(most));
    if count < LEAST {
        return Ok(Vec::new());
    }
    let life = TimeDelta::from_std(LIFE).unwrap_or(TimeDelta::zero());
    let wishes: Vec<Wish> = (0..count)
        .map(|_| Wish {
            call: ReservationId(Uuid::now_v7()),
            expires_at: like.expires_at + life,
            ..like.clone()
        })
        .collect();
    let decisions = together::try_all(services, &wishes).await?.unwrap_or_default();
    let (whole, short): (Vec<Admitted>, Vec<Admitted>) = decisions
        .into_iter()
        .flatten()
        .partition(|call| call.answer == like.wanted.answer);
    let short: Vec<ReservationId> = short.iter().filter(|call| call.held).map(|call| call.call).collect();
    give_back(services, &short).await?;
    Ok(whole)
}

async fn give_back(services: &Services, unused: &[ReservationId]) -> Result<(), Error> {
    if unused.is_empty() {
        return Ok(());
    }
    let nothing: Vec<_> = unused.iter().map(|call| (*call, Use::default())).collect();
    services.limits().settle(&nothing).await?;
    Ok(())
}

/// How many such calls are a small part of what is left; `None` where that does not matter.
fn affordable(bound: &Bound, wanted: &Wanted) -> Option<usize> {
    let each = amount(bound, wanted, wanted.answer).filter(|each| *each > 0)?;
    Some(usize::try_from(bound.left()?.max(0) / PART / each).unwrap_or(MOST))
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
