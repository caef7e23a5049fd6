//! Policy text in the order and spelling of hcsshim's tool, so that equal configurations have equal digests.

use crate::config::{Capabilities, Config, Fragment};
use crate::confinement::{PolicyNetwork, PolicyPodLines};
use crate::container::{PolicyContainer, PolicyProcess, PolicyUser, PolicyWindowsContainer};
use crate::json::json;
use crate::rule::PolicyIdName;

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

/// The objects that policies and fragments have in common.
pub(crate) struct Objects<'a> {
    pub(crate) fragments: &'a [Fragment],
    pub(crate) containers: &'a [PolicyContainer],
    pub(crate) windows_containers: &'a [PolicyWindowsContainer],
    pub(crate) processes: &'a [PolicyProcess],
}

impl Objects<'_> {
    fn write(&self, text: &mut String) {
        list(text, "fragments", &self.fragments.iter().map(fragment).collect::<Vec<_>>());
        let windows = self.windows_containers.iter().map(windows_container);
        let containers = self.containers.iter().map(container).chain(windows);
        list(text, "containers", &containers.collect::<Vec<_>>());
        list(text, "external_processes", &self.processes.iter().map(json).collect::<Vec<_>>());
    }
}

/// A fragment's text.
pub(crate) fn fragment_text(namespace: &str, svn: &str, objects: &Objects<'_>) -> String {
    let mut text = format!(
        "package {namespace}\n\nsvn := {}\nframework_version := \"{FRAMEWORK_VERSION}\"\n\n",
        json(svn)
    );
    objects.write(&mut text);
    text
}

/// The whole policy.
pub(crate) fn policy(
    config: &Config,
    objects: &Objects<'_>,
    networks: &[PolicyNetwork],
    pulls: &[PolicyIdName],
    pod_lines: Option<&PolicyPodLines>,
) -> String {
    let mut text = format!("package policy\n\napi_version := \"{API_VERSION}\"\nframework_version := \"{FRAMEWORK_VERSION}\"\n");
    if let Some(version) = &config.casemate_version {
        text.push_str(&format!("casemate_version := {}\n", json(version)));
    }
    text.push('\n');
    objects.write(&mut text);
    list(&mut text, "networks", &networks.iter().map(json).collect::<Vec<_>>());
    list(&mut text, "pulls", &pulls.iter().map(json).collect::<Vec<_>>());
    if let Some(lines) = pod_lines {
        text.push_str(&format!("pod_lines := {}\n", json(lines)));
    }
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
    if let Some(medium) = &config.scratch_medium {
        text.push_str(&format!("scratch_medium := {}\n", json(medium)));
    }
    text.push_str("\n\n");
    for point in POINTS {
        // hcsshim's tool writes this one line without a blank.
        let blank = if *point == "mount_cims" { "" } else { " " };
        text.push_str(&format!("{point}{blank}:= data.framework.{point}\n"));
    }
    if config.casemate_version.is_some() {
        for point in policy::OWN_POINTS {
            text.push_str(&format!("{0} := data.framework.{0}\n", point.name));
        }
    } else if !pulls.is_empty() {
        // The one of them that needs no version.
        text.push_str("pull_image := data.framework.pull_image\n");
    }
    text.push_str("reason := data.framework.reason\n");
    text
}

/// `name := […]`, omitted if empty.
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
    let mut fields = vec![
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
    fields.extend(container.confinement.fields());
    object(&fields)
}

/// An element of a list, with one field per line.
fn object(fields: &[(&str, String)]) -> String {
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

fn windows_container(container: &PolicyWindowsContainer) -> String {
    let processes = container.exec_processes.iter().map(|(command, signals)| {
        let (command, signals) = (json(command), json(signals));
        format!("{{\"command\":{command},\"signals\":{signals}}}")
    });
    let fields = [
        ("command", json(&container.command)),
        ("env_rules", json(&container.env_rules)),
        ("layers", json(&container.layers)),
        ("mounted_cim", json(&container.mounted_cim)),
        ("exec_processes", format!("[{}]", processes.collect::<Vec<_>>().join(","))),
        ("signals", json(&container.signals)),
        ("user", json(&container.user)),
        ("working_dir", json(&container.working_dir)),
        ("allow_stdio_access", container.allow_stdio_access.to_string()),
    ];
    object(&fields)
}

fn fragment(fragment: &Fragment) -> String {
    let parameters = match fragment.parameters.is_empty() {
        true => String::new(),
        false => format!(",\"parameters\":{}", json(&fragment.parameters)),
    };
    format!(
        "{{\"issuer\":{},\"feed\":{},\"minimum_svn\":{},\"includes\":{}{parameters}}}",
        json(&fragment.issuer),
        json(&fragment.feed),
        json(&fragment.minimum_svn),
        json(&fragment.include)
    )
}

#[cfg(test)]
mod tests;
