//! From a permit to the OCI spec that the launcher runs.
//!
//! What the policy judged comes from the permit. The rest of the host's spec counts only where it limits the container
//! further or concerns nobody else; what isolates the container is the agent's own.

use policy::{
    ContainerId, ExternalVerdict, ProcessVerdict,
    action::{Capabilities, ConfineContainer, CreateContainer, Device, ExecExternal, ExecInContainer, IdName, Mount, Rlimit},
};
use serde_json::{Value, json};

use super::{
    user::Identity,
    walls::{NamespaceUse, Walls, Wish, rlimits},
};
use crate::{
    decode::{HostSpec, MountEntry, ProcessSpec, Profile, Resources, seccomp_digest},
    paths,
};

/// Version of the OCI runtime specification that the output follows.
const OCI_VERSION: &str = "1.2.0";
/// Asks for the guest's network; every container has it, so only the policy's word makes a difference.
const HOST_NETWORK: &str = "io.microsoft.virtualmachine.lcow.hostnetwork";
/// `false` spares the container its security context directory.
const CONTEXT: &str = "io.microsoft.virtualmachine.lcow.securitypolicy.env";
/// AMD's certificates of the host, base64; the second spelling is what the peer reads.
const HOST_CERTIFICATE: [&str; 2] = [
    "io.microsoft.virtualmachine.lcow.amd-certificate",
    "io.microsoft.virtualmachine.wcow.amd-certificate",
];
/// Asks for a privileged container.
const PRIVILEGED: &str = "io.microsoft.virtualmachine.lcow.privileged";
/// `sandbox` marks the pod's own container.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// Prefix of a mount source in the sandbox's own directory.
const SANDBOX_PREFIX: &str = "sandbox://";
/// Namespaces that a further process enters. The network is the guest's.
const NAMESPACES: [&str; 5] = ["pid", "ipc", "uts", "mount", "cgroup"];
/// How far a container may be spared when memory runs out; -1000 is the agent's.
const OOM_SCORES: std::ops::RangeInclusive<i32> = -999..=1000;

/// The parts of the host's spec that no policy judges.
#[derive(Debug)]
pub struct Rest {
    hostname: String,
    read_only_root: bool,
    terminal: bool,
    oom_score_adj: Option<i32>,
    resources: Option<Resources>,
    /// AMD's certificates of the host for the security context directory; `None` if there is to be no such directory.
    pub host_certificate: Option<String>,
    /// The guest's network is asked for, which has a point of its own.
    pub host_network: bool,
    /// Judged by its digest.
    pub seccomp: Option<Profile>,
}

/// A mount source that is a directory of the host, which the guest cannot see.
#[derive(Debug, thiserror::Error)]
#[error("the source of the mount at {destination} is no directory of the sandbox ({SANDBOX_PREFIX}...)")]
pub struct ForeignSource {
    destination: String,
}

/// Splits a host's spec into what is judged, by two points, and the rest.
pub fn split(
    spec: HostSpec,
    container: &ContainerId,
    sandbox: &ContainerId,
    identity: Identity,
) -> Result<(CreateContainer, ConfineContainer, Rest), ForeignSource> {
    let privileged = spec.says_true(PRIVILEGED);
    let host_network = spec.says_true(HOST_NETWORK);
    let wants_context = spec.annotations.get(CONTEXT).is_none_or(|value| value != "false");
    let certificate = HOST_CERTIFICATE.iter().find_map(|key| spec.annotations.get(*key)).cloned();
    let is_sandbox_container = spec.annotations.get(CONTAINER_TYPE).is_some_and(|kind| kind == "sandbox");
    let HostSpec {
        process,
        root,
        hostname,
        mounts,
        linux,
        ..
    } = spec;
    let seccomp_profile_sha256 = seccomp_digest(linux.seccomp.as_ref());
    let mounts = mounts
        .into_iter()
        .map(|mount| guest_mount(mount, sandbox))
        .collect::<Result<_, _>>()?;
    let devices = linux.devices.into_iter().map(|device| Device {
        path: device.path,
        kind: device.kind,
        major: device.major,
        minor: device.minor,
        file_mode: device.file_mode,
        uid: device.uid,
        gid: device.gid,
    });
    let action = CreateContainer {
        container_id: container.clone(),
        arg_list: process.args,
        env_list: process.env,
        working_dir: process.cwd,
        sandbox_dir: paths::sandbox_mounts(sandbox),
        huge_pages_dir: paths::huge_pages(sandbox),
        mounts,
        devices: devices.collect(),
        privileged,
        no_new_privileges: process.no_new_privileges,
        user: identity.user,
        groups: identity.groups,
        umask: identity.umask,
        capabilities: process.capabilities.map(capabilities),
        seccomp_profile_sha256,
        is_sandbox_container,
    };
    let rest = Rest {
        hostname,
        read_only_root: root.unwrap_or_default().readonly,
        terminal: process.terminal,
        oom_score_adj: process.oom_score_adj,
        resources: linux.resources.map(without_swap),
        host_certificate: wants_context.then(|| certificate.unwrap_or_default()),
        host_network,
        seccomp: linux.seccomp,
    };
    let wish = Wish {
        masked: linux.masked_paths,
        readonly: linux.readonly_paths,
        namespaces: linux.namespaces,
        rlimits: process.rlimits,
        sysctls: linux.sysctl,
    };
    Ok((action, wish.normalised(container), rest))
}

