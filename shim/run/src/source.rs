//! Where an image comes from.

use oci::{Reference, ReferenceError};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

/// The image, as the user names it.
#[derive(Clone, Debug)]
pub enum Source {
    /// A name in containerd or of a registry.
    Name(Reference),
    /// An OCI layout, or skopeo's `dir:`, as a directory or a tar file.
    Files(PathBuf),
}

impl Source {
    /// A path that exists, otherwise a reference.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let path = PathBuf::from(text);
        if path.exists() {
            return Ok(Self::Files(path));
        }
        text.parse().map(Self::Name)
    }
}

/// An image that was pulled, in files that may be gone with it.
pub struct Pulled {
    /// An OCI layout with this image alone.
    pub layout: PathBuf,
    /// What keeps the files.
    pub keep: Box<dyn Send>,
}

/// A name that nothing else has: of a lease, and of what is being written under it.
pub fn own_name(command: &str) -> String {
    // Keyed with the kernel's random bytes.
    format!("casemate-{command}-{:016x}", RandomState::new().hash_one(std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_exists_is_files_and_anything_else_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display().to_string();
        assert!(matches!(Source::parse(&path), Ok(Source::Files(_))));
        let Ok(Source::Name(name)) = Source::parse("no-such-file") else {
            panic!("not a name")
        };
        assert_eq!(name.to_string(), "docker.io/library/no-such-file:latest");
        assert!(Source::parse("/no/such/layout").is_err());
    }
}
