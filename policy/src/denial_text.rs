//! The sentence of a denial: what was refused, why, and by which rule.

use serde_json::Value;

use crate::request::Subject;

/// The whole sentence, with `causes` as the reason.
pub fn sentence(point: &str, subject: &Subject<'_>, causes: &str) -> String {
    format!("{}: {causes} (rule {point})", refusal(point, subject))
}

/// The refused act, as the beginning of a sentence.
fn refusal(point: &str, subject: &Subject<'_>) -> String {
    let container = subject
        .container
        .map(|id| format!("container \"{id}\""))
        .unwrap_or_else(|| "the container".to_owned());
    let target = subject.target.unwrap_or("the requested path");
    match point {
        "mount_device" => format!("layer at {target} may not be mounted"),
        "unmount_device" => format!("layer at {target} may not be unmounted"),
        "rw_mount_device" => format!("scratch at {target} may not be mounted"),
        "rw_unmount_device" => format!("scratch at {target} may not be unmounted"),
        "mount_blockdev" => format!("block device at {target} may not be attached"),
        "unmount_blockdev" => format!("block device at {target} may not be detached"),
        "mount_overlay" => format!("root file system of {container} may not be mounted"),
        "unmount_overlay" => format!("root file system at {target} may not be unmounted"),
        "create_container" => format!("{container} may not start"),
        "exec_in_container" => format!("process may not start in {container}"),
        "exec_external" => "process may not start in the guest".to_owned(),
        "shutdown_container" => format!("{container} may not be shut down"),
        "signal_container_process" => format!("process in {container} may not be signalled"),
        "plan9_mount" => format!("host directory may not be mounted at {target}"),
        "plan9_unmount" => format!("host directory at {target} may not be unmounted"),
        "get_properties" => "properties of containers may not be read".to_owned(),
        "dump_stacks" => "stacks of the guest may not be read".to_owned(),
        "runtime_logging" => "the guest may not write its log to the host".to_owned(),
        "host_network" => "the container may not use the guest's network".to_owned(),
        "scratch_mount" => format!("scratch directory {target} may not be used"),
        "scratch_unmount" => format!("scratch directory {target} may not be given up"),
        "load_fragment" => format!("policy fragment for {target} may not be loaded"),
        "load_transparency_trust_list" => format!("trust list for {target} may not be loaded"),
        "confine_container" => format!("{container} may not run confined like this"),
        "guest_network" => format!("network of {target} may not be configured like this"),
        "attestation_report" => format!("{container} may not get a report of the guest"),
        "pod_files" => format!("hosts, hostname or resolv.conf of the pod of {container} may not be like this"),
        "pause_container" => format!("{container} may not be paused"),
        "update_container" => format!("{container} may not get these limits"),
        "port_forward" => format!("host may not connect to a port of {container}"),
        "pull_image" => format!("the guest may not pull {target}"),
        other => format!("{other} is not allowed"),
    }
}

/// The policy's `reason.errors` for a denial of `point`, as text and joined. `input` is the input document.
pub fn causes(point: &str, input: &Value, reasons: &[String]) -> String {
    // An exec process of a policy has no user of its own, so every denied exec lists these two, whatever the cause.
    let noise = |reason: &str| point == "exec_in_container" && matches!(reason, "invalid user" | "invalid noNewPrivileges");
    let causes: Vec<String> = reasons
        .iter()
        .filter(|reason| !noise(reason))
        .map(|reason| cause(input, reason))
        .collect();
    match (causes.is_empty(), reasons.is_empty()) {
        (false, _) => causes.join("; "),
        (true, false) => "user, privileges or another detail is not in the policy".to_owned(),
        (true, true) => "the policy does not allow it".to_owned(),
    }
}

fn text<'a>(input: &'a Value, key: &str) -> &'a str {
    input.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The text for one reason.
fn cause(input: &Value, reason: &str) -> String {
    let (head, list) = reason.split_once(": ").unwrap_or((reason, ""));
    match head {
        "deviceHash not found" => format!("layer hash {} is not in the policy", text(input, "deviceHash")),
        "device already mounted at path" => "something is mounted there already".to_owned(),
        "mountpoint invalid" => "this is no mount point for it".to_owned(),
        "overlay has already been mounted" => "it has one already".to_owned(),
        "no matching containers for overlay" => "no container of the policy has exactly these layers in this order".to_owned(),
        "container already started" => "a container of this id was started before".to_owned(),
        "container not started" => "no container of this id was started".to_owned(),
        "invalid command" => "command is not in the policy".to_owned(),
        "invalid env list" if list.is_empty() => "environment is not in the policy".to_owned(),
        "invalid env list" => format!("environment variable {} is not in the policy", list.replace(',', ", ")),
        "missing required environment variable" => "an environment variable that the policy requires is missing".to_owned(),
        "invalid working directory" => format!("working directory {} is not in the policy", text(input, "workingDir")),
        "invalid mount list" => format!("mount at {} is not in the policy", list.replace(',', ", ")),
        "privileged escalation not allowed" => "the policy does not let it run privileged".to_owned(),
        "invalid noNewPrivileges" => "the policy demands no_new_privs".to_owned(),
        "invalid user" => "user, group or umask is not in the policy".to_owned(),
        "invalid seccomp" => "seccomp profile is not the policy's".to_owned(),
        "devices not supported" => "the policy cannot allow device nodes".to_owned(),
        "capabilities don't match" => "capabilities are not the policy's".to_owned(),
        "target isn't allowed to receive the signal" => {
            format!("signal {} is not in the policy", input.get("signal").cloned().unwrap_or_default())
        }
        "unencrypted scratch not allowed"
        | "unencrypted scratch not allowed, non-readonly mount request for SCSI disk must request encryption" => {
            "the policy demands an encrypted scratch disk".to_owned()
        }
        "scratch_medium is memory" => {
            "the policy requires scratch in the guest's memory (annotation io.casemate.scratch=memory), not on a disk".to_owned()
        }
        "image not listed" => "it is not in the policy's list of pulls".to_owned(),
        "framework_version is missing. Current version" => "the policy lacks framework_version".to_owned(),
        _ => reason.to_owned(),
    }
}
