//! Conformance of the policy engine with hcsshim: replays recorded decisions, and provides a naive engine as a baseline for measurements.
//!
//! A vector file has a scenario on each line: a policy, requests, and the decisions that hcsshim's enforcer made. The repository's
//! own file is [`VECTORS`].

#![forbid(unsafe_code)]

mod compare;
mod naive;
mod replay;
mod request;
mod scenario;
mod selection;
mod vectors;

pub use naive::Naive;
pub use replay::{Failure, replay};
pub use vectors::{MAX_VECTOR_BYTES, VECTORS, read};
