//! A server of Anthropic's messages that refuses what Anthropic refuses and echoes the last words of the user.
//!
//! Directives are those of the fake provider; `[[tool]]` calls the first tool that was offered. Its tokens are words. Facts:
//! Anthropic's API reference, “Create a message”, “Streaming messages” and “Errors”.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::fake_provider::{ProviderFault, Reply, count_tokens, pieces, to_question};
use crate::net::{Kill, Server, lock};

/// The key that is accepted.
pub const ANTHROPIC_KEY: &str = "sk-ant-fake";
/// The model that exists.
pub const ANTHROPIC_MODEL: &str = "claude-fake";

const KNOWN_FIELDS: [&str; 16] = [
    "cache_control",
    "container",
    "context_management",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "service_tier",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_p",
];

/// A running fake; clones are the same one, and with the last of them it ends.
#[derive(Clone)]
pub struct FakeAnthropic {
    requests: Requests,
    server: Arc<Server>,
    addr: SocketAddr,
}

type Requests = Arc<Mutex<Vec<Value>>>;

impl FakeAnthropic {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> io::Result<Self> {
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let addr = tcp.local_addr()?;
        let requests = Requests::default();
        let router = Router::new()
            .route("/v1/messages", post(messages))
            .route("/v1/models", get(models))
            .with_state(Arc::clone(&requests));
        let server = Arc::new(Server::start(tcp, router));
        Ok(Self { requests, server, addr })
    }

    /// The base URL of its provider: `http://127.0.0.1:PORT/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Closes the port and cuts all connections.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// The bodies of all requests, refused ones included, oldest first.
    pub fn requests(&self) -> Vec<Value> {
        lock(&self.requests).clone()
    }
}

type Refused = (u16, &'static str, String);

fn refusal((status, kind, message): Refused) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"});
    (status, Json(body)).into_response()
}

fn invalid(message: impl Into<String>) -> Refused {
    (400, "invalid_request_error", message.into())
}

async fn messages(
    State(requests): State<Requests>,
    ConnectInfo(kill): ConnectInfo<Kill>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    lock(&requests).push(body.clone());
    match check(&headers, &body) {
        Ok(question) => answer(&body, &question, kill).await,
        Err(refused) => refusal(refused),
    }
}

