//! What other programs call, as they would call OpenAI: <https://platform.openai.com/docs/api-reference>. Controllers alone; who may,
//! how much and what is written is decided in `services`, how a provider is asked in `gateway`.

mod asked;
mod auth;
mod bodies;
mod calls;
mod error;
mod headers;
mod models;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
    routing::{any, get, post},
};

pub use self::{auth::Caller, error::ApiError};
use super::AppState;

pub fn router() -> Router<AppState> {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::get))
        .route("/v1/chat/completions", post(calls::chat))
        .route("/v1/responses", post(calls::responses))
        .route("/v1/embeddings", post(calls::embeddings))
        .route("/v1/images/generations", post(calls::images))
        .route("/v1/audio/transcriptions", post(calls::transcriptions))
        .route("/v1/audio/translations", post(calls::translations))
        .route("/v1/audio/speech", post(calls::speech))
        .route("/v1/{*rest}", any(unknown))
        .method_not_allowed_fallback(unknown)
        // Of forms; JSON is bounded where it is read.
        .layer(DefaultBodyLimit::max(calls::BODY_LIMIT))
        .layer(middleware::from_fn_with_state(bodies::Bodies::default(), bodies::count))
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    ApiError::no_url(method.as_str(), uri.path())
}
