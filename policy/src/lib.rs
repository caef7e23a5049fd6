//! Judges what a guest is asked to do, by the policy its owner wrote and its hardware measured.
//!
//! # One request
//!
//! ```text
//! agent: decode(request)?            host bytes → an action, e.g. CreateContainer
//!        enforcer.enforce(action)?   ┐
//!                                    │ 1 the action is serialised: it is the Rego input document
//!                                    │ 2 data.policy.create_container is evaluated; the policy passes it on to
//!                                    │   data.framework.create_container (framework/create_container.rego)
//!                                    │ 3 defaults of the point are filled in (points.rs), metadata commands applied (state.rs)
//!                                    │ 4 allowed: the verdict is read (verdict.rs) → Permit
//!                                    ┘   denied: data.policy.reason is asked → Denied (denied.rs)
//!        sandbox.create(permit)      act on permit.action() within permit.verdict(); then permit.commit()
//! ```
//! A permit borrows the enforcer, so acts are serial. Dropped without commit, it puts back what the policy remembers;
//! if that ever fails, everything is denied from then on. Several decisions that belong together: [`Enforcer::transaction`].
//!
//! ```
//! use policy::action::UnmountDevice;
//! use policy::{Enforcer, OPEN_DOOR};
//!
//! let mut enforcer = Enforcer::new(OPEN_DOOR)?;
//! let permit = enforcer.enforce(UnmountDevice { unmount_target: "/run/mounts/scsi/m0".into() })?;
//! assert_eq!(permit.action().unmount_target, "/run/mounts/scsi/m0");
//! permit.commit();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Adding an enforcement point
//!
//! A file in `action/` (its input and its verdict), a file in `framework/` with its test beside it (the rule), a line in
//! [`POINTS`] (since which API version, and what older policies get).
//!
//! # What always holds
//!
//! - A rule that is absent, errs or has the wrong shape denies, but for the documented defaults of older policies.
//! - Nothing but [`Enforcer::enforce`] makes a [`Permit`].
//! - Patterns mean what they mean in RE2; what RE2 refuses never matches.
//! - No rule can reach the network, the clock or chance.

#![forbid(unsafe_code)]

use sha2::{Digest, Sha256};

pub mod action;
pub mod conformance;
mod context;
pub mod data;
mod denied;
mod enforcer;
mod explain;
mod fragment;
mod framework;
pub mod fuzz;
mod ids;
mod interpreter;
mod ledgers;
mod matching;
#[cfg(feature = "naive")]
pub mod naive;
mod patterns;
mod plain;
mod points;
mod re2;
mod seccomp;
mod selection;
mod source;
mod state;
mod verdict;

pub use context::{CONTEXT_PREFIX, CONTEXT_VARIABLE, Context, context_files};
pub use denied::{Denied, escape_json};
pub use enforcer::{Enforcer, MAX_DECISION_BYTES, Permit, Transaction};
pub use explain::{Explanation, explain};
pub use fragment::{FragmentError, MAX_FRAGMENT_BYTES};
pub use ids::{ContainerId, RootHash};
pub use interpreter::{MAX_POLICY_BYTES, PolicyError, check_shape};
pub use ledgers::{LedgerKey, ProvenReceipt};
pub use plain::{DecisionError, extract_decision};
pub use points::{API_VERSION, CASEMATE_VERSION, OWN_POINTS, OlderPolicy, POINTS, Point};
pub use re2::{PatternError, check_pattern, matches_pattern};
pub use seccomp::{SeccompError, seccomp_digest};
pub use selection::{SelectionError, select};
pub use verdict::{Answer, ExternalVerdict, ProcessVerdict, Verdict};

/// The text that allows everything, sent where no policy was given so that a verifier sees its well-known digest.
pub const OPEN_DOOR: &str = include_str!("open_door.rego");

/// SHA-256 over the bytes of the policy text: what host data must hold.
pub fn digest(policy: &str) -> [u8; 32] {
    Sha256::digest(policy.as_bytes()).into()
}
