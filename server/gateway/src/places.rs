//! Places among the requests that a provider is asked at once: all replicas share them, and each has some on loan.
//!
//! What a replica has on loan it hands to its own calls without asking anybody. One task for each provider asks for more when a call
//! waits, gives back what is not needed, and keeps the loan alive; it ends when nothing runs, so that an idle replica holds nothing.
//! While it waits for an answer no call goes in beyond those it has told of, so that whatever the answer is, it is not overdrawn.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use domain::ProviderId;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use uuid::Uuid;

/// How often a loan is told of that nobody waits for more of.
const TICK: Duration = Duration::from_millis(250);
/// How often more is asked for, and what becomes free is given back, while there is too little.
const POLL: Duration = Duration::from_millis(25);

/// What one holder has of a provider's places, and would like to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loan {
    pub provider: ProviderId,
    /// Never the same twice.
    pub holder: Uuid,
    /// Of all holders together.
    pub most: u32,
    /// Calls that run; their places stay taken until they end.
    pub taken: u32,
    /// With those that wait.
    pub wanted: u32,
}

/// Knows of the loans of all replicas. It answers within a moment, whatever happens: calls wait for it.
#[async_trait]
pub trait SharedPlaces: Send + Sync {
    /// How many the holder may have from now on. If that is fewer than it has taken, it gives back what ends.
    async fn borrow_places(&self, loan: &Loan) -> u32;
}

/// Set once, after the gateway was made.
pub(crate) type Lender = Arc<OnceLock<Arc<dyn SharedPlaces>>>;

/// The places of one provider as this process has them.
pub(crate) struct Places {
    provider: ProviderId,
    holder: Uuid,
    /// `None`: they are this process' own.
    lender: Option<Lender>,
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Somebody waits.
    asks: Notify,
    state: Mutex<State>,
}

struct State {
    most: usize,
    /// May be taken at once.
    lent: usize,
    /// Are taken beyond that: as many are not handed on when they come back.
    debt: usize,
    is_kept: bool,
}

impl Places {
    pub(crate) fn new(provider: ProviderId, most: Option<u32>, lender: Option<Lender>) -> Arc<Self> {
        let all = all_of(most);
        let state = State {
            most: all,
            lent: all,
            debt: 0,
            is_kept: false,
        };
        Arc::new(Self {
            provider,
            holder: Uuid::now_v7(),
            // There is nothing to share where there is no bound.
            lender: lender.filter(|_| most.is_some()),
            free: Arc::new(Semaphore::new(all)),
            waiting: AtomicUsize::new(0),
            asks: Notify::new(),
            state: Mutex::new(state),
        })
    }

    /// Another number holds from now on; whoever has a place keeps it.
    pub(crate) fn set_most(&self, most: Option<u32>) {
        let mut state = self.state();
        state.most = all_of(most);
        if !state.is_kept {
            let all = state.most;
            self.lend(&mut state, all);
        }
    }

    /// Waits for a place.
    pub(crate) async fn enter(self: &Arc<Self>) -> Place {
        let _waiting = Waiting::new(&self.waiting);
        self.keep();
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                self.asks.notify_one();
                Arc::clone(&self.free).acquire_owned().await.ok()
            }
        };
        Place {
            places: Arc::clone(self),
            permit,
        }
    }

    pub(crate) fn provider(&self) -> ProviderId {
        self.provider
    }

    /// Requests under way in this process.
    pub(crate) fn taken(&self) -> usize {
        self.taken_of(&self.state())
    }

    fn taken_of(&self, state: &State) -> usize {
        (state.lent + state.debt).saturating_sub(self.free.available_permits())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lend(&self, state: &mut State, lent: usize) {
        // Whoever stops waiting in the moment in which it is given a place gives it back past us.
        state.debt -= self.free.forget_permits(state.debt);
        if let Some(more) = lent.checked_sub(state.lent) {
            let paid = more.min(state.debt);
            state.debt -= paid;
            self.free.add_permits(more - paid);
        } else {
            let fewer = state.lent - lent;
            state.debt += fewer - self.free.forget_permits(fewer);
        }
        state.lent = lent;
    }

    /// Sees to it that the loan is kept, where there is one.
    fn keep(self: &Arc<Self>) {
        let Some(lender) = self.lender.as_ref().and_then(|lender| lender.get()) else {
            return;
        };
        let mut state = self.state();
        if !state.is_kept {
            state.is_kept = true;
            self.lend(&mut state, 0);
            tokio::spawn(keep(Arc::clone(self), Arc::clone(lender)));
        }
    }

    /// What there is to tell; until the answer is there nobody goes in beyond it.
    fn loan(&self) -> Loan {
        let mut state = self.state();
        state.debt -= self.free.forget_permits(state.debt);
        let taken = self.taken_of(&state);
        self.lend(&mut state, taken);
        let wanted = (taken + self.waiting.load(Ordering::Relaxed)).min(state.most.max(taken));
        let number = |places: usize| u32::try_from(places).unwrap_or(u32::MAX);
        Loan {
            provider: self.provider,
            holder: self.holder,
            most: number(state.most),
            taken: number(taken),
            wanted: number(wanted),
        }
    }

    /// False: there is less than is wanted.
    fn borrowed(&self, loan: &Loan, lent: u32) -> bool {
        let mut state = self.state();
        self.lend(&mut state, lent as usize);
        lent >= loan.wanted && state.debt == 0
    }

    /// Nobody runs or waits, and nothing is held any more.
    fn ends(&self) -> bool {
        let mut state = self.state();
        if self.waiting.load(Ordering::Relaxed) > 0 || self.taken_of(&state) > 0 {
            return false;
        }
        self.lend(&mut state, 0);
        state.is_kept = false;
        true
    }
}

