//! The policy as text: the order and spelling of existing tools, so that equal configurations have equal digests.

use serde::Serialize;
use serde_json::Value;

use crate::config::{Capabilities, Config, Fragment};
use crate::container::{PolicyContainer, PolicyProcess, PolicyUser};

/// API version that generated policies declare.
const API_VERSION: &str = "0.12.0";
/// Framework version that generated policies declare.
const FRAMEWORK_VERSION: &str = "0.5.0";

/// Points in the order of the text.
const POINTS: &[&str] = &[
    "mount_device",
    "rw_mount_device",
    "mount_blockdev",
    "unmount_device",
    "rw_unmount_device",
    "unmount_blockdev",
    "mount_overlay",
    "unmount_overlay",
    "mount_cims",
    "registry_changes",
    "create_container",
    "exec_in_container",
    "exec_external",
    "shutdown_container",
    "signal_container_process",
    "plan9_mount",
    "plan9_unmount",
    "get_properties",
    "dump_stacks",
    "runtime_logging",
    "load_fragment",
    "scratch_mount",
    "scratch_unmount",
    "log_provider",
    "load_transparency_trust_list",
    "host_network",
];

/// The whole policy.
pub(crate) fn policy(config: &Config, containers: &[PolicyContainer], processes: &[PolicyProcess]) -> String {
    let mut text = format!("package policy\n\napi_version := \"{API_VERSION}\"\nframework_version := \"{FRAMEWORK_VERSION}\"\n\n");
    list(&mut text, "fragments", &config.fragment.iter().map(fragment).collect::<Vec<_>>());
    list(&mut text, "containers", &containers.iter().map(container).collect::<Vec<_>>());
    list(&mut text, "external_processes", &processes.iter().map(json).collect::<Vec<_>>());
    for (flag, value) in [
        ("allow_properties_access", config.allow_properties_access),
        ("allow_dump_stacks", config.allow_dump_stacks),
        ("allow_runtime_logging", config.allow_runtime_logging),
        ("allow_host_network", config.allow_hostnetwork),
        ("allow_environment_variable_dropping", config.allow_environment_variable_dropping),
        ("allow_unencrypted_scratch", config.allow_unencrypted_scratch),
        ("allow_capability_dropping", config.allow_capability_dropping),
        ("allow_log_provider_dropping", config.allow_log_provider_dropping),
    ] {
        text.push_str(&format!("{flag} := {value}\n"));
    }
    text.push_str("\n\n");
    for point in POINTS {
        // The one line that existing tools write without a blank.
        let blank = if *point == "mount_cims" { "" } else { " " };
        text.push_str(&format!("{point}{blank}:= data.framework.{point}\n"));
    }
    text.push_str("reason := data.framework.reason\n");
    text
}

/// `name := […]`, left out when empty.
fn list(text: &mut String, name: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    text.push_str(&format!("{name} := [\n"));
    for item in items {
        text.push_str(&format!("    {item},\n"));
    }
    text.push_str("]\n");
}

fn container(container: &PolicyContainer) -> String {
    let fields = [
        ("command", json(&container.command)),
        ("env_rules", json(&container.env_rules)),
        ("layers", json(&container.layers)),
        ("mounts", json(&container.mounts)),
        ("exec_processes", json(&container.exec_processes)),
        ("signals", json(&container.signals)),
        ("user", user(&container.user)),
        (
            "capabilities",
            container.capabilities.as_ref().map_or_else(|| "null".to_owned(), capabilities),
        ),
        ("seccomp_profile_sha256", json(&container.seccomp_profile_sha256)),
        ("allow_elevated", container.allow_elevated.to_string()),
        ("working_dir", json(&container.working_dir)),
        ("allow_stdio_access", container.allow_stdio_access.to_string()),
        ("no_new_privileges", container.no_new_privileges.to_string()),
    ];
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("        \"{name}\": {value},\n"))
        .collect();
    format!("{{\n{fields}    }}")
}

fn user(user: &PolicyUser) -> String {
    format!(
        "{{\n            \"user_idname\": {},\n            \"group_idnames\": {},\n            \"umask\": {}\n        }}",
        json(&user.user_idname),
        json(&user.group_idnames),
        json(&user.umask)
    )
}

fn capabilities(sets: &Capabilities) -> String {
    let sets = [
        ("bounding", &sets.bounding),
        ("effective", &sets.effective),
        ("inheritable", &sets.inheritable),
        ("permitted", &sets.permitted),
        ("ambient", &sets.ambient),
    ];
    let sets: String = sets
        .iter()
        .map(|(name, set)| format!("            \"{name}\": {},\n", json(set)))
        .collect();
    format!("{{\n{sets}        }}")
}

fn fragment(fragment: &Fragment) -> String {
    format!(
        "{{\"issuer\":{},\"feed\":{},\"minimum_svn\":{},\"includes\":{}}}",
        json(&fragment.issuer),
        json(&fragment.feed),
        json(&fragment.minimum_svn),
        json(&fragment.include)
    )
}

/// Compact JSON with the escapes of existing tools.
fn json(value: &(impl Serialize + ?Sized)) -> String {
    // Serialising these types cannot fail; null would deny.
    let text = serde_json::to_string(value).unwrap_or_else(|_| Value::Null.to_string());
    policy::escape_json(&text)
}
