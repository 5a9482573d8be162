//! What OpenAI refuses in the body of a chat completion. Fields are those of its API reference for `POST /chat/completions`.

use serde_json::{Map, Value};

use super::error::Refusal;

const KNOWN_FIELDS: [&str; 36] = [
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
    "moderation",
];
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
const PARTS: [&str; 5] = ["text", "image_url", "input_audio", "file", "refusal"];

/// A request that passed.
#[derive(Debug)]
pub(crate) struct Valid {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// The answer ends here, in tokens.
    pub(crate) max_tokens: Option<usize>,
    /// Texts of all messages, in order.
    pub(crate) texts: Vec<String>,
    /// Text of the last message of the user.
    pub(crate) question: String,
    /// The first of the tools that are offered, unless the last message is what a tool said.
    pub(crate) tool: Option<String>,
}

pub(crate) fn check(body: &Value, models: &[String], lenient: bool) -> Result<Valid, Refusal> {
    let fields = body
        .as_object()
        .ok_or_else(|| Refusal::invalid("", "The body must be a JSON object."))?;
    if !lenient && let Some(name) = fields.keys().find(|name| !KNOWN_FIELDS.contains(&name.as_str())) {
        return Err(Refusal::unknown_parameter(name));
    }
    let model = match fields.get("model") {
        Some(Value::String(model)) if !model.is_empty() => model.clone(),
        _ => return Err(Refusal::invalid("model", "you must provide a model parameter")),
    };
    let (texts, question) = check_messages(fields)?;
    let stream = flag(fields, "stream")?;
    let include_usage = check_stream_options(fields, stream)?;
    let max_tokens = check_max_tokens(fields)?;
    within(fields, "temperature", 0.0, 2.0)?;
    within(fields, "top_p", 0.0, 1.0)?;
    within(fields, "frequency_penalty", -2.0, 2.0)?;
    within(fields, "presence_penalty", -2.0, 2.0)?;
    if present(fields, "n").is_some_and(|n| n.as_u64() != Some(1)) {
        return Err(Refusal::invalid("n", "This fake gives one choice: 'n' must be 1."));
    }
    if !models.contains(&model) {
        return Err(Refusal::unknown_model(&model));
    }
    let last = body["messages"].as_array().and_then(|messages| messages.last());
    let is_told = last.is_some_and(|message| message["role"] == "tool");
    let tool = body["tools"][0]["function"]["name"].as_str().filter(|_| !is_told);
    Ok(Valid {
        model,
        stream,
        include_usage,
        max_tokens,
        texts,
        question,
        tool: tool.map(str::to_owned),
    })
}

/// The field, unless it is absent or null.
fn present<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

fn flag(fields: &Map<String, Value>, name: &str) -> Result<bool, Refusal> {
    match present(fields, name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Refusal::invalid(
            name,
            format!("Invalid type for '{name}': expected a boolean."),
        )),
    }
}

fn within(fields: &Map<String, Value>, name: &str, least: f64, most: f64) -> Result<(), Refusal> {
    match present(fields, name).map(Value::as_f64) {
        None => Ok(()),
        Some(Some(number)) if (least..=most).contains(&number) => Ok(()),
        Some(_) => Err(Refusal::invalid(
            name,
            format!("Invalid '{name}': expected a number from {least} to {most}."),
        )),
    }
}

fn check_stream_options(fields: &Map<String, Value>, stream: bool) -> Result<bool, Refusal> {
    let Some(options) = present(fields, "stream_options") else {
        return Ok(false);
    };
    if !stream {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(Refusal::invalid("stream_options", message));
    }
    let options = options.as_object();
    let options = options.ok_or_else(|| Refusal::invalid("stream_options", "Invalid type: expected an object."))?;
    if let Some(name) = options
        .keys()
        .find(|name| !["include_usage", "include_obfuscation"].contains(&name.as_str()))
    {
        return Err(Refusal::unknown_parameter(&format!("stream_options.{name}")));
    }
    flag(options, "include_usage")
}

fn check_max_tokens(fields: &Map<String, Value>) -> Result<Option<usize>, Refusal> {
    let mut limits = Vec::new();
    for name in ["max_tokens", "max_completion_tokens"] {
        if let Some(value) = present(fields, name) {
            let number = value
                .as_u64()
                .filter(|number| *number > 0)
                .and_then(|number| usize::try_from(number).ok());
            let message = format!("Invalid '{name}': expected an integer of 1 at least.");
            limits.push(number.ok_or_else(|| Refusal::invalid(name, message))?);
        }
    }
    if limits.len() > 1 {
        let message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(Refusal::invalid("max_tokens", message));
    }
    Ok(limits.pop())
}

/// The texts of all messages, and the last one of the user.
fn check_messages(fields: &Map<String, Value>) -> Result<(Vec<String>, String), Refusal> {
    let messages = fields
        .get("messages")
        .and_then(Value::as_array)
        .filter(|messages| !messages.is_empty());
    let messages =
        messages.ok_or_else(|| Refusal::invalid("messages", "Invalid 'messages': expected a non-empty array."))?;
    let (mut texts, mut question) = (Vec::with_capacity(messages.len()), String::new());
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if !ROLES.contains(&role) {
            let message = format!("Invalid value: '{role}'. Supported values are: {}.", ROLES.join(", "));
            return Err(Refusal::invalid(&format!("messages[{at}].role"), message));
        }
        if role == "tool" && !message["tool_call_id"].is_string() {
            let message = "Missing parameter 'tool_call_id': messages with role 'tool' must have one.";
            return Err(Refusal::invalid(&format!("messages[{at}].tool_call_id"), message));
        }
        let calls_tools = role == "assistant" && message["tool_calls"].is_array();
        let text = text_of(&message["content"], calls_tools).map_err(|why| {
            Refusal::invalid(
                &format!("messages[{at}].content"),
                format!("Invalid value for 'content': {why}."),
            )
        })?;
        if role == "user" {
            question.clone_from(&text);
        }
        texts.push(text);
    }
    Ok((texts, question))
}

fn text_of(content: &Value, may_be_null: bool) -> Result<String, &'static str> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Null if may_be_null => return Ok(String::new()),
        Value::Array(parts) if !parts.is_empty() => parts,
        _ => return Err("expected a string or a non-empty array of parts"),
    };
    let mut texts = Vec::new();
    for part in parts {
        let kind = part["type"].as_str().unwrap_or_default();
        if !PARTS.contains(&kind) {
            return Err("a part has an unknown type");
        }
        match (kind, &part["text"]) {
            ("text", Value::String(text)) => texts.push(text.as_str()),
            ("text", _) => return Err("a text part has no text"),
            ("image_url", _) if !part["image_url"]["url"].is_string() => return Err("an image part has no url"),
            _ => {}
        }
    }
    Ok(texts.join("\n"))
}
