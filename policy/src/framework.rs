//! The framework: rules that policies refer to as `data.framework.<point>`, one Rego file per enforcement point.

/// Metadata names of the framework, declared in `framework/metadata.rego`.
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

/// File names of the modules in error messages.
pub(crate) const FRAMEWORK_FILE: &str = "framework.rego";
pub(crate) const METADATA_FILE: &str = "metadata.rego";

/// The rules that make the framework's metadata available under `data.metadata`.
pub(crate) const METADATA_MODULE: &str = include_str!("framework/metadata.rego");

/// Package declaration of each file, after its comment.
const PACKAGE: &str = "package framework\n";

macro_rules! rules {
    ($($name:literal),* $(,)?) => {
        #[cfg(test)]
        const NAMES: &[&str] = &[$($name),*];
        const RULES: &[&str] = &[$(include_str!(concat!("framework/", $name, ".rego"))),*];
    };
}

rules![
    "attestation_report",
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
    "limits",
    "load_fragment",
    "load_transparency_trust_list",
    "mount_blockdev",
    "mount_device",
    "mount_overlay",
    "mounts",
    "pause_container",
    "plan9",
    "pod_files",
    "port_forward",
    "pull_image",
    "reason",
    "rw_mount_device",
    "rw_unmount_device",
    "scratch",
    "shutdown_container",
    "signal_container_process",
    "unmount_device",
    "unmount_overlay",
    "update_container",
    "users",
    "versions",
    "windows",
];

/// All rules as one module.
///
/// When a policy refers to a whole package (`import data.framework`), regorus considers the package evaluated once one of its modules
/// is. Rules in other modules would be undefined, so that requests they deny would be allowed.
pub(crate) fn module() -> String {
    let rules = RULES.iter().map(|text| text.replacen(PACKAGE, "", 1));
    std::iter::once(PACKAGE.to_owned()).chain(rules).collect()
}

#[cfg(test)]
mod tests;
