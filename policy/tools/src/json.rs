//! JSON text as hcsshim's tool writes it.

use serde::Serialize;
use serde_json::Value;

/// Compact JSON with the escapes of Go's `encoding/json`.
pub(crate) fn json(value: &(impl Serialize + ?Sized)) -> String {
    // Serialising these types cannot fail; the fallback null would deny.
    let text = serde_json::to_string(value).unwrap_or_else(|_| Value::Null.to_string());
    policy::escape_json(&text)
}
