//! The configuration file: the keys of hcsshim's tool, and Casemate's own keys, such as sources of layers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use policy::action::Medium;
use serde::{Deserialize, Serialize};

/// A whole configuration. Every flag defaults to false, every list to empty; unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Version of Casemate's own points; with it, the policy decides on confinement, the guest's network and forwarded ports.
    pub casemate_version: Option<String>,
    /// Allow everything; excludes containers.
    pub allow_all: bool,
    /// Statistics and process lists may be read.
    pub allow_properties_access: bool,
    /// Stack traces of the guest may be read.
    pub allow_dump_stacks: bool,
    /// The guest's log may go to the host.
    pub allow_runtime_logging: bool,
    /// Containers may use the guest's network namespace. (The key has no underscore before "network"; the policy's flag has.)
    pub allow_hostnetwork: bool,
    /// Environment variables that no rule accepts are dropped instead of denied.
    pub allow_environment_variable_dropping: bool,
    /// The scratch disk may be unencrypted.
    pub allow_unencrypted_scratch: bool,
    /// The only medium that the pod's scratch may be on, `memory` or `disk`; default: either.
    pub scratch_medium: Option<Medium>,
    /// Capabilities that the policy does not list are dropped instead of denied.
    pub allow_capability_dropping: bool,
    /// Windows guests only.
    pub allow_log_provider_dropping: bool,
    /// Containers that may run.
    pub container: Vec<Container>,
    /// Processes that may run in the guest outside containers.
    pub external_process: Vec<ExternalProcess>,
    /// Signed policy fragments that may be loaded.
    pub fragment: Vec<Fragment>,
    /// Containers of a Windows guest; not together with `container`.
    pub windows_container: Vec<WindowsContainer>,
    /// Allowed networks of the guest, each as a whole; needs `casemate_version`.
    pub network: Vec<Network>,
    /// The containers are those of a Kubernetes pod, with what its runtime adds to each.
    pub pod: Option<Pod>,
    /// Images that the guest may pull itself, as `REGISTRY/REPOSITORY@sha256:DIGEST`.
    pub pull: Vec<TextRule>,
    /// What the policy's owner should know of what was read; no key of the file.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// One container. Its layers come from exactly one of `image`, `layer_files` and `layers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Container {
    /// Reference of the image, for messages only.
    pub image_name: Option<String>,
    /// Credentials for `image_name`.
    pub auth: Option<Auth>,
    /// OCI layout, `docker save` archive or skopeo `dir:`, as a directory or a tar file: layers, and defaults for command, environment,
    /// user and working directory.
    pub image: Option<PathBuf>,
    /// Tag, reference or digest of one image within `image`, if it holds several.
    pub image_tag: Option<String>,
    /// Layer files (tar, gzip or zstd), bottom layer first.
    pub layer_files: Vec<PathBuf>,
    /// Root hashes in hex, bottom layer first, as `casemate layer hash` prints them.
    pub layers: Vec<String>,
    /// Program and arguments; default: the image's ENTRYPOINT and CMD.
    pub command: Vec<String>,
    /// Default: the image's, else `/`.
    pub working_dir: Option<String>,
    /// May run privileged.
    pub allow_elevated: bool,
    /// The host may be connected to stdin, stdout and stderr.
    pub allow_stdio_access: bool,
    /// May run without `no_new_privs`.
    pub allow_privilege_escalation: bool,
    /// Signals that its init may be sent.
    pub signals: Vec<i32>,
    /// Its init may be sent the image's own stop signal, too; no key of the file.
    #[serde(skip)]
    pub allow_stop_signal: bool,
    /// Of an image without `PATH`, it may have the one that container runtimes give it; no key of the file.
    #[serde(skip)]
    pub allow_default_path: bool,
    /// JSON file with the OCI seccomp profile it must run under.
    pub seccomp_profile_path: Option<PathBuf>,
    /// Environment variables in addition to the image's and `TERM=xterm`.
    pub env_rule: Vec<EnvRule>,
    /// Mounts in addition to the default mounts.
    pub mount: Vec<Mount>,
    /// Exec processes that may be started in it.
    pub exec_process: Vec<ExecProcess>,
    /// Default: the image's USER, else any.
    pub user: Option<User>,
    /// Default: those of privileged or unprivileged containers, chosen at run time.
    pub capabilities: Option<Capabilities>,
    /// Masked paths; default: OCI's list. This and the following keys need `casemate_version`.
    pub masked_paths: Option<Vec<String>>,
    /// Read-only paths; default: OCI's list.
    pub readonly_paths: Option<Vec<String>>,
    /// Namespaces that it may share with the pod: `network`, `ipc`, `uts`, `pid`; default: the first three.
    pub pod_namespaces: Option<Vec<String>>,
    /// Upper bounds of resource limits; any other limit is denied.
    pub rlimit: Vec<Rlimit>,
    /// Allowed kernel parameters with their values; any other is denied.
    pub sysctls: BTreeMap<String, String>,
    /// Ports that the host may connect to.
    pub forwarded_ports: Vec<u16>,
    /// The root file system must be read-only.
    pub readonly_root: bool,
    /// The host may pause the container.
    pub allow_pause: bool,
    /// The container may get attestation reports of the guest.
    pub allow_reports: bool,
    /// OOM scores that the container may have; default: any.
    pub oom_score_adj: Option<Bounds<i32>>,
    /// Limits of the container's cgroup, by the kernel's names; those listed may be changed while it runs.
    pub limits: BTreeMap<String, Bounds<u64>>,
    /// What a definition of `az confcom` says in the policy's own words; no key of the file.
    #[serde(skip)]
    pub definition: Option<Definition>,
}

