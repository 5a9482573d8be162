//! What must hold after whatever has happened.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use test_support::{
    app::{OrFail, TestDatabase},
    fake_provider::Request,
};

use crate::load::{Act, Question, Script};

/// The product shows a model 200 messages at most, which is 100 questions with their answers, and 16,000 tokens, which are more bytes
/// than these.
const LONG_PAST: usize = 90;
const MUCH_PAST: usize = 30_000;

/// Counts of what went wrong, and what was seen of it.
#[derive(Debug, Default)]
pub struct Verdict {
    pub lost: usize,
    pub twice: usize,
    /// Answers before those of earlier questions, and questions asked with a past in disorder.
    pub disorder: usize,
    pub billed_twice: i64,
    /// Budgets still set aside.
    pub reserved: i64,
    /// Of answers in the ledger whose usage the provider told.
    pub ledger_tokens: i64,
    /// Answers in the ledger whose usage had to be estimated, but for those that were stopped.
    pub estimated: usize,
    /// Questions in each version that were stopped amid their answer, by name.
    pub stopped: HashSet<String>,
    /// Changed questions that were answered anew.
    pub edited: usize,
    /// What the provider told of requests whose job was cut off before it settled.
    pub unsettled: (usize, i64),
    /// Jobs that were run more than once.
    pub again: i64,
    /// Attempts that were not the last of their job.
    pub attempts_before: i64,
    pub faults: Vec<String>,
}

/// What stands where a person's answer is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said<'a> {
    /// The whole answer to a question, or a part of it with words about its end.
    Answer(&'a str, End),
    /// Only words about a failure.
    Failure,
    /// Words about having been stopped, below too little to tell of what.
    Stopped,
    Strange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Failed,
    Stopped,
}

/// Below an answer that was stopped; all people here read English.
const STOPPED: &str = "⏹ Stopped. Write on whenever you like.";
/// What is said to `/stop`.
const STOP_REPLIES: [&str; 2] = ["Stopped.", "Nothing is being written right now."];

pub fn replies_to_stop(text: &str) -> bool {
    STOP_REPLIES.contains(&text)
}

/// The name of the question that a text of the bot answers.
fn said(text: &str) -> Said<'_> {
    let end = match text {
        text if text.contains("BD-AI-") => End::Failed,
        text if text.ends_with(STOPPED) => End::Stopped,
        _ => End::Whole,
    };
    let words = text.split_whitespace().count();
    let name = text
        .strip_prefix("Echo: ")
        .and_then(|rest| rest.split_whitespace().next());
    match (name, end) {
        // The name itself may be cut short when nothing follows it.
        (_, End::Stopped) if words < STOPPED.split_whitespace().count() + 3 => Said::Stopped,
        (Some(name), end) => Said::Answer(name, end),
        (None, End::Failed) => Said::Failure,
        _ => Said::Strange,
    }
}

