//! A registry client: pulls images by digest as the operator's configuration says, and trusts nothing but the digest.
//!
//! ```text
//! Config ─ access(registry) ─► Access ─► Repository ─ image(digest) ─► RemoteImage ─ each_layer ─► BlobStream
//!   which section, credentials, TLS, proxy     challenge, token, redirects      sizes and digests, while it runs
//! ```
//! Everything that a server sends is hostile: each answer has a limit and a deadline, and no credentials go to a host that the
//! configuration does not name, but for the token service of a challenge. No secret is in a message, nor in `Debug`.
//!
//! Feature `logins`: the credentials that docker and podman keep on a host.
#![forbid(unsafe_code)]

mod access;
mod answer;
mod blob;
mod certificates;
mod challenge;
mod config;
mod credentials;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod image;
#[cfg(feature = "logins")]
pub mod logins;
mod name;
mod proxy;
mod realm;
mod reference;
mod repository;
mod secret;
mod tls;
mod token;
mod transport;

pub use access::{Access, AccessError, MirrorError};
pub use blob::{BlobStream, Chunk};
pub use certificates::Certificates;
pub use challenge::ChallengeError;
pub use config::{CONFIG_MAX_BYTES, Config, ConfigError, Key, Section, Standing, Trust, Warning};
pub use credentials::{Credentials, CredentialsError, Login, Uncarried};
pub use error::{Cause, PullError, Step};
pub use image::{PARALLEL, RemoteImage, RemoteLayer};
pub use name::{HUB, RegistryName};
pub use proxy::{Bypass, Environment, Proxies, Proxy, ProxyError};
pub use realm::RealmError;
pub use reference::{PinError, PinnedReference};
pub use registry_device as device;
pub use repository::{DOCUMENT_MAX_BYTES, Repository};
pub use secret::Secret;
pub use tls::TlsError;
pub use transport::TransportError;
