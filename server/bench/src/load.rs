//! The people: each writes, waits for the whole answer, and writes again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use test_support::{FakeTelegram, fake_telegram::User};
use tokio::{sync::oneshot, task::JoinSet};

/// Longer than any answer takes, shorter than a person who waits for the benchmark.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_USER: i64 = 1001;

/// What a person waits for, and what the bot said last.
#[derive(Default)]
struct Seat {
    waits_for: Option<(String, oneshot::Sender<Instant>)>,
    heard: String,
}

/// Who sits where. Fed by the fake as messages arrive, so that waiting costs nothing.
#[derive(Clone, Default)]
struct Seats(Arc<Mutex<HashMap<i64, Seat>>>);

impl Seats {
    fn with<T>(&self, user: i64, act: impl FnOnce(&mut Seat) -> T) -> T {
        act(self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(user)
            .or_default())
    }
}

/// The people of one run. Clones are the same ones.
#[derive(Clone)]
pub struct People {
    telegram: FakeTelegram,
    token: &'static str,
    seats: Seats,
    users: usize,
    /// Behind each question: how the model is to answer.
    manner: &'static str,
    /// Counts the questions of all.
    next: Arc<AtomicUsize>,
}

/// What they felt.
pub struct Felt {
    pub elapsed: Duration,
    /// From the moment an update lies ready at Telegram to the arrival of the whole answer there; sorted.
    pub latencies: Vec<Duration>,
}

impl People {
    /// A fake takes one party of people in its life.
    pub fn new(telegram: &FakeTelegram, token: &'static str, users: usize, manner: &'static str) -> Self {
        let seats = Seats::default();
        let heard = seats.clone();
        telegram.on_bot_message(move |message| {
            heard.with(message.chat, |seat| {
                seat.heard.clone_from(&message.text);
                if let Some((_, arrived)) = seat.waits_for.take_if(|(text, _)| *text == message.text) {
                    let _ = arrived.send(Instant::now());
                }
            });
        });
        Self {
            telegram: telegram.clone(),
            token,
            seats,
            users,
            manner,
            next: Arc::default(),
        }
    }

    /// So many messages of the first `users` of them, each of whom waits for the answer. Each answer must be the one that
    /// belongs to its question.
    pub async fn write(&self, messages: usize, users: usize) -> anyhow::Result<Felt> {
        let end = self.next.load(Ordering::Relaxed) + messages;
        let started = Instant::now();
        let mut people = JoinSet::new();
        for number in 0..users.min(self.users) {
            let (this, next) = (self.clone(), Arc::clone(&self.next));
            people.spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= end {
                        return Ok(latencies);
                    }
                    latencies.push(this.ask(number, place).await?);
                }
            });
        }
        let felt = Felt::of(people, started).await;
        // Each of them went one too far.
        self.next.store(end, Ordering::Relaxed);
        felt
    }

    /// So many messages a second, whether or not those before are answered, of all in turn.
    pub async fn arrive(&self, rate: usize, during: Duration) -> anyhow::Result<Felt> {
        let messages = rate * usize::try_from(during.as_secs())?;
        let first = self.next.fetch_add(messages, Ordering::Relaxed);
        let started = Instant::now();
        let mut people = JoinSet::new();
        for number in 0..messages {
            let at = started + during.mul_f64(number_of(number) / number_of(messages));
            tokio::time::sleep_until(at.into()).await;
            let (this, user) = (self.clone(), number % self.users);
            people.spawn(async move { Ok(vec![this.ask(user, first + number).await?]) });
        }
        Felt::of(people, started).await
    }

    /// One message of each, so many at a time.
    pub async fn once_each(&self, at_once: usize) -> anyhow::Result<Felt> {
        let first = self.next.fetch_add(self.users, Ordering::Relaxed);
        let started = Instant::now();
        let turn = Arc::new(AtomicUsize::new(0));
        let mut people = JoinSet::new();
        for _ in 0..at_once.min(self.users) {
            let (this, turn) = (self.clone(), Arc::clone(&turn));
            people.spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let user = turn.fetch_add(1, Ordering::Relaxed);
                    if user >= this.users {
                        return Ok(latencies);
                    }
                    latencies.push(this.ask(user, first + user).await?);
                }
            });
        }
        Felt::of(people, started).await
    }

    /// One question of one person, and how long the answer takes.
    async fn ask(&self, number: usize, place: usize) -> anyhow::Result<Duration> {
        let id = FIRST_USER + i64::try_from(number)?;
        let user = User::new(id, &format!("User {number}")).language("en");
        let question = question(number, place);
        let (arrives, arrival) = oneshot::channel();
        self.seats.with(id, |seat| {
            seat.waits_for = Some((format!("Echo: {question}"), arrives));
            seat.heard.clear();
        });
        let asked = Instant::now();
        let text = format!("{question}{}", self.manner);
        self.telegram.send_text(self.token, &user, &text);
        match tokio::time::timeout(PATIENCE, arrival).await {
            Ok(Ok(at)) => Ok(at.duration_since(asked)),
            _ => {
                let heard = self.seats.with(id, |seat| seat.heard.clone());
                bail!("no answer to {question:?} within {PATIENCE:?}; the bot said {heard:?}");
            }
        }
    }
}

