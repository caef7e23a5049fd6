//! Media types of layers that no guest can use, whatever their bytes are.
//!
//! How a layer is compressed is not read from its type: containerd finds it in the first bytes, and types are wrong often enough.

use std::fmt;

/// Docker's layers that their publisher alone gives out (distribution, manifest-v2-2.md).
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.";
/// The same of OCI (image specification, layer.md, "Non-Distributable Layers"), whose types are deprecated and in use.
const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.";
/// Last part of the type of a layer that ocicrypt has encrypted (containers/ocicrypt, docs).
const ENCRYPTED: &str = "+encrypted";
/// Longest type that a message shows, in characters.
const SHOWN_MAX: usize = 120;

/// Why a layer cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Its content is not in registries.
    Foreign,
    /// Its content is encrypted.
    Encrypted,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "foreign, given out by its publisher alone: use an image whose layers are all distributable",
            Self::Encrypted => "encrypted: decrypt the image first (skopeo copy --decryption-key)",
        })
    }
}

/// What a media type says against its layer. Types are compared without regard to case (RFC 6838, section 4.2).
pub(crate) fn closed(media_type: &str) -> Option<Closed> {
    let lower = media_type.to_ascii_lowercase();
    if [DOCKER_FOREIGN, OCI_FOREIGN].iter().any(|prefix| lower.starts_with(prefix)) {
        return Some(Closed::Foreign);
    }
    lower.ends_with(ENCRYPTED).then_some(Closed::Encrypted)
}

/// A media type, which is its image's author's, at a length for messages.
pub(crate) fn shown(media_type: &str) -> String {
    media_type.chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_containerd_unpacks_is_open_and_every_other_form_is_closed() {
        for open in [
            "",
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
        ] {
            assert_eq!(closed(open), None, "{open}");
        }
        for foreign in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "Application/vnd.OCI.image.layer.NonDistributable.v1.tar+gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip+encrypted",
        ] {
            assert_eq!(closed(foreign), Some(Closed::Foreign), "{foreign}");
        }
        for encrypted in [
            "application/vnd.oci.image.layer.v1.tar+encrypted",
            "application/vnd.oci.image.layer.v1.tar+zstd+encrypted",
        ] {
            assert_eq!(closed(encrypted), Some(Closed::Encrypted), "{encrypted}");
        }
        assert_eq!(shown(&"x".repeat(1000)).len(), SHOWN_MAX);
    }
}
