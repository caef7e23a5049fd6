//! The rules that policies refer to as `data.framework.<point>`: one file of Rego per enforcement point.

/// Names of the metadata that the framework itself keeps, declared in `framework/metadata.rego`.
pub(crate) const METADATA: &[&str] = &[
    "devices",
    "fragment_parameters",
    "issuers",
    "matches",
    "operatingsystem",
    "overlayTargets",
    "p9mounts",
    "rw_devices",
    "scratch_mounts",
    "started",
];

/// File names of the modules, for error texts.
pub(crate) const FRAMEWORK_FILE: &str = "framework.rego";
pub(crate) const METADATA_FILE: &str = "metadata.rego";

/// Places of the framework's state under `data.metadata`.
pub(crate) const METADATA_MODULE: &str = include_str!("framework/metadata.rego");

/// First line of the file of each rule, after its comment.
const PACKAGE: &str = "package framework\n";

macro_rules! rules {
    ($($name:literal),* $(,)?) => {
        const RULES: &[&str] = &[$(include_str!(concat!("framework/", $name, ".rego"))),*];
    };
}

rules![
    "capabilities",
    "confine_container",
    "containers",
    "create_container",
    "environment",
    "exec_external",
    "exec_in_container",
    "flags",
    "fragments",
    "guest_network",
    "load_fragment",
    "load_transparency_trust_list",
    "mount_blockdev",
    "mount_device",
    "mount_overlay",
    "mounts",
    "plan9",
    "port_forward",
    "reason",
    "rw_mount_device",
    "rw_unmount_device",
    "scratch",
    "shutdown_container",
    "signal_container_process",
    "unmount_device",
    "unmount_overlay",
    "users",
    "versions",
    "windows",
];

/// All rules as one module.
///
/// regorus takes a package for evaluated as soon as one of its modules is, when a policy refers to the package as a
/// whole (`import data.framework`): rules in further modules would then be undefined, and what they forbid allowed.
pub(crate) fn module() -> String {
    let rules = RULES.iter().map(|text| text.replacen(PACKAGE, "", 1));
    std::iter::once(PACKAGE.to_owned()).chain(rules).collect()
}

#[cfg(test)]
mod tests;
