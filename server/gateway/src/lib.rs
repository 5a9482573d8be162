//! The AI gateway: one question in, one streamed and priced answer out, whichever provider made it.
//!
//! Here live the catalogue of what can be asked, the way from a name to the targets behind it (`route.rs`), the providers as
//! they live with keys, breakers and places (`upstream.rs`, `breaker.rs`, `places.rs`), what speaks to them (`openai` for everything that
//! speaks OpenAI's protocol, `anthropic`, `demo` for a deck on which nothing is set up for chat), deadlines, retry, price and token count. What must not live
//! here: who may ask and how much (services), history (repositories), how an answer looks in Telegram (bot).
//!
//! To add a kind of provider: a type that implements [`Provider`] in a file of its own, mapping its failures to
//! [`GatewayError`], and a branch in `upstream.rs`; routing, deadlines, retry, cancellation, billing and metrics come with
//! [`Gateway`].

mod anthropic;
mod breaker;
mod cache;
mod catalogue;
mod chat;
mod demo;
mod error;
mod gateway;
mod models;
mod openai;
mod outgoing;
mod pictures;
mod places;
mod route;
mod sizes;
mod tokens;
mod upstream;

pub use breaker::{BreakerEvents, BreakerRules, BreakerState, LastFailure, SharedBreaker, Transition};
pub use cache::{CacheHit, CacheKey, CacheScope, SharedCache, Similar};
pub use catalogue::{Alias, Catalogue, KeySpec, ModelSpec, Offer, ProviderKind, ProviderSpec, Target};
pub use chat::{ChatRequest, Chunk, ChunkStream, Provider, Role, Turn, Usage};
pub use demo::Demo;
pub use domain::{ModelKind, Price};
pub use error::GatewayError;
pub use gateway::{Answer, Deadlines, Finish, Forward, Forwarded, Gateway, NotForwarded, Outcome, Probe, Probed, Try};
pub use models::{Model, models_from, parse_models, price};
pub use openai::{BadProvider, OpenAi};
pub use outgoing::{AnswerBound, Endpoint, ForwardBody, Incoming, Outgoing, Part};
pub use pictures::ByDetail;
pub use places::{Loan, SharedPlaces};
pub use tokens::{TOKENS_PER_MESSAGE, count_tokens, estimate_prompt, warm_up};
pub use upstream::{KeyState, ProviderState};
