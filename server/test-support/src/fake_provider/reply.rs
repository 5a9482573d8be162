//! What the fake model says, and how directives in a question change it.

use std::time::Duration;

/// A failure of the provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderFault {
    /// An error answer with this status.
    Status(u16),
    /// 400 with these words.
    Refused(String),
    /// 429 with a `retry-after` header, in seconds.
    RateLimited { retry_after: u64 },
    /// The connection is cut before a byte of an answer.
    Drop,
    /// The connection is cut after about half of the answer.
    CutMidStream,
    /// The body ends in good order after about half of the answer.
    EndMidStream,
    /// Accepts the request and never answers.
    Hang,
    /// Says of a stream whose turn it is, and goes silent before the first word.
    HangAfterRole,
    /// Goes silent after about half of the answer.
    HangMidStream,
    /// Complete, but no usage although it was asked for.
    NoUsage,
    /// Reports 0 tokens, as some servers do for streams.
    ZeroUsage,
    /// 200 and the end, without any content.
    EmptyStream,
    /// A chunk that is not JSON amid the others.
    GarbageChunk,
    /// 200, and these words in an error: after about half of a stream, or in the place of an answer.
    ErrorInside(String),
    /// 200, and these bytes in the place of an answer; as a stream where one was asked for.
    Instead(String),
}

/// An answer and its pace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub text: String,
    /// In how many chunks it is streamed; `None`: one a word.
    pub chunks: Option<usize>,
    /// Before every chunk of content but the first.
    pub pause: Duration,
    /// Before the first byte.
    pub delay: Duration,
    pub fault: Option<ProviderFault>,
    /// The text is what the first tool that is offered is called with.
    pub calls_tool: bool,
}

impl Reply {
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    pub fn chunks(mut self, chunks: usize, pause: Duration) -> Self {
        self.chunks = Some(chunks);
        self.pause = pause;
        self
    }

    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub fn fault(mut self, fault: ProviderFault) -> Self {
        self.fault = Some(fault);
        self
    }
}

