//! Confinement of a container: what the host requests, normalised, and judged if the policy does so; otherwise the agent's own.
//!
//! A policy that declares a `casemate_version` judges paths, namespaces, limits and kernel parameters, and exactly what it allows
//! is applied. Under any other policy the agent masks and protects the default paths itself, whatever the host's document omits.
//! Paths that the document adds are made read-only, which can only deny. A masked path that it adds is refused: a program may
//! allow what a hidden file would forbid. Every namespace is the container's own or, if the document gives a path, the pod's.

use std::collections::{BTreeMap, BTreeSet};

use launcher_protocol::{Namespace as LaunchNamespace, NamespaceKind};
use policy::{
    ContainerId, Permit,
    action::{self, ConfineContainer, CreateContainer, Namespace, Rlimit},
};

use crate::{decode, launcher::Namespaces};

/// Namespaces that a container has of its own unless it shares those of its pod.
const SHARABLE: [&str; 3] = ["pid", "ipc", "uts"];
/// Namespaces that every container has of its own.
const OWN: [&str; 2] = ["mount", "cgroup"];
/// The network namespace is the guest's, which is the pod's.
const NETWORK: &str = "network";
/// An action's name for a namespace of the pod.
const POD: &str = "pod";

/// Masked paths of an unprivileged container if the policy does not judge them.
pub(super) const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Its read-only paths. `/sys/kernel/boot_params` shows the boot manifest, which is not secret.
pub(super) const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// OOM scores of containers; -1000 is the agent's.
const OOM_SCORES: std::ops::RangeInclusive<i32> = -999..=1000;

/// One directory for each processor, which newer runtimes mask too.
const THERMAL: (&str, &str) = ("/sys/devices/system/cpu/cpu", "/thermal_throttle");

/// A path that the host asks to hide where no policy judges that.
#[derive(Debug, thiserror::Error)]
#[error(
    "linux.maskedPaths: {0:?} is not among the paths that runtimes mask; to hide it could change what a program does, so a policy with a casemate_version must list it"
)]
pub struct UnknownMask(String);

/// The parts of the host's document that concern confinement.
#[derive(Debug, Default)]
pub struct RequestedConfinement {
    /// `linux.maskedPaths`
    pub masked: Vec<String>,
    /// `linux.readonlyPaths`
    pub readonly: Vec<String>,
    /// `linux.namespaces`
    pub namespaces: Vec<decode::Namespace>,
    /// `process.rlimits`
    pub rlimits: Vec<launcher_protocol::Rlimit>,
    /// `linux.sysctl`
    pub sysctls: BTreeMap<String, String>,
    /// `root.readonly`
    pub readonly_root: bool,
    /// `process.oomScoreAdj`
    pub oom_score_adj: i32,
    /// `linux.resources`
    pub limits: action::Limits,
}

impl RequestedConfinement {
    /// Normalised, so that two documents with the same meaning are judged the same: paths without needless slashes and
    /// limits by kind, each once and sorted, and exactly the namespaces that the container will be in.
    pub fn normalised(self, create: &CreateContainer, sandbox: &ContainerId) -> ConfineContainer {
        let shared = |kind: &str| self.namespaces.iter().any(|ns| ns.kind == kind && !ns.path.is_empty());
        let namespace = |kind: &str, path: &str| Namespace {
            kind: kind.to_owned(),
            path: path.to_owned(),
        };
        let sharable = SHARABLE.map(|kind| namespace(kind, if shared(kind) { POD } else { "" }));
        let own = OWN.map(|kind| namespace(kind, ""));
        ConfineContainer {
            container_id: create.container_id.clone(),
            sandbox_id: sandbox.clone(),
            masked_paths: paths(&self.masked),
            readonly_paths: paths(&self.readonly),
            namespaces: sharable.into_iter().chain(own).chain([namespace(NETWORK, POD)]).collect(),
            rlimits: rlimits(self.rlimits),
            sysctls: self.sysctls,
            readonly_root: self.readonly_root,
            mounts: create.mounts.clone(),
            sandbox_dir: create.sandbox_dir.clone(),
            huge_pages_dir: create.huge_pages_dir.clone(),
            oom_score_adj: self.oom_score_adj.clamp(*OOM_SCORES.start(), *OOM_SCORES.end()),
            limits: self.limits,
        }
    }
}

