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

/// One message of one person, which they may change afterwards.
#[derive(Clone, Debug)]
pub struct Question {
    pub person: i64,
    /// Counts the messages of this person.
    pub number: usize,
    /// For the fake model.
    directives: String,
    /// So many words stand behind the echo.
    pub more: usize,
    /// The model gives no whole answer to this one: a failure in words, or what came of it, is right.
    pub fails: bool,
    /// How often its text was changed.
    pub edits: usize,
    /// Told of more than once, the last time with another text than before: the answer may be given where the first stands.
    pub moves: bool,
}

/// What a person does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Asks the question at this place in the list.
    Ask(usize),
    /// Its text becomes that of a version; of the one it has already, when Telegram tells of a change that nobody made.
    Edit(usize, usize),
    /// The person sends `/stop`.
    Stop(i64),
}

/// All that is written, in its order.
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub questions: Vec<Question>,
    pub acts: Vec<(Duration, Act)>,
}

/// Who writes in a supergroup, which numbers its messages for itself; all others write in private.
const IN_GROUP: i64 = 1;
const GROUP: i64 = -1_000_000_000_500;
/// Twenty calls a minute are what a group takes, with what shows and changes an answer.
const GROUP_PAUSE: Duration = Duration::from_secs(8);
/// So many words are more than one message takes.
const LONG: usize = 600;
/// Of a hundred questions, so many are followed by `/stop` while they are answered, which takes three seconds…
const STOPPED: u32 = 8;
const AT_LEISURE: &str = "[[chunks=12,250ms]]";
/// …in whole words, so that a part of an answer tells to what.
const LEISURE_WORDS: usize = 30;
/// So many are changed.
const EDITED: u32 = 8;
const LAST_STOPPED: u32 = 5 + STOPPED;
const LAST_EDITED: u32 = LAST_STOPPED + EDITED;
/// Which versions their texts become, one after another.
const CHANGES: [&[usize]; 5] = [&[1], &[0], &[1, 1], &[0, 1], &[1, 2]];

impl Question {
    /// Where it is asked.
    pub fn chat(&self) -> i64 {
        if self.person == IN_GROUP { GROUP } else { self.person }
    }

    /// Names the question in one version, from 0 on.
    pub fn name_of(&self, version: usize) -> String {
        match version {
            0 => format!("p{}m{}", self.person, self.number),
            _ => format!("p{}m{}e{version}", self.person, self.number),
        }
    }

    /// Names its newest version, which is the one that stays answered.
    pub fn identity(&self) -> String {
        self.name_of(self.edits)
    }

    /// What is written.
    fn text(&self, version: usize) -> String {
        let more = match self.more {
            0 => String::new(),
            words => format!("[[more={words}]]"),
        };
        format!(
            "{} and some more words {}{more}",
            self.name_of(version),
            self.directives
        )
    }

    /// The whole answer to the newest version.
    pub fn answer(&self) -> String {
        let mut answer = format!("Echo: {} and some more words", self.identity());
        answer.extend((1..=self.more).map(|n| format!(" more{n}")));
        answer
    }
}

/// How the model is to answer the question at a place of the script: directives, and whether it fails.
pub type Manner = fn(usize, &mut StdRng) -> (&'static str, bool);

/// Most answers come at once, three in ten are streamed, one in ten for long enough to be previewed.
pub fn well(_place: usize, random: &mut StdRng) -> (&'static str, bool) {
    match random.random_range(0..10) {
        0 => ("[[chunks=9,150ms]]", false),
        1..4 => ("[[chunks=5,50ms]]", false),
        _ => ("", false),
    }
}

/// Every other answer takes more than a second, so that whoever is frozen or killed is in the middle of some.
pub fn at_length(_place: usize, random: &mut StdRng) -> (&'static str, bool) {
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
    pub fn draw(&self, random: &mut StdRng, manner: Manner) -> Script {
        let mut written = HashMap::<i64, usize>::new();
        let mut moments: Vec<Duration> = (0..self.messages)
            .map(|_| self.during.mul_f64(random.random_range(0.0..1.0)))
            .collect();
        moments.sort_unstable();
        let mut group_until = Duration::ZERO;
        let mut script = Script::default();
        for at in moments {
            let mut person = random.random_range(1..=self.people);
            if person == IN_GROUP && self.people > 1 {
                if group_until > at {
                    person = random.random_range(2..=self.people);
                } else {
                    group_until = at + GROUP_PAUSE;
                }
            }
            let number = written.entry(person).or_default();
            let place = script.questions.len();
            let (directives, fails) = manner(place, random);
            let mut question = Question {
                person,
                number: *number,
                directives: directives.to_owned(),
                more: 0,
                fails,
                edits: 0,
                moves: false,
            };
            *number += 1;
            script.acts.push((at, Act::Ask(place)));
            let soon = |random: &mut StdRng| Duration::from_millis(random.random_range(300..2500));
            match random.random_range(0..100) {
                _ if fails => {}
                0..5 => question.more = LONG,
                _ if person == IN_GROUP => {}
                5..LAST_STOPPED => {
                    AT_LEISURE.clone_into(&mut question.directives);
                    question.more = LEISURE_WORDS;
                    script.acts.push((at + soon(random), Act::Stop(person)));
                }
                LAST_STOPPED..LAST_EDITED => {
                    let mut moment = at;
                    let changes = CHANGES[random.random_range(0..CHANGES.len())];
                    question.moves = changes.windows(2).any(|two| two[0] != two[1]);
                    for version in changes {
                        moment += soon(random);
                        question.edits = *version;
                        script.acts.push((moment, Act::Edit(place, *version)));
                    }
                }
                _ => {}
            }
            script.questions.push(question);
        }
        script.acts.sort_by_key(|(at, _)| *at);
        script
    }
}

/// When each version of each question was asked, by name, and when each person said `/stop`.
#[derive(Debug, Default)]
pub struct Asked {
    pub questions: HashMap<String, Instant>,
    pub stops: HashMap<i64, Vec<Instant>>,
}

/// Does it all, at its time.
pub fn write(telegram: &FakeTelegram, script: Script) -> JoinHandle<Asked> {
    let telegram = telegram.clone();
    tokio::spawn(async move {
        let started = Instant::now();
        let mut asked = Asked::default();
        // Of the messages in private.
        let mut ids = HashMap::<usize, i64>::new();
        for (at, act) in script.acts {
            tokio::time::sleep_until(started + at).await;
            let now = Instant::now();
            match act {
                Act::Ask(place) => {
                    let question = &script.questions[place];
                    let (person, text) = (somebody(question.person), question.text(0));
                    asked.questions.insert(question.name_of(0), now);
                    if question.person == IN_GROUP {
                        let text = format!("@{BOT_NAME} {text}");
                        telegram.send_in_group(TOKEN, &Group::new(GROUP, "Friends"), &person, &text);
                    } else {
                        ids.insert(place, telegram.send_text(TOKEN, &person, &text).1);
                    }
                }
                Act::Edit(place, version) => {
                    let question = &script.questions[place];
                    // A version counts from when it is told first.
                    asked.questions.entry(question.name_of(version)).or_insert(now);
                    let person = somebody(question.person);
                    telegram.edit_text(TOKEN, &person, ids[&place], &question.text(version));
                }
                Act::Stop(person) => {
                    asked.stops.entry(person).or_default().push(now);
                    telegram.send_text(TOKEN, &somebody(person), "/stop");
                }
            }
        }
        asked
    })
}

fn somebody(id: i64) -> User {
    User::new(id, "Somebody").language("en")
}
