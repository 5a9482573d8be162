//! Reads along while an answer passes: usage, the reason of its end, an error, and the text, in case it has to be counted.

use std::{
    collections::VecDeque,
    io::{self, BufReader, Read},
};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};

use crate::{Endpoint, Usage, openai::usage_of};

/// Longer events and documents pass unread. A picture of 4K is shorter, in base64 too.
const MOST_EVENT: usize = 16 * 1024 * 1024;
const MOST_DOCUMENT: usize = 16 * 1024 * 1024;
/// So much of a document is kept back until it is known whether it is an answer or an error. No error is longer.
const MOST_HELD: usize = 64 * 1024;
/// Text beyond this is not counted.
const MOST_TEXT: usize = 4 * 1024 * 1024;

/// What was seen in what has passed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) usage: Option<Usage>,
    pub(super) finish: Option<String>,
    /// Some answer, of several perhaps, is not all that the model would have said.
    pub(super) cut_short: bool,
    pub(super) error: Option<Value>,
    /// What a model said, thoughts and calls of tools included: it is billed for all of it.
    pub(super) text: String,
    /// Pictures, or whatever else comes as a list.
    pub(super) images: i64,
    /// Something of an answer has come: words, thoughts, a call of a tool, sound, a picture, or its end.
    pub(super) begun: bool,
    /// Events have come that say nothing yet, such as whose turn it is.
    pub(super) stirred: bool,
    /// The answer has said itself that it is complete.
    pub(super) done: bool,
}

/// How the bytes are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Events,
    Document,
    /// Sound, subtitles: nothing to be read.
    Opaque,
}

pub(super) struct Scanner {
    hide_usage: bool,
    /// What is no JSON is no answer.
    is_json: bool,
    /// Nothing goes on before something of an answer has come.
    is_patient: bool,
    /// A document came that is no answer.
    broken: bool,
    kind: Option<Kind>,
    content_type: String,
    /// An event that is not complete yet.
    tail: BytesMut,
    /// In what is before this place of the tail no event ends.
    searched: usize,
    /// An event too long to be read is passing.
    passing: bool,
    document: VecDeque<Bytes>,
    document_bytes: usize,
    /// The document has begun to go on.
    released: bool,
    seen: Seen,
}

impl Scanner {
    pub(super) fn new(content_type: &str, hide_usage: bool) -> Self {
        Self {
            hide_usage,
            is_json: false,
            is_patient: false,
            broken: false,
            kind: None,
            content_type: content_type.to_owned(),
            tail: BytesMut::new(),
            searched: 0,
            passing: false,
            document: VecDeque::new(),
            document_bytes: 0,
            released: false,
            seen: Seen::default(),
        }
    }

    /// Nothing but JSON is an answer of this endpoint, if that is so.
    pub(super) fn of(mut self, endpoint: Endpoint) -> Self {
        self.is_json = endpoint.answers_json();
        self
    }

    /// Whether to wait for something of an answer itself, since another may still be asked.
    pub(super) fn patient(mut self, is_patient: bool) -> Self {
        self.is_patient = is_patient;
        self
    }

    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    pub(super) fn take(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }

    /// By its first bytes and its type, which may lie.
    fn kind_of(&self, bytes: &[u8]) -> Option<Kind> {
        let start = bytes.trim_ascii_start();
        let is = |content_type: &str| self.content_type.starts_with(content_type);
        Some(match start.first()? {
            _ if !self.is_json && (is("audio/") || is("application/octet-stream")) => Kind::Opaque,
            b'{' | b'[' => Kind::Document,
            _ if is("text/event-stream") => Kind::Events,
            b':' => Kind::Events,
            _ if start.starts_with(b"data:") || start.starts_with(b"event:") => Kind::Events,
            _ if self.is_json => Kind::Document,
            _ => Kind::Opaque,
        })
    }

    pub(super) fn is_stream(&self) -> bool {
        self.kind == Some(Kind::Events)
    }

    /// A stream that has not said that it is complete: at its end, a connection that closed in the middle of an answer.
    pub(super) fn broke_off(&self) -> bool {
        self.is_stream() && self.seen.finish.is_none() && !self.seen.done
    }