/// Parts of a container that another tool's file determines to the letter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Definition {
    /// Environment rules. The image's variables of other names follow, and none of them is required.
    pub env_rules: Vec<EnvRule>,
    /// Rules behind these, but for names that have one.
    pub more_env_rules: Vec<EnvRule>,
    /// All mounts.
    pub mounts: Vec<ExactMount>,
    /// SHA-256 of the seccomp profile's canonical form; empty for none.
    pub seccomp_profile_sha256: String,
}

/// A mount as the policy has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExactMount {
    /// Path in the container.
    pub destination: String,
    /// Options in their order.
    pub options: Vec<String>,
    /// A pattern.
    pub source: String,
    /// For example `bind`.
    pub kind: String,
}

/// A range; a bound that is missing is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds<T> {
    /// Least value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<T>,
    /// Greatest value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<T>,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// For example `RLIMIT_NOFILE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The limit in effect.
    pub soft: Limit,
    /// Upper bound of the soft limit.
    pub hard: Limit,
}

/// The value of a resource limit: a number, or `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Limit {
    /// A number.
    Number(u64),
    /// No limit.
    Word(Unlimited),
}

/// The word for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlimited {
    /// `RLIM_INFINITY`
    Unlimited,
}

/// A network of the guest. Entries that no rule of a list accepts are denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Name of the interface; default: any.
    pub interface: Option<String>,
    /// Addresses with their prefix lengths, as `10.88.0.2/16`.
    pub address: Vec<TextRule>,
    /// Routes, as `DESTINATION GATEWAY`.
    pub route: Vec<TextRule>,
    /// Name servers.
    pub nameserver: Vec<TextRule>,
}

/// What a Kubernetes pod has beyond its containers: the pause container that is the guest's own, files that its containers share, a network
/// (any, unless `network` says which), and variables that kubelet and its runtime set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pod {
    /// Lines of `/etc/hosts`; default: any. This and the following keys need `casemate_version`.
    pub hosts: Option<Vec<TextRule>>,
    /// Lines of `/etc/hostname`; default: any.
    pub hostname: Option<Vec<TextRule>>,
    /// Lines of `/etc/resolv.conf`; default: any.
    pub resolv_conf: Option<Vec<TextRule>>,
    /// The containers see each other's processes (`shareProcessNamespace`).
    pub share_process_namespace: bool,
}

/// A rule for a text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextRule {
    /// `string`, `re2` or `any`.
    pub strategy: Strategy,
    /// The text or pattern to compare with.
    pub rule: String,
}

/// Registry credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

/// The comparison of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Equal.
    #[default]
    String,
    /// An RE2 pattern that matches the whole.
    Re2,
    /// Users, groups and networks: anything.
    Any,
    /// Users and groups: the number.
    Id,
    /// Users and groups: the name.
    Name,
}

impl Strategy {
    /// The word in the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::String => "string",
            Strategy::Re2 => "re2",
            Strategy::Any => "any",
            Strategy::Id => "id",
            Strategy::Name => "name",
        }
    }
}

