//! What other programs call, as they would call OpenAI: <https://platform.openai.com/docs/api-reference>. Controllers alone; who may,
//! how much and what is written is decided in `services`, how a provider is asked in `gateway`.

mod auth;
mod error;
mod models;

use axum::{
    Router,
    http::{Method, Uri},
    routing::get,
};

pub use self::{auth::Caller, error::ApiError};
use super::AppState;

pub fn router() -> Router<AppState> {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::get))
        .route("/v1/{*rest}", axum::routing::any(unknown))
        .method_not_allowed_fallback(unknown)
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    ApiError::no_url(method.as_str(), uri.path())
}
