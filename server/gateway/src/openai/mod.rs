//! Everything that speaks OpenAI's chat protocol: OpenAI itself, Ollama, vLLM, OpenRouter, DeepSeek, Grok…
//!
//! The protocol's client is async-openai with our own types on the wire (`byot`) and our own HTTP service under it
//! ([`wire::Wire`]), because what it does by itself is ours to decide: it retries, logs what it cannot read, and reads an
//! organisation from the environment. `chunk.rs` reads what servers send, `fault.rs` says what their refusals mean.

mod chunk;
mod fault;
mod forward;
mod quirks;
mod wire;

use std::{sync::Arc, time::Duration};

use async_openai::{Client, config::Config, error::OpenAIError};
use async_trait::async_trait;
use domain::ProviderId;
use futures::{StreamExt, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use self::{
    chunk::{count_of, usage_of},
    fault::{Cleaner, from_transport, from_value},
    wire::refusal,
};
use self::{
    quirks::{Quirks, Shape},
    wire::{Wire, web_page},
};
use crate::{
    ChatRequest, ChunkStream, GatewayError, Incoming, Outgoing, Provider, ProviderKind, ProviderSpec, Role, Turn,
};

const OPENAI: &str = "https://api.openai.com/v1";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than the idle time after which common proxies (60 s) hang up, so that no request meets a dead connection.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// Why a provider cannot be set up from its settings.
#[derive(Debug, thiserror::Error)]
pub enum BadProvider {
    #[error("the base URL must be an http or https address such as {OPENAI}")]
    Url,
    #[error("the key must be one line of printable ASCII")]
    Key,
    #[error("a header must be a name and one line of printable ASCII")]
    Header,
    #[error("the proxy must be an http address")]
    Proxy,
    #[error("the HTTP client could not be made")]
    Client(#[source] reqwest::Error),
}

/// Paths are put behind it, so nothing may stand there.
pub(crate) fn parsed(base: &str) -> Result<reqwest::Url, BadProvider> {
    let url = reqwest::Url::parse(base).map_err(|_| BadProvider::Url)?;
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host();
    let bare = url.query().is_none() && url.fragment().is_none();
    if fits && bare { Ok(url) } else { Err(BadProvider::Url) }
}

/// A server that speaks OpenAI's chat protocol.
pub struct OpenAi {
    client: Client<Endpoint>,
    server: Arc<Server>,
    cleaner: Cleaner,
}

/// What all keys of a server share: connections, and what it has taught us.
pub(crate) struct Connection(Arc<Server>);

struct Server {
    http: reqwest::Client,
    base: String,
    /// Sent along with every request.
    headers: HeaderMap,
    /// What must not be quoted, besides the key.
    secrets: Vec<SecretString>,
    name: String,
    /// OpenAI itself, which is told the opaque user id; strict others refuse the field.
    is_openai: bool,
    quirks: Quirks,
}

impl Connection {
    /// A TLS provider must be installed (rustls, in `main`).
    pub(crate) fn open(spec: &ProviderSpec) -> Result<Self, BadProvider> {
        let base = match spec.base_url.trim().trim_end_matches('/') {
            "" => OPENAI,
            base => base,
        };
        let url = parsed(base)?;
        let host = url.host_str().ok_or(BadProvider::Url)?;
        let is_openai = host == "api.openai.com";
        let name = match url.port() {
            _ if is_openai => "openai".to_owned(),
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let mut headers = headers_of(spec)?;
        if let Some(organisation) = &spec.organisation {
            let value = HeaderValue::try_from(organisation.trim()).map_err(|_| BadProvider::Header)?;
            headers.insert("openai-organization", value);
        }
        Ok(Self(Arc::new(Server {
            http: http_client(spec)?,
            base: base.to_owned(),
            headers,
            secrets: secrets_of(spec),
            name,
            is_openai,
            quirks: Quirks::new(is_openai),
        })))
    }

    pub(crate) fn with_key(&self, key: &SecretString) -> Result<OpenAi, BadProvider> {
        let server = Arc::clone(&self.0);
        let endpoint = Endpoint::new(&server, key)?;
        let cleaner = Cleaner::new(endpoint.key.clone()).besides(server.secrets.clone());
        let wire = Wire::new(server.http.clone(), cleaner.clone());
        Ok(OpenAi {
            client: Client::build(server.http.clone(), endpoint).with_http_service(wire),
            server,
            cleaner,
        })
    }
}

/// The headers that go with every request of a provider; none of them is shown.
pub(crate) fn headers_of(spec: &ProviderSpec) -> Result<HeaderMap, BadProvider> {
    let pair = |(name, value): &(String, SecretString)| {
        let name = HeaderName::try_from(name.trim()).map_err(|_| BadProvider::Header)?;
        let mut value = HeaderValue::try_from(value.expose_secret().trim()).map_err(|_| BadProvider::Header)?;
        value.set_sensitive(true);
        Ok((name, value))
    };
    spec.headers.iter().map(pair).collect()
}

/// What a provider must not be quoted with, besides its key.
pub(crate) fn secrets_of(spec: &ProviderSpec) -> Vec<SecretString> {
    let headers = spec.headers.iter().map(|(_, value)| value.clone());
    headers.chain(spec.proxy.clone()).collect()
}

pub(crate) fn http_client(spec: &ProviderSpec) -> Result<reqwest::Client, BadProvider> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .pool_idle_timeout(POOL_IDLE)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("botdeck/", env!("CARGO_PKG_VERSION")));
    if let Some(proxy) = &spec.proxy {
        // The error would quote the address, and with it a password.
        let proxy = reqwest::Proxy::all(proxy.expose_secret().trim()).map_err(|_| BadProvider::Proxy)?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(BadProvider::Client)
}

impl OpenAi {
    /// `base_url` is taken as OpenAI's own clients take it, so it mostly ends in `/v1`; empty means OpenAI. The key may be
    /// empty for servers that want none. A TLS provider must be installed (rustls, in `main`).
    pub fn new(base_url: &str, api_key: SecretString) -> Result<Self, BadProvider> {
        let nobody = ProviderId(Uuid::nil());
        Connection::open(&ProviderSpec::named(nobody, "", ProviderKind::OpenAi, base_url))?.with_key(&api_key)
    }

    /// Whether `base_url` can be one at all; nothing is asked.
    pub fn takes_url(base_url: &str) -> bool {
        parsed(base_url).is_ok()
    }

    async fn send(&self, request: &ChatRequest, shape: Shape) -> Result<ChunkStream, GatewayError> {
        let body = Body {
            model: &request.model,
            messages: request.messages.iter().map(Message::from).collect(),
            stream: true,
            stream_options: shape.usage.then_some(StreamOptions { include_usage: true }),
            max_tokens: shape.limit.filter(|_| !shape.completion),
            max_completion_tokens: shape.limit.filter(|_| shape.completion),
            user: (self.server.is_openai && !request.user.is_empty()).then_some(&request.user),
        };
        let cleaner = self.cleaner.clone();
        let events = self
            .client
            .chat()
            .create_stream_byot::<_, Value>(body)
            .await
            .map_err(|error| into_gateway(error, &cleaner))?;
        let chunks = events.flat_map(move |event| {
            stream::iter(match event {
                Ok(event) => chunk::chunks(&event, &cleaner),
                // Filtered out below already; if one slips through it says nothing about the rest of the stream.
                Err(OpenAIError::JSONDeserialize(..)) => Vec::new(),
                Err(error) => vec![Err(into_gateway(error, &cleaner))],
            })
        });
        Ok(chunks.boxed())
    }
}

#[async_trait]
impl Provider for OpenAi {
    fn name(&self) -> &str {
        &self.server.name
    }

    async fn stream(&self, request: &ChatRequest) -> Result<ChunkStream, GatewayError> {
        let mut lesson = self.server.quirks.begin(request);
        loop {
            match self.send(request, lesson.shape()).await {
                // Refused before anything was made, so asking in other words is no second attempt.
                Err(error) if lesson.learn(&error) => {}
                Ok(stream) => {
                    lesson.passed();
                    return Ok(stream);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn forward(&self, request: &Outgoing<'_>) -> Result<Incoming, GatewayError> {
        self.pass_on(request).await
    }

    fn fault(&self, error: &Value) -> GatewayError {
        from_value(error, &self.cleaner)
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
        let first = match self.stream(&request).await {
            Ok(mut chunks) => chunks.next().await,
            Err(error) => Some(Err(error)),
        };
        match first {
            Some(Ok(_)) => Ok(()),
            // A model that reasons cannot say anything in one token, but address, key and model were right.
            Some(Err(GatewayError::Refused { detail, .. })) if detail.contains("output limit was reached") => Ok(()),
            Some(Err(error)) => Err(error),
            None => Err(GatewayError::down("the stream ended without an answer")),
        }
    }

    async fn list_models(&self) -> Result<(), GatewayError> {
        let config = self.client.config();
        let request = self.server.http.get(config.url("/models")).headers(config.headers());
        lists(request, &self.cleaner).await
    }
}

/// Whether a server answers a request for its models; what it lists is not looked at.
pub(crate) async fn lists(request: reqwest::RequestBuilder, cleaner: &Cleaner) -> Result<(), GatewayError> {
    let response = request.send().await.map_err(|error| from_transport(error, cleaner))?;
    if !response.status().is_success() {
        return Err(refusal(response, cleaner).await);
    }
    let content_type = response.headers().get(CONTENT_TYPE);
    let is_page = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    if is_page { Err(web_page()) } else { Ok(()) }
}

/// The words of an error of unknown shape, without anything that looks like a key.
pub(crate) fn words_of(error: &Value) -> String {
    Cleaner::new(SecretString::default()).clean(&error.to_string())
}

fn into_gateway(error: OpenAIError, cleaner: &Cleaner) -> GatewayError {
    match error {
        OpenAIError::Boxed(error) => match error.downcast::<GatewayError>() {
            Ok(error) => *error,
            Err(error) => GatewayError::down(cleaner.clean(&error.to_string())),
        },
        error => GatewayError::down(cleaner.clean(&error.to_string())),
    }
}

/// Where requests go and with which key. Not async-openai's own `OpenAIConfig`: that reads the environment, and panics on a
/// key which cannot be a header.
struct Endpoint {
    base: String,
    key: SecretString,
    headers: HeaderMap,
}

impl Endpoint {
    fn new(server: &Server, key: &SecretString) -> Result<Self, BadProvider> {
        let key = SecretString::from(key.expose_secret().trim());
        let mut headers = server.headers.clone();
        if !key.expose_secret().is_empty() {
            let bearer = format!("Bearer {}", key.expose_secret());
            let mut value = HeaderValue::try_from(bearer).map_err(|_| BadProvider::Key)?;
            value.to_str().map_err(|_| BadProvider::Key)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self {
            base: server.base.clone(),
            key,
            headers,
        })
    }
}

impl Config for Endpoint {
    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        &self.base
    }

    fn api_key(&self) -> &SecretString {
        &self.key
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a String>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

impl<'a> From<&'a Turn> for Message<'a> {
    fn from(turn: &'a Turn) -> Self {
        Self {
            role: turn.role.as_str(),
            content: &turn.text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(base: &str, key: &str) -> Result<OpenAi, BadProvider> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        OpenAi::new(base, SecretString::from(key))
    }

    #[test]
    fn a_base_url_is_taken_as_it_is() {
        for (base, url, name) in [
            ("", "https://api.openai.com/v1/chat/completions", "openai"),
            (
                "http://localhost:11434/v1/",
                "http://localhost:11434/v1/chat/completions",
                "localhost:11434",
            ),
            (
                "https://api.deepseek.com",
                "https://api.deepseek.com/chat/completions",
                "api.deepseek.com",
            ),
        ] {
            let provider = provider(base, "sk-x\n").unwrap();
            assert_eq!(
                (
                    provider.client.config().url("/chat/completions").as_str(),
                    provider.name()
                ),
                (url, name)
            );
        }
        for bad in ["localhost:11434", "ftp://x", "http://", "nonsense", "http://x/v1?a=b"] {
            assert!(matches!(provider(bad, "k"), Err(BadProvider::Url)), "{bad} was taken");
        }
    }

    #[test]
    fn a_key_must_fit_a_header_and_may_be_missing() {
        assert!(matches!(provider("", "a\nb"), Err(BadProvider::Key)));
        assert!(matches!(provider("", "ключ"), Err(BadProvider::Key)));
        assert!(provider("", " ").unwrap().client.config().headers().is_empty());
        let headers = provider("", "sk-x\n").unwrap().client.config().headers();
        assert_eq!(headers[AUTHORIZATION], "Bearer sk-x");
        assert!(!format!("{headers:?}").contains("sk-x"));
    }
}
