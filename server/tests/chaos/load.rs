//! Who writes what and when: all of it drawn from the seed before anything starts.

use std::{collections::HashMap, time::Duration};

use rand::{Rng, rngs::StdRng};
use test_support::{
    FakeTelegram,
    app::{BOT_NAME, TOKEN},
    fake_telegram::{Group, User},
};
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
    /// The answer takes two messages.
    pub long: bool,
    /// The model gives no whole answer to this one: a failure in words, or what came of it, is right.
    pub fails: bool,
}

/// Who writes in a supergroup, which numbers its messages for itself; all others write in private.
const IN_GROUP: i64 = 1;
const GROUP: i64 = -1_000_000_000_500;
/// Twenty calls a minute are what a group takes, with what shows and changes an answer.
const GROUP_PAUSE: Duration = Duration::from_secs(8);
/// So many words are more than one message takes.
const LONG: usize = 600;

impl Question {
    /// Where it is asked.
    pub fn chat(&self) -> i64 {
        if self.person == IN_GROUP { GROUP } else { self.person }
    }

    pub fn identity(&self) -> String {
        format!("p{}m{}", self.person, self.number)
    }

    /// The whole answer.
    pub fn answer(&self) -> String {
        let mut answer = format!("Echo: {} and some more words", self.identity());
        if self.long {
            answer.extend((1..=LONG).map(|n| format!(" more{n}")));
        }
        answer
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

/// The second part of a long answer joined to its first, as a reader has it; each with the id of its last message.
pub fn joined(messages: Vec<(i64, String)>) -> Vec<(i64, String)> {
    let mut whole: Vec<(i64, String)> = Vec::new();
    for (id, text) in messages {
        match whole.last_mut() {
            Some(before) if text.starts_with("more") => *before = (id, format!("{} {text}", before.1)),
            _ => whole.push((id, text)),
        }
    }
    whole
}

impl Load {
    pub fn draw(&self, random: &mut StdRng, manner: Manner) -> Vec<Question> {
        let mut written = HashMap::<i64, usize>::new();
        let mut moments: Vec<Duration> = (0..self.messages)
            .map(|_| self.during.mul_f64(random.random_range(0.0..1.0)))
            .collect();
        moments.sort_unstable();
        let mut group_until = Duration::ZERO;
        let mut question = |at: Duration| {
            let mut person = random.random_range(1..=self.people);
            if person == IN_GROUP && self.people > 1 {
                if group_until > at {
                    person = random.random_range(2..=self.people);
                } else {
                    group_until = at + GROUP_PAUSE;
                }
            }
            let number = written.entry(person).or_default();
            let (directives, fails) = manner(random);
            let long = !fails && random.random_bool(0.05);
            let more = if long {
                format!("[[more={LONG}]]")
            } else {
                String::new()
            };
            let question = Question {
                at,
                person,
                number: *number,
                text: format!("p{person}m{number} and some more words {directives}{more}"),
                long,
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
            if question.person == IN_GROUP {
                let text = format!("@{BOT_NAME} {}", question.text);
                telegram.send_in_group(TOKEN, &Group::new(GROUP, "Friends"), &person, &text);
            } else {
                telegram.send_text(TOKEN, &person, &question.text);
            }
        }
        asked
    })
}