impl Verdict {
    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// One chat: its questions in order, and what the bot has said there in order, but to `/stop`. Comes after [`Self::books`].
    pub fn chat(&mut self, questions: &[&Question], texts: &[String]) {
        let said: Vec<Said> = texts.iter().map(|text| said(text)).collect();
        let stopped: Vec<bool> = questions
            .iter()
            .map(|question| self.stopped.contains(&question.identity()))
            .collect();
        let right = |place: usize, text: &str| match said[place] {
            Said::Answer(_, End::Whole) => text == questions[place].answer(),
            Said::Answer(name, End::Failed) => questions[place].fails && name == questions[place].identity(),
            Said::Answer(_, End::Stopped) => stopped[place] && is_part(text, &questions[place].answer()),
            Said::Failure => questions[place].fails,
            Said::Stopped => stopped[place] && is_part(text, &questions[place].answer()),
            Said::Strange => false,
        };
        if questions.len() == texts.len() && texts.iter().enumerate().all(|(place, text)| right(place, text)) {
            return;
        }
        let seen_before = self.faults.len();
        let chat = questions.first().map_or(0, |question| question.person);
        let mut unmarked = 0_usize;
        for (place, question) in questions.iter().enumerate() {
            let (identity, whole) = (question.identity(), question.answer());
            let copies = said
                .iter()
                .filter(|said| matches!(said, Said::Answer(of, _) if *of == identity));
            let copies = copies.count();
            let stands = texts
                .iter()
                .any(|text| *text == whole || (stopped[place] && is_part(text, &whole) && text.contains(&*identity)));
            // Only words may be said to one that failed, or that was stopped before a word of its answer.
            if copies == 0 && (question.fails || stopped[place]) {
                unmarked += 1;
            } else if copies == 0 {
                self.lost += 1;
                self.fault(format!("{identity} has no answer"));
            } else if copies > 1 {
                self.twice += copies - 1;
                self.fault(format!("{identity} has {copies} answers"));
            } else if !question.fails && !stands {
                self.lost += 1;
                let seen = texts.iter().find(|text| text.contains(&format!("{identity} ")));
                self.fault(format!("{identity} has only a part of its answer: {seen:?}"));
            }
        }
        // Words alone do not say to what; there must be as many as questions without anything else.
        let words = |said: &&Said| matches!(said, Said::Failure | Said::Stopped);
        let failures = said.iter().filter(words).count();
        if failures != unmarked {
            self.lost += unmarked.saturating_sub(failures);
            self.twice += failures.saturating_sub(unmarked);
            self.fault(format!(
                "chat {chat}: {failures} times words alone, for {unmarked} questions"
            ));
        }
        for (text, _) in texts.iter().zip(&said).filter(|(_, said)| **said == Said::Strange) {
            self.twice += 1;
            self.fault(format!("chat {chat}: something else was said: {text:?}"));
        }
        let place = |of: &str| questions.iter().position(|question| question.identity() == of);
        let places: Vec<usize> = said
            .iter()
            .filter_map(|said| match said {
                Said::Answer(of, _) => place(of),
                _ => None,
            })
            .collect();
        let mut seen = HashSet::new();
        let firsts: Vec<usize> = places.into_iter().filter(|place| seen.insert(*place)).collect();
        let steps_back = firsts.windows(2).filter(|pair| pair[1] < pair[0]).count();
        if steps_back > 0 {
            self.disorder += steps_back;
            self.fault(format!("chat {chat} was answered out of order: {texts:?}"));
        }
        if self.faults.len() == seen_before {
            self.lost += 1;
            self.fault(format!("chat {chat} does not say what it is to say: {texts:?}"));
        }
    }

    /// Each `/stop` was answered, once.
    pub fn stop_replies(&mut self, person: i64, stops: usize, replies: usize) {
        if stops != replies {
            self.lost += stops.saturating_sub(replies);
            self.twice += replies.saturating_sub(stops);
            self.fault(format!("chat {person}: {replies} replies to {stops} times /stop"));
        }
    }

    /// What was stopped had been asked before a `/stop` of the same person, and each of these stopped one answer, or one for each
    /// time that a worker began with it.
    fn stops(&mut self, script: &Script, begun: usize) {
        let mut open: HashSet<String> = self.stopped.clone();
        for place in 0..script.acts.len() {
            let Act::Stop(person) = script.acts[place].1 else {
                continue;
            };
            for (_, act) in &script.acts[..place] {
                let question = match act {
                    Act::Ask(question) | Act::Edit(question, _) => &script.questions[*question],
                    Act::Stop(_) => continue,
                };
                if question.person == person {
                    open.remove(&name(script, *act));
                    // The first change may find the second, and ask that.
                    open.remove(&question.identity());
                }
            }
        }
        for name in open {
            self.fault(format!("{name} was stopped, and no /stop came after it"));
        }
        if self.stopped.len() > begun {
            self.fault(format!("{} were stopped by {begun} times /stop", self.stopped.len()));
        }
    }