/// The paths without empty components, each once.
fn paths(paths: &[String]) -> Vec<String> {
    let simple = |path: &String| {
        let parts = path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>();
        format!("/{}", parts.join("/"))
    };
    paths.iter().map(simple).collect::<BTreeSet<_>>().into_iter().collect()
}

/// One limit of each kind, sorted. The last one wins, as it does when limits are set one after another.
pub fn rlimits(rlimits: Vec<launcher_protocol::Rlimit>) -> Vec<Rlimit> {
    let by_kind: BTreeMap<_, _> = rlimits.into_iter().map(|limit| (limit.kind, (limit.hard, limit.soft))).collect();
    let limits = by_kind.into_iter().map(|(kind, (hard, soft))| Rlimit { kind, hard, soft });
    limits.collect()
}

/// The confinement of a container; only a permit creates one.
#[derive(Debug)]
pub struct Confinement {
    requested: ConfineContainer,
    judged: bool,
}

impl Confinement {
    /// As the permit allows; `judged` is whether the policy judged it ([`policy::Enforcer::judges_confinement`]).
    ///
    /// # Errors
    /// When no policy judged it and a path is to be hidden that runtimes do not mask by default: to hide a file of the image is
    /// to change the image.
    pub fn of(permit: Permit<'_, ConfineContainer>, judged: bool) -> Result<Self, UnknownMask> {
        let requested = permit.action().clone();
        let foreign = requested.masked_paths.iter().find(|path| !judged && !is_masked_by_runtimes(path));
        if let Some(path) = foreign {
            return Err(UnknownMask(path.clone()));
        }
        permit.commit();
        Ok(Self { requested, judged })
    }

    /// Paths that are hidden and paths that can only be read. Where no policy judges them these are the default paths and the
    /// requested ones; for a privileged container the requested ones alone: its privilege was judged.
    pub fn guarded_paths(&self, privileged: bool) -> (Vec<String>, Vec<String>) {
        let ConfineContainer {
            masked_paths,
            readonly_paths,
            ..
        } = &self.requested;
        if self.judged || privileged {
            (masked_paths.clone(), readonly_paths.clone())
        } else {
            (with(&MASKED, masked_paths), with(&READONLY, readonly_paths))
        }
    }

    /// The namespaces to join or create; the network namespace is the guest's. `pod` has those of the pod's first container;
    /// `None` if a namespace is shared and there is no such container.
    pub fn namespaces(&self, pod: Option<&Namespaces>) -> Option<Vec<LaunchNamespace>> {
        let kinds = NamespaceKind::ALL.into_iter();
        let uses = kinds.filter_map(|kind| Some((kind, self.requested.namespaces.iter().find(|asked| asked.kind == kind.name())?)));
        let namespaces = uses.map(|(kind, asked)| {
            if asked.path.is_empty() {
                Some(LaunchNamespace { kind, path: None })
            } else {
                Some(pod?.enter(kind))
            }
        });
        namespaces.collect()
    }

    /// Whether its processes join the pid namespace of the pod's first container.
    pub fn shares_pids(&self) -> bool {
        self.requested
            .namespaces
            .iter()
            .any(|namespace| namespace.kind == "pid" && namespace.path == POD)
    }

    /// Limits of the init.
    pub fn rlimits(&self) -> &[Rlimit] {
        &self.requested.rlimits
    }

    /// Limits of every exec, if the policy allowed some; otherwise the exec's own document has them.
    pub fn rlimits_of_execs(&self) -> Option<Vec<Rlimit>> {
        self.judged.then(|| self.requested.rlimits.clone())
    }

