//! HTTP under async-openai: one try, failures told apart while status and headers are at hand, and a body that is fit to read.

use std::{
    borrow::Cow,
    task::{Context, Poll},
    time::Duration,
};

use async_openai::{error::OpenAIError, middleware::HttpRequestFactory};
use bytes::Bytes;
use futures::{Stream, StreamExt, future::BoxFuture, stream};
use http::header::CONTENT_TYPE;
use serde::de::IgnoredAny;
use tracing::debug;

use super::fault::{Cleaner, from_response, from_transport};
use crate::GatewayError;

/// Enough for any words of refusal.
const MOST_ERROR_BODY: usize = 16 * 1024;
/// No event is this long; a server that sends more without a line's end must not fill our memory.
const MOST_EVENT: usize = 1024 * 1024;
const LONGEST_DRAIN: Duration = Duration::from_secs(1);

/// Sends a request once. In the place of async-openai's own service, which would retry.
#[derive(Clone)]
pub(super) struct Wire {
    http: reqwest::Client,
    cleaner: Cleaner,
}

impl Wire {
    pub(super) fn new(http: reqwest::Client, cleaner: Cleaner) -> Self {
        Self { http, cleaner }
    }

    async fn send(self, request: HttpRequestFactory) -> Result<reqwest::Response, OpenAIError> {
        let request = request.build().await?;
        let response = self.http.execute(request).await;
        let response = response.map_err(|error| boxed(from_transport(error, &self.cleaner)))?;
        if !response.status().is_success() {
            return Err(boxed(refusal(response, &self.cleaner).await));
        }
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if content_type.starts_with("text/html") {
            return Err(boxed(web_page()));
        }
        let (parts, body) = http::Response::<reqwest::Body>::from(response).into_parts();
        let body = reqwest::Body::wrap_stream(filtered(
            reqwest::Response::from(http::Response::new(body)).bytes_stream(),
        ));
        Ok(http::Response::from_parts(parts, body).into())
    }
}

impl tower::Service<HttpRequestFactory> for Wire {
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = BoxFuture<'static, Result<reqwest::Response, OpenAIError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

pub(super) fn web_page() -> GatewayError {
    GatewayError::down("it answered with a web page; the base URL probably lacks its /v1")
}

/// The one kind of error that async-openai hands through untouched.
fn boxed(error: GatewayError) -> OpenAIError {
    OpenAIError::Boxed(Box::new(error))
}

pub(crate) async fn refusal(mut response: reqwest::Response, cleaner: &Cleaner) -> GatewayError {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        body.extend_from_slice(&bytes);
        if body.len() >= MOST_ERROR_BODY {
            body.truncate(MOST_ERROR_BODY);
            break;
        }
    }
    from_response(status, &headers, &body, cleaner)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Lets through only events that can be read: async-openai would write others, and so people's words, into the log.
fn filtered(
    body: impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send + 'static {
    stream::unfold(Some((Box::pin(body), Filter::default())), |state| async move {
        let (mut body, mut filter) = state?;
        loop {
            match body.next().await {
                Some(Ok(bytes)) => {
                    filter.feed(&bytes);
                    if filter.overflows() {
                        return Some((Err("an event without an end".into()), None));
                    }
                    if filter.done {
                        tokio::spawn(drain(body));
                        return Some((Ok(filter.take()), None));
                    }
                    if !filter.ready.is_empty() {
                        return Some((Ok(filter.take()), Some((body, filter))));
                    }
                }
                Some(Err(error)) => return Some((Err(error.without_url().into()), None)),
                None => {
                    filter.end();
                    return Some((Ok(filter.take()), None));
                }
            }
        }
    })
}

/// Reads the end of a body of which all events are known: a connection is used again only when its answer was read to the
/// end, and async-openai stops at `[DONE]`, a few bytes before it.
async fn drain(mut body: impl Stream<Item = reqwest::Result<Bytes>> + Unpin) {
    let rest = async { while let Some(Ok(_)) = body.next().await {} };
    // A server that goes on after its `[DONE]` is left.
    let _ = tokio::time::timeout(LONGEST_DRAIN, rest).await;
}

/// Puts lines together to events, and keeps those that are JSON objects or the end.
#[derive(Default)]
struct Filter {
    /// One JSON document instead of a stream, from a server that cannot stream. The first byte tells: types lie.
    whole: bool,
    begun: bool,
    line: Vec<u8>,
    /// The `data:` lines of an event that is not complete yet.
    event: Vec<u8>,
    ready: Vec<u8>,
    done: bool,
    /// Events that could be read.
    kept: usize,
    /// An event has said why the answer ends, or that it failed.
    finished: bool,
    /// An event has brought a part of an answer.
    answered: bool,
}

/// The little that must be known of an event on its way through.
#[derive(serde::Deserialize)]
struct Glance<'a> {
    #[serde(default, borrow)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(serde::Deserialize)]
struct Choice<'a> {
    #[serde(default, borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

impl Choice<'_> {
    /// Some servers write an empty reason into every event but the last.
    fn ends(&self) -> bool {
        self.finish_reason.as_ref().is_some_and(|reason| !reason.is_empty())
    }
}

/// What a server that ends with `[DONE]` alone leaves out.
const FINISHED: &[u8] = br#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

