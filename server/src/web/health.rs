//! Probes and metrics.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use secrecy::ExposeSecret;
use serde_json::json;

use super::AppState;
use crate::telemetry;

/// The process answers.
pub async fn alive() -> &'static str {
    "ok"
}

/// The database and the queue answer. Redis may be away: that is said, and does not count.
pub async fn ready(State(state): State<AppState>) -> Response {
    let queue = tokio::time::timeout(Duration::from_secs(2), async { state.services.queue().state().await }).await;
    let redis = state.services.rate().shared_is_up();
    match queue {
        Ok(Ok(queue)) => Json(json!({ "database": "ok", "queue": queue, "redis": redis })).into_response(),
        Ok(Err(_)) | Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({ "database": "unreachable", "redis": redis })),
        )
            .into_response(),
    }
}

/// Prometheus' text form.
pub async fn metrics(State(state): State<AppState>, headers: HeaderMap) -> Response {
    if let Some(token) = &state.edge.metrics_token {
        let given = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes())
            .unwrap_or_default();
        let wanted = format!("Bearer {}", token.expose_secret());
        if !bool::from(subtle::ConstantTimeEq::ct_eq(given, wanted.as_bytes())) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
    }
    match telemetry::metrics() {
        Some(handle) => {
            handle.run_upkeep();
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render()).into_response()
        }
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
