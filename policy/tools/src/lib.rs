//! Tools for policies: generation from a configuration, checks, simulation, and explanation of denials.
//!
//! ```text
//! Config::from_bytes ─► sources: OCI layout, layer files or given hashes ─► containers, defaults filled in ─► marshal ─► policy text
//! ```
//! A generated policy allows exactly the containers of the configuration: their layers, command, environment, user, mounts,
//! capabilities, exec processes and signals, and the pod's pause container. Host data must have its digest ([`policy::digest`]).
//!
//! Functions beside [`generate`]:
//!
//! | for | function |
//! |---|---|
//! | fragments | [`generate_fragment`], [`sign()`], [`issuer_of`], [`injection`] |
//! | checks of a policy | [`Document`], [`check()`], [`simulate()`], [`explain()`] |
//! | denials in an error text | [`explain_all`], [`policy::extract_decision`] |
//! | base64 of a policy | [`policy_text`] |
//! | what a policy was made of | [`pinned`], [`pins`] |
//! | digests | [`policy::digest`], [`policy::seccomp_digest`], [`layer::hash`] |
//! | default mounts and capabilities | [`policy::data`] |
//! | what `az confcom` reads | [`Config::from_json`] |
//! | root hashes from one run to the next | [`RootCache`] |
//! | users of a root file system | [`rootfs::identify`] |
//! | the security context directory | [`SecurityContextFiles`] |
//! | the legacy JSON form | [`convert_legacy`], [`write_legacy`] |
//!
//! ```toml
//! [[container]]
//! image = "images/redis"            # an OCI layout, a docker save archive or a skopeo dir:, beside this file
//! command = ["redis-server"]        # default: the image's ENTRYPOINT and CMD
//! allow_stdio_access = true
//! signals = [9, 15]
//!
//! [[container.env_rule]]
//! strategy = "re2"                  # or "string"
//! rule = "NONCE=[0-9a-f]{1,64}"
//! required = false
//!
//! [[container.exec_process]]
//! command = ["redis-cli", "ping"]
//! signals = [9, 15]
//! ```
//!
//! Images that the guest may pull itself, of which hcsshim knows nothing:
//!
//! ```toml
//! [[pull]]
//! strategy = "re2"                  # or "string", for one image
//! rule = 'ghcr\.io/team/app@sha256:[0-9a-f]{64}'
//! ```
//!
//! For a pod of Kubernetes, the policy also allows the guest's own pause container, any network, and what the kubelet and containerd add:
//!
//! ```toml
//! [pod]
//! share_process_namespace = true    # default: not. This and the next keys need casemate_version
//! hosts = [{ strategy = "re2", rule = '[0-9a-f.:]+\s+\S+' }]      # lines of /etc/hosts; default: any, also of hostname and resolv_conf
//! ```
//!
//! With `casemate_version = "1.0.0"` the policy also decides on confinement, networks and forwarded ports, which hcsshim's cannot:
//!
//! ```toml
//! casemate_version = "1.0.0"
//!
//! [[network]]                       # allowed configuration of the guest's interface
//! interface = "eth0"
//! address = [{ strategy = "re2", rule = "10\.88\.[0-9.]+/16" }]
//! route = [{ strategy = "any" }]
//! nameserver = [{ rule = "10.88.0.1" }]
//!
//! [[container]]
//! layers = ["…"]
//! masked_paths = ["/proc/kcore"]    # default: OCI's lists
//! readonly_paths = ["/proc/sys"]
//! pod_namespaces = ["network"]      # default: network, ipc, uts
//! rlimit = [{ type = "RLIMIT_NOFILE", soft = 1024, hard = "unlimited" }]
//! sysctls = { "net.core.somaxconn" = "1024" }
//! forwarded_ports = [8080]
//! readonly_root = true              # default: as the host chooses, as for the next two and for mounts without `required`
//! oom_score_adj = { max = 0 }
//! limits = { "memory.max" = { min = 268435456 } }    # in these bounds at creation, and changeable within them
//! allow_pause = true                # default: not
//! allow_reports = true              # default: not
//! mount = [{ host_path = "sandbox:///data", container_path = "/data", required = true }]
//! ```

#![forbid(unsafe_code)]

mod archive;
mod check;
mod confcom;
mod config;
mod confinement;
mod container;
mod document;
mod explain;
mod file;
pub mod fuzz;
mod inject;
mod json;
mod legacy;
mod marshal;
mod pin;
mod read;
mod root_cache;
pub mod rootfs;
mod rule;
mod sign;
mod simulate;
mod source;
mod text;

use std::path::{Path, PathBuf};

use thiserror::Error;

use confinement::Confinement;

