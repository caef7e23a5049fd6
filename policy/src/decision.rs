//! The decision document in an error text, between the marks that hcsshim defines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use thiserror::Error;

pub(crate) const MARK_BEGIN: &str = "policyDecision< ";
pub(crate) const MARK_END: &str = " >policyDecision";

/// Why a text has no readable decision.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecisionError {
    /// The text has no `policyDecision<` and `>policyDecision` marks.
    #[error("unable to extract policy decision from error message: {0}")]
    NoDecision(String),
    /// The text between the marks is not base64 of JSON.
    #[error("policy decision cannot be decoded: {0}")]
    Malformed(String),
}

/// The decision document in `text`, which may have other text around it.
///
/// # Errors
/// There is no decision, or it is cut short or malformed.
pub fn extract_decision(text: &str) -> Result<Value, DecisionError> {
    let missing = || DecisionError::NoDecision(text.to_owned());
    let begin = text.find(MARK_BEGIN).ok_or_else(missing)? + MARK_BEGIN.len();
    let rest = text.get(begin..).unwrap_or("");
    let end = rest.rfind(MARK_END).ok_or_else(missing)?;
    let encoded = rest.get(..end).unwrap_or("");
    let bytes = STANDARD
        .decode(encoded)
        .map_err(|error| DecisionError::Malformed(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| DecisionError::Malformed(error.to_string()))
}
