//! Who writes what and when: all of it drawn from the seed before anything starts.

use std::{collections::HashMap, time::Duration};

use rand::{Rng, rngs::StdRng};
use test_support::{FakeTelegram, app::TOKEN, fake_telegram::User};
use tokio::{task::JoinHandle, time::Instant};

/// How much is written.
#[derive(Clone, Copy)]
pub struct Load {
    pub people: i64,
    pub messages: usize,
    pub during: Duration,
}

/// One message of one person.
#[derive(Clone, Debug)]
pub struct Question {
    at: Duration,
    pub person: i64,
    /// Counts the messages of this person.
    pub number: usize,
    /// With directives for the fake model.
    pub text: String,
    /// The model gives no whole answer to this one: a failure in words, or what came of it, is right.
    pub fails: bool,
}

impl Question {
    pub fn identity(&self) -> String {
        format!("p{}m{}", self.person, self.number)
    }

    /// The whole answer.
    pub fn answer(&self) -> String {
        format!("Echo: {} and some more words", self.identity())
    }
}

/// How the model is to answer one question: directives, and whether it fails.
pub type Manner = fn(&mut StdRng) -> (&'static str, bool);

/// Most answers come at once, three in ten are streamed, one in ten for long enough to be previewed.
pub fn well(random: &mut StdRng) -> (&'static str, bool) {
    match random.random_range(0..10) {
        0 => ("[[chunks=9,150ms]]", false),
        1..4 => ("[[chunks=5,50ms]]", false),
        _ => ("", false),
    }
}

/// Every other answer takes more than a second, so that whoever is frozen or killed is in the middle of some.
pub fn at_length(random: &mut StdRng) -> (&'static str, bool) {
    match random.random_range(0..2) {
        0 => ("[[chunks=9,150ms]]", false),
        _ => ("", false),
    }
}

impl Load {
    pub fn draw(&self, random: &mut StdRng, manner: Manner) -> Vec<Question> {
        let mut written = HashMap::<i64, usize>::new();
        let mut moments: Vec<Duration> = (0..self.messages)
            .map(|_| self.during.mul_f64(random.random_range(0.0..1.0)))
            .collect();
        moments.sort_unstable();
        let mut question = |at| {
            let person = random.random_range(1..=self.people);
            let number = written.entry(person).or_default();
            let (directives, fails) = manner(random);
            let question = Question {
                at,
                person,
                number: *number,
                text: format!("p{person}m{number} and some more words {directives}"),
                fails,
            };
            *number += 1;
            question
        };
        moments.into_iter().map(&mut question).collect()
    }
}

/// When each question was asked, by person and number.
pub type Asked = HashMap<(i64, usize), Instant>;

/// Writes it all, at its time.
pub fn write(telegram: &FakeTelegram, questions: Vec<Question>) -> JoinHandle<Asked> {
    let telegram = telegram.clone();
    tokio::spawn(async move {
        let started = Instant::now();
        let mut asked = Asked::new();
        for question in questions {
            tokio::time::sleep_until(started + question.at).await;
            let person = User::new(question.person, "Somebody").language("en");
            asked.insert((question.person, question.number), Instant::now());
            telegram.send_text(TOKEN, &person, &question.text);
        }
        asked
    })
}
