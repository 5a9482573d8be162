//! What Anthropic answers: events of a stream, put together and understood.

use bytes::{Buf, BytesMut};
use serde_json::{Value, json};

use crate::{
    GatewayError, Usage,
    openai::{Cleaner, count_of, from_value},
};

const MOST_EVENT: usize = 1024 * 1024;

/// Cuts a body into its events; what is no JSON is passed over.
#[derive(Default)]
pub(super) struct Events {
    rest: BytesMut,
    /// The event that is being read calls itself an error.
    is_error: bool,
}

/// An error in a shape of its own, in Anthropic's.
fn error(said: Value) -> Value {
    json!({"type": "error", "error": said})
}

impl Events {
    /// The events that are complete now; `None` when one has no end.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<Vec<Value>> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest[..end].trim_ascii();
            if let Some(name) = line.strip_prefix(b"event:") {
                self.is_error = name.trim_ascii() == b"error";
            } else if let Some(data) = line.strip_prefix(b"data:") {
                let event = serde_json::from_slice::<Value>(data);
                match event {
                    Ok(event) if self.is_error && event["type"] != "error" => events.push(error(event)),
                    Ok(event) => events.push(event),
                    Err(_) if self.is_error => events.push(error(String::from_utf8_lossy(data).into())),
                    Err(_) => {}
                }
            }
            self.rest.advance(end + 1);
        }
        (self.rest.len() <= MOST_EVENT).then_some(events)
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// Its words, where it is told in words.
    Thought(String),
    Tool {
        id: String,
        name: String,
    },
    /// A part of the last tool's arguments.
    Arguments(String),
    /// In OpenAI's word.
    Finish(String),
    Usage(Usage),
}

/// Understands event after event.
#[derive(Default)]
pub(super) struct Reader {
    /// What was told last, in parts.
    usage: Value,
}

impl Reader {
    pub(super) fn read(&mut self, event: &Value, cleaner: &Cleaner) -> Vec<Result<Piece, GatewayError>> {
        let delta = &event["delta"];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => self.usage(&event["message"]["usage"]).map(Ok).into_iter().collect(),
            "content_block_start" => {
                let block = &event["content_block"];
                match block["type"].as_str().unwrap_or_default() {
                    "tool_use" => vec![Ok(Piece::Tool {
                        id: word(&block["id"]),
                        name: word(&block["name"]),
                    })],
                    "text" if block["text"].as_str().is_some_and(|text| !text.is_empty()) => {
                        vec![Ok(Piece::Text(word(&block["text"])))]
                    }
                    _ => Vec::new(),
                }
            }
            "content_block_delta" => match delta["type"].as_str().unwrap_or_default() {
                "text_delta" => vec![Ok(Piece::Text(word(&delta["text"])))],
                "input_json_delta" => vec![Ok(Piece::Arguments(word(&delta["partial_json"])))],
                _ => vec![Ok(Piece::Thought(word(&delta["thinking"])))],
            },
            "message_delta" => {
                let mut pieces: Vec<_> = self.usage(&event["usage"]).map(Ok).into_iter().collect();
                if let Some(reason) = delta["stop_reason"].as_str() {
                    pieces.push(Ok(Piece::Finish(finish(reason))));
                }
                pieces
            }
            "error" => {
                let said = if event["error"].is_null() {
                    event
                } else {
                    &event["error"]
                };
                vec![Err(from_value(said, cleaner))]
            }
            // `ping`, `message_stop`, and whatever comes to be.
            _ => Vec::new(),
        }
    }

    /// Nothing while not all of it is known.
    fn usage(&mut self, told: &Value) -> Option<Piece> {
        for (name, value) in told.as_object().into_iter().flatten() {
            if value.is_number() {
                self.usage[name] = value.clone();
            }
        }
        usage_of(&self.usage).map(Piece::Usage)
    }
}

/// Tokens read from the cache and written to it are told apart from the others here; in our words they are part of the prompt.
/// `None` where a server does not tell of both question and answer: nothing that is missing is free.
pub(super) fn usage_of(told: &Value) -> Option<Usage> {
    let number = |name: &str| count_of(&told[name]);
    let cached_tokens = number("cache_read_input_tokens").unwrap_or(0);
    let written = number("cache_creation_input_tokens").unwrap_or(0);
    Some(Usage {
        prompt_tokens: number("input_tokens")? + written + cached_tokens,
        completion_tokens: number("output_tokens")?,
        cached_tokens,
        ..Usage::default()
    })
}

/// OpenAI's word for why an answer ends.
pub(super) fn finish(reason: &str) -> String {
    let word = match reason {
        "end_turn" | "stop_sequence" | "pause_turn" => "stop",
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        other => other,
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_counts_are_bounded() {
        let billion = 1_000_000_000;
        for absurd in [json!(i64::MAX), json!(u64::MAX), json!(1e300)] {
            let told = json!({"input_tokens": absurd, "output_tokens": absurd,
                "cache_creation_input_tokens": absurd, "cache_read_input_tokens": absurd});
            let usage = usage_of(&told).unwrap();
            assert_eq!(
                (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
                (3 * billion, billion, billion),
                "{absurd}"
            );
        }
        let usage = usage_of(&json!({"input_tokens": -5, "output_tokens": 7.0})).unwrap();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (0, 7));
    }
}
