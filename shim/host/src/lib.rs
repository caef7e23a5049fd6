//! Whether a host can run plain and SEV-SNP guests, and what it lacks: facts are read first and judged by pure functions.

mod check;
mod facts;
mod kvm;

pub use check::{Area, Check, Outcome, checks, runs};
pub use facts::{Facts, Programs};
pub use kvm::{KvmFacts, SevFacts};
