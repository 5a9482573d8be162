//! Requests of other programs: sent on as they are, answered in bytes.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::header::CONTENT_TYPE;

use super::{
    OpenAi,
    fault::from_transport,
    wire::{refusal, web_page},
};
use async_openai::config::Config;

use crate::{
    Endpoint, ForwardBody, GatewayError, Incoming, Outgoing,
    outgoing::{self, Bound},
};

impl OpenAi {
    pub(super) async fn pass_on(&self, request: &Outgoing<'_>) -> Result<Incoming, GatewayError> {
        let (server, config) = (&self.server, self.client.config());
        let url = config.url(request.endpoint.path());
        let wants_usage = match request.body {
            // Only streams of chat completions have to be asked.
            ForwardBody::Json(body) if request.stream && request.endpoint == Endpoint::Chat => {
                Some(outgoing::asks_for_usage(body))
            }
            _ => None,
        };
        let word = match request.endpoint {
            Endpoint::Chat if server.quirks.completion() => Some("max_completion_tokens"),
            Endpoint::Chat => Some("max_tokens"),
            Endpoint::Responses => Some("max_output_tokens"),
            _ => None,
        };
        let bound = word.zip(request.answer_tokens).map(|(usual, tokens)| Bound {
            names: request.endpoint.bounds(),
            usual,
            tokens,
        });
        loop {
            let add_usage = wants_usage == Some(false) && server.quirks.usage();
            let builder = server.http.post(&url).headers(config.headers());
            let builder = match request.body {
                ForwardBody::Json(body) => builder
                    .header(CONTENT_TYPE, "application/json")
                    .body(outgoing::rewritten(body, request.model, add_usage, bound)?),
                ForwardBody::Form(parts) => {
                    let (content_type, pieces) = outgoing::form(parts, request.model);
                    let length: usize = pieces.iter().map(Bytes::len).sum();
                    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>));
                    builder
                        .header(CONTENT_TYPE, content_type)
                        .header(http::header::CONTENT_LENGTH, length)
                        .body(reqwest::Body::wrap_stream(pieces))
                }
            };
            let response = builder.send().await;
            let response = response.map_err(|error| from_transport(error, &self.cleaner))?;
            if !response.status().is_success() {
                let error = refusal(response, &self.cleaner).await;
                if add_usage && server.quirks.refuses_usage(&error) {
                    continue;
                }
                return Err(error);
            }
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
