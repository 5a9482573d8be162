//! From a request to its answer, whole or streamed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

use super::error::Refusal;
use super::reply::{ProviderFault, Reply, count_tokens, pieces, to_question, truncate};
use super::state::{Request, Shared, Trace, Usage};
use super::validate::{self, Valid};
use crate::net::{Kill, lock};

/// The key of a request, if it is one of the accepted.
pub(crate) fn key(shared: &Shared, headers: &HeaderMap) -> Result<String, Refusal> {
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let key = value
        .strip_prefix("Bearer ")
        .map(str::trim)
        .filter(|key| !key.is_empty());
    let key = key.ok_or_else(Refusal::missing_key)?;
    if lock(&shared.state).keys.contains(key) {
        Ok(key.to_owned())
    } else {
        Err(Refusal::invalid_key())
    }
}

fn model_json(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "fake"})
}

pub(crate) async fn models(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    key(&shared, &headers)?;
    let models: Vec<Value> = lock(&shared.state).models.iter().map(|id| model_json(id)).collect();
    Ok(Json(json!({"object": "list", "data": models})))
}

pub(crate) async fn model(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    key(&shared, &headers)?;
    if lock(&shared.state).models.contains(&id) {
        Ok(Json(model_json(&id)))
    } else {
        Err(Refusal::unknown_model(&id))
    }
}

pub(crate) async fn unknown(method: Method, uri: Uri) -> Refusal {
    Refusal::unknown_url(method.as_str(), uri.path())
}

pub(crate) async fn chat_completions(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(kill): ConnectInfo<Kill>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let parsed: Value = serde_json::from_slice(&body).unwrap_or_default();
    let key = key(&shared, &headers);
    let id = shared.next_id.fetch_add(1, Ordering::Relaxed) + 1;
    let request = Request {
        id,
        body: parsed.clone(),
        key: key.as_ref().cloned().unwrap_or_default(),
        at: SystemTime::now(),
        status: None,
        chunks_written: 0,
        text_written: String::new(),
        usage: None,
        finished: false,
        disconnected: false,
    };
    let mut trace = Trace::begin(&shared, request, shared.record.load(Ordering::Relaxed));
    match prepare(&shared, &headers, key, &parsed) {
        Ok((valid, reply)) => answer(id, valid, reply, trace, kill).await,
        Err(refusal) => {
            trace.refused(refusal.status);
            refusal.into_response()
        }
    }
}

/// Checks the request and decides what is said: a planned failure, else a queued reply, else the scripted one.
fn prepare(
    shared: &Shared,
    headers: &HeaderMap,
    key: Result<String, Refusal>,
    body: &Value,
) -> Result<(Valid, Reply), Refusal> {
    key?;
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !kind.starts_with("application/json") {
        return Err(Refusal::invalid(
            "",
            "Unsupported content type: expected application/json.",
        ));
    }
    let mut state = lock(&shared.state);
    let valid = validate::check(body, &state.models, shared.lenient.load(Ordering::Relaxed))?;
    let fault = state.faults.next();
    // Remembered only where it matters, so that a long benchmark does not grow.
    let seen = valid.question.contains("[[once]]") && !state.questions.insert(valid.question.clone());
    let queued = if fault.is_none() {
        state.queued.pop_front()
    } else {
        None
    };
    let script = state.answer.clone();
    drop(state);
    let mut reply = match (queued, script) {
        (Some(reply), _) => reply,
        (None, Some(script)) => script(body),
        (None, None) => to_question(&valid.question, seen),
    };
    if let Some(fault) = fault {
        reply.fault = Some(fault);
    }
    Ok((valid, reply))
}

