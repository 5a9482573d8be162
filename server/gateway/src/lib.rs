//! The AI gateway: one question in, one streamed and priced answer out, whichever provider made it.
//!
//! Here live the providers (`openai` for everything that speaks OpenAI's protocol, `demo` for a deck without a key), the
//! deadlines and the one retry around them, the price list and the token count. What must not live here: who may ask and
//! how much (services), history (repositories), how an answer looks in Telegram (bot).
//!
//! To add a provider: a type that implements [`Provider`] in a file of its own, mapping its failures to [`GatewayError`];
//! deadlines, retry, cancellation, billing and metrics come with [`Gateway`].

mod chat;
mod demo;
mod error;
mod gateway;
mod models;
mod openai;
mod tokens;

pub use chat::{ChatRequest, Chunk, ChunkStream, Provider, Role, Turn, Usage};
pub use demo::Demo;
pub use error::GatewayError;
pub use gateway::{Answer, Deadlines, Finish, Gateway};
pub use models::{Model, models_from, parse_models, price};
pub use openai::{BadProvider, OpenAi};
pub use tokens::{TOKENS_PER_MESSAGE, count_tokens, estimate_prompt, warm_up};
