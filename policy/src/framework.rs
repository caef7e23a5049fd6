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

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        /// File name and text of each module.
        pub(crate) const MODULES: &[(&str, &str)] = &[
            $((concat!("framework/", $name, ".rego"), include_str!(concat!("framework/", $name, ".rego")))),*
        ];
    };
}

modules![
    "capabilities",
    "containers",
    "create_container",
    "environment",
    "exec_external",
    "exec_in_container",
    "flags",
    "fragments",
    "metadata",
    "mount_blockdev",
    "mount_device",
    "mount_overlay",
    "mounts",
    "plan9",
    "reason",
    "rw_mount_device",
    "rw_unmount_device",
    "scratch",
    "shutdown_container",
    "signal_container_process",
    "transparency",
    "unmount_device",
    "unmount_overlay",
    "users",
    "versions",
    "windows",
];
