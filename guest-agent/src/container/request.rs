//! Builds the launcher's request from a permit.
//!
//! What the policy judged comes from the permit. The rest of the host's document is used only where it limits the container
//! further or concerns only itself; the isolation of the container is the agent's own.

use launcher_protocol::{Capabilities, Container, Device, Exec, External, Mount, Namespace, Process, Profile, Request, Rlimit, User};
use policy::{
    ExternalVerdict, ProcessVerdict,
    action::{self, CreateContainer, ExecExternal, ExecInContainer, IdName},
};

use super::{confinement::Confinement, sources::Sources, spec::UnjudgedSpec};
use crate::{launcher::Namespaces, paths};

/// The request for a container. `variable` is one more entry of its environment; it is the agent's own and so not judged.
pub fn of_container(
    action: &CreateContainer,
    verdict: &ProcessVerdict,
    confinement: &Confinement,
    unjudged: &UnjudgedSpec,
    namespaces: Vec<Namespace>,
    sources: &Sources,
    variable: Option<String>,
) -> Request {
    let (masked_paths, readonly_paths) = confinement.guarded_paths(action.privileged);
    let judged = Judged::of_create(action, verdict);
    let mut process = process(&judged, unjudged.terminal, confinement.rlimits(), confinement.oom_score_adj());
    process.env.extend(variable);
    Request::Create(Box::new(Container {
        id: action.container_id.as_hex().to_owned(),
        cgroup: paths::cgroup(&action.container_id),
        rootfs: paths::rootfs(&action.container_id),
        read_only_root: confinement.readonly_root(),
        hostname: unjudged.hostname.clone(),
        process,
        mounts: action.mounts.iter().map(|judged| mount(judged, sources)).collect(),
        namespaces,
        devices: action.devices.iter().map(device).collect(),
        sysctls: confinement.sysctls().clone(),
        masked_paths,
        readonly_paths,
        seccomp: unjudged.seccomp.clone(),
    }))
}

/// The request for an exec: the namespaces of the container's init, its cgroup and its seccomp profile.
pub fn of_exec(
    action: &ExecInContainer,
    verdict: &ProcessVerdict,
    terminal: bool,
    rlimits: &[action::Rlimit],
    oom_score_adj: i32,
    namespaces: &Namespaces,
    seccomp: Option<&Profile>,
) -> Request {
    Request::Exec(Box::new(Exec {
        cgroup: paths::cgroup(&action.container_id),
        namespaces: namespaces.enter_all(),
        process: process(&Judged::of_exec(action, verdict), terminal, rlimits, oom_score_adj),
        seccomp: seccomp.cloned(),
    }))
}

/// The request for a process of the guest itself.
pub fn of_external(action: &ExecExternal, verdict: &ExternalVerdict, terminal: bool) -> Request {
    Request::External(External {
        cgroup: paths::cgroup(&paths::guest()),
        terminal,
        args: action.arg_list.clone(),
        env: verdict.env.clone(),
        cwd: action.working_dir.clone(),
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

fn process(judged: &Judged<'_>, terminal: bool, rlimits: &[action::Rlimit], oom_score_adj: i32) -> Process {
    // The overflow id for a user name that is not a number.
    let number = |id: &IdName| id.id.parse::<u32>().unwrap_or(u32::MAX);
    let groups = judged.groups.iter().map(number).collect::<Vec<_>>();
    let sets = &judged.verdict.capabilities;
    Process {
        terminal,
        args: judged.args.to_vec(),
        env: judged.verdict.env.clone(),
        cwd: judged.working_dir.to_owned(),
        user: User {
            uid: number(judged.user),
            gid: groups.first().copied().unwrap_or(u32::MAX),
            umask: u32::from_str_radix(judged.umask, 8).unwrap_or(0o077),
            additional_gids: groups.get(1..).unwrap_or_default().to_vec(),
        },
        capabilities: Capabilities {
            ambient: sets.ambient.clone(),
            bounding: sets.bounding.clone(),
            effective: sets.effective.clone(),
            inheritable: sets.inheritable.clone(),
            permitted: sets.permitted.clone(),
        },
        rlimits: rlimits.iter().map(rlimit).collect(),
        no_new_privileges: judged.no_new_privileges,
        oom_score_adj,
    }
}

fn rlimit(limit: &action::Rlimit) -> Rlimit {
    Rlimit {
        kind: limit.kind.clone(),
        hard: limit.hard,
        soft: limit.soft,
    }
}

fn mount(mount: &action::Mount, sources: &Sources) -> Mount {
    Mount {
        destination: mount.destination.clone(),
        kind: mount.kind.clone(),
        source: sources.path_of(&mount.source).unwrap_or_else(|| mount.source.clone()),
        options: mount.options.clone(),
    }
}

fn device(device: &action::Device) -> Device {
    Device {
        path: device.path.clone(),
        kind: device.kind.clone(),
        major: device.major,
        minor: device.minor,
        file_mode: device.file_mode,
        uid: device.uid,
        gid: device.gid,
    }
}

#[cfg(test)]
mod tests;
