//! An image reference, completed with the defaults of Docker and containerd (distribution `reference` grammar).

use crate::Digest;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Longest `domain/path` in bytes (distribution: `NameTotalLengthMax`).
const NAME_MAX_BYTES: usize = 255;
/// The registry of names without one.
const HUB: &str = "docker.io";
/// What it was called once, and its requests still go to.
const HUB_LEGACY: &str = "index.docker.io";
/// Longest tag in bytes.
const TAG_MAX_BYTES: usize = 128;

/// Registry, repository, and tag or digest or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The name is longer than 255 bytes.
    #[error("the image name has more than {NAME_MAX_BYTES} bytes")]
    TooLong,
    /// Not a registry host.
    #[error("{0:?} is not a registry host")]
    Registry(String),
    /// Not a repository path.
    #[error("{0:?} is not a repository name (lower-case letters, digits, separators)")]
    Repository(String),
    /// Not a tag.
    #[error("{0:?} is not a tag")]
    Tag(String),
    /// Not a digest.
    #[error(transparent)]
    Digest(#[from] crate::DigestError),
}

impl Reference {
    /// The registry host; `docker.io` by default.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository; `library/redis` for `redis`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if there is neither tag nor digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The pinned digest, if any.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it starts the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.len() > NAME_MAX_BYTES {
            return Err(ReferenceError::TooLong);
        }
        if let Some(tag) = tag.filter(|t| !is_tag(t)) {
            return Err(ReferenceError::Tag(tag.chars().take(TAG_MAX_BYTES).collect()));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if names_registry(first) => (first, path),
            _ => (HUB, name),
        };
        // A complete domain name may end with a dot; without it, it must still be told from a repository.
        let host = registry.strip_suffix('.').filter(|host| names_registry(host)).unwrap_or(registry);
        if !is_host(host) {
            return Err(ReferenceError::Registry(registry.to_owned()));
        }
        let is_hub = [HUB, HUB_LEGACY].iter().any(|name| host.eq_ignore_ascii_case(name));
        let registry = if is_hub { HUB } else { host };
        let path = match is_hub && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        if !path.split('/').all(is_component) {
            return Err(ReferenceError::Repository(path));
        }
        // The completed name counts (distribution: `ParseNormalizedNamed`), so that it can be read again.
        if registry.len() + 1 + path.len() > NAME_MAX_BYTES {
            return Err(ReferenceError::TooLong);
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository: path,
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= TAG_MAX_BYTES && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// Whether the first component of a name is a registry (distribution: `splitDockerDomain`).
fn names_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn is_host(host: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0) && port.bytes().all(|b| b.is_ascii_digit());
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port && address.parse::<Ipv6Addr>().is_ok();
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(n, p)| (n, Some(p)));
    let label = |l: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !l.is_empty() && l.chars().all(inner) && !l.starts_with('-') && !l.ends_with('-')
    };
    name.split('.').all(label) && port.is_none_or(is_port)
}

fn is_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |s: &str| matches!(s, "." | "_" | "__") || s.chars().all(|c| c == '-');
    part.starts_with(alphanumeric) && part.ends_with(alphanumeric) && part.split(alphanumeric).filter(|s| !s.is_empty()).all(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_are_completed() {
        let completed = |text: &str| text.parse::<Reference>().unwrap().to_string();
        let digest = format!("sha256:{}", "1f".repeat(32));
        assert_eq!(completed("redis"), "docker.io/library/redis:latest");
        assert_eq!(completed("team/app:1"), "docker.io/team/app:1");
        assert_eq!(completed("docker.io/redis:7"), "docker.io/library/redis:7");
        assert_eq!(completed("index.docker.io/team/app:1"), "docker.io/team/app:1");
        assert_eq!(completed("Docker.io/redis:7"), "docker.io/library/redis:7");
        assert_eq!(completed("ghcr.io./a/b:1"), "ghcr.io/a/b:1");
        assert_eq!(completed("[::1]:5000/a:1"), "[::1]:5000/a:1");
        assert_eq!(completed("localhost/bb:bb"), "localhost/bb:bb");
        assert_eq!(completed("localhost:5000/a/b"), "localhost:5000/a/b:latest");
        assert_eq!(
            completed("r.example/x_y@".to_owned().as_str().trim_end_matches('@')),
            "r.example/x_y:latest"
        );
        assert_eq!(completed(&format!("redis@{digest}")), format!("docker.io/library/redis@{digest}"));
        assert_eq!(
            completed(&format!("redis:7@{digest}")),
            format!("docker.io/library/redis:7@{digest}")
        );
    }

    #[test]
    fn the_completed_name_has_255_bytes_at_most() {
        let path = |length: usize| format!("team/{}", "a".repeat(length - "team/".len()));
        let longest = path(NAME_MAX_BYTES - "docker.io/".len());
        let reference: Reference = longest.parse().unwrap();
        assert_eq!(reference.to_string().parse(), Ok(reference));
        for name in [format!("{longest}a"), path(NAME_MAX_BYTES), path(NAME_MAX_BYTES + 1)] {
            assert_eq!(name.parse::<Reference>(), Err(ReferenceError::TooLong), "{}", name.len());
        }
    }

    #[test]
    fn invalid_references_are_refused() {
        for bad in [
            "",
            "Redis",
            "a/../b",
            "a b",
            "redis:",
            "redis:-x",
            "redis@sha256:12",
            "-h.x/y",
            "h.x:0/y",
            "h.x:99999/y",
            "h.x:+80/y",
            "h./y",
            "h.x../y",
            "[::1/y",
            "[::g]/y",
            "[::1]5/y",
            "a//b",
            "/a",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn complete_references_round_trip(path in "[a-z0-9]{1,6}/[a-z0-9]{1,6}", tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,9}") {
            let text = format!("registry.example:5000/{path}:{tag}");
            prop_assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }

        #[test]
        fn never_panics(text: String) {
            let _ = text.parse::<Reference>();
        }
    }
}
