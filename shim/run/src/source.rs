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
    /// A path, which begins as one (`/`, `./`, `../`), otherwise a reference. Which files exist makes no difference: in a directory that
    /// others can write to, they would choose the image.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let is_path = [".", ".."].contains(&text) || ["/", "./", "../"].iter().any(|start| text.starts_with(start));
        match is_path {
            true => Ok(Self::Files(PathBuf::from(text))),
            false => text.parse().map(Self::Name),
        }
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
    fn what_begins_as_a_path_is_files_and_anything_else_a_name() {
        for path in [".", "..", "/no/such/layout", "./app", "../app.tar"] {
            assert!(matches!(Source::parse(path), Ok(Source::Files(_))), "{path}");
        }
        // Tests run in the crate's directory, where this is one.
        let Ok(Source::Name(name)) = Source::parse("src") else {
            panic!("not a name")
        };
        assert_eq!(name.to_string(), "docker.io/library/src:latest");
        assert!(Source::parse("Not a name").is_err() && Source::parse(".hidden").is_err());
    }
}
