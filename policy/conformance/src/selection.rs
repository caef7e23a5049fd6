//! The choice of an enforcer as hcsshim makes it: by name, for a policy in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::{Enforcer, OPEN_DOOR, PolicyError};
use thiserror::Error;

/// Why there is no enforcer.
#[derive(Debug, Error)]
pub(crate) enum SelectionError {
    /// No enforcer of this name exists.
    #[error("unknown enforcer: {0:?}")]
    Unknown(String),
    /// The open-door enforcer takes no policy.
    #[error("Invalid policy for open-door enforcer")]
    NotEmpty,
    /// The policy is not base64.
    #[error("unable to decode policy from Base64 format: {0}")]
    Base64(#[source] base64::DecodeError),
    /// The policy is not UTF-8 text.
    #[error("error creating Rego policy: rego compilation failed: the policy is not UTF-8")]
    NotText,
    /// The text is not a policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Creates the enforcer that `policy_base64` requests. `enforcer` may name it (`rego`, `open_door`), or be empty.
///
/// # Errors
/// The name is unknown or does not fit the policy, or the policy cannot be loaded.
pub(crate) fn select(enforcer: &str, policy_base64: &str) -> Result<Enforcer, SelectionError> {
    match (enforcer, policy_base64.is_empty()) {
        ("" | "open_door", true) => Ok(Enforcer::new(OPEN_DOOR)?),
        ("open_door", false) => Err(SelectionError::NotEmpty),
        ("" | "rego", _) => {
            let joined: String = policy_base64.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            let bytes = STANDARD.decode(joined).map_err(SelectionError::Base64)?;
            let text = String::from_utf8(bytes).map_err(|_| SelectionError::NotText)?;
            Ok(Enforcer::new(&text)?)
        }
        (other, _) => Err(SelectionError::Unknown(other.to_owned())),
    }
}
