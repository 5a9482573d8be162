//! What must hold after whatever has happened.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use test_support::{
    app::{OrFail, TestDatabase},
    fake_provider::Request,
};

use crate::load::Question;

/// The product shows a model 200 messages at most, which is 100 questions with their answers.
const LONG_PAST: usize = 90;

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
    /// Answers in the ledger whose usage had to be estimated.
    pub estimated: usize,
    /// What the provider told of requests whose job was cut off before it settled.
    pub unsettled: (usize, i64),
    /// Jobs that were run more than once.
    pub again: i64,
    /// Attempts that were not the last of their job.
    pub attempts_before: i64,
    pub faults: Vec<String>,
}

/// What stands where a person's answer is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said<'a> {
    /// The whole answer to a question, or (`false`) a part of it with words about a failure.
    Answer(&'a str, bool),
    /// Only words about a failure.
    Failure,
    Strange,
}

/// The name of the question that a text of the bot answers.
fn said(text: &str) -> Said<'_> {
    let failed = text.contains("BD-AI-");
    match text
        .strip_prefix("Echo: ")
        .and_then(|rest| rest.split_whitespace().next())
    {
        Some(identity) => Said::Answer(identity, !failed),
        None if failed => Said::Failure,
        None => Said::Strange,
    }
}

impl Verdict {
    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// One chat: its questions in order, and what the bot has said there, in order.
    pub fn chat(&mut self, questions: &[&Question], texts: &[String]) {
        let said: Vec<Said> = texts.iter().map(|text| said(text)).collect();
        let right = |question: &Question, text: &str, said: &Said| match said {
            Said::Answer(_, true) => *text == question.answer(),
            Said::Answer(identity, false) => question.fails && *identity == question.identity(),
            Said::Failure => question.fails,
            Said::Strange => false,
        };
        let together = || questions.iter().zip(texts.iter().zip(&said));
        if questions.len() == texts.len() && together().all(|(question, (text, said))| right(question, text, said)) {
            return;
        }
        let chat = questions.first().map_or(0, |question| question.person);
        let mut unmarked = 0_usize;
        for question in questions {
            let (identity, whole) = (question.identity(), question.answer());
            let copies = said
                .iter()
                .filter(|said| matches!(said, Said::Answer(of, _) if *of == identity));
            let copies = copies.count();
            if copies == 0 && question.fails {
                unmarked += 1;
            } else if copies == 0 {
                self.lost += 1;
                self.fault(format!("{identity} has no answer"));
            } else if copies > 1 {
                self.twice += copies - 1;
                self.fault(format!("{identity} has {copies} answers"));
            } else if !question.fails && !texts.contains(&whole) {
                self.lost += 1;
                let seen = texts.iter().find(|text| text.contains(&format!("{identity} ")));
                self.fault(format!("{identity} has only a part of its answer: {seen:?}"));
            }
        }
        // A failure in words does not say to what; there must be as many as questions without anything else.
        let failures = said.iter().filter(|said| **said == Said::Failure).count();
        if failures != unmarked {
            self.lost += unmarked.saturating_sub(failures);
            self.twice += failures.saturating_sub(unmarked);
            self.fault(format!(
                "chat {chat}: {failures} failures in words for {unmarked} questions"
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
    }

    /// Each question was asked with the past of its own chat, complete and in order.
    pub fn pasts(&mut self, questions: &[Question], requests: &[Request]) {
        let fails: HashSet<String> = questions.iter().filter(|q| q.fails).map(Question::identity).collect();
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
            let Some((person, number)) = now.split_once('m') else {
                continue;
            };
            let number: usize = number.parse().unwrap_or(0);
            let sure = |name: &String| !fails.contains(name);
            let past: Vec<String> = past.iter().map(|name| (*name).to_owned()).filter(sure).collect();
            let expected: Vec<String> = (0..number).map(|n| format!("{person}m{n}")).filter(sure).collect();
            // Only a long past may be cut, at its beginning.
            let complete = past.len() == expected.len() || past.len() >= LONG_PAST;
            if !expected.ends_with(&past) || !complete {
                self.disorder += 1;
                self.fault(format!("{now} was asked with the past {past:?}"));
            }
        }
    }

    /// Ledger, counters and reservations, against each other and what the provider told.
    pub async fn books(&mut self, db: &TestDatabase, questions: &[Question], requests: &[Request]) {
        let rows = db
            .rows(
                "SELECT m.text, u.prompt_tokens AS prompt, u.completion_tokens AS completion, u.reported
                 FROM usage u LEFT JOIN messages m ON m.job_id = u.job_id AND m.author = 'user'",
            )
            .await;
        self.billed_twice += i64::try_from(rows.len()).unwrap_or(0) - i64::try_from(questions.len()).unwrap_or(0);
        if self.billed_twice != 0 {
            self.fault(format!(
                "{} lines in the ledger for {} questions",
                rows.len(),
                questions.len()
            ));
        }
        let mut told = HashMap::<(String, i64, i64), usize>::new();
        let (mut requests_told, mut tokens_told) = (0, 0);
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
            if row["reported"] != true {
                self.estimated += 1;
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
        let may_fail = questions.iter().filter(|question| question.fails).count();
        if self.estimated > may_fail {
            self.fault(format!("{} answers were estimated, {may_fail} may be", self.estimated));
        }
        let sums = "SELECT (SELECT coalesce(sum(used), 0) FROM counters WHERE measure = 'tokens')::bigint AS tokens_counted,
                (SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) FROM usage)::bigint AS tokens_billed,
                (SELECT coalesce(sum(used), 0) FROM counters WHERE measure = 'messages')::bigint AS counted,
                (SELECT count(*) FROM usage WHERE finish <> 'failed') AS answered,
                (SELECT count(*) FROM reservations) + (SELECT coalesce(sum(reserved), 0) FROM counters)::bigint AS reserved,
                (SELECT count(*) FROM jobs WHERE state = 'dead') AS dead,
                (SELECT count(*) FROM jobs WHERE attempts > 1) AS again,
                (SELECT coalesce(sum(attempts - 1), 0) FROM jobs WHERE attempts > 1)::bigint AS attempts_before,
                (SELECT count(*) FROM messages WHERE author = 'user') AS kept";
        let sums = db.rows(sums).await.into_iter().next().or_fail("no sums");
        let number = |name: &str| sums[name].as_i64().or_fail(name);
        self.reserved = number("reserved");
        self.again = number("again");
        self.attempts_before = number("attempts_before");
        self.billed_twice += number("counted") - number("answered");
        let asked = signed(questions.len());
        for (what, found, expected) in [
            (
                "tokens counted, and billed",
                number("tokens_counted"),
                number("tokens_billed"),
            ),
            ("messages counted, and answered", number("counted"), number("answered")),
            ("left reserved", self.reserved, 0),
            ("dead letters", number("dead"), 0),
            ("questions kept, and asked", number("kept"), asked),
        ] {
            if found != expected {
                self.fault(format!("{what}: {found}, not {expected}"));
            }
        }
    }
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

    fn questions() -> Vec<Question> {
        let load = Load {
            people: 1,
            messages: 4,
            during: Duration::from_secs(1),
        };
        let mut questions = load.draw(&mut StdRng::seed_from_u64(1), well);
        questions[2].fails = true;
        for question in &mut questions {
            question.long = false;
        }
        questions
    }

    fn verdict(texts: &[&str]) -> (usize, usize, usize) {
        let questions = questions();
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let mut verdict = Verdict::default();
        verdict.chat(&questions.iter().collect::<Vec<_>>(), &texts);
        assert_eq!(
            verdict.faults.is_empty(),
            verdict.lost + verdict.twice + verdict.disorder == 0
        );
        (verdict.lost, verdict.twice, verdict.disorder)
    }

    /// A check that sees nothing would find every scenario in good order.
    #[test]
    fn what_is_wrong_in_a_chat_is_seen() {
        let answers: Vec<String> = questions().iter().map(Question::answer).collect();
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
}
