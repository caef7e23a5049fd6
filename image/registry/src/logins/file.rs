//! A file of logins, in docker's form, which podman shares: entries, helpers for registries, and a helper for all.

use super::entry::Entry;
use crate::credentials::Credentials;
use crate::name::RegistryName;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Docker's own name of Docker Hub, in files and to helpers.
const HUB_SERVER: &str = "https://index.docker.io/v1/";

/// A parsed file.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct File {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

/// What a file has for a repository.
pub(super) enum Found {
    Nothing,
    Login(Credentials),
    /// An entry without a login that can be used, and why.
    Unusable(String),
    /// A program has it.
    Helper {
        name: String,
        server: String,
        is_store: bool,
    },
}

impl File {
    /// Parses a file. The error names the place and no value.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err("it is not what docker and podman write".to_owned());
        }
        // The parser's own text can quote a value of a wrong type.
        serde_json::from_slice(bytes).map_err(|error| format!("line {} is not what docker and podman write", error.line()))
    }

    /// A registry's helper first, then the entry of the longest key, then the helper for all.
    pub(super) fn find(&self, registry: &RegistryName, repository: &str) -> Found {
        let server = || {
            if registry.is_hub() {
                HUB_SERVER.to_owned()
            } else {
                registry.to_string()
            }
        };
        let helpers = self.cred_helpers.iter().flatten();
        let own = helpers
            .filter(|(key, _)| rank(key, registry, repository) > 0)
            .max_by_key(|(key, _)| rank(key, registry, repository));
        if let Some((_, name)) = own.filter(|(_, name)| !name.is_empty()) {
            return Found::Helper {
                name: name.clone(),
                server: server(),
                is_store: false,
            };
        }
        let entries = self
            .auths
            .iter()
            .flatten()
            .filter_map(|(key, entry)| Some((rank(key, registry, repository), entry.as_ref()?)));
        let entries = entries.filter(|(rank, entry)| *rank > 0 && !entry.is_empty());
        if let Some((_, entry)) = entries.max_by_key(|(rank, _)| *rank) {
            return match entry.login() {
                Ok(credentials) => Found::Login(credentials),
                Err(why) => Found::Unusable(why),
            };
        }
        match self.creds_store.as_ref().filter(|name| !name.is_empty()) {
            Some(name) => Found::Helper {
                name: name.clone(),
                server: server(),
                is_store: true,
            },
            None => Found::Nothing,
        }
    }
}

/// How well a key fits: 0 not at all, else the more the longer. Keys are a host, a host with a part of the repository's name (podman), or a
/// URL of docker's, whose path says nothing.
fn rank(key: &str, registry: &RegistryName, repository: &str) -> usize {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = match bare.unwrap_or(key).split_once('/') {
        Some((host, path)) => (host, path.trim_end_matches('/')),
        None => (bare.unwrap_or(key), ""),
    };
    let host = host.to_ascii_lowercase();
    if !registry.aliases().contains(&host.as_str()) {
        return 0;
    }
    let is_version = matches!(path, "" | "v1" | "v2");
    match (bare.is_some() || is_version, path) {
        // The plain host goes before its URLs.
        (true, _) => 1 + usize::from(bare.is_none()),
        (false, path) if repository == path || repository.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')) => 2 + path.len(),
        (false, _) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fit_by_host_and_by_namespace() {
        let of_hub = |key| rank(key, &RegistryName::new("docker.io"), "library/x");
        let rank = |key| rank(key, &RegistryName::new("r.test"), "ns/app");
        assert!(
            rank("r.test/ns/app") > rank("r.test/ns") && rank("r.test/ns") > rank("r.test") && rank("r.test") > rank("https://r.test/v2/")
        );
        for fits in ["R.test", "http://r.test", "https://r.test/v1/", "r.test/v2", "https://r.test/other"] {
            assert!(rank(fits) > 0, "{fits}");
        }
        for other in ["", "r.test:5000", "r.test/n", "r.test/other", "x.r.test", "https://"] {
            assert_eq!(rank(other), 0, "{other}");
        }
        for key in [
            "https://index.docker.io/v1/",
            "docker.io",
            "registry-1.docker.io",
            "index.docker.io",
        ] {
            assert!(of_hub(key) > 0, "{key}");
        }
    }
}
