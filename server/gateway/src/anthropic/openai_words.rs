//! Answers of Anthropic in the words of OpenAI's chat completions.

use bytes::Bytes;
use serde_json::{Value, json};

use super::events::{Piece, finish, usage_of};
use crate::Usage;

/// One answer on its way.
pub(super) struct Words {
    id: String,
    model: String,
    begun: bool,
    tools: usize,
    finished: bool,
    usage: Option<Usage>,
}

impl Words {
    pub(super) fn new(model: &str) -> Self {
        Self {
            id: format!("chatcmpl-{:032x}", rand::random::<u128>()),
            model: model.to_owned(),
            begun: false,
            tools: 0,
            finished: false,
            usage: None,
        }
    }

    /// The events for one piece; the usage waits for the end.
    pub(super) fn chunk(&mut self, piece: Piece) -> Bytes {
        let (delta, finish) = match piece {
            Piece::Usage(usage) => {
                self.usage = Some(usage);
                return Bytes::new();
            }
            Piece::Text(text) => (json!({"content": text}), None),
            Piece::Thought(words) if words.is_empty() => (json!({}), None),
            // OpenAI has no word for it; this is DeepSeek's, which most clients know.
            Piece::Thought(words) => (json!({"reasoning_content": words}), None),
            Piece::Tool { id, name } => {
                let function = json!({"name": name, "arguments": ""});
                let call = json!({"index": self.tools, "id": id, "type": "function", "function": function});
                self.tools += 1;
                (json!({"tool_calls": [call]}), None)
            }
            Piece::Arguments(more) => {
                let call = json!({"index": self.tools.saturating_sub(1), "function": {"arguments": more}});
                (json!({"tool_calls": [call]}), None)
            }
            Piece::Finish(word) => {
                self.finished = true;
                (json!({}), Some(word))
            }
        };
        let mut out = String::new();
        if !self.begun {
            self.begun = true;
            out.push_str(&self.event(&json!({"role": "assistant", "content": ""}), None));
        }
        out.push_str(&self.event(&delta, finish.as_deref()));
        Bytes::from(out)
    }

    /// What follows the last piece.
    pub(super) fn end(&mut self) -> Bytes {
        // A stream that broke off must not look complete.
        if !self.finished {
            return Bytes::new();
        }
        let mut out = String::new();
        if let Some(usage) = self.usage {
            let mut last = self.envelope("chat.completion.chunk", json!([]));
            last["usage"] = usage_json(usage);
            out.push_str(&format!("data: {last}\n\n"));
        }
        out.push_str("data: [DONE]\n\n");
        Bytes::from(out)
    }

    /// A whole answer.
    pub(super) fn whole(&self, message: &Value) -> Bytes {
        let blocks = || message["content"].as_array().into_iter().flatten();
        let text: String = blocks().filter_map(|block| block["text"].as_str()).collect();
        let calls: Vec<Value> = blocks()
            .filter(|block| block["type"] == "tool_use")
            .map(|block| {
                let function = json!({"name": block["name"], "arguments": block["input"].to_string()});
                json!({"id": block["id"], "type": "function", "function": function})
            })
            .collect();
        let content = if text.is_empty() {
            Value::Null
        } else {
            Value::from(text)
        };
        let mut said = json!({"role": "assistant", "content": content, "refusal": null});
        if !calls.is_empty() {
            said["tool_calls"] = calls.into();
        }
        let reason = finish(message["stop_reason"].as_str().unwrap_or("end_turn"));
        let choice = json!({"index": 0, "message": said, "logprobs": null, "finish_reason": reason});
        let mut whole = self.envelope("chat.completion", json!([choice]));
        if let Some(usage) = usage_of(&message["usage"]) {
            whole["usage"] = usage_json(usage);
        }
        Bytes::from(whole.to_string())
    }

    fn event(&self, delta: &Value, finish: Option<&str>) -> String {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        format!("data: {}\n\n", self.envelope("chat.completion.chunk", json!([choice])))
    }

    fn envelope(&self, object: &str, choices: Value) -> Value {
        let created = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        json!({"id": self.id, "object": object, "created": created, "model": self.model, "choices": choices})
    }
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    })
}