    /// Whether it can be told that an answer has begun, or that it will not.
    pub(super) fn decided(&self) -> bool {
        match self.kind {
            None => false,
            Some(Kind::Events) => {
                let stirred = self.seen.stirred && !self.is_patient;
                stirred || self.seen.begun || self.seen.done || self.seen.error.is_some()
            }
            Some(Kind::Document) => self.released || self.broken,
            Some(Kind::Opaque) => true,
        }
    }

    /// What came is no answer, though its status said so: empty, broken off, no JSON, or without anything that was asked for.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The error that came in the place of an answer.
    pub(super) fn refusal(&self) -> Option<&Value> {
        let instead = !self.seen.begun || (self.kind == Some(Kind::Document) && !self.released);
        self.seen.error.as_ref().filter(|_| instead)
    }

    /// The answer is whole, and what it has used has still to be told.
    pub(super) fn lacks_usage(&self) -> bool {
        self.seen.finish.is_some() && self.seen.usage.is_none() && !self.seen.done
    }

    /// Reads `bytes` and puts what may go on into `out`: nothing from an error on, since those are the provider's words.
    pub(super) fn feed(&mut self, bytes: Bytes, out: &mut VecDeque<Bytes>) {
        if bytes.is_empty() || self.seen.error.is_some() {
            return;
        }
        if self.kind.is_none() {
            self.kind = self.kind_of(&bytes);
        }
        match self.kind {
            Some(Kind::Events) => self.events(bytes, out),
            Some(Kind::Document) => self.document(bytes, out),
            _ => {
                self.seen.begun |= self.kind.is_some();
                out.push_back(bytes);
            }
        }
    }

    fn document(&mut self, bytes: Bytes, out: &mut VecDeque<Bytes>) {
        if self.is_json && self.document_bytes == 0 && !bytes.trim_ascii_start().starts_with(b"{") {
            self.broken = true;
        }
        if self.broken {
            return;
        }
        self.document_bytes += bytes.len();
        if self.released {
            out.push_back(bytes.clone());
        }
        if self.document_bytes <= MOST_DOCUMENT || !self.released {
            self.document.push_back(bytes);
        } else {
            self.document.clear();
        }
        if self.document_bytes > MOST_HELD {
            self.release(out);
        }
    }

    fn release(&mut self, out: &mut VecDeque<Bytes>) {
        if !self.released {
            self.released = true;
            out.extend(self.document.iter().cloned());
        }
    }

    /// An event goes on when it is whole and has been read.
    fn events(&mut self, bytes: Bytes, out: &mut VecDeque<Bytes>) {
        self.tail.extend_from_slice(&bytes);
        // Events that stand side by side go on in one piece.
        let mut read = BytesMut::new();
        while let Some(length) = event_end(&self.tail[self.searched..]) {
            let event = self.tail.split_to(self.searched + length);
            self.searched = 0;
            let reading = if std::mem::take(&mut self.passing) {
                Reading::Passes
            } else {
                self.examine(&event)
            };
            if self.seen.error.is_some() {
                self.tail.clear();
                break;
            }
            if reading.goes_on(self.hide_usage) {
                read.unsplit(event);
            } else {
                push(std::mem::take(&mut read), out);
            }
        }
        push(read, out);
        // Where an event ends is told by a line break and up to two bytes behind it.
        self.searched = self.tail.len().saturating_sub(2);
        self.passing |= self.tail.len() > MOST_EVENT;
        if self.passing {
            push(self.tail.split_to(self.searched), out);
            self.searched = 0;
        }
    }

    /// The body has ended.
    pub(super) fn end(&mut self, out: &mut VecDeque<Bytes>) {
        match self.kind {
            Some(Kind::Events) => {
                let tail = std::mem::take(&mut self.tail).freeze();
                let goes_on = self.passing || self.examine(&tail).goes_on(self.hide_usage);
                let hidden = self.seen.error.is_some() || !goes_on;
                if !hidden && !tail.is_empty() {
                    out.push_back(tail);
                }
            }
            Some(Kind::Document) => {
                let event = whole(&self.document);
                let is_read = event.is_some();
                if let Some(event) = event {
                    self.note(event);
                }
                if self.is_json && self.seen.error.is_none() {
                    let is_long = self.document_bytes > MOST_DOCUMENT;
                    self.broken |= !(is_long || is_read && self.seen.begun);
                }
                self.seen.done = self.seen.error.is_none() && !self.broken;
                if self.seen.done {
                    self.release(out);
                }
            }
            None if self.is_json => self.broken = true,
            _ => self.seen.done = true,
        }
    }

