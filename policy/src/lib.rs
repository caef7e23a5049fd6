//! Judges what a guest is asked to do.

#![forbid(unsafe_code)]

use sha2::{Digest, Sha256};

pub mod action;
pub mod conformance;
pub mod data;
mod denied;
mod enforcer;
mod explain;
mod framework;
mod ids;
mod interpreter;
mod plain;
mod points;
mod re2;
mod seccomp;
mod selection;
mod state;
mod verdict;

pub use denied::{Denied, escape_json};
pub use enforcer::{Enforcer, MAX_DECISION_BYTES, Permit, Transaction};
pub use explain::{Explanation, explain};
pub use ids::{ContainerId, RootHash};
pub use interpreter::{MAX_POLICY_BYTES, PolicyError};
pub use plain::{DecisionError, extract_decision};
pub use points::{API_VERSION, OlderPolicy, POINTS, Point};
pub use re2::{PatternError, check_pattern};
pub use seccomp::{SeccompError, seccomp_digest};
pub use selection::{SelectionError, select};
pub use verdict::{Answer, ExternalVerdict, ProcessVerdict, Verdict};

/// The text that allows everything, sent where no policy was given so that a verifier sees its well-known digest.
pub const OPEN_DOOR: &str = include_str!("open_door.rego");

/// SHA-256 over the bytes of the policy text: what host data must hold.
pub fn digest(policy: &str) -> [u8; 32] {
    Sha256::digest(policy.as_bytes()).into()
}
