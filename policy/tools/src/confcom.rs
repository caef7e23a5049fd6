//! Container definitions of `az confcom` (Azure CLI extension confcom: docs/v1_json_file_format.md, template_util.py, container.py,
//! lib/policy.py) as a configuration, so that they give the containers that `az confcom acipolicygen` gives.
//!
//! | form | told by | source there |
//! |---|---|---|
//! | version 1 | `containers[].properties` | `acipolicygen --input` |
//! | flat | `containers[].containerImage` | the same, deprecated |
//! | finished | an array, or an object with `layers` | `acipolicygen --with-containers`, `containers from_image` |
//!
//! Keys have any case, as there. What decides the same there and here is the same; what Azure adds by itself is not added: its
//! infrastructure's fragment, of whose signer a guest here knows nothing, and the mounts of its virtual nodes.

mod finished;
mod input;
mod keys;

use crate::GenerateError;
use crate::config::Config;
use serde_json::Value;

/// The configuration of a JSON text in one of the forms; `None` if it has none of them.
///
/// # Errors
/// It has one of them, and cannot be used.
pub(crate) fn read(text: &str) -> Result<Option<Config>, GenerateError> {
    let document: Value = serde_json::from_str(text)?;
    let Some(document) = keys::lowered(document).map_err(|key| refused("", format!("key {key:?} is given twice")))? else {
        return Ok(None);
    };
    match &document {
        Value::Array(list) => finished::config(list.clone()).map(Some),
        Value::Object(object) if object.contains_key("containers") => input::config(document).map(Some),
        Value::Object(object) if object.contains_key("layers") => finished::config(vec![document]).map(Some),
        _ => Ok(None),
    }
}

/// An error of a container, or of the whole text.
fn refused(place: &str, problem: impl std::fmt::Display) -> GenerateError {
    GenerateError::Field {
        place: if place.is_empty() { "the container definitions" } else { place }.to_owned(),
        problem: problem.to_string(),
    }
}
