//! Requests in Anthropic's words.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::{ChatRequest, GatewayError, Outgoing, Role};

/// A conversation of ours.
pub(super) fn typed(request: &ChatRequest) -> Value {
    let mut system = Vec::new();
    let mut messages = Messages::default();
    // Empty texts are refused.
    for turn in request.messages.iter().filter(|turn| !turn.text.trim().is_empty()) {
        match turn.role {
            Role::System => system.push(turn.text.as_str()),
            Role::User => messages.push("user", vec![text(&turn.text)]),
            Role::Assistant => messages.push("assistant", vec![text(&turn.text)]),
        }
    }
    let mut body = json!({
        "model": request.model,
        "max_tokens": request.max_tokens.max(1),
        "messages": messages.0,
        "stream": true,
    });
    if !system.is_empty() {
        body["system"] = system.join("\n\n").into();
    }
    if !request.user.is_empty() {
        body["metadata"] = json!({"user_id": request.user});
    }
    body
}

/// A chat completion of another program. What Anthropic has no word for is left out.
pub(super) fn translated(body: &Bytes, request: &Outgoing<'_>) -> Result<Value, GatewayError> {
    let asked: Value =
        serde_json::from_slice(body).map_err(|_| GatewayError::refused("the body is not a JSON object"))?;
    if asked["n"].as_u64().is_some_and(|n| n > 1) {
        return Err(GatewayError::unable("this provider gives one choice: n must be 1"));
    }
    let mut system = Vec::new();
    let mut messages = Messages::default();
    for message in asked["messages"].as_array().into_iter().flatten() {
        match message["role"].as_str().unwrap_or_default() {
            "system" | "developer" => system.push(plain(&message["content"])),
            "assistant" => messages.push("assistant", assistant(message)?),
            "tool" => messages.push(
                "user",
                vec![json!({
                    "type": "tool_result",
                    "tool_use_id": message["tool_call_id"],
                    "content": plain(&message["content"]),
                })],
            ),
            _ => messages.push("user", blocks(&message["content"])?),
        }
    }
    let wanted = asked["max_completion_tokens"].as_u64().or(asked["max_tokens"].as_u64());
    let most = u64::from(request.max_answer_tokens.max(1));
    let mut out = json!({
        "model": request.model,
        "max_tokens": wanted.map_or(most, |wanted| wanted.clamp(1, most)),
        "messages": messages.0,
        "stream": request.stream,
    });
    if !system.is_empty() {
        out["system"] = system.join("\n\n").into();
    }
    if let Some(temperature) = asked["temperature"].as_f64() {
        // OpenAI's reaches to 2.
        out["temperature"] = temperature.clamp(0.0, 1.0).into();
    }
    if asked["top_p"].is_number() {
        out["top_p"] = asked["top_p"].clone();
    }
    match &asked["stop"] {
        Value::String(stop) => out["stop_sequences"] = json!([stop]),
        stops @ Value::Array(_) => out["stop_sequences"] = stops.clone(),
        _ => {}
    }
    if let Some(user) = asked["safety_identifier"].as_str().or(asked["user"].as_str()) {
        out["metadata"] = json!({"user_id": user});
    }
    tools(&asked, &mut out);
    Ok(out)
}

fn tools(asked: &Value, out: &mut Value) {
    let functions = asked["tools"].as_array().into_iter().flatten();
    let tools: Vec<Value> = functions
        .map(|tool| &tool["function"])
        .filter(|function| function.is_object())
        .map(|function| {
            let mut tool = Map::new();
            tool.insert("name".to_owned(), function["name"].clone());
            if function["description"].is_string() {
                tool.insert("description".to_owned(), function["description"].clone());
            }
            let schema = match &function["parameters"] {
                schema @ Value::Object(_) => schema.clone(),
                _ => json!({"type": "object"}),
            };
            tool.insert("input_schema".to_owned(), schema);
            Value::Object(tool)
        })
        .collect();
    if tools.is_empty() {
        return;
    }
    out["tools"] = tools.into();
    let mut choice = match &asked["tool_choice"] {
        Value::String(word) if word == "required" => json!({"type": "any"}),
        Value::String(word) if word == "none" => json!({"type": "none"}),
        Value::Object(one) if one.get("function").is_some_and(|function| function["name"].is_string()) => {
            json!({"type": "tool", "name": one["function"]["name"]})
        }
        _ => json!({"type": "auto"}),
    };
    if asked["parallel_tool_calls"] == false && choice["type"] != "none" {
        choice["disable_parallel_tool_use"] = true.into();
    }
    out["tool_choice"] = choice;
}

/// Turns of one side that follow each other are one message.
#[derive(Default)]
struct Messages(Vec<Value>);

impl Messages {
    fn push(&mut self, role: &str, blocks: Vec<Value>) {
        if blocks.is_empty() {
            return;
        }
        if let Some(last) = self.0.last_mut().filter(|last| last["role"] == role)
            && let Some(content) = last["content"].as_array_mut()
        {
            content.extend(blocks);
            return;
        }
        // A conversation begins with the person.
        if self.0.is_empty() && role == "assistant" {
            return;
        }
        self.0.push(json!({"role": role, "content": blocks}));
    }
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn plain(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

fn assistant(message: &Value) -> Result<Vec<Value>, GatewayError> {
    let mut out = blocks(&message["content"])?;
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
        let input = serde_json::from_str(arguments).ok().filter(Value::is_object);
        out.push(json!({
            "type": "tool_use",
            "id": call["id"],
            "name": call["function"]["name"],
            "input": input.unwrap_or_else(|| json!({})),
        }));
    }
    Ok(out)
}

fn blocks(content: &Value) -> Result<Vec<Value>, GatewayError> {
    let parts = match content {
        Value::Array(parts) => parts,
        _ => {
            let words = plain(content);
            return Ok(if words.trim().is_empty() {
                Vec::new()
            } else {
                vec![text(&words)]
            });
        }
    };
    let mut out = Vec::with_capacity(parts.len());
    for part in parts {
        match part["type"].as_str().unwrap_or_default() {
            "text" | "refusal" => {
                let words = part["text"].as_str().or(part["refusal"].as_str()).unwrap_or_default();
                if !words.trim().is_empty() {
                    out.push(text(words));
                }
            }
            "image_url" => out.push(image(part["image_url"]["url"].as_str().unwrap_or_default())),
            _ => return Err(GatewayError::unable("this provider reads text and images only")),
        }
    }
    Ok(out)
}

fn image(url: &str) -> Value {
    let inline = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    let source = match inline {
        Some((media_type, data)) => json!({"type": "base64", "media_type": media_type, "data": data}),
        None => json!({"type": "url", "url": url}),
    };
    json!({"type": "image", "source": source})
}
