//! Images by name and by content: references, digests, and OCI layouts on disk.
#![forbid(unsafe_code)]

mod digest;
mod layout;
mod reference;

pub use digest::{Digest, DigestError};
pub use layout::{Image, ImageConfig, LayoutError, OciLayout};
pub use reference::{Reference, ReferenceError};