pub use check::{Finding, Severity, check};
pub use config::{
    Auth, Capabilities, Config, Container, Definition, EnvRule, ExactMount, ExecProcess, ExternalProcess, Fragment, IdName, Limit, Mount,
    Network, Pod, Rlimit, Strategy, TextRule, Unlimited, User, WindowsContainer, WindowsExecProcess,
};
pub use document::{Document, DocumentError};
pub use explain::{Difference, Explanation, Nearest, NoDenial, explain, explain_all};
pub use inject::injection;
pub use legacy::{LegacyError, MAX_LEGACY_BYTES, convert_legacy, write_legacy};
pub use pin::{Pin, pinned, pins};
pub use policy::{SECURITY_CONTEXT_PREFIX, SECURITY_CONTEXT_VARIABLE, SecurityContextFiles};
pub use root_cache::{KnownLayer, RootCache, RootCacheError};
pub use sign::{FRAGMENT_TYPE, SignError, Signing, issuer_of, sign};
pub use simulate::{Command, MAX_COMMANDS, MAX_COMMANDS_BYTES, Outcome, SimulateError, read_commands, simulate};
pub use source::Sources;
pub use text::{TextError, policy_text};

/// Largest configuration in bytes.
pub const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Why no policy is generated.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The configuration is not TOML of the documented keys.
    #[error("the configuration is not valid")]
    Config(#[from] toml::de::Error),
    /// The configuration is not JSON of the documented keys.
    #[error("the configuration is not valid")]
    Json(#[from] serde_json::Error),
    /// A container or process has a field that cannot be used.
    #[error("{place}: {problem}")]
    Field {
        /// Which container or process.
        place: String,
        /// The fault.
        problem: String,
    },
    /// `allow_all` together with containers.
    #[error("Invalid policy for open-door enforcer: allow_all leaves no room for containers")]
    OpenDoor,
    /// An image cannot be read.
    #[error("{place}: cannot read image")]
    Image {
        /// Which container.
        place: String,
        /// The cause.
        #[source]
        source: oci::StoreError,
    },
    /// A layer cannot be converted.
    #[error("cannot hash layer {}", path.display())]
    Layer {
        /// The layer's file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: layer::ConvertError,
    },
    /// A layer does not have the digest that the image lists.
    #[error("layer {} does not have the diff id of its image", path.display())]
    DiffId {
        /// The layer's file.
        path: PathBuf,
    },
    /// The seccomp profile is not valid.
    #[error("{place}: seccomp profile is not valid")]
    Seccomp {
        /// Which container.
        place: String,
        /// The cause.
        #[source]
        source: policy::SeccompError,
    },
    /// The generated policy does not load because of a value of the configuration.
    #[error("the generated policy does not load")]
    Policy(#[from] policy::PolicyError),
}

/// Generates the policy text of a configuration. Paths in it are relative to `base_dir`.
///
/// # Errors
/// A source cannot be read, a field cannot be used, or the result would not load.
pub fn generate(config: &Config, base_dir: &Path) -> Result<String, GenerateError> {
    generate_warning(config, &Sources::of(base_dir), &mut |_| {})
}

/// As [`generate`]; `warn` is told what the policy's owner should know.
///
/// # Errors
/// As [`generate`].
pub fn generate_warning(config: &Config, sources: &Sources<'_>, warn: &mut dyn FnMut(String)) -> Result<String, GenerateError> {
    if config.allow_all {
        if config.scratch_medium.is_some() {
            return Err(GenerateError::Field {
                place: "scratch_medium".to_owned(),
                problem: "allow_all allows every medium".to_owned(),
            });
        }
        if config.is_empty() {
            return Ok(policy::OPEN_DOOR.to_owned());
        }
        return Err(GenerateError::OpenDoor);
    }
    let resolved = Resolved::new(config, sources, warn)?;
    let networks = confinement::networks(config)?;
    let pulls = confinement::pulls(config)?;
    let pod_lines = confinement::pod_lines(config)?;
    let text = marshal::policy(config, &resolved.objects(config), &networks, &pulls, pod_lines.as_ref());
    policy::Enforcer::new(&text)?;
    Ok(text)
}

/// Generates the text of a fragment, to be signed and loaded under a policy that names its signer.
///
/// `namespace` is the package of the fragment, `svn` its security version, a number as text.
///
/// # Errors
/// As [`generate`]; the namespace is reserved or invalid; the configuration has flags, networks or pulls, which only a policy has.
pub fn generate_fragment(config: &Config, namespace: &str, svn: &str, base_dir: &Path) -> Result<String, GenerateError> {
    generate_fragment_warning(config, namespace, svn, &Sources::of(base_dir), &mut |_| {})
}

/// As [`generate_fragment`]; `warn` is told what the fragment's owner should know.
///
/// # Errors
/// As [`generate_fragment`].
pub fn generate_fragment_warning(
    config: &Config,
    namespace: &str,
    svn: &str,
    sources: &Sources<'_>,
    warn: &mut dyn FnMut(String),
) -> Result<String, GenerateError> {
    let field = |problem: &str| GenerateError::Field {
        place: format!("fragment {namespace:?}"),
        problem: problem.to_owned(),
    };
    let plain = namespace.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !namespace.starts_with(|c: char| c.is_ascii_digit());
    if namespace.is_empty() || !plain {
        return Err(field("a namespace consists of letters, digits and underscores"));
    }
    if RESERVED_NAMESPACES.contains(&namespace) {
        return Err(field("this namespace is reserved"));
    }
    if svn.parse::<u64>().is_err() && semver_like(svn).is_none() {
        return Err(field("the security version is a number"));
    }
    if config.has_flags() {
        return Err(field("a fragment has no flags"));
    }
    if !config.network.is_empty() {
        return Err(field("a fragment has no networks"));
    }
    if config.pod.is_some() {
        return Err(field("a fragment has no pod"));
    }
    if !config.pull.is_empty() {
        return Err(field("a fragment allows no pulls"));
    }
    let resolved = Resolved::new(config, sources, warn)?;
    let text = marshal::fragment_text(namespace, svn, &resolved.objects(config));
    Document::read(&text).map_err(|error| field(&error.to_string()))?;
    Ok(text)
}

/// Packages that a fragment must not have: those of framework and policy, and the names of the base data.
pub const RESERVED_NAMESPACES: &[&str] = &[
    "framework",
    "api",
    "policy",
    "metadata",
    "defaultMounts",
    "privilegedMounts",
    "sandboxPrefix",
    "hugePagesPrefix",
    "plan9Prefix",
    "defaultUnprivilegedCapabilities",
    "defaultPrivilegedCapabilities",
];

/// Older fragments have semantic versions.
fn semver_like(svn: &str) -> Option<()> {
    let parts: Vec<_> = svn.split('.').map(str::parse::<u64>).collect::<Result<_, _>>().ok()?;
    (parts.len() == 3).then_some(())
}

/// The objects of a configuration with their defaults.
struct Resolved {
    containers: Vec<container::PolicyContainer>,
    windows_containers: Vec<container::PolicyWindowsContainer>,
    processes: Vec<container::PolicyProcess>,
}

impl Resolved {
    fn new(config: &Config, sources: &Sources<'_>, warn: &mut dyn FnMut(String)) -> Result<Self, GenerateError> {
        config.notes.iter().cloned().for_each(&mut *warn);
        confinement::check_version(config)?;
        let mut containers = Vec::with_capacity(config.container.len() + 1);
        for (index, container) in config.container.iter().enumerate() {
            let place = place(index, container);
            let resolved = container::resolve(container, &place, sources, warn)?;
            if config.casemate_version.is_none() && resolved.confinement != Confinement::default() {
                let problem = "confinement and forwarded ports need casemate_version".to_owned();
                return Err(GenerateError::Field { place, problem });
            }
            containers.push(match &config.pod {
                Some(pod) => container::in_pod(resolved, pod),
                None => resolved,
            });
        }
        let mut windows_containers = Vec::with_capacity(config.windows_container.len());
        for (index, container) in config.windows_container.iter().enumerate() {
            let place = format!("windows_container {}", index + 1);
            let resolved = container::windows(container).map_err(|problem| GenerateError::Field {
                place: place.clone(),
                problem,
            })?;
            if !config.container.is_empty() {
                let problem = "a guest runs either Linux or Windows; write two policies".to_owned();
                return Err(GenerateError::Field { place, problem });
            }
            windows_containers.push(resolved);
        }
        if windows_containers.is_empty() {
            containers.extend(config.pod.as_ref().map(container::own_pause));
            containers.push(container::pause());
        }
        Ok(Self {
            containers,
            windows_containers,
            processes: config.external_process.iter().map(container::external).collect(),
        })
    }

    fn objects<'a>(&'a self, config: &'a Config) -> marshal::Objects<'a> {
        marshal::Objects {
            fragments: &config.fragment,
            containers: &self.containers,
            windows_containers: &self.windows_containers,
            processes: &self.processes,
        }
    }
}

/// The name of a container in messages.
fn place(index: usize, container: &Container) -> String {
    match (&container.image_name, &container.image) {
        (Some(name), _) => format!("container {} ({name})", index + 1),
        (None, Some(path)) => format!("container {} ({})", index + 1, path.display()),
        (None, None) => format!("container {}", index + 1),
    }
}

#[cfg(test)]
mod tests;
