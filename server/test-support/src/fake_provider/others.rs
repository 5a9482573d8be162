//! The endpoints beside chat completions: embeddings, responses, pictures, sound. Facts: OpenAI's API reference.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::error::Refusal;
use super::reply::{ProviderFault, count_tokens, pieces};
use super::serve::{instead, key, refuse};
use super::state::{Request, Shared, Trace, Usage};
use crate::net::lock;

/// Checks key, type and model, and begins to keep the request.
fn begin(shared: &Arc<Shared>, headers: &HeaderMap, body: Value, known: &[&str]) -> Result<(Trace, Value), Refusal> {
    let key = key(shared, headers);
    let request = Request {
        id: shared.next_id.fetch_add(1, Ordering::Relaxed) + 1,
        body: body.clone(),
        key: key.as_ref().cloned().unwrap_or_default(),
        at: SystemTime::now(),
        status: None,
        chunks_written: 0,
        text_written: String::new(),
        usage: None,
        finished: false,
        disconnected: false,
    };
    let mut trace = Trace::begin(shared, request, shared.record.load(Ordering::Relaxed));
    let checked = key.and_then(|_| check(shared, &body, known));
    match checked {
        Ok(()) => {
            trace.status(200);
            Ok((trace, body))
        }
        Err(refusal) => {
            trace.refused(refusal.status);
            Err(refusal)
        }
    }
}

fn check(shared: &Shared, body: &Value, known: &[&str]) -> Result<(), Refusal> {
    let fields = body
        .as_object()
        .ok_or_else(|| Refusal::invalid("", "The body must be a JSON object."))?;
    if !shared.lenient.load(Ordering::Relaxed)
        && let Some(name) = fields.keys().find(|name| !known.contains(&name.as_str()))
    {
        return Err(Refusal::unknown_parameter(name));
    }
    let model = body["model"].as_str().unwrap_or_default();
    if model.is_empty() {
        return Err(Refusal::invalid("model", "you must provide a model parameter"));
    }
    if !lock(&shared.state).models.iter().any(|one| one == model) {
        return Err(Refusal::unknown_model(model));
    }
    Ok(())
}

/// What is answered in the place of an answer, if that was planned.
async fn planned(shared: &Shared, trace: Trace, body: &Value) -> Result<Trace, Box<Response>> {
    let fault = lock(&shared.state).other_faults.next();
    match fault {
        None => Ok(trace),
        Some(ProviderFault::Status(status)) => Err(Box::new(refuse(trace, Refusal::status(status, None)))),
        Some(ProviderFault::Instead(bytes)) => Err(Box::new(instead(trace, body["stream"] == true, &bytes))),
        Some(ProviderFault::Hang) => std::future::pending().await,
        Some(other) => panic!("only chat completions know the fault {other:?}"),
    }
}

fn json_of(headers: &HeaderMap, body: &[u8]) -> Value {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/json")) {
        serde_json::from_slice(body).unwrap_or_default()
    } else {
        Value::Null
    }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text_of).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => fields
            .get("content")
            .or(fields.get("text"))
            .map(text_of)
            .unwrap_or_default(),
        _ => String::new(),
    }
}

pub(crate) async fn embeddings(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let known = ["model", "input", "encoding_format", "dimensions", "user"];
    let (trace, body) = begin(&shared, &headers, json_of(&headers, &body), &known)?;
    let mut trace = match planned(&shared, trace, &body).await {
        Ok(trace) => trace,
        Err(instead) => return Ok(*instead),
    };
    let inputs: Vec<String> = match &body["input"] {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) if !values.is_empty() => values.iter().map(text_of).collect(),
        _ => {
            trace.refused(400);
            return Err(Refusal::invalid(
                "input",
                "'input' must be a string or a non-empty array.",
            ));
        }
    };
    let vector = |text: &str| {
        let numbers = told_vector(text).unwrap_or_else(|| vec![text.len() as f32 / 1000.0, 0.5]);
        if body["encoding_format"] == "base64" {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        } else {
            json!(numbers)
        }
    };
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(at, text)| json!({"object": "embedding", "index": at, "embedding": vector(text)}))
        .collect();
    let delay = lock(&shared.state).embeddings_delay;
    tokio::time::sleep(delay).await;
    let prompt_tokens = inputs.iter().map(|text| count_tokens(text)).sum();
    trace.usage(Usage {
        prompt_tokens,
        completion_tokens: 0,
    });
    trace.finished();
    let usage = json!({"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens});
    Ok(Json(json!({"object": "list", "data": data, "model": body["model"], "usage": usage})).into_response())
}

/// `[[vector=0.8,0.6]]` in a text: where it points. Others differ by their length alone.
fn told_vector(text: &str) -> Option<Vec<f32>> {
    let (numbers, _) = text.split_once("[[vector=")?.1.split_once("]]")?;
    numbers.split(',').map(|number| number.trim().parse().ok()).collect()
}

pub(crate) async fn responses(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let known = [
        "background",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    ];
    let (trace, body) = begin(&shared, &headers, json_of(&headers, &body), &known)?;
    let mut trace = match planned(&shared, trace, &body).await {
        Ok(trace) => trace,
        Err(instead) => return Ok(*instead),
    };
    let question = text_of(&body["input"]);
    let text = format!("Echo: {question}");
    let usage = Usage {
        prompt_tokens: count_tokens(&question),
        completion_tokens: count_tokens(&text),
    };
    let usage_json = json!({"input_tokens": usage.prompt_tokens, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.completion_tokens, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens});
    let part = json!({"type": "output_text", "text": text, "annotations": []});
    let item = json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]});
    let response = |status: &str, output: Value, usage: Value| {
        json!({"id": "resp_1", "object": "response", "created_at": 1_700_000_000, "status": status, "error": null,
            "model": body["model"], "output": output, "usage": usage, "parallel_tool_calls": true, "tools": [],
            "tool_choice": "auto", "instructions": null, "incomplete_details": null, "metadata": {}})
    };
    let complete = response("completed", json!([item]), usage_json);
    trace.usage(usage);
    if body["stream"] != true {
        trace.content(&text);
        trace.finished();
        return Ok(Json(complete).into_response());
    }
    let mut events =
        vec![json!({"type": "response.created", "response": response("in_progress", json!([]), Value::Null)})];
    events.push(json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant", "content": []}}));
    events.push(json!({"type": "response.content_part.added", "item_id": "msg_1", "output_index": 0, "content_index": 0, "part": {"type": "output_text", "text": "", "annotations": []}}));
    for piece in pieces(&text, None) {
        trace.content(piece);
        events.push(json!({"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": piece}));
    }
    events.push(json!({"type": "response.output_text.done", "item_id": "msg_1", "output_index": 0, "content_index": 0, "text": text}));
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": complete["output"][0]}));
    events.push(json!({"type": "response.completed", "response": complete}));
    for (at, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(at);
    }
    trace.finished();
    Ok(stream_of(&events))
}