/// An environment variable: `rule` is compared with `NAME=value`, or `name` and `value` each with its part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnvRule {
    /// `string` or `re2`.
    pub strategy: Strategy,
    /// The text or pattern to compare with.
    pub rule: String,
    /// The process must not start without it.
    pub required: bool,
    /// The text or pattern for the name; excludes `rule`.
    pub name: Option<String>,
    /// `string` or `re2`.
    pub name_strategy: Strategy,
    /// The text or pattern for the value.
    pub value: String,
    /// `string` or `re2`.
    pub value_strategy: Strategy,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mount {
    /// Source: a pattern after `sandbox://` or `hugepages://`, `plan9://`, or a path of the guest.
    pub host_path: String,
    /// Path in the container.
    pub container_path: String,
    /// Read-only.
    pub readonly: bool,
    /// The container does not run without it.
    pub required: bool,
}

/// An exec process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecProcess {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Signals that it may be sent.
    pub signals: Vec<i32>,
}

/// User and groups of a container's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    /// Four octal digits; `0022` if empty.
    pub umask: String,
    /// The user.
    pub user_idname: IdName,
    /// Every group of the process must match one of these.
    pub group_idname: Vec<IdName>,
}

/// A user or group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdName {
    /// `any`, `id`, `name` or `re2` (on the name).
    pub strategy: Strategy,
    /// The text or pattern to compare with.
    #[serde(default)]
    pub rule: String,
}

impl Default for IdName {
    fn default() -> Self {
        Self {
            strategy: Strategy::Any,
            rule: String::new(),
        }
    }
}

/// Capability sets; a missing one is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    /// Bounding set.
    pub bounding: Vec<String>,
    /// Effective set.
    pub effective: Vec<String>,
    /// Inheritable set.
    pub inheritable: Vec<String>,
    /// Permitted set.
    pub permitted: Vec<String>,
    /// Ambient set.
    pub ambient: Vec<String>,
}

/// A process in the guest, with the default `PATH`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalProcess {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// The host may be connected to its stdio.
    pub allow_stdio_access: bool,
}

/// A policy fragment that may be loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fragment {
    /// `did:x509:…`
    pub issuer: String,
    /// Feed.
    pub feed: String,
    /// Minimum security version.
    pub minimum_svn: String,
    /// Its objects to include: `containers`, `fragments`, `external_processes`, `namespace`…
    pub include: Vec<String>,
    /// Values for the fragment's parameters, by name.
    pub parameters: BTreeMap<String, serde_json::Value>,
}

/// A container of a Windows guest. Its layers are given as hashes, since Windows layers are not converted here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowsContainer {
    /// Reference of the image, for messages only.
    pub image_name: Option<String>,
    /// Credentials for `image_name`.
    pub auth: Option<Auth>,
    /// Layer hashes, bottom layer first.
    pub layers: Vec<String>,
    /// Hashes of the mounted image, as the guest measures it.
    pub mounted_cim: Vec<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Environment variables.
    pub env_rule: Vec<EnvRule>,
    /// Exec processes that may be started in it.
    pub exec_process: Vec<WindowsExecProcess>,
    /// Signals that its init may be sent, by name: `CtrlC`, `CtrlBreak`, `CtrlClose`, `CtrlLogOff`, `CtrlShutdown`.
    pub signals: Vec<String>,
    /// The host may be connected to stdin, stdout and stderr.
    pub allow_stdio_access: bool,
    /// Name of the user.
    pub user: String,
}

/// An exec process of a Windows guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowsExecProcess {
    /// The whole command line.
    pub command: String,
    /// Signals that it may be sent, by name.
    pub signals: Vec<String>,
}

impl Config {
    /// Whether it has no container, process or fragment.
    pub(crate) fn is_empty(&self) -> bool {
        self.container.is_empty() && self.windows_container.is_empty() && self.external_process.is_empty() && self.fragment.is_empty()
    }

    /// Whether any flag is set.
    pub(crate) fn has_flags(&self) -> bool {
        self.allow_all
            || self.allow_properties_access
            || self.allow_dump_stacks
            || self.allow_runtime_logging
            || self.allow_hostnetwork
            || self.allow_environment_variable_dropping
            || self.allow_unencrypted_scratch
            || self.scratch_medium.is_some()
            || self.allow_capability_dropping
            || self.allow_log_provider_dropping
    }
}
