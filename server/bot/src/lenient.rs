//! Reading what servers write that are not Telegram's own: some spell out every absent field as `null`.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// For `deserialize_with`, beside `default`: `null` is the same as absent.
pub(crate) fn null_is_absent<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The same without any field that is `null`, for types that are not ours.
pub(crate) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        plain => plain.clone(),
    }
}