async fn answer(id: u64, valid: Valid, mut reply: Reply, trace: Trace, kill: Kill) -> Response {
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    match &reply.fault {
        Some(ProviderFault::Status(status)) => return refuse(trace, Refusal::status(*status, None)),
        Some(ProviderFault::Refused(words)) => return refuse(trace, Refusal::invalid("", words)),
        Some(ProviderFault::RateLimited { retry_after }) => {
            return refuse(trace, Refusal::rate_limited(Some(*retry_after)));
        }
        // Of an answer that is not streamed nothing can be seen before its end.
        Some(ProviderFault::CutMidStream) if !valid.stream => return cut(trace, kill).await,
        Some(ProviderFault::HangMidStream) if !valid.stream => return std::future::pending().await,
        Some(ProviderFault::Drop) => return cut(trace, kill).await,
        Some(ProviderFault::Hang) => return std::future::pending().await,
        Some(ProviderFault::Instead(body)) => return instead(trace, valid.stream, body),
        _ => {}
    }
    let mut finish = "stop";
    if reply.calls_tool && valid.tool.is_none() {
        reply.text = format!("The tool said: {}", valid.texts.last().map_or("", String::as_str));
        reply.calls_tool = false;
    } else if reply.calls_tool {
        finish = "tool_calls";
    }
    if let Some(limit) = valid.max_tokens
        && count_tokens(&reply.text) > limit as u64
    {
        reply.text = truncate(&reply.text, limit).to_owned();
        finish = "length";
    }
    if reply.fault == Some(ProviderFault::EmptyStream) {
        reply.text.clear();
    }
    let usage = match reply.fault {
        Some(ProviderFault::ZeroUsage) => Usage::default(),
        _ => Usage {
            prompt_tokens: valid.texts.iter().map(|text| count_tokens(text)).sum(),
            completion_tokens: count_tokens(&reply.text),
        },
    };
    trace.status(200);
    if valid.stream {
        stream(id, &valid, &reply, finish, usage, trace)
    } else {
        whole(id, &valid, &reply, finish, usage, trace)
    }
}

pub(crate) fn refuse(mut trace: Trace, refusal: Refusal) -> Response {
    trace.refused(refusal.status);
    refusal.into_response()
}

/// These bytes with the status of success.
pub(crate) fn instead(mut trace: Trace, stream: bool, body: &str) -> Response {
    trace.status(200);
    trace.finished();
    let kind = if stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    ([(header::CONTENT_TYPE, kind)], body.to_owned()).into_response()
}

/// Ends the connection instead of answering.
async fn cut(mut trace: Trace, kill: Kill) -> Response {
    trace.cut();
    kill.kill();
    std::future::pending().await
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}

/// The fields that every answer and every chunk begins with.
fn envelope(id: u64, object: &str, model: &str, choices: Value) -> Value {
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    json!({"id": format!("chatcmpl-{id}"), "object": object, "created": created, "model": model, "choices": choices})
}

fn whole(id: u64, valid: &Valid, reply: &Reply, finish: &str, usage: Usage, mut trace: Trace) -> Response {
    if reply.fault == Some(ProviderFault::GarbageChunk) {
        trace.finished();
        return ([(header::CONTENT_TYPE, "application/json")], "{not json").into_response();
    }
    if let Some(ProviderFault::ErrorInside(words)) = &reply.fault {
        trace.finished();
        return Json(json!({"error": {"message": words, "type": "server_error"}})).into_response();
    }
    let message = match called(valid, reply) {
        Some(tool) => {
            let function = json!({"name": tool, "arguments": reply.text});
            let calls = json!([{"id": "call_1", "type": "function", "function": function}]);
            json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": calls})
        }
        None => json!({"role": "assistant", "content": reply.text, "refusal": null}),
    };
    let choices = match reply.fault {
        Some(ProviderFault::EmptyStream) => json!([]),
        _ => json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}]),
    };
    let mut body = envelope(id, "chat.completion", &valid.model, choices);
    if reply.fault == Some(ProviderFault::EndMidStream) {
        trace.cut();
        return half_of(&body);
    }
    trace.content(&reply.text);
    if reply.fault != Some(ProviderFault::NoUsage) {
        body["usage"] = usage_json(usage);
        trace.usage(usage);
    }
    trace.finished();
    Json(body).into_response()
}

/// A body that ends in good order in the middle of its document.
fn half_of(body: &Value) -> Response {
    let mut text = body.to_string();
    let half = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(half.unwrap_or(0));
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// The tool that is called instead of saying something.
fn called<'a>(valid: &'a Valid, reply: &Reply) -> Option<&'a str> {
    valid.tool.as_deref().filter(|_| reply.calls_tool)
}