impl Felt {
    /// Gathers what each has felt.
    async fn of(mut people: JoinSet<anyhow::Result<Vec<Duration>>>, started: Instant) -> anyhow::Result<Self> {
        let mut latencies = Vec::new();
        while let Some(person) = people.join_next().await {
            latencies.extend(person??);
        }
        let elapsed = started.elapsed();
        latencies.sort_unstable();
        Ok(Self { elapsed, latencies })
    }

    pub fn percentile(&self, percent: usize) -> Duration {
        let at = self.latencies.len() * percent / 100;
        self.latencies
            .get(at.min(self.latencies.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
}

fn number_of(count: usize) -> f64 {
    crate::run::number(count as u64)
}

/// About what people write in a chat, and never the same twice. The fake provider streams it back a word at a time.
fn question(user: usize, number: usize) -> String {
    format!(
        "Question {number} of user {user}: which trains go from Kazan to Moscow tomorrow morning, how long do they take \
         and what does a ticket cost?"
    )
}

#[cfg(test)]
mod tests {
    use test_support::{
        FakeProvider,
        fake_provider::{DEFAULT_KEY, DEFAULT_MODEL},
    };

    use super::*;
    use crate::bare;

    #[tokio::test]
    async fn everybody_gets_the_answer_to_their_own_question() {
        let telegram = FakeTelegram::start().await.unwrap();
        let provider = FakeProvider::start().await.unwrap();
        telegram.add_bot("1:TEST", "bench_bot");
        let settings = bare::Settings {
            telegram: telegram.url(),
            token: "1:TEST".to_owned(),
            provider: provider.url(),
            key: DEFAULT_KEY.to_owned(),
            model: DEFAULT_MODEL.to_owned(),
        };
        tokio::spawn(bare::answer_for_ever(settings));
        let people = People::new(&telegram, "1:TEST", 5, "");
        assert_eq!(people.write(10, 5).await.unwrap().latencies.len(), 10);
        let felt = people.write(30, 5).await.unwrap();
        assert_eq!(felt.latencies.len(), 30);
        assert!(felt.percentile(50) <= felt.percentile(99) && felt.percentile(99) <= felt.elapsed);
        let steady = people.arrive(10, Duration::from_secs(1)).await.unwrap();
        assert_eq!(steady.latencies.len(), 10);
        // The last of them arrives when nine tenths of the second are over.
        assert!(steady.elapsed >= Duration::from_millis(900));
        assert_eq!(people.once_each(2).await.unwrap().latencies.len(), 5);
        assert_eq!((telegram.counters().sent, provider.totals().finished), (55, 55));
    }
}
