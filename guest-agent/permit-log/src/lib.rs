//! The log of what a guest permitted: written by its agent, bound to its attestation reports, judged by whoever verifies them.
//!
//! ```text
//! agent:     permit ─► append(entry) ─► act ─► append(outcome)            encode() ─┐
//!                         │                                                         ├─► container ─► verifier
//!            chain' = SHA-384(chain, entry)    REPORT_DATA = SHA-512(nonce, head) ──┘
//! verifier:  Log::verify(bytes, nonce, report's REPORT_DATA) ─► Requirements::judge(log)
//! ```
//! An entry is in the chain before its act begins, so a report that was made after an act always covers it. The log names
//! containers, images and commands by digest: a command line may hold what is nobody's business. It has no times, because the
//! host gives the guest its clock; what counts is the order.
//!
//! # Why SHA-384
//!
//! The host chooses part of every entry (ids, commands, the order), so a collision would give it two histories with one head. SHA-384
//! resists collisions as well as the P-384 signature over the head resists forgery, and the chain's state is not the whole of its
//! hash, so nothing can be appended by who knows only the head.
//!
//! # When the log is full
//!
//! Old entries are folded: their place in the chain stays, and of their content only that which later judgements need
//! ([`Log::append`] says what). A verifier sees that a log was folded, and may refuse it.

#![forbid(unsafe_code)]

mod chain;
mod entry;
mod fold;
mod history;
mod log;
mod requirements;
mod show;
mod wire;

pub use chain::{Head, MAX_NONCE_BYTES, MIN_NONCE_BYTES, Nonce, NonceLength, report_data};
pub use entry::{Digest, Entry, MAX_ROOTFS_LAYERS, Point, Receiver, command_digest, text_digest};
pub use history::{Container, History};
pub use log::{Full, Log, MAX_DOCUMENT_BYTES, VerifyError};
pub use requirements::{Finding, Requirements, RequirementsError};
pub use wire::DecodeError;

#[cfg(test)]
mod tests;