/// A stream, step by step.
enum Step {
    /// A line of content and its text.
    Content(Bytes, String),
    Line(Bytes),
    Usage(Bytes, Usage),
    Pause(Duration),
    Done,
    Hang,
    Cut,
    /// The body ends here.
    End,
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

fn stream(id: u64, valid: &Valid, reply: &Reply, finish: &str, usage: Usage, trace: Trace) -> Response {
    let steps = steps(id, valid, reply, finish, usage);
    let body = futures::stream::unfold((steps, trace), |(mut steps, mut trace)| async move {
        loop {
            let bytes = match steps.pop_front()? {
                Step::Content(bytes, text) => {
                    trace.content(&text);
                    bytes
                }
                Step::Line(bytes) => bytes,
                Step::Usage(bytes, usage) => {
                    trace.usage(usage);
                    bytes
                }
                Step::Pause(pause) => {
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Step::Done => {
                    // Here and not at the end of the body: clients leave as soon as they have read it.
                    trace.finished();
                    Bytes::from_static(b"data: [DONE]\n\n")
                }
                Step::Hang => std::future::pending().await,
                Step::End => {
                    trace.cut();
                    return None;
                }
                Step::Cut => {
                    trace.cut();
                    return Some((
                        Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
                        (steps, trace),
                    ));
                }
            };
            return Some((Ok(bytes), (steps, trace)));
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Body::from_stream(body)).into_response()
}

fn steps(id: u64, valid: &Valid, reply: &Reply, finish: &str, usage: Usage) -> VecDeque<Step> {
    if reply.fault == Some(ProviderFault::EmptyStream) {
        return VecDeque::from([Step::Done]);
    }
    let chunk = |delta: Value, finish: Option<&str>| {
        let choices = json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
        let mut chunk = envelope(id, "chat.completion.chunk", &valid.model, choices);
        if valid.include_usage {
            chunk["usage"] = Value::Null;
        }
        line(&chunk)
    };
    let mut steps = VecDeque::from([Step::Line(chunk(json!({"role": "assistant", "content": ""}), None))]);
    if reply.fault == Some(ProviderFault::HangAfterRole) {
        steps.push_back(Step::Hang);
        return steps;
    }
    let tool = called(valid, reply);
    if let Some(name) = tool {
        let call = json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}});
        steps.push_back(Step::Line(chunk(json!({"tool_calls": [call]}), None)));
    }
    let delta = |piece: &str| match tool {
        Some(_) => json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}),
        None => json!({"content": piece}),
    };
    let pieces = pieces(&reply.text, reply.chunks);
    let half = pieces.len().div_ceil(2);
    for (at, piece) in pieces.into_iter().enumerate() {
        if at > 0 && !reply.pause.is_zero() {
            steps.push_back(Step::Pause(reply.pause));
        }
        steps.push_back(Step::Content(chunk(delta(piece), None), piece.to_owned()));
        match &reply.fault {
            // The pause lets what was written reach the client first.
            Some(ProviderFault::CutMidStream) if at + 1 == half => {
                steps.extend([Step::Pause(Duration::from_millis(10)), Step::Cut]);
                return steps;
            }
            Some(ProviderFault::HangMidStream) if at + 1 == half => {
                steps.push_back(Step::Hang);
                return steps;
            }
            Some(ProviderFault::EndMidStream) if at + 1 == half => {
                steps.push_back(Step::End);
                return steps;
            }
            Some(ProviderFault::GarbageChunk) if at + 1 == half => {
                steps.push_back(Step::Line(Bytes::from_static(b"data: {\"id\": \"chatcmpl-\n\n")));
            }
            Some(ProviderFault::ErrorInside(words)) if at + 1 == half => {
                steps.push_back(Step::Line(line(
                    &json!({"error": {"message": words, "type": "server_error"}}),
                )));
                steps.push_back(Step::Done);
                return steps;
            }
            _ => {}
        }
    }
    steps.push_back(Step::Line(chunk(json!({}), Some(finish))));
    if valid.include_usage && reply.fault != Some(ProviderFault::NoUsage) {
        let mut last = envelope(id, "chat.completion.chunk", &valid.model, json!([]));
        last["usage"] = usage_json(usage);
        steps.push_back(Step::Usage(line(&last), usage));
    }
    steps.push_back(Step::Done);
    steps
}