/// The fake's tokens are words: what white space divides. Any test can count them.
pub fn count_tokens(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

/// The first so many tokens of a text.
pub(crate) fn truncate(text: &str, tokens: usize) -> &str {
    match words(text).get(tokens) {
        Some(next) => text[..*next].trim_end(),
        None => text,
    }
}

/// Where each word begins; white space before the first belongs to it.
fn words(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut in_word = false;
    for (at, c) in text.char_indices() {
        if !c.is_whitespace() && !in_word {
            starts.push(if starts.is_empty() { 0 } else { at });
        }
        in_word = !c.is_whitespace();
    }
    starts
}

/// Cuts a text into so many pieces, between words if there are enough of them, else between characters.
pub(crate) fn pieces(text: &str, count: Option<usize>) -> Vec<&str> {
    let mut starts = words(text);
    let count = count.unwrap_or(starts.len()).max(1);
    if starts.len() < count {
        starts = text.char_indices().map(|(at, _)| at).collect();
    }
    let count = count.min(starts.len());
    let start = |piece: usize| {
        starts
            .get(piece * starts.len() / count.max(1))
            .copied()
            .unwrap_or(text.len())
    };
    (0..count).map(|piece| &text[start(piece)..start(piece + 1)]).collect()
}

/// The default answer to a question: its echo, changed by the directives in it.
///
/// `[[delay=500]]` ms before the first byte · `[[chunks=20,50ms]]` pieces and pause · `[[tokens=300]]` an answer of so many
/// words · `[[more=600]]` so many words behind the echo · `[[reply=some text]]` · `[[call={"city":"Kyoto"}]]` the tool that is offered, and
/// what that said once it has · `[[status=429,2]]` error, and seconds of `retry-after` · `[[drop]]` · `[[cut]]` · `[[end]]` · `[[hang]]` ·
/// `[[hangmid]]` · `[[nousage]]` · `[[zerousage]]` · `[[empty]]` · `[[garbage]]` · `[[instead={}]]` these bytes. With `[[once]]` beside it, a
/// failure meets only the first request with this question, so that a retry succeeds.
pub(crate) fn to_question(question: &str, seen_before: bool) -> Reply {
    let mut reply = Reply::default();
    let (mut plain, mut rest, mut once) = (String::new(), question, false);
    let (mut said, mut more) = (None, 0);
    while let Some((before, inner, after)) = next_directive(rest) {
        plain.push_str(before);
        rest = after;
        let (name, value) = inner.split_once('=').unwrap_or((inner, ""));
        let (first, second) = value.split_once(',').unwrap_or((value, ""));
        match name.trim() {
            "delay" => reply.delay = milliseconds(first),
            "chunks" => {
                reply.chunks = first.trim().parse().ok();
                reply.pause = milliseconds(second);
            }
            "tokens" => {
                let count: usize = first.trim().parse().unwrap_or(1);
                said = Some((1..=count).map(|n| format!("word{n}")).collect::<Vec<_>>().join(" "));
            }
            "more" => more = first.trim().parse().unwrap_or(0),
            "reply" => said = Some(value.to_owned()),
            "call" => {
                said = Some(value.to_owned());
                reply.calls_tool = true;
            }
            "status" => {
                reply.fault = Some(match second.trim().parse() {
                    Ok(retry_after) => ProviderFault::RateLimited { retry_after },
                    Err(_) => ProviderFault::Status(first.trim().parse().unwrap_or(500)),
                });
            }
            "drop" => reply.fault = Some(ProviderFault::Drop),
            "cut" => reply.fault = Some(ProviderFault::CutMidStream),
            "end" => reply.fault = Some(ProviderFault::EndMidStream),
            "hang" => reply.fault = Some(ProviderFault::Hang),
            "hangmid" => reply.fault = Some(ProviderFault::HangMidStream),
            "nousage" => reply.fault = Some(ProviderFault::NoUsage),
            "zerousage" => reply.fault = Some(ProviderFault::ZeroUsage),
            "empty" => reply.fault = Some(ProviderFault::EmptyStream),
            "garbage" => reply.fault = Some(ProviderFault::GarbageChunk),
            "instead" => reply.fault = Some(ProviderFault::Instead(value.to_owned())),
            "once" => once = true,
            // Not ours: somebody's text with double brackets.
            _ => plain.push_str(&format!("[[{inner}]]")),
        }
    }
    plain.push_str(rest);
    if once && seen_before {
        reply.fault = None;
    }
    reply.text = said.unwrap_or_else(|| format!("Echo: {}", plain.trim()));
    reply.text.extend((1..=more).map(|n| format!(" more{n}")));
    reply
}

/// Text before, inside and after the next pair of double brackets.
fn next_directive(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("[[")?;
    let (inner, after) = rest.split_once("]]")?;
    Some((before, inner, after))
}

fn milliseconds(text: &str) -> Duration {
    Duration::from_millis(text.trim().trim_end_matches("ms").parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_put_together_are_the_text() {
        for text in ["", "one", "  one two\nthree  ", "привет 🦀 мир"] {
            for count in [None, Some(1), Some(2), Some(5), Some(100)] {
                assert_eq!(
                    pieces(text, count).concat(),
                    if text.trim().is_empty() { "" } else { text }
                );
            }
        }
        assert_eq!(pieces("a b c d", Some(2)), ["a b ", "c d"]);
        assert_eq!(pieces("abcd", Some(2)), ["ab", "cd"]);
        assert_eq!(truncate("a b c d", 2), "a b");
    }

    #[test]
    fn directives_change_the_echo() {
        let reply = to_question("Hi [[delay=500]] [[chunks=20,50ms]] there [[not ours]]", false);
        assert_eq!(reply.text, "Echo: Hi   there [[not ours]]");
        assert_eq!(
            (reply.delay.as_millis(), reply.chunks, reply.pause.as_millis()),
            (500, Some(20), 50)
        );
        assert_eq!(to_question("Hi [[more=2]]", false).text, "Echo: Hi more1 more2");
        assert_eq!(count_tokens(&to_question("[[tokens=300]]", false).text), 300);
        assert_eq!(to_question("[[status=500]] [[once]]", true).fault, None);
        assert_eq!(
            to_question("[[status=429,2]]", false).fault,
            Some(ProviderFault::RateLimited { retry_after: 2 })
        );
    }
}
