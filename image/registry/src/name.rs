//! The name of a registry, in the one form in which names are compared.

use std::fmt;

/// The registry of images without a registry. Its own references call it [`HUB_ALIAS`].
pub const HUB: &str = "index.docker.io";
/// What images call Docker Hub.
const HUB_ALIAS: &str = "docker.io";

/// A registry's host, with its port if it has one: in lower case, without the dot that ends a complete domain name, Docker Hub as
/// `index.docker.io`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryName(String);

impl RegistryName {
    /// From what an image reference names.
    pub fn new(host: &str) -> Self {
        let name = normal(host);
        Self(if name == HUB_ALIAS { HUB.to_owned() } else { name })
    }

    /// The name, to which requests go.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is Docker Hub.
    pub fn is_hub(&self) -> bool {
        self.0 == HUB
    }

    /// What mirrors call it (`ns` of containerd's `hosts.toml` scheme).
    pub(crate) fn namespace(&self) -> &str {
        if self.is_hub() { HUB_ALIAS } else { &self.0 }
    }

    /// Names that credentials may be stored under, the usual one first.
    #[cfg(feature = "logins")]
    pub(crate) fn aliases(&self) -> Vec<&str> {
        if self.is_hub() {
            vec![HUB, HUB_ALIAS, "registry-1.docker.io"]
        } else {
            vec![&self.0]
        }
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower case, and without one dot at the end.
pub(crate) fn normal(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.strip_suffix('.') {
        Some(short) => short.to_owned(),
        None => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for (given, name) in [
            ("ghcr.io", "ghcr.io"),
            ("GHCR.io.", "ghcr.io"),
            ("docker.io", HUB),
            ("Docker.IO.", HUB),
            ("r.corp:5000", "r.corp:5000"),
            ("registry-1.docker.io", "registry-1.docker.io"),
        ] {
            assert_eq!(RegistryName::new(given).as_str(), name, "{given}");
        }
        assert_eq!(RegistryName::new("docker.io").namespace(), "docker.io");
    }
}