impl Filter {
    fn feed(&mut self, mut bytes: &[u8]) {
        if !self.begun
            && let Some(first) = bytes.iter().find(|byte| !byte.is_ascii_whitespace())
        {
            self.begun = true;
            self.whole = *first == b'{';
        }
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            let line = std::mem::take(&mut self.line);
            self.line_ended(line.trim_ascii_end());
            bytes = &bytes[end + 1..];
        }
        self.line.extend_from_slice(bytes);
    }

    fn end(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.line_ended(line.trim_ascii_end());
        if self.whole {
            let event = std::mem::take(&mut self.event);
            self.keep(event.trim_ascii());
            // One document is a whole answer; several are a stream, which has to say itself when it is complete.
            if self.kept == 1 {
                self.keep(b"[DONE]");
            }
        }
    }

    fn overflows(&self) -> bool {
        self.line.len() + self.event.len() > MOST_EVENT
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.ready).into()
    }

    fn line_ended(&mut self, line: &[u8]) {
        if self.whole && !(self.event.is_empty() && line.starts_with(b"data:")) {
            // Most often the document is one line; else its lines are put together, for it cannot be read before its end.
            if !self.event.is_empty() || !self.keep(line) {
                self.event.extend_from_slice(line);
            }
            return;
        }
        self.whole = false;
        // A bare object is what some servers write when they fail in the middle of a stream.
        let data = match line.strip_prefix(b"data:") {
            Some(data) => data.trim_ascii_start(),
            None if line.starts_with(b"{") => line,
            None => {
                if line.is_empty() && !self.event.is_empty() {
                    debug!(
                        ai.bytes = self.event.len(),
                        "Skipped an event of the provider that is not JSON"
                    );
                    self.event.clear();
                }
                return;
            }
        };
        if self.keep(data) {
            self.event.clear();
            return;
        }
        self.event.extend_from_slice(data);
        let event = std::mem::take(&mut self.event);
        if !self.keep(&event) {
            self.event = event;
        }
    }

    fn keep(&mut self, data: &[u8]) -> bool {
        let done = data == b"[DONE]";
        // `[DONE]` is an end in good order: some servers give no reason beside it.
        if done && self.answered && !self.finished {
            self.pass(FINISHED);
        }
        self.done |= done;
        let keep = done || self.readable(data);
        if keep {
            self.kept += 1;
            self.pass(data);
        }
        keep
    }

    fn readable(&mut self, data: &[u8]) -> bool {
        if !data.starts_with(b"{") || std::str::from_utf8(data).is_err() {
            return false;
        }
        match serde_json::from_slice::<Glance>(data) {
            Ok(glance) => {
                let choices = glance.choices.unwrap_or_default();
                self.answered |= !choices.is_empty();
                self.finished |= glance.error.is_some() || choices.iter().any(Choice::ends);
                true
            }
            // Of another shape than expected, but JSON: whoever reads it next decides.
            Err(_) => serde_json::from_slice::<IgnoredAny>(data).is_ok(),
        }
    }

    fn pass(&mut self, data: &[u8]) {
        self.ready.extend_from_slice(b"data: ");
        self.ready.extend_from_slice(data);
        self.ready.extend_from_slice(b"\n\n");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `body` in pieces of `size` bytes.
    fn through(body: &[u8], size: usize) -> String {
        let mut filter = Filter::default();
        body.chunks(size).for_each(|piece| filter.feed(piece));
        filter.end();
        String::from_utf8(filter.take().to_vec()).unwrap()
    }

    #[test]
    fn only_what_can_be_read_comes_through() {
        let body = ": keep-alive\r\n\r\nevent: x\ndata: {\"a\":\"я\"}\r\n\r\ndata: {\"broken\": \n\ndata:{\"b\":1}\ndata: garbage\n\
                    data: {\"c\":\ndata: 2}\n\ndata: {\"d\":\ndata: 3}\n\n{\"error\":\"e\"}\ndata: [DONE] \n\ndata: 17\n\ndata: {\"last\":0}";
        let expected = "data: {\"a\":\"я\"}\n\ndata: {\"b\":1}\n\ndata: {\"d\":3}\n\ndata: {\"error\":\"e\"}\n\ndata: [DONE]\n\ndata: {\"last\":0}\n\n";
        for size in [1, 2, 7, 10_000] {
            assert_eq!(through(body.as_bytes(), size), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_whole_answer_becomes_a_stream_of_one() {
        assert_eq!(
            through(b"{\n  \"a\": 1\r\n}\n", 3),
            "data: {  \"a\": 1}\n\ndata: [DONE]\n\n"
        );
        assert_eq!(through(b"\n {\"a\": 1}", 3), "data: {\"a\": 1}\n\ndata: [DONE]\n\n");
        assert_eq!(through(b"{not json", 3), "");
        // A failure before the stream, and the stream.
        assert_eq!(
            through(b"{\"error\":\"e\"}\ndata: {\"a\":1}\n\ndata: [DONE]\n\n", 3),
            "data: {\"error\":\"e\"}\n\ndata: {\"a\":1}\n\ndata: [DONE]\n\n"
        );
    }

    #[test]
    fn done_without_a_reason_is_an_end_in_good_order() {
        let said = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";
        let reason = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        let done = "data: [DONE]\n\n";
        for (body, expected) in [
            (format!("{said}{done}"), format!("{said}{reason}{done}")),
            (format!("{said}{reason}{done}"), format!("{said}{reason}{done}")),
            // The connection alone ends: that is a cut.
            (said.to_owned(), said.to_owned()),
            (done.to_owned(), done.to_owned()),
        ] {
            assert_eq!(through(body.as_bytes(), 5), expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_and_any_cuts_are_survived(body in proptest::collection::vec(any::<u8>(), 0..300), size in 1..50_usize) {
            let fed = through(&body, size);
            prop_assert_eq!(&fed, &through(&body, 1));
        }
    }
}