fn all_of(most: Option<u32>) -> usize {
    most.map_or(Semaphore::MAX_PERMITS, |most| most as usize)
        .min(Semaphore::MAX_PERMITS)
}

async fn keep(places: Arc<Places>, lender: Arc<dyn SharedPlaces>) {
    loop {
        let loan = places.loan();
        let lent = lender.borrow_places(&loan).await;
        let is_enough = places.borrowed(&loan, lent);
        if loan.wanted == 0 && places.ends() {
            return;
        }
        if is_enough {
            tokio::select! {
                () = places.asks.notified() => {}
                () = sleep(TICK) => {}
            }
        } else {
            sleep(POLL).await;
        }
    }
}

/// Somebody who waits, for as long as that lasts.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among the requests that a provider is asked at once.
pub(crate) struct Place {
    places: Arc<Places>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    pub(crate) fn provider(&self) -> ProviderId {
        self.places.provider()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut state = self.places.state();
        if state.debt > 0 {
            state.debt -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio::time::{Instant, timeout};

    use super::*;

    /// First come, first served; remembers the most that it was told to be taken at once.
    #[derive(Default)]
    struct Bank {
        held: Mutex<HashMap<Uuid, (u32, Loan)>>,
        /// Instead of what is left.
        gives: Mutex<Option<u32>>,
    }

    impl Bank {
        fn held(&self) -> u32 {
            self.held.lock().unwrap().values().map(|(held, _)| held).sum()
        }
    }

    #[async_trait]
    impl SharedPlaces for Bank {
        async fn borrow_places(&self, loan: &Loan) -> u32 {
            // As long as the way there and back takes.
            sleep(Duration::from_millis(1)).await;
            let mut held = self.held.lock().unwrap();
            let others = held.iter().filter(|(holder, _)| **holder != loan.holder);
            let left = loan.most - others.map(|(_, (held, _))| *held).sum::<u32>();
            let lent = self.gives.lock().unwrap().unwrap_or(loan.wanted.min(left));
            held.insert(loan.holder, (lent.max(loan.taken), *loan));
            lent
        }
    }

    fn provider() -> ProviderId {
        ProviderId(Uuid::from_u128(7))
    }

    fn of(bank: &Arc<Bank>, most: u32) -> Arc<Places> {
        let lender = Lender::default();
        let _ = lender.set(bank.clone());
        Places::new(provider(), Some(most), Some(lender))
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_have_no_more_places_together_than_there_are_and_hand_them_on() {
        let bank = Arc::<Bank>::default();
        let replicas = [of(&bank, 5), of(&bank, 5), of(&bank, 5)];
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let calls = (0..60).map(|number| {
            let (places, running, most) = (Arc::clone(&replicas[number % 3]), running.clone(), most.clone());
            tokio::spawn(async move {
                sleep(Duration::from_millis(number as u64 % 7)).await;
                let place = places.enter().await;
                most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                sleep(Duration::from_millis(40 + number as u64 % 11)).await;
                running.fetch_sub(1, Ordering::Relaxed);
                drop(place);
            })
        });
        for call in calls.collect::<Vec<_>>() {
            timeout(Duration::from_secs(60), call).await.unwrap().unwrap();
        }
        assert_eq!(most.load(Ordering::Relaxed), 5);
        // Whoever is idle holds nothing.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(bank.held(), 0);
        assert!(replicas.iter().all(|places| places.taken() == 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_loan_is_handed_on_without_asking_and_what_is_taken_back_is_paid_as_calls_end() {
        let bank = Arc::<Bank>::default();
        let places = of(&bank, 4);
        let mut held: Vec<Place> = Vec::new();
        for _ in 0..4 {
            held.push(places.enter().await);
        }
        assert_eq!((places.taken(), bank.held()), (4, 4));
        held.pop();
        let asked = Instant::now();
        held.push(places.enter().await);
        assert_eq!(asked.elapsed(), Duration::ZERO);
        // Others want some: two of four.
        *bank.gives.lock().unwrap() = Some(2);
        sleep(TICK * 2).await;
        assert_eq!(places.taken(), 4, "what runs goes on");
        for taken in [3, 2] {
            held.pop();
            assert!(
                timeout(POLL * 4, places.enter()).await.is_err(),
                "{taken} are taken yet"
            );
        }
        held.pop();
        held.push(timeout(POLL * 4, places.enter()).await.unwrap());
        assert_eq!((places.taken(), bank.held()), (2, 2));
        // Whoever no longer waits leaves nothing behind.
        *bank.gives.lock().unwrap() = None;
        held.clear();
        sleep(TICK * 3).await;
        assert_eq!((places.taken(), bank.held()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn another_number_holds_at_once_for_whoever_comes() {
        let places = Places::new(provider(), Some(2), None);
        let held = [places.enter().await, places.enter().await];
        places.set_most(Some(1));
        let [first, second] = held;
        drop(first);
        assert!(timeout(TICK, places.enter()).await.is_err());
        drop(second);
        let third = places.enter().await;
        assert!(timeout(TICK, places.enter()).await.is_err());
        places.set_most(None);
        let _fourth = places.enter().await;
        drop(third);
        assert_eq!(places.taken(), 1);
    }
}
