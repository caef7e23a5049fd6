//! The base document of every policy, `data` in Rego: default mounts, prefixes and capability lists.

use std::sync::LazyLock;

use serde_json::Value;

use crate::request::Capabilities;

/// The base document of hcsshim.
const BASE: &str = include_str!("data.json");

/// Parsed once, since denials compare with its capability lists.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(BASE).unwrap_or_default());

/// Default mounts, privileged mounts, source prefixes, default capabilities and initial metadata.
pub fn base_document() -> Value {
    DOCUMENT.clone()
}

/// Whether `name` is a top-level key of the base document, where no module may be.
pub(crate) fn is_base_key(name: &str) -> bool {
    DOCUMENT.get(name).is_some()
}

/// Names of the capability list `key` in the order of the base document.
fn names(key: &str) -> Vec<String> {
    DOCUMENT[key]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

/// The sets of an unprivileged container whose policy specifies none.
pub fn unprivileged_capabilities() -> Capabilities {
    let names = names("defaultUnprivilegedCapabilities");
    Capabilities {
        ambient: Vec::new(),
        bounding: names.clone(),
        effective: names.clone(),
        inheritable: Vec::new(),
        permitted: names,
    }
}

/// The sets of a privileged container whose policy specifies none.
pub fn privileged_capabilities() -> Capabilities {
    let names = names("defaultPrivilegedCapabilities");
    Capabilities {
        ambient: Vec::new(),
        bounding: names.clone(),
        effective: names.clone(),
        inheritable: names.clone(),
        permitted: names,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_document_has_every_key_the_framework_reads() {
        let base = base_document();
        for key in [
            "defaultMounts",
            "privilegedMounts",
            "sandboxPrefix",
            "hugePagesPrefix",
            "plan9Prefix",
            "metadata",
        ] {
            assert!(!base[key].is_null(), "{key}");
        }
        assert_eq!(unprivileged_capabilities().bounding.len(), 14);
        assert_eq!(privileged_capabilities().inheritable.len(), 41);
    }
}
