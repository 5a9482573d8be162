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

/// The people of one run.
pub struct People {
    telegram: FakeTelegram,
    token: &'static str,
    seats: Seats,
    users: usize,
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
    pub fn new(telegram: &FakeTelegram, token: &'static str, users: usize) -> Self {
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
            next: Arc::default(),
        }
    }

    /// So many messages from all of them together. Each answer must be the one that belongs to its question.
    pub async fn write(&self, messages: usize) -> anyhow::Result<Felt> {
        let end = self.next.load(Ordering::Relaxed) + messages;
        let started = Instant::now();
        let mut people = JoinSet::new();
        for number in 0..self.users {
            let (telegram, token, seats) = (self.telegram.clone(), self.token, self.seats.clone());
            let next = Arc::clone(&self.next);
            people.spawn(async move {
                let id = FIRST_USER + i64::try_from(number)?;
                let user = User::new(id, &format!("User {number}")).language("en");
                let mut latencies = Vec::new();
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= end {
                        return Ok(latencies);
                    }
                    let question = question(number, place);
                    let (arrives, arrival) = oneshot::channel();
                    seats.with(id, |seat| {
                        seat.waits_for = Some((format!("Echo: {question}"), arrives));
                        seat.heard.clear();
                    });
                    let asked = Instant::now();
                    telegram.send_text(token, &user, &question);
                    match tokio::time::timeout(PATIENCE, arrival).await {
                        Ok(Ok(at)) => latencies.push(at.duration_since(asked)),
                        _ => {
                            let heard = seats.with(id, |seat| seat.heard.clone());
                            bail!("no answer to {question:?} within {PATIENCE:?}; the bot said {heard:?}");
                        }
                    }
                }
            });
        }
        let mut latencies = Vec::with_capacity(messages);
        while let Some(person) = people.join_next().await {
            latencies.extend(person??);
        }
        let elapsed = started.elapsed();
        latencies.sort_unstable();
        Ok(Felt { elapsed, latencies })
    }
}

impl Felt {
    pub fn percentile(&self, percent: usize) -> Duration {
        let at = self.latencies.len() * percent / 100;
        self.latencies
            .get(at.min(self.latencies.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }
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
        let people = People::new(&telegram, "1:TEST", 5);
        assert_eq!(people.write(10).await.unwrap().latencies.len(), 10);
        let felt = people.write(30).await.unwrap();
        assert_eq!(felt.latencies.len(), 30);
        assert!(felt.percentile(50) <= felt.percentile(99) && felt.percentile(99) <= felt.elapsed);
        assert_eq!((telegram.counters().sent, provider.totals().finished), (40, 40));
    }
}