    /// Each question was asked with the past of its own chat, complete and in order. Comes after [`Self::books`].
    pub fn pasts(&mut self, script: &Script, requests: &[Request]) {
        // Some leave nothing to be remembered; where one stands that moves, and what stands before it, depends on the moment.
        let unsure: HashSet<(i64, usize)> = script
            .questions
            .iter()
            .filter(|question| {
                let names = (0..=question.edits).map(|version| question.name_of(version));
                question.fails || question.moves || names.into_iter().any(|name| self.stopped.contains(&name))
            })
            .map(|question| (question.person, question.number))
            .collect();
        let sure = |name: &str| !place_of(name).is_some_and(|place| unsure.contains(&place));
        let mut pasts = script.pasts();
        for question in script.questions.iter().filter(|question| question.moves) {
            for version in 1..=question.edits {
                pasts.remove(&question.name_of(version));
            }
        }
        for request in requests {
            let turns = request.body["messages"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let users = turns.iter().filter(|turn| turn["role"] == "user");
            let names: Vec<&str> = users.filter_map(|turn| first_word(&turn["content"])).collect();
            let Some((now, past)) = names.split_last() else {
                continue;
            };
            let Some(expected) = pasts.get(*now) else { continue };
            let bytes: usize = turns
                .iter()
                .filter_map(|turn| Some(turn["content"].as_str()?.len()))
                .sum();
            // Only a long past may be cut, at its beginning.
            let may_be_cut = past.len() >= LONG_PAST || bytes >= MUCH_PAST;
            let past: Vec<&str> = past.iter().copied().filter(|name| sure(name)).collect();
            let expected: Vec<&str> = expected.iter().map(String::as_str).filter(|name| sure(name)).collect();
            if !expected.ends_with(&past) || (past.len() < expected.len() && !may_be_cut) {
                self.disorder += 1;
                self.fault(format!("{now} was asked with the past {past:?}, not {expected:?}"));
            }
        }
    }

    /// Ledger, counters and reservations, against each other and what the provider told.
    pub async fn books(&mut self, db: &TestDatabase, script: &Script, requests: &[Request]) {
        let rows = db
            .rows(
                "SELECT m.text, a.text AS answer, u.finish, u.prompt_tokens AS prompt, u.completion_tokens AS completion, u.reported
                 FROM usage u LEFT JOIN messages m ON m.job_id = u.job_id AND m.author = 'user'
                 LEFT JOIN messages a ON a.job_id = u.job_id AND a.author = 'bot'",
            )
            .await;
        self.lines(script, &rows);
        let mut told = HashMap::<(String, i64, i64), usize>::new();
        let (mut requests_told, mut tokens_told) = (0, 0);
        let mut estimates = Vec::new();
        for request in requests {
            let Some(usage) = request.usage else { continue };
            let turns = request.body["messages"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let question = turns
                .last()
                .and_then(|turn| turn["content"].as_str())
                .unwrap_or_default();
            let (prompt, completion) = (signed(usage.prompt_tokens), signed(usage.completion_tokens));
            *told.entry((question.to_owned(), prompt, completion)).or_default() += 1;
            requests_told += 1;
            tokens_told += prompt + completion;
        }
        for row in &rows {
            let text = row["text"].as_str().unwrap_or_default().to_owned();
            let (prompt, completion) = (
                row["prompt"].as_i64().unwrap_or(-1),
                row["completion"].as_i64().unwrap_or(-1),
            );
            if row["reported"] != true && row["finish"] == "stopped" {
                self.produced(row, requests);
                // Told in the moment in which the answer was stopped, and not heard any more.
                let unheard = told.iter_mut().find(|((of, ..), left)| *of == text && **left > 0);
                if let Some(((_, prompt, completion), left)) = unheard {
                    *left -= 1;
                    requests_told -= 1;
                    tokens_told -= prompt + completion;
                }
                continue;
            }
            if row["reported"] != true {
                self.estimated += 1;
                estimates.push(format!("{} {prompt} + {completion} for {text:?}", row["finish"]));
                continue;
            }
            self.ledger_tokens += prompt + completion;
            match told
                .get_mut(&(text.clone(), prompt, completion))
                .filter(|left| **left > 0)
            {
                Some(left) => *left -= 1,
                // Nothing was used and nothing told: a request that was refused.
                None if prompt + completion == 0 => {}
                None => self.fault(format!(
                    "the provider never told {prompt} + {completion} tokens for {text:?}"
                )),
            }
        }
        let settled = rows
            .iter()
            .filter(|row| row["reported"] == true && row["prompt"].as_i64() != Some(0))
            .count();
        self.unsettled = (
            requests_told - settled.min(requests_told),
            tokens_told - self.ledger_tokens,
        );
        let may_fail = script.questions.iter().filter(|question| question.fails).count();
        if self.estimated > may_fail {
            self.fault(format!(
                "{} answers were estimated, {may_fail} may be: {estimates:?}",
                self.estimated
            ));
        }
        let sums = "SELECT (SELECT coalesce(sum(used), 0) FROM counters WHERE measure = 'tokens')::bigint AS tokens_counted,
                (SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) FROM usage)::bigint AS tokens_billed,
                (SELECT coalesce(sum(used), 0) FROM counters WHERE measure = 'messages')::bigint AS counted,
                (SELECT count(*) FROM usage u JOIN messages m ON m.job_id = u.job_id AND m.author = 'bot' AND m.text <> '') AS answered,
                (SELECT count(*) FROM reservations) + (SELECT coalesce(sum(reserved), 0) FROM counters)::bigint AS reserved,
                (SELECT count(*) FROM jobs WHERE state = 'dead') AS dead,
                (SELECT count(*) FROM jobs WHERE attempts > 1) AS again,
                (SELECT coalesce(sum(attempts - 1), 0) FROM jobs WHERE attempts > 1)::bigint AS attempts_before,
                (SELECT coalesce(sum(attempts), 0) FROM jobs j JOIN updates u ON u.id = j.id
                 WHERE u.payload->'message'->>'text' = '/stop')::bigint AS stops_begun,
                (SELECT count(*) FROM messages WHERE author = 'user') AS kept";
        let sums = db.rows(sums).await.into_iter().next().or_fail("no sums");
        let number = |name: &str| sums[name].as_i64().or_fail(name);
        self.reserved = number("reserved");
        self.again = number("again");
        self.attempts_before = number("attempts_before");
        self.billed_twice += number("counted") - number("answered");
        let stops = script
            .acts
            .iter()
            .filter(|(_, act)| matches!(act, Act::Stop(_)))
            .count();
        let asked = signed(rows.len() + stops);
        self.stops(script, usize::try_from(number("stops_begun")).unwrap_or(0));
        for (what, found, expected) in [
            (
                "tokens counted, and billed",
                number("tokens_counted"),
                number("tokens_billed"),
            ),
            ("messages counted, and answered", number("counted"), number("answered")),
            ("left reserved", self.reserved, 0),
            ("dead letters", number("dead"), 0),
            ("messages of people kept, and written", number("kept"), asked),
        ] {
            if found != expected {
                self.fault(format!("{what}: {found}, not {expected}"));
            }
        }
    }
    /// Each question is in the ledger once, and each that was changed once more or, changed twice, once or twice.
    fn lines(&mut self, script: &Script, rows: &[Value]) {
        let mut lines = HashMap::<&str, i64>::new();
        for row in rows {
            let name = first_word(&row["text"]).unwrap_or("nothing that is known");
            *lines.entry(name).or_default() += 1;
            if row["finish"] == "stopped" {
                self.stopped.insert(name.to_owned());
            }
        }
        for question in &script.questions {
            for version in 0..=question.edits {
                let name = question.name_of(version);
                let found = lines.remove(&*name).unwrap_or(0);
                self.edited += usize::from(version > 0 && found > 0);
                let may_lack = version > 0 && version < question.edits;
                if found > 1 || (found == 0 && !may_lack) {
                    self.billed_twice += found - 1;
                    self.fault(format!("{name} has {found} lines in the ledger"));
                }
            }
        }
        for (name, found) in lines {
            self.billed_twice += found;
            self.fault(format!("{name} has {found} lines in the ledger and was never asked"));
        }
    }

    /// A stopped answer, whose usage nobody told: billed is what was kept of it, and that is what the provider has said so far.
    fn produced(&mut self, row: &Value, requests: &[Request]) {
        let (text, answer) = (row["text"].as_str(), row["answer"].as_str().unwrap_or_default());
        let (prompt, completion) = (row["prompt"].as_i64(), row["completion"].as_i64().unwrap_or(-1));
        let words = signed(answer.split_whitespace().count());
        let said = requests.iter().any(|request| {
            let asked = request.body["messages"].as_array().and_then(|turns| turns.last());
            asked.is_some_and(|turn| turn["content"].as_str() == text) && request.text_written.starts_with(answer)
        });
        // A word is one token at least, and a letter one at most.
        let right = if answer.is_empty() {
            completion == 0
        } else {
            said && prompt > Some(0) && (words..=signed(answer.chars().count())).contains(&completion)
        };
        if !right {
            self.fault(format!(
                "{prompt:?} + {completion} tokens for {text:?}, stopped at {answer:?}"
            ));
        }
    }
}

impl Script {
    /// Which questions come before each in its conversation, by name: one that was changed is asked anew behind what came since.
    fn pasts(&self) -> HashMap<String, Vec<String>> {
        let mut chats = HashMap::<i64, Vec<String>>::new();
        let mut pasts = HashMap::new();
        for (_, act) in &self.acts {
            let (question, version) = match act {
                Act::Ask(place) => (&self.questions[*place], 0),
                Act::Edit(place, version) => (&self.questions[*place], *version),
                Act::Stop(_) => continue,
            };
            let chat = chats.entry(question.person).or_default();
            let name = question.name_of(version);
            // The same text again changes nothing.
            if pasts.contains_key(&name) {
                continue;
            }
            chat.retain(|other| place_of(other) != Some((question.person, question.number)));
            pasts.insert(name.clone(), chat.clone());
            chat.push(name);
        }
        pasts
    }
}

fn name(script: &Script, act: Act) -> String {
    match act {
        Act::Ask(place) => script.questions[place].name_of(0),
        Act::Edit(place, version) => script.questions[place].name_of(version),
        Act::Stop(person) => format!("the /stop of {person}"),
    }
}

/// The person and the number in a question's name.
fn place_of(name: &str) -> Option<(i64, usize)> {
    let (person, rest) = name.strip_prefix('p')?.split_once('m')?;
    let number = rest.split_once('e').map_or(rest, |(number, _)| number);
    Some((person.parse().ok()?, number.parse().ok()?))
}

/// The beginning of an answer, with the words about its having been stopped.
fn is_part(text: &str, answer: &str) -> bool {
    text.strip_suffix(STOPPED)
        .map(str::trim_end)
        .is_some_and(|part| answer.starts_with(part))
}

fn first_word(content: &Value) -> Option<&str> {
    content.as_str()?.split_whitespace().next()
}

pub fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::load::{Load, well};

