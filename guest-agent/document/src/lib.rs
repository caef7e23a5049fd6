//! The fields that the agent reads of an OCI runtime spec (config.md and config-linux.md, 1.2). All others are
//! ignored: cgroup paths and labels have no meaning in the guest.
//!
//! The agent checks every document by these rules before the policy judges it. The shim checks by the same rules before it boots
//! a VM whose agent could only refuse. The document's length is checked before it is parsed. Its nesting is bounded by the types
//! below (and by the parser, which stops at 128 levels, where a type is open). Every count and every text in it is checked here.
#![forbid(unsafe_code)]
#![expect(missing_docs, reason = "fields are those of the specification, which documents them")]

mod resources;
mod seccomp;

use std::collections::BTreeMap;

use agent_protocol::limits::{
    ANNOTATIONS, ARG_BYTES, ARGS, CAPABILITIES, DEVICES as DEVICE_NODES, ENV_ENTRIES, GROUPS, GUARDED_PATHS, MOUNT_OPTIONS, MOUNTS,
    NAMESPACES, PATH_BYTES, RLIMITS, SPEC_BYTES, SYSCTLS as SYSCTL_ENTRIES, TEXT_BYTES,
};
use launcher_protocol::{DEVICES as OPENABLE, Profile, Rlimit};
use serde::{Deserialize, Serialize, de::IgnoredAny};

pub use resources::{Cpu, DeviceRule, Memory, Pids, Resources};

/// Longest hostname in bytes (`HOST_NAME_MAX`).
const HOSTNAME_BYTES: usize = 64;
/// File systems that a container may request; `bind` stands for a path of the sandbox.
const FILE_SYSTEMS: [&str; 8] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", BIND];
/// The type of mounts whose source is a path of the sandbox.
pub const BIND: &str = "bind";
/// Prefix of a mount source in the sandbox's own directory.
pub const SANDBOX_PREFIX: &str = "sandbox://";
const BIND_OPTIONS: [&str; 2] = ["bind", "rbind"];
/// sysctls of the pod's namespaces; others would change the guest.
const SYSCTLS: [&str; 3] = ["net.", "fs.mqueue.", "kernel.shm"];
const SYSCTL_NAMES: [&str; 5] = ["kernel.sem", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.domainname"];
/// Namespaces that a container has of its own or shares with its pod.
const NAMESPACE_KINDS: [&str; 6] = ["pid", "ipc", "uts", "mount", "cgroup", "network"];
/// The namespace that maps users.
const USER: &str = "user";
/// Profiles that ask for nothing: none, none by name, and the one that containerd's CRI sets where nobody asked and its host has AppArmor.
const APPARMOR_PROFILES: [&str; 3] = ["", "unconfined", "cri-containerd.apparmor.d"];
/// Why an SELinux label is refused.
const NO_SELINUX: &str = "the guest's kernel has no SELinux (enable_selinux of containerd's configuration)";
/// Most device rules: one for each node, and a runtime's own.
const DEVICE_RULES: usize = 2 * DEVICE_NODES;
/// Directory of a spec's device nodes.
const DEVICES: &str = "/dev/";

/// Why a document cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Longer than the agent takes.
    #[error("the document has {0} bytes, more than {SPEC_BYTES}")]
    TooLong(usize),
    /// Not JSON, or not of this shape. The parser's own message may quote the document.
    #[error("the document is not an OCI specification at line {line}, column {column}")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A field is dangerous or meaningless in the guest.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A directory of the host is to be mounted.
    #[error(transparent)]
    Source(#[from] ForeignSource),
    /// A device of the host is asked for.
    #[error(transparent)]
    Device(#[from] ForeignDevice),
}

/// A field that the guest refuses, whatever the policy. Says nothing else of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Refused {
    /// By its path in the document.
    pub field: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// A mount source that is a directory of the host, which the guest cannot see.
#[derive(Debug, thiserror::Error)]
#[error("the source of the mount at {destination} is not a directory of the sandbox ({SANDBOX_PREFIX}...)")]
pub struct ForeignSource {
    destination: String,
}

/// A device that no container of a guest can open: its node would be there, and dead.
#[derive(Debug, thiserror::Error)]
#[error(
    "the device {path} ({kind} {major}:{minor}) is the host's: containers of a VM can open null, zero, full, random, urandom and terminals, and no other device"
)]
pub struct ForeignDevice {
    path: String,
    kind: String,
    major: i64,
    minor: i64,
}

