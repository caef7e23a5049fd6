//! What every policy can rely on beside its own text: default mounts, prefixes and capability lists, as `data` in Rego.

use std::sync::LazyLock;

use serde_json::Value;

use crate::action::Capabilities;

/// The base document, in the form policies of the field expect.
const BASE: &str = include_str!("data.json");

/// Read once: denials compare with its capability lists.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(BASE).unwrap_or_default());

/// Default mounts, privileged mounts, source prefixes, default capabilities and the first metadata.
pub fn base_document() -> Value {
    DOCUMENT.clone()
}

/// Whether the base document has `name` at its top, where no module may be.
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

/// The sets of a container that is not privileged and whose policy names none.
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

/// The sets of a privileged container whose policy names none.
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