    /// Four questions of one person, of which the third fails.
    fn script() -> Script {
        let load = Load {
            people: 1,
            messages: 4,
            during: Duration::from_secs(1),
        };
        let mut script = load.draw(&mut StdRng::seed_from_u64(1), well);
        script.questions[2].fails = true;
        for question in &mut script.questions {
            question.more = 0;
        }
        script
    }

    fn verdict_of(script: &Script, stopped: &[&str], texts: &[&str]) -> (usize, usize, usize) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let mut verdict = Verdict {
            stopped: stopped.iter().map(|name| (*name).to_owned()).collect(),
            ..Verdict::default()
        };
        verdict.chat(&script.questions.iter().collect::<Vec<_>>(), &texts);
        assert_eq!(
            verdict.faults.is_empty(),
            verdict.lost + verdict.twice + verdict.disorder == 0
        );
        (verdict.lost, verdict.twice, verdict.disorder)
    }

    fn verdict(texts: &[&str]) -> (usize, usize, usize) {
        verdict_of(&script(), &[], texts)
    }

    /// A check that sees nothing would find every scenario in good order.
    #[test]
    fn what_is_wrong_in_a_chat_is_seen() {
        let answers: Vec<String> = script().questions.iter().map(Question::answer).collect();
        let [a, b, c, d] = [&*answers[0], &*answers[1], &*answers[2], &*answers[3]];
        let failure = "The AI service failed. BD-AI-DOWN";
        let cut = "Echo: p1m2 and\n\nCut short. BD-AI-CUT";
        assert_eq!(verdict(&[a, b, c, d]), (0, 0, 0));
        assert_eq!(verdict(&[a, b, failure, d]), (0, 0, 0));
        assert_eq!(verdict(&[a, b, cut, d]), (0, 0, 0));
        assert_eq!(verdict(&[a, b, c]), (1, 0, 0), "the last is lost");
        assert_eq!(verdict(&[a, b, d]), (1, 0, 0), "not even a failure is said");
        assert_eq!(verdict(&[a, a, b, c, d]), (0, 1, 0), "answered twice");
        assert_eq!(verdict(&[a, b, failure, failure, d]), (0, 1, 0), "failed twice");
        assert_eq!(verdict(&[a, b, cut, c, d]), (0, 1, 0), "a preview was left behind");
        assert_eq!(verdict(&[b, a, c, d]), (0, 0, 1), "out of order");
        assert_eq!(
            verdict(&[a, "Echo: p1m1 and", c, d]),
            (1, 0, 0),
            "a preview and no more"
        );
        assert_eq!(verdict(&[a, failure, c, d]), (1, 1, 0), "a failure without need");
        assert_eq!(verdict(&[a, b, c, "hello", d]), (0, 1, 0), "something else");
    }

    #[test]
    fn an_old_version_and_an_answer_that_was_stopped_without_need_are_seen() {
        let mut script = script();
        script.questions[1].edits = 1;
        let answers: Vec<String> = script.questions.iter().map(Question::answer).collect();
        let [a, b, c, d] = [&*answers[0], &*answers[1], &*answers[2], &*answers[3]];
        let old = "Echo: p1m1 and some more words";
        let part = &format!("Echo: p1m1e1 and some\n\n{STOPPED}");
        let wrong = &format!("Echo: p1m1e1 and others\n\n{STOPPED}");
        let stopped = |texts: &[&str]| verdict_of(&script, &["p1m1e1"], texts);
        assert_eq!(verdict_of(&script, &[], &[a, b, c, d]), (0, 0, 0));
        assert_eq!(
            verdict_of(&script, &[], &[a, old, c, d]),
            (1, 0, 0),
            "not answered anew"
        );
        assert_eq!(verdict_of(&script, &[], &[a, c, d, b]), (0, 0, 1), "not in place");
        assert_eq!(verdict_of(&script, &[], &[a, part, c, d]), (1, 0, 0), "only a part");
        assert_eq!(
            verdict_of(&script, &[], &[a, STOPPED, c, d]),
            (1, 1, 0),
            "nothing but words"
        );
        assert_eq!(stopped(&[a, part, c, d]), (0, 0, 0));
        assert_eq!(stopped(&[a, STOPPED, c, d]), (0, 0, 0));
        assert_eq!(stopped(&[a, wrong, c, d]), (1, 0, 0), "a part of something else");
        let short = &format!("Echo: p1\n\n{STOPPED}");
        let strange = &format!("Echo: x1\n\n{STOPPED}");
        assert_eq!(stopped(&[a, short, c, d]), (0, 0, 0));
        assert_eq!(stopped(&[a, strange, c, d]), (1, 0, 0), "too little to tell of what");
        assert_eq!(stopped(&[a, c, d]), (1, 0, 0), "nothing is said");
        assert_eq!(stopped(&[a, part, STOPPED, c, d]), (0, 1, 0), "said twice");
    }

    #[test]
    fn what_nobody_stopped_and_a_reply_too_many_are_seen() {
        let mut script = script();
        let second = Duration::from_secs(1);
        script.acts = vec![
            (second, Act::Ask(0)),
            (second, Act::Stop(1)),
            (second, Act::Ask(1)),
            (second, Act::Stop(2)),
        ];
        let faults = |names: &[&str], begun| {
            let mut verdict = Verdict {
                stopped: names.iter().map(|name| (*name).to_owned()).collect(),
                ..Verdict::default()
            };
            verdict.stops(&script, begun);
            verdict.faults.len()
        };
        assert_eq!(faults(&["p1m0"], 2), 0);
        assert_eq!(faults(&["p1m1"], 2), 1, "the /stop came before it, or is another's");
        assert_eq!(faults(&["p1m0"], 0), 1, "more than there were");
        let mut verdict = Verdict::default();
        verdict.stop_replies(1, 2, 2);
        assert!(verdict.faults.is_empty());
        verdict.stop_replies(1, 2, 3);
        verdict.stop_replies(1, 2, 1);
        assert_eq!((verdict.lost, verdict.twice, verdict.faults.len()), (1, 1, 2));
    }

    #[test]
    fn a_line_of_the_ledger_too_many_or_too_few_is_seen() {
        let mut script = script();
        script.questions[1].edits = 2;
        let faults = |names: &[&str]| {
            let row = |name: &&str| serde_json::json!({"text": format!("{name} and more"), "finish": "stop"});
            let rows: Vec<Value> = names.iter().map(row).collect();
            let mut verdict = Verdict::default();
            verdict.lines(&script, &rows);
            (verdict.billed_twice, verdict.faults.len())
        };
        let (all, short) = (["p1m0", "p1m1", "p1m1e1", "p1m1e2", "p1m2", "p1m3"], 3);
        assert_eq!(faults(&all), (0, 0));
        // Two changes in one go may be answered together.
        assert_eq!(faults(&["p1m0", "p1m1", "p1m1e2", "p1m2", "p1m3"]), (0, 0));
        assert_eq!(faults(&all[..short]), (-3, 3), "not billed");
        assert_eq!(faults(&[&all[..], &["p1m1e1"]].concat()), (1, 1), "billed twice");
        assert_eq!(faults(&[&all[..], &["p1m0e1"]].concat()), (1, 1), "never asked");
    }

    #[test]
    fn one_that_was_changed_is_asked_behind_what_came_since() {
        let mut script = script();
        script.questions[0].edits = 1;
        let acts = [Act::Ask(0), Act::Edit(0, 0), Act::Ask(1), Act::Edit(0, 1), Act::Ask(2)];
        script.acts = acts.map(|act| (Duration::ZERO, act)).to_vec();
        let pasts = script.pasts();
        assert_eq!(pasts["p1m1"], ["p1m0"]);
        assert_eq!(pasts["p1m0e1"], ["p1m1"]);
        assert_eq!(pasts["p1m2"], ["p1m1", "p1m0e1"]);
    }
}
