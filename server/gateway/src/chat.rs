//! What goes to a provider and what comes back, in words that belong to no provider.

use async_trait::async_trait;
use domain::{Money, Price};
use futures::stream::BoxStream;
use serde_json::Value;

use crate::{GatewayError, Incoming, Outgoing};

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    /// The word of OpenAI's protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    pub role: Role,
    pub text: String,
}

/// Never the text: what is formatted ends up in a log sooner or later.
impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turn({}, {} bytes)", self.role.as_str(), self.text.len())
    }
}

/// One question to a model.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<Turn>,
    pub max_tokens: u32,
    /// An opaque id of the person asking, for the provider's abuse control; never a Telegram id or a name.
    pub user: String,
}

/// What a provider counts. `cached_tokens` and `audio_input_tokens` are part of `prompt_tokens`, `reasoning_tokens` and
/// `audio_output_tokens` of `completion_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub cached_tokens: i64,
    pub reasoning_tokens: i64,
    pub audio_input_tokens: i64,
    pub audio_output_tokens: i64,
    pub images: i64,
}

impl Usage {
    /// What it costs, rounded up once to a whole nano-dollar.
    pub fn cost(self, price: &Price) -> Money {
        let prompt = self.prompt_tokens.max(0);
        let audio_input = self.audio_input_tokens.clamp(0, prompt);
        let cached = self.cached_tokens.clamp(0, prompt - audio_input);
        let completion = self.completion_tokens.max(0);
        let audio_output = self.audio_output_tokens.clamp(0, completion);
        let reasoning = self.reasoning_tokens.clamp(0, completion - audio_output);
        let product = |price: Money, tokens: i64| i128::from(price.nanos()) * i128::from(tokens);
        let total = product(price.input, prompt - cached - audio_input)
            + product(price.cached_input, cached)
            + product(price.audio_input, audio_input)
            + product(price.output, completion - reasoning - audio_output)
            + product(price.of_reasoning(), reasoning)
            + product(price.audio_output, audio_output);
        let nanos = (total + 999_999).div_euclid(1_000_000) + product(price.image, self.images.max(0));
        Money::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
    }
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
            cached_tokens: self.cached_tokens.saturating_add(other.cached_tokens),
            reasoning_tokens: self.reasoning_tokens.saturating_add(other.reasoning_tokens),
            audio_input_tokens: self.audio_input_tokens.saturating_add(other.audio_input_tokens),
            audio_output_tokens: self.audio_output_tokens.saturating_add(other.audio_output_tokens),
            images: self.images.saturating_add(other.images),
        }
    }
}

/// One piece of a streamed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// More text. An empty one is a sign of life (a model that reasons silently): it restarts the deadline, nothing else.
    Text(String),
    /// The provider's word for the end: `stop`, `length`, `content_filter`…
    Finish(String),
    /// What it cost; the last one told counts, and it may come after `Finish`.
    Usage(Usage),
}

/// The answer as it comes. Dropping it ends the request at once.
pub type ChunkStream = BoxStream<'static, Result<Chunk, GatewayError>>;

/// The true edge to model providers.
#[async_trait]
pub trait Provider: Send + Sync {
    /// A short name for metrics and pages.
    fn name(&self) -> &str;

    /// Sends the request once, without retrying, and returns when the provider has begun to answer.
    async fn stream(&self, request: &ChatRequest) -> Result<ChunkStream, GatewayError>;

    /// Sends another program's request on, once, and returns when the provider has begun to answer.
    async fn forward(&self, request: &Outgoing<'_>) -> Result<Incoming, GatewayError> {
        let path = request.endpoint.path();
        Err(GatewayError::unable(format!("this provider has no {path}")))
    }

    /// What an error means that came in the place of an answer.
    fn fault(&self, error: &Value) -> GatewayError {
        GatewayError::down(crate::openai::words_of(error))
    }

    /// Asks for one token, so that `doctor` can say whether address, key and model are right.
    async fn probe(&self, model: &str) -> Result<(), GatewayError>;

    /// Asks for the list of its models: what can be tried of address and key where there is no model to ask.
    async fn list_models(&self) -> Result<(), GatewayError> {
        Err(GatewayError::refused("this provider has no list of models"))
    }
}
