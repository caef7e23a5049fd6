//! Platforms, and which of them the guest is (image specification, image-index.md and config.md).

use crate::null::null_is_default;
use serde::Deserialize;
use std::fmt;

/// Longest part of a platform that a message shows, in characters.
const SHOWN_MAX: usize = 32;

/// The platform of an index entry or of an image config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Go's `GOOS`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// Go's `GOARCH`.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// Go's `GOAMD64`, `GOARM`, …
    #[serde(default, deserialize_with = "null_is_default")]
    pub variant: String,
}

impl Platform {
    /// The guest's operating system.
    pub const OS: &str = "linux";
    /// The guest's architecture.
    pub const ARCHITECTURE: &str = "amd64";

    /// The guest's platform.
    pub fn guest() -> Self {
        Self {
            os: Self::OS.to_owned(),
            architecture: Self::ARCHITECTURE.to_owned(),
            variant: String::new(),
        }
    }

    /// Whether every guest runs images of this platform: `v1` is what all amd64 processors have, and the same as no variant.
    pub fn is_guest(&self) -> bool {
        self.names_os() && self.names_architecture() && matches!(self.variant.as_str(), "" | "v1")
    }

    /// Whether it names another system than the guest's. A part that is absent contradicts nothing.
    pub fn is_foreign(&self) -> bool {
        !(self.os.is_empty() || self.names_os()) || !(self.architecture.is_empty() || self.names_architecture())
    }

    /// Whether it stands for no system at all, as BuildKit marks attestations.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    /// Whether it names neither system nor architecture.
    pub fn is_unnamed(&self) -> bool {
        self.os.is_empty() && self.architecture.is_empty()
    }

    fn names_os(&self) -> bool {
        self.os.eq_ignore_ascii_case(Self::OS)
    }

    /// containerd's `platforms.Normalize` takes the kernel's names too.
    fn names_architecture(&self) -> bool {
        [Self::ARCHITECTURE, "x86_64", "x86-64"]
            .iter()
            .any(|name| self.architecture.eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Platform {
    /// `os/architecture[/variant]`; characters that no platform has are shown as question marks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |text: &str| -> String {
            let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '?' };
            text.chars().take(SHOWN_MAX).map(plain).collect()
        };
        let shown = |text: &str| if text.is_empty() { "?".to_owned() } else { part(text) };
        write!(f, "{}/{}", shown(&self.os), shown(&self.architecture))?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", part(&self.variant))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(os: &str, architecture: &str, variant: &str) -> Platform {
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    #[test]
    fn only_what_every_guest_runs_is_the_guests() {
        for variant in ["", "v1"] {
            assert!(platform("linux", "amd64", variant).is_guest());
        }
        assert!(platform("Linux", "x86_64", "").is_guest());
        for (os, architecture, variant) in [
            ("linux", "amd64", "v3"),
            ("linux", "arm64", ""),
            ("windows", "amd64", ""),
            ("", "amd64", ""),
        ] {
            assert!(!platform(os, architecture, variant).is_guest(), "{os}/{architecture}/{variant}");
        }
    }

    #[test]
    fn what_is_absent_contradicts_nothing() {
        for (os, architecture) in [("", ""), ("linux", ""), ("", "amd64"), ("linux", "amd64")] {
            assert!(!platform(os, architecture, "v3").is_foreign(), "{os}/{architecture}");
        }
        for (os, architecture) in [("windows", ""), ("", "arm64"), ("linux", "386"), ("unknown", "unknown")] {
            assert!(platform(os, architecture, "").is_foreign(), "{os}/{architecture}");
        }
    }

    #[test]
    fn a_platform_is_shown_without_its_authors_control_characters() {
        assert_eq!(platform("linux", "arm64", "v8").to_string(), "linux/arm64/v8");
        assert_eq!(platform("", "a\u{1b}[m", "").to_string(), "?/a??m");
    }
}
