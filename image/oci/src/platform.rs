//! Platforms, and which of them the guest is (image specification, image-index.md and config.md).

use crate::null::null_is_default;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

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
    /// Version of the operating system; builders for Linux seldom write one.
    #[serde(rename = "os.version", default, deserialize_with = "null_is_default")]
    pub os_version: String,
}

/// Why a text names no platform whose images guests can run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// Not of that form.
    #[error("{0:?} is not a platform: give OS/ARCHITECTURE[/VARIANT], as linux/amd64 or linux/amd64/v3")]
    Malformed(String),
    /// A system that no guest is.
    #[error("guests run images for {guest} and its variants, never for {0}", guest = Platform::guest())]
    Foreign(Box<Platform>),
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
            os_version: String::new(),
        }
    }

    /// Whether an image of this platform is one of those that somebody asked for: the same system and variant, and the version of
    /// the operating system if it was asked for.
    pub fn answers(&self, asked: &Self) -> bool {
        let version = asked.os_version.is_empty() || asked.os_version == self.os_version;
        !self.is_foreign() && !self.is_unnamed() && self.level() == asked.level() && version
    }

    /// The variant; `v1` and none are the same.
    fn level(&self) -> &str {
        if self.variant == "v1" { "" } else { &self.variant }
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

impl FromStr for Platform {
    type Err = PlatformError;

    /// `os[(version)]/architecture[/variant]`, as containerd's `platforms.Parse` reads it; a platform that guests run.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let malformed = || PlatformError::Malformed(text.chars().take(100).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] if !variant.is_empty() => (os, architecture, variant),
            _ => return Err(malformed()),
        };
        let (os, version) = match os.strip_suffix(')') {
            Some(both) => both
                .split_once('(')
                .filter(|(_, version)| !version.is_empty())
                .ok_or_else(malformed)?,
            None => (os, ""),
        };
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if os.is_empty() || architecture.is_empty() || ![os, version, architecture, variant].into_iter().all(plain) {
            return Err(malformed());
        }
        let platform = Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
            os_version: version.to_owned(),
        };
        match platform.is_foreign() {
            true => Err(PlatformError::Foreign(Box::new(platform))),
            false => Ok(platform),
        }
    }
}

impl fmt::Display for Platform {
    /// `os[(version)]/architecture[/variant]`; characters that no platform has are shown as question marks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |text: &str| -> String {
            let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '?' };
            text.chars().take(SHOWN_MAX).map(plain).collect()
        };
        let shown = |text: &str| if text.is_empty() { "?".to_owned() } else { part(text) };
        write!(f, "{}", shown(&self.os))?;
        if !self.os_version.is_empty() {
            write!(f, "({})", part(&self.os_version))?;
        }
        write!(f, "/{}", shown(&self.architecture))?;
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
            os_version: String::new(),
        }
    }

    #[test]
    fn a_platform_is_parsed_as_it_is_shown() {
        for text in ["linux/amd64", "linux/amd64/v3", "linux(22.04)/amd64", "Linux/x86_64"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/amd64/",
            "linux/amd64/v3/x",
            "linux()/amd64",
            "linux(1/amd64",
            "li nux/amd64",
        ] {
            assert!(matches!(bad.parse::<Platform>(), Err(PlatformError::Malformed(_))), "{bad}");
        }
        let foreign = "windows(10.0.1)/amd64".parse::<Platform>().unwrap_err().to_string();
        assert_eq!(
            foreign,
            "guests run images for linux/amd64 and its variants, never for windows(10.0.1)/amd64"
        );
        assert!("linux/arm64/v8".parse::<Platform>().is_err());
    }

    #[test]
    fn what_was_asked_for_is_answered_by_variant_and_version() {
        let parse = |text: &str| text.parse::<Platform>().unwrap();
        for (platform, asked) in [
            ("linux/amd64", "linux/amd64/v1"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "Linux/x86_64/v3"),
            ("linux(22.04)/amd64", "linux/amd64"),
        ] {
            assert!(parse(platform).answers(&parse(asked)), "{platform} for {asked}");
        }
        for (platform, asked) in [
            ("linux/amd64", "linux/amd64/v3"),
            ("linux/amd64/v3", "linux/amd64"),
            ("linux/amd64", "linux(22.04)/amd64"),
        ] {
            assert!(!parse(platform).answers(&parse(asked)), "{platform} for {asked}");
        }
        assert!(!Platform::default().answers(&Platform::guest()));
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