async fn models(headers: HeaderMap) -> Response {
    match check_headers(&headers) {
        Ok(()) => Json(json!({"data": [{"type": "model", "id": ANTHROPIC_MODEL}], "has_more": false})).into_response(),
        Err(refused) => refusal(refused),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn check_headers(headers: &HeaderMap) -> Result<(), Refused> {
    let header = |name: &str| header(headers, name);
    if header("x-api-key") != ANTHROPIC_KEY {
        return Err((
            401,
            "authentication_error",
            format!("invalid x-api-key: {}", header("x-api-key")),
        ));
    }
    if header("anthropic-version") != "2023-06-01" {
        return Err(invalid("anthropic-version: header is required"));
    }
    Ok(())
}

fn check(headers: &HeaderMap, body: &Value) -> Result<String, Refused> {
    check_headers(headers)?;
    if !header(headers, "content-type").starts_with("application/json") {
        return Err(invalid("content-type must be application/json"));
    }
    let fields = body.as_object().ok_or_else(|| invalid("the body must be an object"))?;
    if let Some(name) = fields.keys().find(|name| !KNOWN_FIELDS.contains(&name.as_str())) {
        return Err(invalid(format!("{name}: Extra inputs are not permitted")));
    }
    if body["model"] != ANTHROPIC_MODEL {
        return Err((404, "not_found_error", format!("model: {}", body["model"])));
    }
    if body["max_tokens"].as_u64().is_none_or(|tokens| tokens == 0) {
        return Err(invalid("max_tokens: Field required"));
    }
    if body["temperature"]
        .as_f64()
        .is_some_and(|temperature| !(0.0..=1.0).contains(&temperature))
    {
        return Err(invalid("temperature: range: 0..1"));
    }
    for tool in body["tools"].as_array().into_iter().flatten() {
        if !tool["name"].is_string() || tool["input_schema"]["type"] != "object" {
            return Err(invalid("tools.0: name and input_schema are required"));
        }
    }
    let choice = &body["tool_choice"];
    if !choice.is_null() && !["auto", "any", "tool", "none"].contains(&choice["type"].as_str().unwrap_or_default()) {
        return Err(invalid("tool_choice: unknown type"));
    }
    check_messages(&body["messages"])
}

/// The words of the last message.
fn check_messages(messages: &Value) -> Result<String, Refused> {
    let messages = messages.as_array().filter(|messages| !messages.is_empty());
    let messages = messages.ok_or_else(|| invalid("messages: at least one message is required"))?;
    let mut calls: Vec<&str> = Vec::new();
    let mut last = String::new();
    for (at, message) in messages.iter().enumerate() {
        let expected = if at % 2 == 0 { "user" } else { "assistant" };
        if message["role"] != expected {
            return Err(invalid(format!(
                "messages.{at}: roles must alternate, beginning with user"
            )));
        }
        last.clear();
        let blocks = match &message["content"] {
            Value::String(text) => vec![json!({"type": "text", "text": text})],
            Value::Array(blocks) if !blocks.is_empty() => blocks.clone(),
            _ => return Err(invalid(format!("messages.{at}: content is required"))),
        };
        let mut results = Vec::new();
        for block in &blocks {
            match block["type"].as_str().unwrap_or_default() {
                "text" => {
                    let text = block["text"].as_str().unwrap_or_default();
                    if text.trim().is_empty() {
                        return Err(invalid("messages: text content blocks must be non-empty"));
                    }
                    last.push_str(text);
                }
                "image" if block["source"]["type"].is_string() => {}
                "tool_use" if block["input"].is_object() && block["name"].is_string() => {}
                "tool_result" => {
                    let id = block["tool_use_id"].as_str().unwrap_or_default();
                    if !calls.contains(&id) {
                        return Err(invalid(format!("tool_result without a tool_use: {id}")));
                    }
                    results.push(id.to_owned());
                    last.push_str(block["content"].as_str().unwrap_or_default());
                }
                other => return Err(invalid(format!("messages.{at}: unknown block '{other}'"))),
            }
        }
        if calls.iter().any(|id| !results.iter().any(|result| result == id)) {
            return Err(invalid("every tool_use needs its tool_result in the next message"));
        }
        calls = message["content"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|block| block["type"] == "tool_use")
            .filter_map(|block| block["id"].as_str())
            .collect();
    }
    Ok(last)
}

fn usage_of(body: &Value, reply: &Reply) -> (u64, u64) {
    let prompt = body["messages"].to_string() + &body["system"].to_string();
    (count_tokens(&prompt), count_tokens(&reply.text))
}

async fn answer(body: &Value, question: &str, kill: Kill) -> Response {
    let tool = body["tools"][0]["name"]
        .as_str()
        .filter(|_| question.contains("[[tool]]"));
    let mut reply = to_question(&question.replace("[[tool]]", ""), false);
    match &reply.fault {
        Some(ProviderFault::Status(529)) => return refusal((529, "overloaded_error", "Overloaded".into())),
        Some(ProviderFault::Status(status)) => return refusal((*status, "api_error", "on purpose".into())),
        Some(ProviderFault::RateLimited { .. }) => return refusal((429, "rate_limit_error", "slow down".into())),
        Some(ProviderFault::Drop) => {
            kill.kill();
            return std::future::pending().await;
        }
        Some(ProviderFault::Hang) => return std::future::pending().await,
        Some(ProviderFault::Instead(bytes)) => return bytes.clone().into_response(),
        _ => {}
    }
    let most = body["max_tokens"].as_u64().unwrap_or(1);
    let mut reason = if tool.is_some() { "tool_use" } else { "end_turn" };
    if count_tokens(&reply.text) > most {
        let words: Vec<&str> = reply
            .text
            .split_whitespace()
            .take(usize::try_from(most).unwrap_or(1))
            .collect();
        reply.text = words.join(" ");
        reason = "max_tokens";
    }
    let (input, output) = usage_of(body, &reply);
    let usage = json!({"input_tokens": input, "output_tokens": output, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4});
    let call = tool.map(|name| json!({"type": "tool_use", "id": "toolu_1", "name": name, "input": {"city": "Paris"}}));
    if body["stream"] != true {
        let mut content = vec![json!({"type": "text", "text": reply.text})];
        content.extend(call);
        let mut message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": ANTHROPIC_MODEL,
            "content": content, "stop_reason": reason, "stop_sequence": null});
        if reply.fault != Some(ProviderFault::NoUsage) {
            message["usage"] = usage;
        }
        return Json(message).into_response();
    }
    stream(&reply, reason, &usage, call)
}