    /// Reads one event.
    fn examine(&mut self, event: &[u8]) -> Reading {
        let mut joined = Vec::new();
        let mut data: &[u8] = &[];
        let mut is_error = false;
        for line in event.split(|byte| *byte == b'\n') {
            if let Some(name) = line.strip_prefix(b"event:") {
                is_error = name.trim_ascii() == b"error";
            }
            let Some(line) = line.strip_prefix(b"data:") else {
                continue;
            };
            let line = line.trim_ascii();
            if data.is_empty() {
                data = line;
            } else {
                if joined.is_empty() {
                    joined.extend_from_slice(data);
                }
                joined.extend_from_slice(line);
            }
        }
        let data = if joined.is_empty() { data } else { &joined };
        if is_error {
            self.fail(named_error(data));
            return Reading::Passes;
        }
        if data == b"[DONE]" {
            self.seen.done = true;
            return Reading::Passes;
        }
        match read(data).map(|event| self.note(event)) {
            Some(true) => Reading::Usage,
            Some(false) => Reading::Passes,
            // A comment, a sign of life.
            None if data.is_empty() => Reading::Passes,
            None => Reading::Nothing,
        }
    }

    /// Only the first error counts; nothing that comes behind it goes on.
    fn fail(&mut self, error: Value) {
        self.seen.error.get_or_insert(error);
    }

    /// True if it says nothing but the usage.
    fn note(&mut self, mut event: Event) -> bool {
        if let Some(error) = event.take_error(self.is_json) {
            self.fail(error);
        }
        let usage = event.usage.as_ref().and_then(usage_of);
        let choices = event.choices.unwrap_or_default();
        let only_usage = usage.is_some() && choices.is_empty() && event.kind.is_none();
        if let Some(usage) = usage {
            self.seen.usage = Some(usage);
        }
        for choice in choices {
            self.seen.stirred = true;
            if let Some(text) = &choice.text {
                self.say(text);
            }
            if let Some(said) = choice.delta.or(choice.message) {
                self.hear(&said);
            }
            if let Some(word) = choice.finish_reason.filter(|word| !word.is_empty()) {
                // OpenRouter's word for an upstream that failed.
                if word == "error" {
                    self.fail(Value::from("the upstream provider failed"));
                }
                self.seen.begun = true;
                self.seen.cut_short |= !matches!(word.as_str(), "stop" | "tool_calls" | "function_call");
                self.seen.finish = Some(word);
            }
        }
        self.seen.begun |= event.output.is_some_and(|output| !output.is_empty());
        if let Some(data) = event.data {
            self.seen.begun |= !data.is_empty();
            self.seen.images = i64::try_from(data.len()).unwrap_or(i64::MAX);
        }
        let kind = event.kind.as_deref().unwrap_or_default();
        if !kind.is_empty() {
            self.note_typed(kind, event.delta.as_ref(), event.response);
            // Of a message only its place is told first; a call of a tool is a part of an answer at once.
            let item = event.item.as_ref().and_then(|item| item["type"].as_str());
            self.seen.begun |= item.is_some_and(|kind| kind.ends_with("_call"));
        }
        if let Some(status) = event.status {
            self.end_of_response(&status);
        }
        only_usage
    }

    /// Events of the responses endpoint, and of pictures, speech and transcriptions that are streamed:
    /// <https://platform.openai.com/docs/api-reference/images-streaming>,
    /// <https://platform.openai.com/docs/api-reference/audio/speech-audio-delta-event>.
    fn note_typed(&mut self, kind: &str, delta: Option<&Value>, response: Option<Value>) {
        if kind.ends_with(".delta") {
            self.seen.stirred = true;
            match delta {
                Some(text @ Value::String(_)) => self.say(text),
                // Sound stands in a field of another name.
                _ => self.seen.begun = true,
            }
        }
        if kind == "error" {
            self.fail(Value::from("an error in the stream"));
        }
        self.seen.stirred |= kind.ends_with(".output_item.added");
        self.seen.begun |= kind.ends_with(".done");
        match kind {
            "transcript.text.done" | "speech.audio.done" => self.end_of_response("completed"),
            "image_generation.partial_image" => self.seen.begun = true,
            "image_generation.completed" => {
                self.seen.images += 1;
                self.end_of_response("completed");
            }
            _ => {}
        }
        let Some(response) = response else { return };
        if let Some(usage) = usage_of(&response["usage"]) {
            self.seen.usage = Some(usage);
        }
        if response["error"].is_object() {
            self.fail(response["error"].clone());
        }
        if matches!(kind, "response.completed" | "response.incomplete" | "response.failed") {
            self.end_of_response(kind.trim_start_matches("response."));
        }
    }

