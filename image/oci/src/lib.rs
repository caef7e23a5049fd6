//! OCI image documents: references, digests, indexes, manifests, configs, the choice of the guest's image, and images in files.
//!
//! Everything but [`ImageStore`] works on bytes that the caller has read: at most [`limits::DOCUMENT_MAX_BYTES`] of them.
//! [`ImageStore`] reads files, and checks each document against its digest.
#![forbid(unsafe_code)]

mod config;
mod descriptor;
mod digest;
mod document;
mod image;
mod layer_type;
pub mod limits;
mod null;
mod offer;
mod platform;
mod reference;
mod select;
mod signal;
mod store;

pub use config::{Config, ImageConfig, UnknownSignal};
pub use descriptor::Descriptor;
pub use digest::{Digest, DigestError};
pub use document::{Document, DocumentError, Index, Manifest};
pub use image::{Image, ImageError, ImageLayer};
pub use layer_type::Closed;
pub use offer::{Offer, Offers};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};
pub use select::{ChoiceError, Chosen, Pick, Search, Wanted};
pub use store::{FileError, ImageStore, StoreError, StoredImage, StoredLayer};