enum Step {
    Write(Value),
    Pause(Duration),
    Cut,
    Hang,
}

fn stream(reply: &Reply, reason: &str, usage: &Value, call: Option<Value>) -> Response {
    let tells_usage = reply.fault != Some(ProviderFault::NoUsage);
    let mut begun = usage.clone();
    begun["output_tokens"] = 1.into();
    if !tells_usage {
        begun = Value::Null;
    }
    let mut steps = VecDeque::from([
        Step::Write(
            json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
            "model": ANTHROPIC_MODEL, "content": [], "stop_reason": null, "usage": begun}}),
        ),
        Step::Write(json!({"type": "ping"})),
        Step::Write(
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}),
        ),
        Step::Write(
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}),
        ),
        Step::Write(json!({"type": "content_block_stop", "index": 0})),
        Step::Write(json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}})),
    ]);
    let pieces = pieces(&reply.text, reply.chunks);
    let half = pieces.len().div_ceil(2);
    for (at, piece) in pieces.into_iter().enumerate() {
        if at > 0 && !reply.pause.is_zero() {
            steps.push_back(Step::Pause(reply.pause));
        }
        steps.push_back(Step::Write(
            json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": piece}}),
        ));
        let fault = reply.fault.as_ref().filter(|_| at + 1 == half);
        match fault {
            Some(ProviderFault::CutMidStream) => {
                steps.extend([Step::Pause(Duration::from_millis(10)), Step::Cut]);
                return body_of(steps);
            }
            Some(ProviderFault::HangMidStream) => {
                steps.push_back(Step::Hang);
                return body_of(steps);
            }
            Some(ProviderFault::EndMidStream) => return body_of(steps),
            Some(ProviderFault::GarbageChunk) => {
                let error = json!({"type": "overloaded_error", "message": "Overloaded"});
                steps.push_back(Step::Write(json!({"type": "error", "error": error})));
                return body_of(steps);
            }
            _ => {}
        }
    }
    steps.push_back(Step::Write(json!({"type": "content_block_stop", "index": 1})));
    if let Some(mut call) = call {
        let input = call["input"].to_string();
        call["input"] = json!({});
        steps.push_back(Step::Write(
            json!({"type": "content_block_start", "index": 2, "content_block": call}),
        ));
        for part in [&input[..5], &input[5..]] {
            steps.push_back(Step::Write(
                json!({"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": part}}),
            ));
        }
        steps.push_back(Step::Write(json!({"type": "content_block_stop", "index": 2})));
    }
    let mut end = json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}});
    if tells_usage {
        end["usage"] = json!({"output_tokens": usage["output_tokens"]});
    }
    steps.push_back(Step::Write(end));
    steps.push_back(Step::Write(json!({"type": "message_stop"})));
    body_of(steps)
}

fn body_of(steps: VecDeque<Step>) -> Response {
    let body = futures::stream::unfold(steps, |mut steps| async move {
        loop {
            return match steps.pop_front()? {
                Step::Write(event) => {
                    let name = event["type"].as_str().unwrap_or_default().to_owned();
                    Some((Ok(Bytes::from(format!("event: {name}\ndata: {event}\n\n"))), steps))
                }
                Step::Pause(pause) => {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Step::Cut => Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), steps)),
                Step::Hang => std::future::pending().await,
            };
        }
    });
    (
        [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")],
        Body::from_stream(body),
    )
        .into_response()
}