    fn end_of_response(&mut self, status: &str) {
        let word = match status {
            "completed" => "stop",
            "incomplete" => "length",
            _ => return,
        };
        self.seen.begun = true;
        self.seen.done = true;
        self.seen.finish = Some(word.to_owned());
    }

    /// What a model says in a choice.
    fn hear(&mut self, said: &Said) {
        for value in [&said.content, &said.refusal].into_iter().flatten() {
            self.say(value);
        }
        // Some servers tell their thoughts under both names.
        let mut thoughts = [&said.reasoning_content, &said.reasoning].into_iter().flatten();
        if let Some(thought) = thoughts.find(|thought| thought.as_str().is_some_and(|words| !words.is_empty())) {
            self.say(thought);
        }
        for call in said.tool_calls.iter().flatten() {
            self.seen.begun = true;
            self.say(&call["function"]["name"]);
            self.say(&call["function"]["arguments"]);
        }
        if let Some(call @ Value::Object(_)) = &said.function_call {
            self.seen.begun = true;
            self.say(&call["name"]);
            self.say(&call["arguments"]);
        }
        let is_sound = |part: &str| said.audio.as_ref().is_some_and(|audio| audio[part].is_string());
        self.seen.begun |= is_sound("data") || is_sound("transcript");
    }

    /// Text, or parts of which some are text.
    fn say(&mut self, value: &Value) {
        match value {
            Value::String(text) if self.seen.text.len() < MOST_TEXT => {
                self.seen.begun |= !text.is_empty();
                self.seen.text.push_str(text);
            }
            Value::Array(parts) => {
                for part in parts {
                    self.say(&part["text"]);
                    self.say(&part["thinking"]);
                }
            }
            _ => {}
        }
    }
}

fn push(bytes: BytesMut, out: &mut VecDeque<Bytes>) {
    if !bytes.is_empty() {
        out.push_back(bytes.freeze());
    }
}

/// Where the first event ends, its blank line included.
fn event_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        let next = from + at + 1;
        match &bytes[next..] {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            _ => from = next,
        }
    }
    None
}

/// What an event is to whoever reads along.
enum Reading {
    Passes,
    /// It says nothing but the usage.
    Usage,
    /// It is no JSON object, over which programs stumble.
    Nothing,
}

impl Reading {
    fn goes_on(&self, hide_usage: bool) -> bool {
        match self {
            Self::Passes => true,
            Self::Usage => !hide_usage,
            Self::Nothing => false,
        }
    }
}

/// What an event says that is called an error, in whichever shape.
fn named_error(data: &[u8]) -> Value {
    match serde_json::from_slice::<Value>(data) {
        Ok(mut said) if says_error(&said["error"]) => said["error"].take(),
        Ok(said) => said,
        Err(_) => Value::from(String::from_utf8_lossy(data)),
    }
}

/// Some servers write `null`, `false` or nothing into every answer.
fn says_error(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_i64() != Some(0),
        Value::String(words) => !words.is_empty(),
        Value::Array(errors) => !errors.is_empty(),
        Value::Bool(true) | Value::Object(_) => true,
    }
}

/// The little that is read of an event or of a whole answer.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Option<Value>,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    object: Option<Value>,
    /// Of the responses endpoint.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    delta: Option<Value>,
    #[serde(default)]
    response: Option<Value>,
    #[serde(default)]
    status: Option<String>,
    /// Embeddings and pictures.
    #[serde(default)]
    data: Option<Vec<IgnoredAny>>,
    /// Of a whole response.
    #[serde(default)]
    output: Option<Vec<IgnoredAny>>,
    /// Errors of servers that do not speak OpenAI in all they say.
    #[serde(default)]
    detail: Option<Value>,
    #[serde(default)]
    message: Option<Value>,
    /// What the events of a response are of.
    #[serde(default)]
    item: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Option<Said>,
    #[serde(default)]
    message: Option<Said>,
    #[serde(default)]
    finish_reason: Option<String>,
    /// The way of servers that complete texts.
    #[serde(default)]
    text: Option<Value>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    content: Option<Value>,
    #[serde(default)]
    reasoning_content: Option<Value>,
    #[serde(default)]
    reasoning: Option<Value>,
    #[serde(default)]
    refusal: Option<Value>,
    #[serde(default)]
    audio: Option<Value>,
    #[serde(default)]
    function_call: Option<Value>,
    #[serde(default)]
    tool_calls: Option<Vec<Value>>,
}

