//! Requests of other programs: sent on as they are, answered in bytes.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};

use super::{
    OpenAi,
    fault::from_transport,
    wire::{refusal, web_page},
};
use async_openai::config::Config;

use crate::{
    Endpoint, ForwardBody, GatewayError, Incoming, Outgoing,
    outgoing::{self, Fields},
};

impl OpenAi {
    pub(super) async fn pass_on(&self, request: &Outgoing<'_>) -> Result<Incoming, GatewayError> {
        let (server, config) = (&self.server, self.client.config());
        let url = config.url(request.endpoint.path());
        let fields = match request.body {
            ForwardBody::Json(body) => outgoing::fields(body)?,
            ForwardBody::Form(_) => Fields::new(),
        };
        // Only streams of chat completions have to be asked.
        let lacks_usage = request.stream && request.endpoint == Endpoint::Chat && !outgoing::asks_for_usage(&fields);
        let mut bounding = server.quirks.bounding(request, &fields);
        loop {
            let add_usage = lacks_usage && server.quirks.usage();
            let builder = server.http.post(&url).headers(config.headers());
            let builder = match request.body {
                ForwardBody::Json(body) => {
                    let pieces = outgoing::rewritten(body, &fields, request.model, add_usage, bounding.bound())?;
                    with_body(builder.header(CONTENT_TYPE, "application/json"), pieces)
                }
                ForwardBody::Form(parts) => {
                    let (content_type, pieces) = outgoing::form(parts, request.model);
                    with_body(builder.header(CONTENT_TYPE, content_type), pieces)
                }
            };
            let response = builder.send().await;
            let response = response.map_err(|error| from_transport(error, &self.cleaner))?;
            if !response.status().is_success() {
                let error = refusal(response, &self.cleaner).await;
                // Refused before anything was made, so asking in other words is no second attempt.
                if (add_usage && server.quirks.refuses_usage(&error)) || bounding.learn(&error) {
                    continue;
                }
                return Err(error);
            }
            bounding.passed();
            let content_type = response.headers().get(CONTENT_TYPE);
            let content_type = content_type
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
                .to_owned();
            if content_type.starts_with("text/html") {
                return Err(web_page());
            }
            let cleaner = self.cleaner.clone();
            let body = response
                .bytes_stream()
                .map_err(move |error| from_transport(error, &cleaner));
            return Ok(Incoming {
                content_type,
                hide_usage: add_usage,
                body: body.boxed(),
            });
        }
    }
}

/// Pieces are not put together, since some of them are large.
fn with_body(builder: reqwest::RequestBuilder, mut pieces: Vec<Bytes>) -> reqwest::RequestBuilder {
    if pieces.len() == 1 {
        return builder.body(pieces.remove(0));
    }
    let length: usize = pieces.iter().map(Bytes::len).sum();
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>));
    builder
        .header(CONTENT_LENGTH, length)
        .body(reqwest::Body::wrap_stream(pieces))
}