/// Events that say their own type.
fn stream_of(events: &[Value]) -> Response {
    let event = |event: &Value| {
        let kind = event["type"].as_str().unwrap_or_default();
        format!("event: {kind}\ndata: {event}\n\n")
    };
    let text: String = events.iter().map(event).collect();
    ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response()
}

pub(crate) async fn images(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let known = [
        "background",
        "model",
        "moderation",
        "n",
        "output_compression",
        "output_format",
        "prompt",
        "quality",
        "response_format",
        "size",
        "stream",
        "style",
        "user",
    ];
    let (trace, body) = begin(&shared, &headers, json_of(&headers, &body), &known)?;
    let mut trace = match planned(&shared, trace, &body).await {
        Ok(trace) => trace,
        Err(instead) => return Ok(*instead),
    };
    if body["stream"] == true {
        let usage = json!({"input_tokens": 5, "output_tokens": 7, "total_tokens": 12});
        let picture = |kind: &str| json!({"type": format!("image_generation.{kind}"), "b64_json": "iVBORw0KGgo="});
        let mut completed = picture("completed");
        completed["usage"] = usage;
        trace.finished();
        return Ok(stream_of(&[picture("partial_image"), completed]));
    }
    let count = body["n"].as_u64().unwrap_or(1);
    // A picture of one pixel.
    let data = vec![json!({"b64_json": "iVBORw0KGgo="}); usize::try_from(count).unwrap_or(1)];
    trace.finished();
    Ok(Json(json!({"created": 1_700_000_000, "data": data})).into_response())
}

/// Of recordings, in both ways: the words of the fake are those of the file.
pub(crate) async fn transcriptions(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let form = form_of(&headers, &body);
    let known = [
        "file",
        "model",
        "language",
        "prompt",
        "response_format",
        "temperature",
        "timestamp_granularities[]",
        "stream",
    ];
    let (mut trace, body) = begin(&shared, &headers, form, &known)?;
    let Some(file) = body["file"].as_str() else {
        trace.refused(400);
        return Err(Refusal::invalid("file", "you must provide a file"));
    };
    trace.finished();
    if body["response_format"] == "text" {
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], file.to_owned()).into_response());
    }
    Ok(Json(json!({"text": file, "usage": {"type": "duration", "seconds": 6}})).into_response())
}

/// The parts of a form as an object; good enough for what clients send.
fn form_of(headers: &HeaderMap, body: &[u8]) -> Value {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some((_, boundary)) = kind.and_then(|kind| kind.split_once("multipart/form-data; boundary=")) else {
        return Value::Null;
    };
    let text = String::from_utf8_lossy(body);
    let between = format!("--{}", boundary.trim_matches('"'));
    let parts = text.split(&between).filter_map(|part| {
        let (head, data) = part.split_once("\r\n\r\n")?;
        let name = head.split_once("; name=\"")?.1.split_once('"')?.0;
        Some((name.to_owned(), Value::from(data.trim_end_matches("\r\n"))))
    });
    Value::Object(parts.collect())
}

pub(crate) async fn speech(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let known = [
        "model",
        "input",
        "voice",
        "instructions",
        "response_format",
        "speed",
        "stream_format",
    ];
    let (mut trace, body) = begin(&shared, &headers, json_of(&headers, &body), &known)?;
    if !body["voice"].is_string() || !body["input"].is_string() {
        trace.refused(400);
        return Err(Refusal::invalid("voice", "you must provide 'input' and 'voice'"));
    }
    let sound = format!("ID3 {}", text_of(&body["input"]));
    trace.finished();
    if body["stream_format"] == "sse" {
        let usage = json!({"input_tokens": 3, "output_tokens": 9, "total_tokens": 12});
        return Ok(stream_of(&[
            json!({"type": "speech.audio.delta", "audio": STANDARD.encode(sound)}),
            json!({"type": "speech.audio.done", "usage": usage}),
        ]));
    }
    Ok(([(header::CONTENT_TYPE, "audio/mpeg")], Body::from(sound)).into_response())
}