/// Whether the agent would take the document, as far as that can be known without its policy and the image's files.
///
/// # Errors
/// As the agent would answer.
pub fn check(document: &[u8]) -> Result<(), DocumentError> {
    if document.len() > SPEC_BYTES {
        return Err(DocumentError::TooLong(document.len()));
    }
    let spec: HostSpec = serde_json::from_slice(document).map_err(|e| DocumentError::Json {
        line: e.line(),
        column: e.column(),
    })?;
    spec.check()?;
    for mount in &spec.mounts {
        mount.sandbox_path()?;
    }
    spec.linux.check_devices()?;
    Ok(())
}

/// `config.json` as containerd wrote it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSpec {
    pub process: ProcessSpec,
    pub root: Option<Root>,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub mounts: Vec<MountEntry>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub linux: Linux,
    hooks: Option<BTreeMap<String, Option<Vec<serde_json::Value>>>>,
}

/// `root`; the path is the agent's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Root {
    #[serde(default)]
    pub readonly: bool,
}

/// `process`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessSpec {
    #[serde(default)]
    pub terminal: bool,
    #[serde(default)]
    pub user: User,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: Vec<String>,
    pub cwd: String,
    pub capabilities: Option<CapabilitySets>,
    #[serde(default)]
    pub rlimits: Vec<Rlimit>,
    #[serde(default)]
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    #[serde(default)]
    pub apparmor_profile: String,
    #[serde(default)]
    pub selinux_label: String,
}

/// `process.user`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    pub umask: Option<u32>,
    #[serde(default)]
    pub additional_gids: Vec<u32>,
    #[serde(default)]
    pub username: String,
}

/// `process.capabilities`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CapabilitySets {
    #[serde(default)]
    pub bounding: Vec<String>,
    #[serde(default)]
    pub effective: Vec<String>,
    #[serde(default)]
    pub inheritable: Vec<String>,
    #[serde(default)]
    pub permitted: Vec<String>,
    #[serde(default)]
    pub ambient: Vec<String>,
}

/// One of `mounts`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountEntry {
    pub destination: String,
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub source: String,
    pub options: Option<Vec<String>>,
    #[serde(default)]
    uid_mappings: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    gid_mappings: Option<Vec<IgnoredAny>>,
}

/// `linux`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    #[serde(default)]
    pub namespaces: Vec<Namespace>,
    #[serde(default)]
    pub devices: Vec<DeviceNode>,
    pub resources: Option<Resources>,
    #[serde(default)]
    pub mount_label: String,
    pub seccomp: Option<Profile>,
    #[serde(default)]
    pub sysctl: BTreeMap<String, String>,
    #[serde(default)]
    pub masked_paths: Vec<String>,
    #[serde(default)]
    pub readonly_paths: Vec<String>,
    #[serde(default)]
    uid_mappings: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    gid_mappings: Option<Vec<IgnoredAny>>,
}

/// One of `linux.namespaces`; a path means the pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub path: String,
}

/// One of `linux.devices`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceNode {
    pub path: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub major: i64,
    #[serde(default)]
    pub minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// An error for one field.
///
/// # Errors
/// Always.
pub fn refuse(field: &'static str, reason: &'static str) -> Result<(), Refused> {
    Err(Refused { field, reason })
}

/// Refuses more entries than the limit.
///
/// # Errors
/// When there are more than `most`.
pub fn at_most(field: &'static str, count: usize, most: usize) -> Result<(), Refused> {
    if count > most {
        return refuse(field, "there are too many");
    }
    Ok(())
}

/// Refuses a text that is too long or contains a NUL, where the kernel would end it.
///
/// # Errors
/// When one is.
pub fn texts<'a>(field: &'static str, texts: impl IntoIterator<Item = &'a String>, most: usize) -> Result<(), Refused> {
    for text in texts {
        if text.len() > most {
            return refuse(field, "one is too long");
        }
        if text.contains('\0') {
            return refuse(field, "it contains a NUL");
        }
    }
    Ok(())
}

/// Absolute, and without a `.` or `..` component.
pub fn is_plain_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= PATH_BYTES && !path.contains('\0') && path.split('/').all(|part| part != ".." && part != ".")
}

