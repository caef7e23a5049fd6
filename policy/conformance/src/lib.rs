//! Conformance of the policy engine with hcsshim: recorded decisions are replayed, and a naive engine is there to measure against.
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
