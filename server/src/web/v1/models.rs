//! What may be asked for.

use axum::{
    Json,
    extract::{Path, State},
};
use domain::ApiScope;
use serde_json::{Value, json};

use super::{ApiError, Caller};
use crate::web::AppState;

/// The models of this key, of every kind.
pub async fn list(State(state): State<AppState>, caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.ask(ApiScope::Models)?;
    let models: Vec<Value> = names(&state)
        .filter(|name| caller.0.may_use(name))
        .map(|name| shown(&name))
        .collect();
    Ok(Json(json!({ "object": "list", "data": models })))
}

/// Names may hold slashes, as OpenRouter's do.
pub async fn get(
    State(state): State<AppState>,
    caller: Caller,
    Path(model): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.ask(ApiScope::Models)?;
    let known = names(&state).any(|name| name == model) && caller.0.may_use(&model);
    if known {
        Ok(Json(shown(&model)))
    } else {
        Err(ApiError::no_model(&model))
    }
}

fn names(state: &AppState) -> impl Iterator<Item = String> {
    state.services.gateway().names().into_iter()
}

/// Since when it is offered is not known, and of no use to anybody.
fn shown(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "botdeck" })
}
