//! The table of enforcement points: the API version that introduced each, and the default for older policies.

use serde_json::{Map, Value, json};

/// API version of this implementation.
pub const API_VERSION: &str = "0.12.0";

/// The default for a policy of an older API version that has no rule for the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OlderPolicy {
    /// Allowed.
    Allows,
    /// Denied.
    Denies,
    /// The framework's rule decides.
    AsksFramework,
    /// The policy's rule decides although it does not declare the version; without a rule it is denied.
    AsksPolicy,
}

/// One enforcement point.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Name of the rule.
    pub name: &'static str,
    /// API version that introduced it.
    pub since: (u64, u64, u64),
    /// The default for older policies.
    pub older: OlderPolicy,
    /// Other keys of the answer with their defaults, as JSON.
    pub defaults: &'static str,
}

const fn point(name: &'static str, since: (u64, u64, u64), older: OlderPolicy, defaults: &'static str) -> Point {
    Point {
        name,
        since,
        older,
        defaults,
    }
}

use OlderPolicy::{Allows, AsksFramework, AsksPolicy, Denies};

/// Version of the points that only policies with a `casemate_version` decide.
pub const CASEMATE_VERSION: &str = "1.0.0";

/// Casemate's own points. A policy with `casemate_version` must have their rules; for other policies the default is fixed here, so
/// that hcsshim's policies keep their meaning.
pub const OWN_POINTS: &[Point] = &[
    point("attestation_report", (1, 0, 0), Allows, "{}"),
    point("confine_container", (1, 0, 0), Allows, "{}"),
    point("guest_network", (1, 0, 0), Allows, "{}"),
    point("pause_container", (1, 0, 0), Allows, "{}"),
    point("pod_files", (1, 0, 0), Allows, "{}"),
    // hcsshim has neither of the next two words, so no policy written for it has their rules by accident.
    point("port_forward", (1, 0, 0), AsksPolicy, "{}"),
    point("pull_image", (1, 0, 0), AsksPolicy, "{}"),
    point("update_container", (1, 0, 0), Allows, "{}"),
];

/// The points of hcsshim.
pub const POINTS: &[Point] = &[
    point("mount_device", (0, 1, 0), Denies, "{}"),
    point("mount_overlay", (0, 1, 0), Denies, "{}"),
    point(
        "create_container",
        (0, 1, 0),
        Denies,
        r#"{"env_list":null,"allow_stdio_access":false}"#,
    ),
    point("unmount_device", (0, 2, 0), Allows, "{}"),
    point("exec_in_container", (0, 2, 0), Allows, r#"{"env_list":null}"#),
    point(
        "exec_external",
        (0, 3, 0),
        Allows,
        r#"{"env_list":null,"allow_stdio_access":false}"#,
    ),
    point("shutdown_container", (0, 4, 0), Allows, "{}"),
    point("signal_container_process", (0, 5, 0), Allows, "{}"),
    point("plan9_mount", (0, 6, 0), Allows, "{}"),
    point("plan9_unmount", (0, 6, 0), Allows, "{}"),
    point("unmount_overlay", (0, 6, 0), Allows, "{}"),
    point("get_properties", (0, 7, 0), Allows, "{}"),
    point("dump_stacks", (0, 7, 0), Allows, "{}"),
    point("runtime_logging", (0, 8, 0), Allows, "{}"),
    point("load_fragment", (0, 9, 0), Denies, r#"{"add_module":false}"#),
    point("scratch_mount", (0, 10, 0), Allows, "{}"),
    point("scratch_unmount", (0, 10, 0), Allows, "{}"),
    point("registry_changes", (0, 10, 0), Denies, "{}"),
    point("rw_mount_device", (0, 11, 0), AsksFramework, "{}"),
    point("rw_unmount_device", (0, 11, 0), AsksFramework, "{}"),
    point("mount_cims", (0, 11, 0), Denies, "{}"),
    point("log_provider", (0, 11, 0), Allows, r#"{"providers_to_keep":null}"#),
    point("mount_blockdev", (0, 11, 1), Denies, "{}"),
    point("unmount_blockdev", (0, 11, 1), Denies, "{}"),
    point("load_transparency_trust_list", (0, 12, 0), Denies, "{}"),
    point("host_network", (0, 12, 0), Denies, "{}"),
];

impl Point {
    /// The point called `name`.
    pub fn find(name: &str) -> Option<&'static Point> {
        POINTS.iter().find(|point| point.name == name)
    }

    /// Whether a table has the point; for checks at compile time.
    pub(crate) const fn is_listed(name: &str) -> bool {
        lists(POINTS, name) || lists(OWN_POINTS, name)
    }

    /// Casemate's own point called `name`.
    pub fn find_own(name: &str) -> Option<&'static Point> {
        OWN_POINTS.iter().find(|point| point.name == name)
    }

    /// Whether a policy of API version `version` must have the rule.
    pub fn available_in(&self, version: &semver::Version) -> bool {
        let (major, minor, patch) = self.since;
        *version >= semver::Version::new(major, minor, patch)
    }

    /// Defaults for the keys that an answer lacks.
    pub fn default_results(&self) -> Map<String, Value> {
        let mut results = match serde_json::from_str(self.defaults) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        };
        if self.older != AsksFramework {
            results.insert("allowed".to_owned(), json!(self.older == Allows));
        }
        results
    }
}

const fn lists(points: &[Point], name: &str) -> bool {
    let mut index = 0;
    while index < points.len() {
        if same(points[index].name.as_bytes(), name.as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut index = 0;
    while index < one.len() {
        if one[index] != other[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_defaults_are_objects() {
        let all: Vec<&Point> = POINTS.iter().chain(OWN_POINTS).collect();
        for (index, point) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|earlier| earlier.name != point.name), "{}", point.name);
            assert!(serde_json::from_str::<Map<String, Value>>(point.defaults).is_ok(), "{}", point.name);
        }
    }

    #[test]
    fn a_point_without_default_asks_the_framework() {
        assert!(Point::find("rw_mount_device").unwrap().default_results().is_empty());
        assert_eq!(Point::find("unmount_device").unwrap().default_results()["allowed"], json!(true));
    }
}
