//! Whether a provider answers, with which of its keys: what staff and `doctor` ask for before people do.

use bytes::Bytes;
use domain::ProviderKeyId;

use super::*;
use crate::{Endpoint, ForwardBody, Outgoing, Provider, upstream::Key};

/// Keys of a provider that are tried out at the same time.
const KEYS_AT_ONCE: usize = 4;

/// How a provider is asked whether it answers. Models by the names that it has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe<'a> {
    /// For one token of a chat model.
    Token(&'a str),
    /// For one embedding.
    Embedding(&'a str),
    /// For the list of its models, which costs nothing.
    Models,
}

/// What came of it with one key.
#[derive(Debug)]
pub struct Probed {
    /// `None` where the provider is asked without.
    pub key: Option<ProviderKeyId>,
    pub took: Duration,
    pub failure: Option<GatewayError>,
}

impl Gateway {
    /// Asks the first provider of `model` for one token, within the deadline to a first token.
    pub async fn probe(&self, model: &str) -> Result<(), GatewayError> {
        let live = self.live();
        let target = live.routes.get(model).and_then(|route| route.first());
        let target = target.ok_or_else(|| live.not_offered(model))?;
        let keys = target.upstream.keys();
        let key = keys.first().ok_or_else(|| GatewayError::down("it has no key"))?;
        self.try_out(key, Probe::Token(&target.model.name)).await
    }

    /// Asks `provider` with each of its keys, whatever its breaker says; `None` when it is not in the catalogue.
    pub async fn probe_provider(&self, provider: ProviderId, probe: Probe<'_>) -> Option<Vec<Probed>> {
        let live = self.live();
        let upstream = live.upstreams.iter().find(|one| one.spec.id == provider)?;
        let tried = upstream.keys().to_vec().into_iter().map(|key| async move {
            let began = Instant::now();
            let failure = self.try_out(&key, probe).await.err();
            Probed {
                key: key.id,
                took: began.elapsed(),
                failure,
            }
        });
        Some(futures::stream::iter(tried).buffered(KEYS_AT_ONCE).collect().await)
    }

    async fn try_out(&self, key: &Key, probe: Probe<'_>) -> Result<(), GatewayError> {
        let what = "the first token";
        let asked = async {
            match probe {
                Probe::Token(model) => key.adapter.probe(model).await,
                Probe::Embedding(model) => one_embedding(&*key.adapter, model).await,
                Probe::Models => key.adapter.list_models().await,
            }
        };
        tokio::time::timeout(self.inner.deadlines.first_token, asked)
            .await
            .unwrap_or(Err(GatewayError::Timeout { what }))
    }
}

/// Asks for the embedding of a word, and looks whether there is one in the answer.
async fn one_embedding(adapter: &dyn Provider, model: &str) -> Result<(), GatewayError> {
    let body = ForwardBody::Json(Bytes::from_static(br#"{"input":"ping"}"#));
    let request = Outgoing {
        endpoint: Endpoint::Embeddings,
        model,
        body: &body,
        stream: false,
        max_answer_tokens: 0,
        bound: None,
    };
    let mut pieces = adapter.forward(&request).await?.body;
    let mut answer = Vec::new();
    while let Some(piece) = pieces.next().await {
        answer.extend_from_slice(&piece?);
        if answer.len() > MOST_TEXT {
            break;
        }
    }
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
    match &answer["data"][0]["embedding"] {
        serde_json::Value::Array(_) | serde_json::Value::String(_) => Ok(()),
        _ if answer["error"].is_null() => Err(GatewayError::down("there is no embedding in its answer")),
        _ => Err(adapter.fault(&answer["error"])),
    }
}
