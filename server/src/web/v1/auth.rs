//! Who calls: the key that a program sends.

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use domain::ApiScope;
use services::ApiKey;

use super::ApiError;
use crate::web::AppState;

/// A program with a key that is good.
pub struct Caller(pub ApiKey);

impl Caller {
    /// Every call asks for one scope.
    pub fn ask(&self, scope: ApiScope) -> Result<(), ApiError> {
        if self.0.may(scope) {
            Ok(())
        } else {
            Err(ApiError::forbidden(format!("This API key does not open: {scope}.")))
        }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let value = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(ApiError::no_key)?;
        let secret = value
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, secret)| secret.trim().to_owned())
            .ok_or_else(ApiError::no_key)?;
        let key = state.services.api_keys().authenticate(&secret.into()).await?;
        key.map(Self).ok_or_else(ApiError::bad_key)
    }
}