impl HostSpec {
    /// Refuses what would be dangerous or meaningless in the guest, before the policy judges it.
    ///
    /// # Errors
    /// The first such field.
    pub fn check(&self) -> Result<(), Refused> {
        self.process.check()?;
        let hooks = self.hooks.iter().flat_map(BTreeMap::values).flatten();
        if hooks.flatten().next().is_some() {
            return refuse("hooks", "the guest runs none");
        }
        let of_hostname = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        if self.hostname.len() > HOSTNAME_BYTES || !self.hostname.bytes().all(of_hostname) {
            return refuse("hostname", "it is not a host name");
        }
        at_most("annotations", self.annotations.len(), ANNOTATIONS)?;
        at_most("mounts", self.mounts.len(), MOUNTS)?;
        self.mounts.iter().try_for_each(MountEntry::check)?;
        self.linux.check()
    }

    /// An annotation whose value is `true`.
    pub fn says_true(&self, annotation: &str) -> bool {
        self.annotations.get(annotation).is_some_and(|value| value == "true")
    }
}

impl ProcessSpec {
    /// Refuses what cannot be a process.
    ///
    /// # Errors
    /// The first field that cannot be one's.
    pub fn check(&self) -> Result<(), Refused> {
        if self.args.is_empty() || self.args.len() > ARGS {
            return refuse("process.args", "there are none or too many");
        }
        texts("process.args", &self.args, ARG_BYTES)?;
        at_most("process.env", self.env.len(), ENV_ENTRIES)?;
        texts("process.env", &self.env, ARG_BYTES)?;
        if !is_plain_path(&self.cwd) {
            return refuse("process.cwd", "it is not a plain absolute path");
        }
        if !APPARMOR_PROFILES.contains(&self.apparmor_profile.as_str()) {
            return refuse(
                "process.apparmorProfile",
                "the guest's kernel has no AppArmor: ask for no profile, or for Unconfined",
            );
        }
        if !self.selinux_label.is_empty() {
            return refuse("process.selinuxLabel", NO_SELINUX);
        }
        if self.user.umask.is_some_and(|umask| umask > 0o777) {
            return refuse("process.user.umask", "it is more than 0777");
        }
        at_most("process.user.additionalGids", self.user.additional_gids.len(), GROUPS)?;
        texts("process.user.username", [&self.user.username], TEXT_BYTES)?;
        at_most("process.rlimits", self.rlimits.len(), RLIMITS)?;
        texts("process.rlimits", self.rlimits.iter().map(|limit| &limit.kind), TEXT_BYTES)?;
        for set in self.capabilities.iter().flat_map(CapabilitySets::all) {
            at_most("process.capabilities", set.len(), CAPABILITIES)?;
            texts("process.capabilities", set, TEXT_BYTES)?;
        }
        Ok(())
    }
}

fn maps(mappings: &Option<Vec<IgnoredAny>>) -> bool {
    mappings.as_ref().is_some_and(|mappings| !mappings.is_empty())
}

impl CapabilitySets {
    fn all(&self) -> [&Vec<String>; 5] {
        [&self.bounding, &self.effective, &self.inheritable, &self.permitted, &self.ambient]
    }
}

impl MountEntry {
    /// A mount that maps no users.
    pub fn new(destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        Self {
            destination: destination.to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            options: Some(options.iter().map(|&option| option.to_owned()).collect()),
            uid_mappings: None,
            gid_mappings: None,
        }
    }

    fn check(&self) -> Result<(), Refused> {
        if !is_plain_path(&self.destination) {
            return refuse("mounts.destination", "it is not a plain absolute path");
        }
        at_most("mounts.options", self.options.as_ref().map_or(0, Vec::len), MOUNT_OPTIONS)?;
        texts("mounts.options", self.options.iter().flatten(), TEXT_BYTES)?;
        texts("mounts.source", [&self.source], PATH_BYTES)?;
        if !FILE_SYSTEMS.contains(&self.kind.as_str()) {
            return refuse("mounts.type", "the guest does not mount this file system for containers");
        }
        // The library that mounts makes a bind mount if any of these options is present, whatever the type.
        let binds = self.options.iter().flatten().any(|option| BIND_OPTIONS.contains(&option.as_str()));
        if binds && self.kind != BIND {
            return refuse("mounts.options", "only a mount of type bind may be bound");
        }
        if maps(&self.uid_mappings) || maps(&self.gid_mappings) {
            return refuse("mounts.uidMappings", "the guest maps no users");
        }
        Ok(())
    }