    /// Whether the container can write to its root file system.
    pub fn readonly_root(&self) -> bool {
        self.requested.readonly_root
    }

    /// How likely the OOM killer chooses the init.
    pub fn oom_score_adj(&self) -> i32 {
        self.requested.oom_score_adj
    }

    /// Kernel parameters of the container's namespaces.
    pub fn sysctls(&self) -> &BTreeMap<String, String> {
        &self.requested.sysctls
    }
}

/// The default paths and those of `asked` that are not among them.
fn with(default: &[&str], asked: &[String]) -> Vec<String> {
    let more = asked.iter().filter(|path| !default.contains(&path.as_str()));
    default.iter().map(|path| (*path).to_owned()).chain(more.cloned()).collect()
}

/// By exact names: a link below `/proc/self` leads back into the image.
fn is_masked_by_runtimes(path: &str) -> bool {
    let processor = path.strip_prefix(THERMAL.0).and_then(|rest| rest.strip_suffix(THERMAL.1));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    MASKED.contains(&path) || READONLY.contains(&path) || processor.is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Enforcer;

    const JUDGING: &str = "package policy\napi_version := \"0.12.0\"\ncasemate_version := \"1.0.0\"\n\
        confine_container := {\"allowed\": input.sysctls == {}}\n";

    fn namespace(kind: &str, path: &str) -> decode::Namespace {
        decode::Namespace {
            kind: kind.to_owned(),
            path: path.to_owned(),
        }
    }

    fn rlimit(kind: &str, hard: u64) -> launcher_protocol::Rlimit {
        launcher_protocol::Rlimit {
            kind: kind.to_owned(),
            hard,
            soft: hard,
        }
    }

    fn requested() -> RequestedConfinement {
        RequestedConfinement {
            masked: ["/proc//kcore/", "/proc/fs", "/proc/kcore"].map(str::to_owned).to_vec(),
            readonly: ["/etc/", "/proc/sys"].map(str::to_owned).to_vec(),
            namespaces: vec![
                namespace("ipc", "/proc/1234/ns/ipc"),
                namespace("network", "/x"),
                namespace("user", ""),
            ],
            rlimits: vec![rlimit("RLIMIT_NPROC", 1), rlimit("RLIMIT_NOFILE", 5), rlimit("RLIMIT_NPROC", 2)],
            ..RequestedConfinement::default()
        }
    }

    fn create() -> CreateContainer {
        serde_json::from_value(serde_json::json!({
            "containerID": "c", "argList": [], "envList": [], "workingDir": "/", "sandboxDir": "/s", "hugePagesDir": "/h", "mounts": [],
            "devices": [], "privileged": false, "noNewPrivileges": false, "user": {"id": "0", "name": ""}, "groups": [],
            "umask": "0022", "capabilities": null, "seccompProfileSHA256": "", "isSandboxContainer": false,
        }))
        .unwrap()
    }

    fn confinement(policy: &str) -> Confinement {
        let mut enforcer = Enforcer::new(policy).unwrap();
        let judged = enforcer.judges_confinement();
        Confinement::of(
            enforcer.enforce(requested().normalised(&create(), &ContainerId::new("s"))).unwrap(),
            judged,
        )
        .unwrap()
    }

    #[test]
    fn documents_with_the_same_meaning_are_judged_the_same() {
        let action = requested().normalised(&create(), &ContainerId::new("s"));
        assert_eq!(action.masked_paths, ["/proc/fs", "/proc/kcore"]);
        let limits: Vec<_> = action.rlimits.iter().map(|limit| (limit.kind.as_str(), limit.hard)).collect();
        assert_eq!(limits, [("RLIMIT_NOFILE", 5), ("RLIMIT_NPROC", 2)]);
        let namespaces: Vec<_> = action.namespaces.iter().map(|ns| (ns.kind.as_str(), ns.path.as_str())).collect();
        assert_eq!(
            namespaces,
            [
                ("pid", ""),
                ("ipc", "pod"),
                ("uts", ""),
                ("mount", ""),
                ("cgroup", ""),
                ("network", "pod")
            ]
        );
    }

    #[test]
    fn what_a_judging_policy_allowed_is_applied() {
        let confinement = confinement(JUDGING);
        let texts = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let guarded = (texts(&["/proc/fs", "/proc/kcore"]), texts(&["/etc", "/proc/sys"]));
        assert_eq!(confinement.guarded_paths(false), guarded);
        assert_eq!(confinement.rlimits_of_execs().unwrap(), confinement.rlimits());
        let mut enforcer = Enforcer::new(JUDGING).unwrap();
        let mut requested = requested();
        requested.sysctls.insert("net.core.somaxconn".to_owned(), "9".to_owned());
        let denied = enforcer
            .enforce(requested.normalised(&create(), &ContainerId::new("s")))
            .map(drop)
            .unwrap_err();
        assert_eq!(denied.point(), "confine_container");
    }

    #[test]
    fn without_a_judging_policy_the_default_paths_and_the_requested_are_guarded() {
        let confinement = confinement(policy::OPEN_DOOR);
        let (masked, readonly) = confinement.guarded_paths(false);
        assert_eq!(
            (&masked[..MASKED.len()], &masked[MASKED.len()..]),
            (&MASKED.map(str::to_owned)[..], &["/proc/fs".to_owned()][..])
        );
        assert_eq!(
            (&readonly[..READONLY.len()], &readonly[READONLY.len()..]),
            (&READONLY.map(str::to_owned)[..], &["/etc".to_owned()][..])
        );
        let (masked, readonly) = confinement.guarded_paths(true);
        assert_eq!(masked, ["/proc/fs", "/proc/kcore"], "privilege is judged by create_container");
        assert_eq!(readonly, ["/etc", "/proc/sys"]);
        assert_eq!(confinement.rlimits_of_execs(), None);
    }

    #[test]
    fn hiding_another_path_is_refused_by_name_unless_a_policy_judged_it() {
        let masking = |path: &str, judged: bool| {
            let mut enforcer = Enforcer::new(policy::OPEN_DOOR).unwrap();
            let requested = RequestedConfinement {
                masked: vec![path.to_owned()],
                ..requested()
            };
            let permit = enforcer.enforce(requested.normalised(&create(), &ContainerId::new("s"))).unwrap();
            Confinement::of(permit, judged)
        };
        for foreign in [
            "/etc/deny.conf",
            "/proc/self/root/etc/deny.conf",
            "/proc/kcore/x",
            "/sys/devices/system/cpu/cpu1/../../x/thermal_throttle",
            "/sys/devices/system/cpu/cpu/thermal_throttle",
        ] {
            assert!(masking(foreign, false).unwrap_err().to_string().contains(foreign));
            assert!(masking(foreign, true).is_ok());
        }
        assert!(masking("/sys/devices/system/cpu/cpu12/thermal_throttle", false).is_ok());
    }

    #[test]
    fn a_shared_namespace_is_that_of_the_pods_first_process() {
        let confinement = confinement(policy::OPEN_DOOR);
        let pod = Namespaces::of(nix::unistd::Pid::this()).unwrap();
        let namespaces = confinement.namespaces(Some(&pod)).unwrap();
        assert_eq!(namespaces[1], pod.enter(NamespaceKind::Ipc));
        let own: Vec<_> = namespaces.iter().filter(|namespace| namespace.path.is_none()).collect();
        let own: Vec<_> = own.iter().map(|namespace| namespace.kind.name()).collect();
        assert_eq!(own, ["pid", "uts", "mount", "cgroup"]);
        assert!(confinement.namespaces(None).is_none(), "the pod has no namespace to share");
    }
}
