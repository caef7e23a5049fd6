//! Splits the host's document into what two enforcement points judge, and what no policy judges.

use container_document::ForeignSource;
use launcher_protocol::Profile;
use policy::{
    ContainerId,
    action::{Capabilities, ConfineContainer, CreateContainer, Device, ExecInContainer, Mount, Rlimit},
};

use super::{
    confinement::{RequestedConfinement, rlimits},
    user::Identity,
};
use crate::{
    decode::{HostSpec, Limits, MountEntry, ProcessSpec, seccomp_digest},
    paths,
    pod_files::Present,
};

/// Requests the guest's network. Every container has it, so this only asks the policy.
const HOST_NETWORK: &str = "io.microsoft.virtualmachine.lcow.hostnetwork";
/// `false`: the container gets no security context directory.
pub(super) const CONTEXT: &str = "io.microsoft.virtualmachine.lcow.securitypolicy.env";
/// AMD's certificates of the host, base64; hcsshim reads the second spelling.
const HOST_CERTIFICATE: [&str; 2] = [
    "io.microsoft.virtualmachine.lcow.amd-certificate",
    "io.microsoft.virtualmachine.wcow.amd-certificate",
];
/// Requests a privileged container.
pub(super) const PRIVILEGED: &str = "io.microsoft.virtualmachine.lcow.privileged";
/// `sandbox` marks the pod's first container.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// The parts of the host's document that no policy judges.
#[derive(Debug)]
pub struct UnjudgedSpec {
    /// Host name of the container.
    pub hostname: String,
    /// Whether the init's standard descriptors are a terminal.
    pub terminal: bool,
    /// AMD's certificates of the host for the security context directory; `None` if the container gets no such directory.
    pub host_certificate: Option<String>,
    /// The guest's network is requested, which has an enforcement point of its own.
    pub host_network: bool,
    /// The profile; the policy judges its digest.
    pub seccomp: Option<Profile>,
}

/// Splits a host's document into what two enforcement points judge, and the rest. The files of the pod are among what is judged.
pub fn split(
    spec: HostSpec,
    container: &ContainerId,
    sandbox: &ContainerId,
    identity: Identity,
    limits: &Limits,
    pod: &Present,
) -> Result<(CreateContainer, ConfineContainer, UnjudgedSpec), ForeignSource> {
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
    let mut mounts = mounts
        .into_iter()
        .map(|mount| guest_mount(mount, sandbox))
        .collect::<Result<Vec<_>, _>>()?;
    let readonly_root = root.unwrap_or_default().readonly;
    let shared = pod.mounts(sandbox, &mounts, readonly_root);
    mounts.extend(shared);
    // In this order no mount hides one below it.
    mounts.sort_by_key(|mount| depth(&mount.destination));
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
    let unjudged = UnjudgedSpec {
        hostname,
        terminal: process.terminal,
        host_certificate: wants_context.then(|| certificate.unwrap_or_default()),
        host_network,
        seccomp: linux.seccomp,
    };
    let requested = RequestedConfinement {
        masked: linux.masked_paths,
        readonly: linux.readonly_paths,
        namespaces: linux.namespaces,
        rlimits: process.rlimits,
        sysctls: linux.sysctl,
        readonly_root,
        oom_score_adj: process.oom_score_adj.unwrap_or(0),
        limits: limits.values(),
    };
    let confinement = requested.normalised(&action, sandbox);
    Ok((action, confinement, unjudged))
}

/// The action for an exec, and what no policy judges of it: terminal, limits, OOM score.
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

fn capabilities(sets: crate::decode::CapabilitySets) -> Capabilities {
    Capabilities {
        ambient: sets.ambient,
        bounding: sets.bounding,
        effective: sets.effective,
        inheritable: sets.inheritable,
        permitted: sets.permitted,
    }
}

/// How many names a path has.
fn depth(path: &str) -> usize {
    path.split('/').filter(|name| !name.is_empty()).count()
}

fn guest_mount(mount: MountEntry, sandbox: &ContainerId) -> Result<Mount, ForeignSource> {
    let inside = mount
        .sandbox_path()?
        .map(|path| format!("{}/{path}", paths::sandbox_mounts(sandbox)));
    Ok(Mount {
        source: inside.unwrap_or(mount.source),
        destination: mount.destination,
        options: mount.options,
        kind: mount.kind,
    })
}

#[cfg(test)]
mod tests;
