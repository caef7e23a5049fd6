//! OCI image documents: references, digests, indexes, manifests, configs, and image layouts on disk.
//!
//! Everything but [`OciLayout`] works on bytes that the caller has read: at most [`limits::DOCUMENT_MAX_BYTES`] of them.
//! [`OciLayout`] reads files, and checks each document against its digest.
#![forbid(unsafe_code)]

mod config;
mod descriptor;
mod digest;
mod document;
mod image;
mod layout;
pub mod limits;
mod reference;

pub use config::{Config, ImageConfig};
pub use descriptor::{Descriptor, Platform};
pub use digest::{Digest, DigestError};
pub use document::{Document, DocumentError, Index, Manifest};
pub use image::{Image, ImageError, ImageLayer};
pub use layout::{LayoutError, OciLayout};
pub use reference::{Reference, ReferenceError};
