//! The policy engine: decides what a guest may do, by a Rego policy whose digest is in the launch measurement.
//!
//! # One request
//!
//! ```text
//! agent: decode(request)?            bytes from the host → an action, e.g. CreateContainer
//!        enforcer.enforce(action)?   ┐
//!                                    │ 1 the action is serialised: it is the Rego input document
//!                                    │ 2 data.policy.create_container is evaluated; policies refer to
//!                                    │   data.framework.create_container (framework/create_container.rego)
//!                                    │ 3 defaults of the point are filled in (points.rs), metadata commands applied (state.rs)
//!                                    │ 4 allowed: the verdict is read (verdict.rs) → Permit
//!                                    ┘   denied: data.policy.reason is evaluated → Denied (denied.rs)
//!        sandbox.create(permit)      acts on permit.action() within permit.verdict(), then calls permit.commit()
//! ```
//! A permit borrows the enforcer, so acts are serial. A permit that is dropped without commit restores the policy's state; if the
//! state cannot be restored, everything is denied from then on. [`Enforcer::transaction`] groups several decisions.
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
//! [`POINTS`] (the API version that introduced it, and the default for older policies). `ADDING.md` has an example.
//!
//! # Invariants
//!
//! - A rule that is undefined, fails or returns the wrong type denies, except for the documented defaults of older policies.
//! - Nothing but [`Enforcer::enforce`] makes a [`Permit`].
//! - Patterns have the semantics of RE2; a pattern that RE2 refuses never matches.
//! - No rule has access to the network, the clock or random numbers.

#![forbid(unsafe_code)]

use sha2::{Digest, Sha256};

pub mod action;
pub mod data;
mod decision;
pub mod denial_text;
mod denied;
mod enforcer;
mod fragment;
mod framework;
mod functions;
pub mod fuzz;
mod ids;
mod interpreter;
mod ledgers;
mod matching;
mod patterns;
mod points;
mod re2;
mod rego;
mod request;
mod seccomp;
mod security_context;
mod source;
mod state;
mod verdict;

pub use decision::{DecisionError, extract_decision};
pub use denied::{Denied, escape_json};
pub use enforcer::{Enforcer, MAX_DECISION_BYTES, Permit, Transaction};
pub use fragment::{FragmentError, MAX_FRAGMENT_BYTES, namespace as fragment_namespace};
pub use ids::{ContainerId, RootHash};
pub use interpreter::{MAX_POLICY_BYTES, PolicyError, Reading, bare_interpreter, reading_interpreter};
pub use ledgers::{LedgerKey, ProvenReceipt};
pub use points::{API_VERSION, CASEMATE_VERSION, OWN_POINTS, OlderPolicy, POINTS, Point};
pub use re2::{PatternError, check_pattern, matches_pattern};
pub use seccomp::{SeccompError, seccomp_digest};
pub use security_context::{SECURITY_CONTEXT_PREFIX, SECURITY_CONTEXT_VARIABLE, SecurityContextFiles};
pub use source::problems::CompileProblem;
pub use verdict::{Answer, ExternalVerdict, ProcessVerdict, Verdict};

/// The policy that allows everything. It is sent where no policy is given, so that verifiers see its well-known digest.
pub const OPEN_DOOR: &str = include_str!("open_door.rego");

/// What OPA's compiler, and so hcsshim, refuses in a text that loads here: wrong numbers and types of arguments, recursive rules, rules
/// that exclude each other, variables declared twice.
///
/// # Errors
/// The text is too large or no Rego.
pub fn compile_problems(policy: &str) -> Result<Vec<CompileProblem>, PolicyError> {
    if policy.len() > MAX_POLICY_BYTES {
        return Err(PolicyError::TooLarge(policy.len()));
    }
    Ok(source::problems::problems(policy)?)
}

/// SHA-256 of the policy text; the launch measurement's host data must have this value.
pub fn digest(policy: &str) -> [u8; 32] {
    Sha256::digest(policy.as_bytes()).into()
}
