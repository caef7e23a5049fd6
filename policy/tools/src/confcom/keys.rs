//! Keys in any case: the peer compares them so.

use serde_json::{Map, Value};

/// Objects whose keys are the author's data.
const DATA: [&str; 2] = ["keyvaluepairs", "labels"];

/// The document with all keys in lower case; `None` if it is neither an object nor an array.
///
/// # Errors
/// A key that is there in two cases.
pub(super) fn lowered(document: Value) -> Result<Option<Value>, String> {
    match document {
        Value::Object(_) | Value::Array(_) => lower(document).map(Some),
        _ => Ok(None),
    }
}

/// The parser of JSON limits the depth.
fn lower(value: Value) -> Result<Value, String> {
    match value {
        Value::Array(list) => list.into_iter().map(lower).collect::<Result<_, _>>().map(Value::Array),
        Value::Object(object) => {
            let mut lowered = Map::new();
            for (key, value) in object {
                let lower_key = key.to_ascii_lowercase();
                let value = if DATA.contains(&lower_key.as_str()) { value } else { lower(value)? };
                if lowered.insert(lower_key, value).is_some() {
                    return Err(key);
                }
            }
            Ok(Value::Object(lowered))
        }
        plain => Ok(plain),
    }
}