/// The action for a further process, and the rest of its description.
pub fn exec_action(process: ProcessSpec, container: &ContainerId, identity: Identity) -> (ExecInContainer, bool, Vec<Rlimit>, Option<i32>) {
    let action = ExecInContainer {
        container_id: container.clone(),
        arg_list: process.args,
        env_list: process.env,
        working_dir: process.cwd,
        no_new_privileges: process.no_new_privileges,
        user: identity.user,
        groups: identity.groups,
        umask: identity.umask,
        capabilities: process.capabilities.map(capabilities),
    };
    (action, process.terminal, rlimits(process.rlimits), process.oom_score_adj)
}

/// The guest has no swap, so every bound on it holds, and no file to write one into.
fn without_swap(mut resources: Resources) -> Resources {
    if let Some(memory) = &mut resources.memory {
        memory.swap = None;
    }
    resources
}

fn capabilities(sets: crate::decode::CapabilitySets) -> Capabilities {
    Capabilities {
        ambient: sets.ambient,
        bounding: sets.bounding,
        effective: sets.effective,
        inheritable: sets.inheritable,
        permitted: sets.permitted,
    }
}

fn guest_mount(mount: MountEntry, sandbox: &ContainerId) -> Result<Mount, ForeignSource> {
    let MountEntry {
        destination,
        kind,
        mut source,
        options,
    } = mount;
    if kind == "bind" {
        let inside = source.strip_prefix(SANDBOX_PREFIX).map(|inside| inside.trim_start_matches('/'));
        let is_plain = |path: &str| !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        match inside.filter(|path| is_plain(path)) {
            Some(path) => source = format!("{}/{path}", paths::sandbox_mounts(sandbox)),
            None => return Err(ForeignSource { destination }),
        }
    }
    Ok(Mount {
        destination,
        options,
        source,
        kind,
    })
}

/// The spec of a container's init.
pub fn of_container(action: &CreateContainer, verdict: &ProcessVerdict, walls: &Walls, rest: &Rest, namespaces: &[NamespaceUse]) -> Value {
    let (masked, readonly) = walls.guarded_paths(action.privileged);
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "root": {"path": paths::rootfs(&action.container_id), "readonly": rest.read_only_root},
        "process": process(&Judged::of_create(action, verdict), rest.terminal, walls.rlimits(), rest.oom_score_adj),
        "mounts": action.mounts.iter().map(mount_json).collect::<Vec<_>>(),
        "linux": {
            "namespaces": namespaces.iter().map(NamespaceUse::json).collect::<Vec<_>>(),
            "cgroupsPath": paths::cgroup(&action.container_id),
            "resources": rest.resources.clone().unwrap_or_default(),
            "devices": action.devices,
            "sysctl": walls.sysctls(),
            "maskedPaths": masked,
            "readonlyPaths": readonly,
        },
    });
    if !rest.hostname.is_empty() {
        spec["hostname"] = json!(rest.hostname);
    }
    if let Some(profile) = &rest.seccomp {
        spec["linux"]["seccomp"] = json!(profile);
    }
    spec
}

