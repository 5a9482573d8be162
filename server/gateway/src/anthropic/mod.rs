//! Anthropic's messages: typed answers, and chat completions of other programs, translated both ways.
//!
//! `ask.rs` writes requests, `events.rs` reads what comes back, `openai_words.rs` says it in OpenAI's words.

mod ask;
mod events;
mod openai_words;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use self::{
    events::{Events, Piece, Reader},
    openai_words::Words,
};
use crate::{
    BadProvider, ChatRequest, Chunk, ChunkStream, Endpoint, ForwardBody, GatewayError, Incoming, Outgoing, Provider,
    ProviderSpec, Role, Turn,
    openai::{self, Cleaner, from_transport, refusal},
    outgoing,
};

const ANTHROPIC: &str = "https://api.anthropic.com/v1";
const VERSION: &str = "2023-06-01";
/// A whole answer is read before it is translated.
const MOST_ANSWER: usize = 16 * 1024 * 1024;

/// What all keys of a server share.
pub(crate) struct Connection {
    http: reqwest::Client,
    base: String,
    headers: HeaderMap,
    secrets: Vec<SecretString>,
}

impl Connection {
    pub(crate) fn open(spec: &ProviderSpec) -> Result<Self, BadProvider> {
        let base = match spec.base_url.trim().trim_end_matches('/') {
            "" => ANTHROPIC,
            base => base,
        };
        openai::parsed(base)?;
        let mut headers = openai::headers_of(spec)?;
        headers
            .entry("anthropic-version")
            .or_insert(HeaderValue::from_static(VERSION));
        Ok(Self {
            http: openai::http_client(spec)?,
            base: base.to_owned(),
            headers,
            secrets: openai::secrets_of(spec),
        })
    }

    pub(crate) fn with_key(&self, key: &SecretString) -> Result<Anthropic, BadProvider> {
        let mut headers = self.headers.clone();
        let secret = key.expose_secret().trim();
        if !secret.is_empty() {
            let mut value = HeaderValue::try_from(secret).map_err(|_| BadProvider::Key)?;
            value.to_str().map_err(|_| BadProvider::Key)?;
            value.set_sensitive(true);
            headers.insert("x-api-key", value);
        }
        Ok(Anthropic {
            http: self.http.clone(),
            base: self.base.clone(),
            headers,
            cleaner: Cleaner::new(SecretString::from(secret)).besides(self.secrets.clone()),
        })
    }
}

/// A server that speaks Anthropic's protocol, with one key.
pub(crate) struct Anthropic {
    http: reqwest::Client,
    base: String,
    headers: HeaderMap,
    cleaner: Cleaner,
}

type Pieces = BoxStream<'static, Result<Piece, GatewayError>>;

impl Anthropic {
    async fn post(&self, body: String) -> Result<reqwest::Response, GatewayError> {
        let url = format!("{}/messages", self.base);
        let request = self.http.post(url).headers(self.headers.clone());
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await;
        let response = response.map_err(|error| from_transport(error, &self.cleaner))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(response, &self.cleaner).await)
        }
    }

    /// What a stream says, piece by piece, up to its end or its first failure.
    fn pieces(&self, response: reqwest::Response) -> Pieces {
        let cleaner = self.cleaner.clone();
        let body = response.bytes_stream();
        let state = (body.boxed(), Events::default(), Reader::default(), false);
        let pieces = stream::unfold(state, move |(mut body, mut events, mut reader, ended)| {
            let cleaner = cleaner.clone();
            async move {
                if ended {
                    return None;
                }
                let mut out: Vec<Result<Piece, GatewayError>> = Vec::new();
                let mut ended = false;
                match body.next().await {
                    Some(Ok(bytes)) => match events.feed(&bytes) {
                        Some(events) => {
                            for event in events {
                                out.extend(reader.read(&event, &cleaner));
                            }
                        }
                        None => {
                            ended = true;
                            out.push(Err(GatewayError::down("an event without an end")));
                        }
                    },
                    Some(Err(error)) => {
                        ended = true;
                        out.push(Err(from_transport(error, &cleaner)));
                    }
                    None => ended = true,
                }
                Some((stream::iter(out), (body, events, reader, ended)))
            }
        });
        pieces.flatten().boxed()
    }
}

#[async_trait]
impl Provider for Anthropic {
    fn name(&self) -> &str {
        "anthropic"
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChunkStream, GatewayError> {
        let response = self.post(ask::typed(request).to_string()).await?;
        let chunks = self.pieces(response).map_ok(|piece| match piece {
            Piece::Text(text) => Chunk::Text(text),
            // A sign of life; thoughts are not part of the answer.
            Piece::Thought(_) | Piece::Tool { .. } | Piece::Arguments(_) => Chunk::Text(String::new()),
            Piece::Finish(word) => Chunk::Finish(word),
            Piece::Usage(usage) => Chunk::Usage(usage),
        });
        Ok(chunks.boxed())
    }

    async fn forward(&self, request: &Outgoing<'_>) -> Result<Incoming, GatewayError> {
        let (Endpoint::Chat, ForwardBody::Json(body)) = (request.endpoint, request.body) else {
            let path = request.endpoint.path();
            return Err(GatewayError::unable(format!("this provider has no {path}")));
        };
        // As a statement of its own: of a large picture no more copies are kept than are sent.
        let asked = ask::translated(body, request)?.to_string();
        let response = self.post(asked).await?;
        let mut words = Words::new(request.model);
        if request.stream {
            let pieces = self.pieces(response).map(Some).chain(stream::iter([None]));
            let events = pieces.map(move |piece| match piece {
                Some(piece) => Ok(words.chunk(piece?)),
                None => Ok(words.end()),
            });
            return Ok(Incoming {
                content_type: "text/event-stream; charset=utf-8".to_owned(),
                hide_usage: !outgoing::fields(body).is_ok_and(|fields| outgoing::asks_for_usage(&fields)),
                body: events.boxed(),
            });
        }
        let mut all = Vec::new();
        let mut bytes = response.bytes_stream();
        while let Some(more) = bytes.next().await {
            all.extend_from_slice(&more.map_err(|error| from_transport(error, &self.cleaner))?);
            if all.len() > MOST_ANSWER {
                return Err(GatewayError::down("an answer without an end"));
            }
        }
        let message: Value = serde_json::from_slice(&all).map_err(|_| GatewayError::down("the answer is not JSON"))?;
        if !message["content"].is_array() {
            return Err(match &message["error"] {
                Value::Null => GatewayError::down("there is no content in its answer"),
                error => self.fault(error),
            });
        }
        let whole = words.whole(&message);
        Ok(Incoming {
            content_type: "application/json".to_owned(),
            hide_usage: false,
            body: stream::iter([Ok(whole)]).boxed(),
        })
    }

    fn fault(&self, error: &Value) -> GatewayError {
        openai::from_value(error, &self.cleaner)
    }

    async fn probe(&self, model: &str) -> Result<(), GatewayError> {
        let request = ChatRequest {
            model: model.to_owned(),
            messages: vec![Turn {
                role: Role::User,
                text: "ping".to_owned(),
            }],
            max_tokens: 1,
            user: String::new(),
        };
        match self.stream(&request).await?.next().await {
            Some(first) => first.map(|_| ()),
            None => Err(GatewayError::down("the stream ended without an answer")),
        }
    }

    async fn list_models(&self) -> Result<(), GatewayError> {
        let url = format!("{}/models", self.base);
        let request = self.http.get(url).headers(self.headers.clone());
        openai::lists(request, &self.cleaner).await
    }
}