/// An event, or a short answer; `None` if it is no JSON object.
fn read(data: &[u8]) -> Option<Event> {
    if !data.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let strict = serde_json::from_slice(data).ok();
    strict.or_else(|| Event::leniently(serde_json::from_slice(data).ok()?))
}

/// A whole answer; `None` if it cannot be understood.
fn whole(document: &VecDeque<Bytes>) -> Option<Event> {
    if let ([only], []) = document.as_slices() {
        return read(only);
    }
    // The pieces are shared, not copied.
    let reader = || BufReader::new(Chunks(document.clone()));
    let strict = serde_json::from_reader(reader()).ok();
    strict.or_else(|| Event::leniently(serde_json::from_reader(reader()).ok()?))
}

impl Event {
    /// One with a field that has another type than it should: that field is left aside, and the others are read.
    fn leniently(value: Value) -> Option<Self> {
        let mut fields = Fields::of(value)?;
        Some(Self {
            choices: fields
                .list("choices")
                .map(|choices| choices.into_iter().filter_map(Choice::leniently).collect()),
            usage: fields.take("usage"),
            error: fields.take("error"),
            object: fields.take("object"),
            kind: fields.word("type"),
            delta: fields.take("delta"),
            response: fields.take("response"),
            status: fields.word("status"),
            data: fields.list("data").map(|data| vec![IgnoredAny; data.len()]),
            output: fields.list("output").map(|output| vec![IgnoredAny; output.len()]),
            detail: fields.take("detail"),
            message: fields.take("message"),
            item: fields.take("item"),
        })
    }

    /// The error that it is or holds. `is_json`: it belongs to an answer in which nothing else than errors has a detail.
    fn take_error(&mut self, is_json: bool) -> Option<Value> {
        if let Some(error) = self.error.take().filter(says_error) {
            return Some(match error {
                Value::Object(_) | Value::String(_) => error,
                // Some put their words beside a mere sign.
                sign => self.message.take().filter(says_error).unwrap_or(sign),
            });
        }
        // The way of older servers of vLLM.
        if self.object.as_ref().is_some_and(|object| object == "error") {
            return Some(Value::from("an error in the place of an answer"));
        }
        let is_answer = self.choices.is_some() || self.data.is_some() || self.output.is_some();
        if !is_json || is_answer {
            return None;
        }
        let is_known = self.kind.is_some() || self.object.is_some() || self.usage.is_some();
        let message = self.message.take().filter(|_| !is_known);
        self.detail.take().or(message).filter(says_error)
    }
}

impl Choice {
    fn leniently(value: Value) -> Option<Self> {
        let mut fields = Fields::of(value)?;
        Some(Self {
            delta: fields.take("delta").and_then(Said::leniently),
            message: fields.take("message").and_then(Said::leniently),
            finish_reason: fields.word("finish_reason"),
            text: fields.take("text"),
        })
    }
}

impl Said {
    fn leniently(value: Value) -> Option<Self> {
        let mut fields = Fields::of(value)?;
        Some(Self {
            content: fields.take("content"),
            reasoning_content: fields.take("reasoning_content"),
            reasoning: fields.take("reasoning"),
            refusal: fields.take("refusal"),
            audio: fields.take("audio"),
            function_call: fields.take("function_call"),
            tool_calls: fields.list("tool_calls"),
        })
    }
}

/// The fields of an object whose types are not what they should be.
struct Fields(Map<String, Value>);

impl Fields {
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Object(fields) => Some(Self(fields)),
            _ => None,
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn word(&mut self, name: &str) -> Option<String> {
        match self.take(name) {
            Some(Value::String(word)) => Some(word),
            _ => None,
        }
    }

    fn list(&mut self, name: &str) -> Option<Vec<Value>> {
        match self.take(name) {
            Some(Value::Array(list)) => Some(list),
            _ => None,
        }
    }
}