/// The spec of a further process: the namespaces of the container's init, its cgroup and its seccomp profile.
pub fn of_exec(
    action: &ExecInContainer,
    verdict: &ProcessVerdict,
    terminal: bool,
    rlimits: &[Rlimit],
    oom_score_adj: Option<i32>,
    init_pid: i32,
    seccomp: Option<&Profile>,
) -> Value {
    let namespaces = NAMESPACES.map(|kind| {
        // The kernel's name of the file differs from the specification's name of the type.
        let file = if kind == "mount" { "mnt" } else { kind };
        json!({"type": kind, "path": format!("/proc/{init_pid}/ns/{file}")})
    });
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "root": {"path": paths::rootfs(&action.container_id)},
        "process": process(&Judged::of_exec(action, verdict), terminal, rlimits, oom_score_adj),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": paths::cgroup(&action.container_id),
        },
    });
    if let Some(profile) = seccomp {
        spec["linux"]["seccomp"] = json!(profile);
    }
    spec
}

/// The spec of a process of the guest itself: root's, with whatever the guest has.
pub fn of_external(action: &ExecExternal, verdict: &ExternalVerdict, terminal: bool) -> Value {
    json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": action.arg_list,
            "env": verdict.env,
            "cwd": action.working_dir,
            "oomScoreAdj": 0,
        },
        "linux": {"cgroupsPath": paths::cgroup(&paths::guest())},
    })
}

/// The judged parts of a process, from either action.
struct Judged<'a> {
    args: &'a [String],
    working_dir: &'a str,
    user: &'a IdName,
    groups: &'a [IdName],
    umask: &'a str,
    no_new_privileges: bool,
    verdict: &'a ProcessVerdict,
}

impl<'a> Judged<'a> {
    fn of_create(action: &'a CreateContainer, verdict: &'a ProcessVerdict) -> Self {
        Self {
            args: &action.arg_list,
            working_dir: &action.working_dir,
            user: &action.user,
            groups: &action.groups,
            umask: &action.umask,
            no_new_privileges: action.no_new_privileges,
            verdict,
        }
    }

    fn of_exec(action: &'a ExecInContainer, verdict: &'a ProcessVerdict) -> Self {
        Self {
            args: &action.arg_list,
            working_dir: &action.working_dir,
            user: &action.user,
            groups: &action.groups,
            umask: &action.umask,
            no_new_privileges: action.no_new_privileges,
            verdict,
        }
    }
}

fn process(judged: &Judged<'_>, terminal: bool, rlimits: &[Rlimit], oom_score_adj: Option<i32>) -> Value {
    let number = |id: &IdName| id.id.parse::<u32>().unwrap_or(u32::MAX);
    let groups = judged.groups.iter().map(number).collect::<Vec<_>>();
    let additional = groups.iter().skip(1).collect::<Vec<_>>();
    let Capabilities {
        ambient,
        bounding,
        effective,
        inheritable,
        permitted,
    } = &judged.verdict.capabilities;
    let mut process = json!({
        "terminal": terminal,
        "user": {
            "uid": number(judged.user),
            "gid": groups.first().copied().unwrap_or(u32::MAX),
            "umask": u32::from_str_radix(judged.umask, 8).unwrap_or(0o077),
            "additionalGids": additional,
        },
        "args": judged.args,
        "env": judged.verdict.env,
        "cwd": judged.working_dir,
        "capabilities": {
            "ambient": ambient, "bounding": bounding, "effective": effective,
            "inheritable": inheritable, "permitted": permitted,
        },
        "rlimits": rlimits,
        // Said always, or the process would inherit the agent's.
        "oomScoreAdj": oom_score_adj.unwrap_or(0).clamp(*OOM_SCORES.start(), *OOM_SCORES.end()),
    });
    // libcontainer takes false for a wish to load the profile late, when the right to load it is gone.
    if judged.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    process
}

fn mount_json(mount: &Mount) -> Value {
    let Mount {
        destination,
        options,
        source,
        kind,
    } = mount;
    let mut json = json!({"destination": destination, "type": kind, "source": source});
    if let Some(options) = options {
        json["options"] = json!(options);
    }
    json
}

#[cfg(test)]
mod tests;
