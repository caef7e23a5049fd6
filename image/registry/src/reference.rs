//! The image of a pull request: a registry, a repository and a digest. What has no digest can mean another image tomorrow.

use crate::RegistryName;
use oci::{Digest, Reference, ReferenceError};
use std::fmt;
use std::str::FromStr;

/// A reference that names one image for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedReference {
    registry: RegistryName,
    repository: String,
    digest: Digest,
}

/// Why a text is no pinned reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// No reference at all.
    #[error("it is no image reference")]
    Malformed(#[from] ReferenceError),
    /// A tag only, or not even that.
    #[error("{0} has no digest: append @sha256: and the digest of the image that is meant")]
    Unpinned(Reference),
}

impl PinnedReference {
    /// The registry.
    pub fn registry(&self) -> &RegistryName {
        &self.registry
    }

    /// The repository in it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Digest of a manifest or of an index.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl FromStr for PinnedReference {
    type Err = PinError;
    /// A tag is ignored: the digest alone says what is meant.
    fn from_str(text: &str) -> Result<Self, PinError> {
        let reference: Reference = text.parse()?;
        let Some(digest) = reference.digest() else {
            return Err(PinError::Unpinned(reference));
        };
        Ok(Self {
            registry: RegistryName::new(reference.registry()),
            repository: reference.repository().to_owned(),
            digest,
        })
    }
}

impl fmt::Display for PinnedReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.registry, self.repository, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest() -> String {
        format!("sha256:{}", "a".repeat(64))
    }

    #[test]
    fn a_digest_is_needed_and_a_tag_is_not() {
        let pinned: PinnedReference = format!("Ghcr.io./a/b:v1@{}", digest()).parse().unwrap();
        assert_eq!(pinned.to_string(), format!("ghcr.io/a/b@{}", digest()));
        let hub: PinnedReference = format!("busybox@{}", digest()).parse().unwrap();
        assert_eq!((hub.registry().as_str(), hub.repository()), ("index.docker.io", "library/busybox"));
        for unpinned in ["ghcr.io/a/b", "ghcr.io/a/b:v1", "busybox"] {
            assert!(
                matches!(unpinned.parse::<PinnedReference>(), Err(PinError::Unpinned(_))),
                "{unpinned}"
            );
        }
        let twice = format!("ghcr.io/a/b@{0}@{0}", digest());
        for bad in ["", "ghcr.io/A/b:v1", "ghcr.io/a/b@sha256:AA", "ghcr.io/a/b@", &twice] {
            assert!(matches!(bad.parse::<PinnedReference>(), Err(PinError::Malformed(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = text.parse::<PinnedReference>();
        }
    }
}
