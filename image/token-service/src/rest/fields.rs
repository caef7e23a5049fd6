//! Fields of a request's body, in JSON or as a form.

use super::failure::{invalid, missing};
use crate::answer::{Stop, of_status};
use crate::body::{self, Kind};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use registry_rules::MinimumLevel;
use serde_json::Value;
use std::collections::BTreeMap;

/// Largest body in bytes.
const BODY_MAX_BYTES: usize = 1 << 16;

/// Fields by name; what a `null` says is the empty text. Fields that nobody asks for are ignored, as the peer does.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// 400 for a body that is not of its kind, 415 for another kind, and those of [`body::read`].
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Stop> {
        let kind = body::kind(headers);
        let bytes = body::read(body, BODY_MAX_BYTES).await?;
        match kind {
            Some(Kind::Json) => {
                let value = serde_json::from_slice(&bytes).map_err(|_| invalid("the body is not valid JSON"))?;
                match value {
                    Value::Object(fields) => Ok(Self(fields.into_iter().collect())),
                    _ => Err(invalid("the body is not a JSON object")),
                }
            }
            Some(Kind::Form) => {
                let pairs = form_urlencoded::parse(&bytes);
                Ok(Self(
                    pairs.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect(),
                ))
            }
            None if bytes.is_empty() && !headers.contains_key(header::CONTENT_TYPE) => Ok(Self::default()),
            None => Err(of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE).into()),
        }
    }

    /// A text, or a number as text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Stop> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(String::new())),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(invalid(&format!("{name} is invalid"))),
        }
    }

    /// A text that has to be there.
    pub(super) fn required(&self, name: &str) -> Result<String, Stop> {
        self.text(name)?.ok_or_else(|| missing(name))
    }

    /// A level's word, or the empty text that stands for none.
    pub(super) fn level(&self, name: &str) -> Result<Option<String>, Stop> {
        let word = self.text(name)?;
        match &word {
            Some(word) if !word.is_empty() && word.parse::<MinimumLevel>().is_err() => {
                Err(invalid(&format!("{name} does not have a valid value")))
            }
            _ => Ok(word),
        }
    }
}