    /// The path below the sandbox's own directory that a bind mount takes; `None` for a file system.
    ///
    /// # Errors
    /// When the source lies elsewhere.
    pub fn sandbox_path(&self) -> Result<Option<&str>, ForeignSource> {
        if self.kind != BIND {
            return Ok(None);
        }
        let inside = self
            .source
            .strip_prefix(SANDBOX_PREFIX)
            .map(|inside| inside.trim_start_matches('/'));
        let is_plain = |path: &&str| !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        inside.filter(is_plain).map(Some).ok_or_else(|| ForeignSource {
            destination: self.destination.clone(),
        })
    }
}

impl DeviceNode {
    /// Whether a container that has the node can open it. A FIFO is no device.
    fn can_be_opened(&self) -> bool {
        let is = |number: u32, wanted: i64| i64::from(number) == wanted;
        let listed = OPENABLE
            .iter()
            .any(|&(major, minor)| is(major, self.major) && minor.is_none_or(|minor| is(minor, self.minor)));
        match self.kind.as_str() {
            "c" | "u" => listed,
            kind => kind == "p",
        }
    }
}

impl Linux {
    /// Refuses a device that was asked for and cannot be opened. A privileged container asks for all that its machine has, and gets
    /// those of the guest.
    ///
    /// # Errors
    /// The first such device.
    pub fn check_devices(&self) -> Result<(), ForeignDevice> {
        if self.resources.as_ref().is_some_and(Resources::allow_every_device) {
            return Ok(());
        }
        let Some(device) = self.devices.iter().find(|device| !device.can_be_opened()) else {
            return Ok(());
        };
        Err(ForeignDevice {
            path: device.path.clone(),
            kind: device.kind.clone(),
            major: device.major,
            minor: device.minor,
        })
    }

    fn check(&self) -> Result<(), Refused> {
        if !self.mount_label.is_empty() {
            return refuse("linux.mountLabel", NO_SELINUX);
        }
        at_most("linux.sysctl", self.sysctl.len(), SYSCTL_ENTRIES)?;
        texts("linux.sysctl", self.sysctl.keys().chain(self.sysctl.values()), TEXT_BYTES)?;
        for name in self.sysctl.keys() {
            let known = SYSCTLS.iter().any(|prefix| name.starts_with(prefix)) || SYSCTL_NAMES.contains(&name.as_str());
            if !known || name.contains('/') || name.contains("..") {
                return refuse("linux.sysctl", "it does not belong to a namespace of the container");
            }
        }
        at_most("linux.namespaces", self.namespaces.len(), NAMESPACES)?;
        let asks_for = |kind: &str| self.namespaces.iter().any(|namespace| namespace.kind == kind);
        if asks_for(USER) || maps(&self.uid_mappings) || maps(&self.gid_mappings) {
            return refuse(
                "linux.namespaces",
                "user namespaces are not offered: it is the VM that separates the container from the host",
            );
        }
        if self
            .namespaces
            .iter()
            .any(|namespace| !NAMESPACE_KINDS.contains(&namespace.kind.as_str()))
        {
            return refuse("linux.namespaces", "one is of a kind that is not offered");
        }
        at_most("linux.devices", self.devices.len(), DEVICE_NODES)?;
        for device in &self.devices {
            if !is_plain_path(&device.path) || !device.path.starts_with(DEVICES) {
                return refuse("linux.devices", "a path is not below /dev");
            }
        }
        let rules = self.resources.iter().flat_map(|resources| &resources.devices).flatten();
        at_most("linux.resources.devices", rules.clone().count(), DEVICE_RULES)?;
        texts("linux.resources.devices", rules.map(|rule| &rule.kind), TEXT_BYTES)?;
        texts("linux.devices", self.devices.iter().map(|device| &device.kind), TEXT_BYTES)?;
        at_most("linux.maskedPaths", self.masked_paths.len(), GUARDED_PATHS)?;
        at_most("linux.readonlyPaths", self.readonly_paths.len(), GUARDED_PATHS)?;
        let mut paths = self.masked_paths.iter().chain(&self.readonly_paths);
        if !paths.all(|path| is_plain_path(path)) {
            return refuse("linux", "a masked or read-only path is not a plain absolute path");
        }
        self.seccomp.as_ref().map_or(Ok(()), seccomp::check)
    }
}

#[cfg(test)]
mod tests;