/// A body read without putting its pieces together.
struct Chunks(VecDeque<Bytes>);

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(first) = self.0.front_mut() {
            if first.is_empty() {
                self.0.pop_front();
                continue;
            }
            let piece = first.split_to(first.len().min(buffer.len()));
            buffer[..piece.len()].copy_from_slice(&piece);
            return Ok(piece.len());
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(body: &[u8], size: usize, hide_usage: bool) -> (Vec<u8>, Seen) {
        let mut scanner = Scanner::new("text/event-stream", hide_usage);
        let mut out = VecDeque::new();
        for piece in body.chunks(size) {
            scanner.feed(Bytes::copy_from_slice(piece), &mut out);
        }
        scanner.end(&mut out);
        (out.iter().flatten().copied().collect(), scanner.take())
    }

    /// As an answer to a chat completion, whole or streamed.
    fn through_chat(body: &str) -> (String, Seen) {
        let mut scanner = Scanner::new("", false).of(Endpoint::Chat);
        let mut out = VecDeque::new();
        for piece in body.as_bytes().chunks(11) {
            scanner.feed(Bytes::copy_from_slice(piece), &mut out);
        }
        scanner.end(&mut out);
        let out = out.iter().flatten().copied().collect();
        (String::from_utf8(out).unwrap(), scanner.take())
    }

    const HELLO: &str =
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"},\"finish_reason\":null}],\"usage\":null}\n\n";
    const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n";
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"completion_tokens_details\":{\"reasoning_tokens\":1}}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";

    #[test]
    fn a_stream_is_read_however_it_is_cut_and_only_the_usage_is_taken_out() {
        let body = [": hi\n\n", HELLO, STOP, USAGE, DONE].concat();
        let without = [": hi\n\n", HELLO, STOP, DONE].concat();
        for size in [1, 2, 7, 100, 10_000] {
            for (hide, expected) in [(true, &without), (false, &body)] {
                let (out, seen) = through(body.as_bytes(), size, hide);
                assert_eq!(String::from_utf8_lossy(&out), *expected, "in pieces of {size}");
                let usage = seen.usage.unwrap();
                assert_eq!(
                    (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens),
                    (3, 2, 1)
                );
                assert_eq!((seen.finish.as_deref(), seen.text.as_str()), (Some("stop"), "Hel"));
                assert!(seen.done && seen.begun && seen.error.is_none());
            }
        }
    }

    #[test]
    fn a_last_event_without_its_blank_line_is_read_too() {
        let body = [HELLO, USAGE.trim_end()].concat();
        let (out, seen) = through(body.as_bytes(), 9, true);
        assert_eq!(String::from_utf8_lossy(&out), HELLO);
        assert!(seen.usage.is_some() && !seen.done);
    }

    #[test]
    fn other_endpoints_are_understood() {
        let events = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"status\":\"in_progress\"}}\n\n\
            event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n\
            event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":9,\"output_tokens\":4,\"input_tokens_details\":{\"cached_tokens\":2},\"output_tokens_details\":{\"reasoning_tokens\":3}}}}\n\n";
        let (_, seen) = through(events.as_bytes(), 11, false);
        let usage = seen.usage.unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (9, 4));
        assert_eq!((usage.cached_tokens, usage.reasoning_tokens), (2, 3));
        assert_eq!((seen.finish.as_deref(), seen.text.as_str()), (Some("stop"), "Hi"));
        let (_, seen) = through(
            br#"{"data":[{"embedding":[0.1]},{"embedding":[0.2]}],"usage":{"prompt_tokens":5,"total_tokens":5}}"#,
            10,
            false,
        );
        assert_eq!(
            (seen.usage.unwrap().prompt_tokens, seen.images, seen.done),
            (5, 2, true)
        );
        let (_, seen) = through(br#"{"text":"hm","usage":{"type":"duration","seconds":60}}"#, 10, false);
        assert_eq!(seen.usage.unwrap().audio_input_tokens, 1000);
        let painted = "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"AA\"}\n\n\
            event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"AA\",\"usage\":{\"input_tokens\":5,\"output_tokens\":7}}\n\n";
        let (_, seen) = through(painted.as_bytes(), 13, false);
        assert_eq!((seen.images, seen.usage.unwrap().completion_tokens), (1, 7));
        assert!(seen.begun && seen.finish.is_some());
        let spoken = "data: {\"type\":\"speech.audio.delta\",\"audio\":\"AA\"}\n\n\
            data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":3,\"output_tokens\":9,\"total_tokens\":12}}\n\n";
        let (_, seen) = through(spoken.as_bytes(), 13, false);
        assert_eq!(
            (seen.finish.as_deref(), seen.usage.unwrap().prompt_tokens),
            (Some("stop"), 3)
        );
    }

    #[test]
    fn a_providers_error_never_goes_on() {
        let event = "event: error\ndata: {\"error\":{\"message\":\"secret\"}}\n\n";
        let typed = "data: {\"type\":\"error\",\"message\":\"secret\"}\n\n";
        for error in [event, typed, event.trim_end()] {
            let body = [HELLO, error, STOP].concat();
            for size in [1, 7, 10_000] {
                for hide in [false, true] {
                    let body = if error.ends_with('\n') {
                        &body
                    } else {
                        &[HELLO, error].concat()
                    };
                    let (out, seen) = through(body.as_bytes(), size, hide);
                    assert_eq!(String::from_utf8_lossy(&out), HELLO, "in pieces of {size}");
                    assert!(seen.error.is_some() && seen.finish.is_none());
                }
            }
        }
        for error in [
            "event: error\ndata: {\"message\":\"secret\"}\n\n",
            "event: error\ndata: {\"detail\":\"secret\"}\n\n",
            "event:error\ndata: secret\n\n",
            "data: {\"detail\":\"secret\"}\n\n",
            "data: {\"code\":500,\"message\":\"secret\"}\n\n",
            "data: {\"error\":[\"secret\"]}\n\n",
            "data: {\"status\":500,\"error\":\"secret\"}\n\n",
            "data: {\"choices\":[{\"finish_reason\":\"error\",\"delta\":{\"content\":\"secret\"}}]}\n\n",
        ] {
            let (out, seen) = through_chat(&[HELLO, error, STOP].concat());
            assert_eq!(out, HELLO, "{error}");
            assert!(seen.error.is_some() && !seen.done, "{error}");
        }
        for body in [
            r#"{"error":{"message":"secret"}}"#,
            r#"{"object":"error","message":"secret"}"#,
            r#"{"detail":"secret"}"#,
            r#"{"detail":[{"msg":"secret"}]}"#,
            r#"{"message":"secret"}"#,
            r#"{"error":true,"message":"secret"}"#,
            r#"{"error":["secret"],"status":1}"#,
        ] {
            let (out, seen) = through_chat(body);
            assert!(out.is_empty() && seen.error.is_some() && !seen.done, "{body}");
        }
    }

    #[test]
    fn an_answer_has_begun_when_something_of_it_has_come() {
        let delta = |delta: &str| format!(r#"{{"choices":[{{"delta":{delta},"finish_reason":null}}]}}"#);
        let typed = |kind: &str, rest: &str| format!(r#"{{"type":"response.{kind}",{rest}}}"#);
        for (event, begun) in [
            (delta(r#"{"role":"assistant"}"#), false),
            (delta(r#"{"role":"assistant","content":"","refusal":null}"#), false),
            (delta(r#"{"role":"assistant","content":null,"tool_calls":[]}"#), false),
            (delta(r#"{"audio":{"id":"audio_1"}}"#), false),
            (delta("{}"), false),
            (delta(r#"{"content":"a"}"#), true),
            (delta(r#"{"content":[{"type":"text","text":"a"}]}"#), true),
            (delta(r#"{"reasoning_content":"a"}"#), true),
            (delta(r#"{"content":"","reasoning":"a"}"#), true),
            (delta(r#"{"refusal":"a"}"#), true),
            (delta(r#"{"audio":{"data":"AA"}}"#), true),
            (delta(r#"{"tool_calls":[{"index":0,"id":"call_1"}]}"#), true),
            (delta(r#"{"function_call":{"name":"f"}}"#), true),
            (
                r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#.to_owned(),
                true,
            ),
            (
                typed("output_item.added", r#""item":{"type":"message","content":[]}"#),
                false,
            ),
            (typed("output_text.delta", "\"delta\":\"\""), false),
            (typed("output_text.delta", r#""delta":"a""#), true),
            (typed("reasoning_summary_text.delta", r#""delta":"a""#), true),
            (typed("output_item.added", r#""item":{"type":"function_call"}"#), true),
        ] {
            let event = format!("data: {event}\n\n");
            for patient in [false, true] {
                let mut scanner = Scanner::new("", false).of(Endpoint::Chat).patient(patient);
                scanner.feed(Bytes::from(event.clone()), &mut VecDeque::new());
                assert_eq!(scanner.seen().begun, begun, "{event}");
                assert_eq!(scanner.decided(), begun || !patient, "{event}");
            }
        }
    }

    #[test]
    fn what_is_no_json_is_left_out_of_a_stream() {
        for garbage in ["data: {\"id\": \"chatcmpl-\n\n", "data: oops\n\n", "data: [1]\n\n"] {
            let (out, seen) = through_chat(&[HELLO, garbage, STOP, DONE, garbage.trim_end()].concat());
            assert_eq!(out, [HELLO, STOP, DONE].concat(), "{garbage}");
            assert!(seen.done && seen.text == "Hel");
        }
        let signs = [": alive\n\n", "event: ping\n\n", "data:\n\n", DONE].concat();
        assert_eq!(through_chat(&signs).0, signs);
    }

    #[test]
    fn a_field_of_another_type_is_left_aside_and_the_others_are_read() {
        let usage = r#""usage":{"prompt_tokens":3,"completion_tokens":2}"#;
        let said = r#""choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":"stop"}]"#;
        for odd in [
            r#""status":1"#,
            r#""type":{}"#,
            r#""data":{}"#,
            r#""output":"none""#,
            r#""error":0"#,
        ] {
            let (_, seen) = through_chat(&format!("data: {{{odd},{said},{usage}}}\n\n"));
            let tokens = seen.usage.map(|usage| usage.prompt_tokens);
            assert_eq!((tokens, seen.text.as_str()), (Some(3), "Hel"), "{odd}");
            assert!(seen.error.is_none() && seen.finish.is_some(), "{odd}");
        }
        for choice in [
            r#"{"delta":{"content":"Hel","tool_calls":{}},"finish_reason":"stop"}"#,
            r#"{"delta":{"content":"Hel"},"finish_reason":7}"#,
            r#"{"delta":"none","message":{"content":"Hel"}}"#,
            r#"null,{"delta":{"content":"Hel"}}"#,
        ] {
            let event = format!("{{\"choices\":[{choice}],{usage}}}");
            for body in [format!("data: {event}\n\n"), event] {
                let (out, seen) = through_chat(&body);
                let tokens = seen.usage.map(|usage| usage.completion_tokens);
                assert_eq!((tokens, seen.text.as_str()), (Some(2), "Hel"), "{body}");
                assert_eq!(out, body);
            }
        }
    }

    #[test]
    fn a_long_document_goes_on_before_its_end_and_is_read_all_the_same() {
        let body = format!(r#"{{"data":[{{"b64_json":"{}"}}]}}"#, "A".repeat(200_000));
        let mut scanner = Scanner::new("application/json", false);
        let mut out = VecDeque::new();
        scanner.feed(Bytes::from(body[..1000].to_owned()), &mut out);
        assert!(out.is_empty() && !scanner.decided());
        scanner.feed(Bytes::from(body[1000..100_000].to_owned()), &mut out);
        assert!(scanner.decided() && out.iter().map(Bytes::len).sum::<usize>() == 100_000);
        scanner.feed(Bytes::from(body[100_000..].to_owned()), &mut out);
        scanner.end(&mut out);
        assert_eq!(out.iter().flatten().copied().collect::<Vec<_>>(), body.as_bytes());
        assert_eq!((scanner.seen().images, scanner.seen().done), (1, true));
    }

    #[test]
    fn an_event_too_long_to_be_read_passes_and_those_behind_it_are_read() {
        let long = format!("data: {{\"x\":\"{}\"}}\n\n", "A".repeat(MOST_EVENT));
        let body = [HELLO, &long, USAGE, STOP].concat();
        let (out, seen) = through(body.as_bytes(), 1_000_003, true);
        assert!(out == [HELLO, &long, STOP].concat().as_bytes());
        assert_eq!(
            (seen.usage.unwrap().prompt_tokens, seen.finish.as_deref()),
            (3, Some("stop"))
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost_whatever_comes(body in proptest::collection::vec(any::<u8>(), 0..300), size in 1..50_usize) {
            let (out, _) = through(&body, size, false);
            prop_assert_eq!(&out, &body);
            let (out, _) = through(&body, size, true);
            prop_assert_eq!(out, body);
        }
    }
}
