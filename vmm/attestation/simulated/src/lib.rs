//! A secure processor that is none: a root, an authority and a chip's key that one host makes for itself, and reports signed with them.
//!
//! Reports have the layout, the certificates and the signatures of real ones, so that everything between a guest and its verifier runs
//! without the hardware. They prove nothing to anybody who does not trust this very root: it is none of AMD's, and its name says so.
#![forbid(unsafe_code)]

#[cfg(feature = "chain")]
mod chain;
mod key;
#[cfg(feature = "chain")]
mod random;
mod report;
#[cfg(feature = "chain")]
mod table;

#[cfg(feature = "chain")]
pub use chain::{Chain, ChainError};
pub use key::{EndorsementKey, NotAKey};
pub use report::{Guest, Reporter};

use attestation::Product;

/// What it claims to be: the newest product whose parts of a TCB are public.
pub const PRODUCT: Product = Product::Turin;
/// Level of each part of the TCB.
pub const LEVEL: u8 = 1;
/// The hardware id: on Turin, 8 bytes.
pub const CHIP_ID: [u8; 8] = *b"simulate";
