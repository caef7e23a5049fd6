//! The configuration: `/etc/casemate/config.toml` or the file that containerd's runtime options name, and annotations.

mod pod_size;

use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};
use vm_spec::{MemoryMib, SpecError, Tee, Vcpus};

/// The node's configuration; a missing file is the same as an empty one.
const PATH: &str = "/etc/casemate/config.toml";
/// Where the configuration of registries is by default.
const REGISTRIES: &str = "/etc/casemate/registries.toml";
/// Annotation: guest memory in MiB.
const MEMORY: &str = "io.casemate.memory";
/// Annotation: virtual CPUs.
const VCPUS: &str = "io.casemate.vcpus";
/// Annotation: what the sandbox's scratch is on.
const SCRATCH: &str = "io.casemate.scratch";
/// Annotation: who brings the layers of a container, or of every container of a pod.
pub const PULL: &str = "io.casemate.pull";
/// Annotation: the least protection that the guest must have.
const TEE: &str = "io.casemate.tee";

/// How sandboxes are made on this node.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the guest image (`vmlinux`, `initramfs.cpio`, `stage0`, `manifest.json`).
    pub image_dir: PathBuf,
    /// Who loads the kernel of a plain guest; any other is verified.
    pub boot: Boot,
    /// The VMM's program; absent: beside the shim, then in `PATH`.
    pub vmm: Option<PathBuf>,
    /// The converter's program; absent: as the VMM's.
    pub converter: Option<PathBuf>,
    /// Converted layers and scratch disks.
    pub cache_dir: PathBuf,
    /// The operator's configuration of registries, for guests that pull images themselves; without such a file they pull anonymously. It
    /// is not measured.
    pub registries: PathBuf,
    /// Sockets and records of running sandboxes.
    pub state_dir: PathBuf,
    /// Guest memory in MiB.
    pub memory_mib: MemoryMib,
    /// Virtual CPUs.
    pub vcpus: Vcpus,
    /// What a guest's kernel and agent take in MiB: a pod's VM has so much more than its containers' limits.
    pub guest_overhead_mib: u16,
    /// Most guest memory in MiB that an annotation may ask for; absent: what the VMM supports.
    pub max_memory_mib: Option<MemoryMib>,
    /// Most virtual CPUs that an annotation may ask for; absent: what the VMM supports.
    pub max_vcpus: Option<Vcpus>,
    /// What the scratch of a sandbox is on.
    pub scratch: Scratch,
    /// Who brings the layers of containers.
    pub pull: Pull,
    /// Size of the scratch disk in MiB; the file is sparse. Scratch in memory has half the guest's.
    pub scratch_mib: u64,
    /// Refuse a sandbox without a policy, instead of a policy that allows everything; absent: of guests with SEV-SNP.
    pub require_policy: Option<bool>,
    /// File with the Rego text of the policy for sandboxes that have none.
    pub policy_file: Option<PathBuf>,
    /// Least protection of a guest.
    pub tee: Tee,
    /// For the launch of guests with SEV-SNP.
    pub snp: SnpConfig,
    /// Keys and certificates of the simulated TEE, made for its first guest.
    pub simulated_dir: PathBuf,
    /// Seconds from the VMM's start to the agent's first answer.
    pub boot_timeout_seconds: u64,
}

/// What guests with SEV-SNP are launched with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnpConfig {
    /// The guest policy of the SNP firmware ABI; absent: SMT is allowed, and nothing else asked for.
    pub policy: Option<u64>,
    /// Files of an ID block: the firmware launches no other guest.
    pub id: Option<SnpIdConfig>,
    /// File with the table of certificates that guests get with their reports.
    pub certificates: Option<PathBuf>,
    /// No report is signed with the chip's own key (VCEK).
    pub without_vcek: bool,
}

/// Files of an ID block.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpIdConfig {
    /// The ID block.
    pub block: PathBuf,
    /// Keys and signatures.
    pub authentication: PathBuf,
}

/// Least memory of a guest with SEV-SNP: devices reach it through buffers that are a part of it.
const SNP_MEMORY_MIB: RangeInclusive<u32> = 256..=510 << 10;

/// Who loads the kernel of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// The VMM: the fastest.
    #[default]
    Direct,
    /// stage0, in the guest, if kernel and initramfs are those of the image's manifest.
    Verified,
}

/// What the scratch of a sandbox is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scratch {
    /// A disk, encrypted and authenticated by the guest.
    #[default]
    Disk,
    /// The guest's memory, of which this host cannot return an older version as it can of a block.
    Memory,
}

/// Who brings the layers of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// This host, from containerd's content store.
    #[default]
    Host,
    /// The guest, from the image's registry. It needs a network before the container is created.
    Guest,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_dir: "/usr/local/share/casemate".into(),
            boot: Boot::Direct,
            vmm: None,
            converter: None,
            cache_dir: layer_cache::DEFAULT_ROOT.into(),
            registries: REGISTRIES.into(),
            state_dir: shim_state::DEFAULT_ROOT.into(),
            memory_mib: MemoryMib::try_from(256).expect("256 MiB is in range"),
            vcpus: Vcpus::try_from(1).expect("one vCPU is in range"),
            guest_overhead_mib: 96,
            max_memory_mib: None,
            max_vcpus: None,
            scratch: Scratch::Disk,
            pull: Pull::Host,
            scratch_mib: 10 * 1024,
            require_policy: None,
            policy_file: None,
            tee: Tee::Plain,
            snp: SnpConfig::default(),
            simulated_dir: "/var/lib/casemate/simulated".into(),
            boot_timeout_seconds: 60,
        }
    }
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// Not TOML, an unknown key or a value out of range.
    #[error("the configuration {} is not valid", .0.display())]
    Toml(PathBuf, #[source] Box<toml::de::Error>),
    /// An annotation is not a number.
    #[error("annotation {0} is {1:?}, which is not a number")]
    Number(&'static str, String),
    /// An annotation is out of range.
    #[error("annotation {0} cannot be used")]
    Range(&'static str, #[source] SpecError),
    /// An annotation asks for more than the node gives.
    #[error("annotation {key} asks for {asked}, but this node gives a sandbox at most {most}")]
    AboveNode {
        /// The annotation.
        key: &'static str,
        /// Its value.
        asked: u32,
        /// The configuration's value.
        most: u32,
    },
    /// The VM is larger than its pod.
    #[error(
        "the pod's VM needs {needed} MiB ({guest} of guest memory, the rest for its VMM), but the pod's limits and overhead allow {allowed} MiB: \
         raise the overhead of the RuntimeClass or the limits"
    )]
    AbovePod {
        /// In MiB.
        needed: u64,
        /// Of it the guest's memory, in MiB.
        guest: u32,
        /// The limit of the pod's cgroup in MiB.
        allowed: u64,
    },
    /// Not one of the two names.
    #[error("annotation {SCRATCH} is {0:?}; disk and memory are known")]
    Scratch(String),
    /// Not one of the two names.
    #[error("annotation {PULL} is {0:?}; host and guest are known")]
    Pull(String),
    /// Not one of the three names.
    #[error("annotation {TEE} is {0:?}; plain, simulated and snp are known")]
    Tee(String),
    /// A container of a pod asks for more than the pod's VM has.
    #[error("annotation {TEE} of this container asks for {asked}, but the pod's VM is {booted}: put the annotation on the pod")]
    TeeOfPod {
        /// The annotation's value.
        asked: &'static str,
        /// What the VM was booted with.
        booted: &'static str,
    },
    /// The annotation requests less than the node requires.
    #[error("annotation {TEE} asks for {asked}, but this node requires at least {required}")]
    TeeLowered {
        /// The annotation's value.
        asked: &'static str,
        /// The configuration's value.
        required: &'static str,
    },
    /// Too little for bounce buffers, or no multiple of a large page.
    #[error("a guest with SEV-SNP cannot have {0} MiB of memory; give it a multiple of 2 MiB, from {least} to {most}", least = SNP_MEMORY_MIB.start(), most = SNP_MEMORY_MIB.end())]
    SnpMemory(u32),
}

impl Config {
    /// Reads the node's configuration.
    ///
    /// # Errors
    /// When the file exists and is not a valid configuration.
    pub fn load_default() -> Result<Self, ConfigError> {
        match fs::read_to_string(PATH) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(ConfigError::Read(PATH.into(), e)),
            Ok(text) => Self::parse(Path::new(PATH), &text),
        }
    }

    /// Reads the configuration that a runtime option names (`ctr run --runtime-config-path`, `config_path` of CRI).
    ///
    /// # Errors
    /// When the file is missing or not a valid configuration.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|e| ConfigError::Read(path.into(), e))?;
        Self::parse(path, &text)
    }

    /// Parses `text`, which errors call `path`.
    ///
    /// # Errors
    /// When it is not a valid configuration.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|e| ConfigError::Toml(path.into(), Box::new(e)))
    }

    /// Applies the annotations that a sandbox may carry.
    ///
    /// # Errors
    /// A value out of range, or protection below the node's or above the VMM's.
    pub fn with_annotations(mut self, annotations: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        // First: what the pod's author says of the VM itself counts more.
        pod_size::apply(&mut self, annotations)?;
        if let Some(n) = number::<u32>(annotations, MEMORY)? {
            at_most(MEMORY, n, self.max_memory_mib.map(MemoryMib::get))?;
            self.memory_mib = MemoryMib::try_from(n).map_err(|e| ConfigError::Range(MEMORY, e))?;
        }
        if let Some(n) = number::<u8>(annotations, VCPUS)? {
            at_most(VCPUS, n.into(), self.max_vcpus.map(|most| most.get().into()))?;
            self.vcpus = Vcpus::try_from(n).map_err(|e| ConfigError::Range(VCPUS, e))?;
        }
        if let Some(text) = annotations.get(SCRATCH) {
            self.scratch = match text.as_str() {
                "disk" => Scratch::Disk,
                "memory" => Scratch::Memory,
                _ => return Err(ConfigError::Scratch(text.clone())),
            };
        }
        if let Some(text) = annotations.get(PULL) {
            self.pull = match text.as_str() {
                "host" => Pull::Host,
                "guest" => Pull::Guest,
                _ => return Err(ConfigError::Pull(text.clone())),
            };
        }
        if let Some(text) = annotations.get(TEE) {
            let asked = tee(text)?;
            if rank(asked) < rank(self.tee) {
                return Err(ConfigError::TeeLowered {
                    asked: name(asked),
                    required: name(self.tee),
                });
            }
            if asked == Tee::Snp && self.tee != Tee::Snp {
                // What the node says of policies is about its own, weaker guests.
                self.require_policy = None;
            }
            self.tee = asked;
        }
        let mib = self.memory_mib.get();
        if self.tee == Tee::Snp && (!SNP_MEMORY_MIB.contains(&mib) || !mib.is_multiple_of(2)) {
            return Err(ConfigError::SnpMemory(mib));
        }
        if self.tee != Tee::Plain {
            // Nothing else is measured.
            self.boot = Boot::Verified;
        }
        Ok(self)
    }

    /// Whether the VM fits into the pod that has the cgroups `leaves`.
    ///
    /// # Errors
    /// When the pod's limit is lower.
    pub fn fits(&self, leaves: &[PathBuf]) -> Result<(), ConfigError> {
        pod_size::fits(self, leaves)
    }

    /// Whether a VM that was booted with `booted` is what a container of it asks for.
    ///
    /// # Errors
    /// It asks for more.
    pub fn served_by(&self, booted: Tee) -> Result<(), ConfigError> {
        match rank(self.tee) <= rank(booted) {
            true => Ok(()),
            false => Err(ConfigError::TeeOfPod {
                asked: name(self.tee),
                booted: name(booted),
            }),
        }
    }

    /// Whether a sandbox without a policy is refused.
    pub fn requires_policy(&self) -> bool {
        self.require_policy.unwrap_or(self.tee == Tee::Snp)
    }

    /// Time from the VMM's start to the agent's first answer.
    pub fn boot_timeout(&self) -> Duration {
        Duration::from_secs(self.boot_timeout_seconds)
    }
}

fn at_most(key: &'static str, asked: u32, most: Option<u32>) -> Result<(), ConfigError> {
    match most {
        Some(most) if asked > most => Err(ConfigError::AboveNode { key, asked, most }),
        _ => Ok(()),
    }
}

fn number<T: std::str::FromStr>(annotations: &BTreeMap<String, String>, key: &'static str) -> Result<Option<T>, ConfigError> {
    annotations
        .get(key)
        .map(|text| text.parse().map_err(|_| ConfigError::Number(key, text.clone())))
        .transpose()
}

fn tee(text: &str) -> Result<Tee, ConfigError> {
    [Tee::Plain, Tee::Simulated, Tee::Snp]
        .into_iter()
        .find(|t| name(*t) == text)
        .ok_or_else(|| ConfigError::Tee(text.to_owned()))
}

/// The names in annotation and configuration.
fn name(tee: Tee) -> &'static str {
    match tee {
        Tee::Plain => "plain",
        Tee::Simulated => "simulated",
        Tee::Snp => "snp",
    }
}

fn rank(tee: Tee) -> u8 {
    match tee {
        Tee::Plain => 0,
        Tee::Simulated => 1,
        Tee::Snp => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn an_empty_file_is_the_default_and_unknown_keys_are_errors() {
        assert_eq!(Config::parse(Path::new("x"), "").unwrap(), Config::default());
        let set = Config::parse(
            Path::new("x"),
            "memory_mib = 512\nvcpus = 2\nrequire_policy = true\nvmm = '/opt/vmm'",
        )
        .unwrap();
        assert_eq!((set.memory_mib.get(), set.vcpus.get(), set.require_policy), (512, 2, Some(true)));
        let verified = Config::parse(Path::new("x"), "boot = 'verified'").unwrap();
        assert_eq!((set.boot, verified.boot), (Boot::Direct, Boot::Verified));
        assert!(Config::parse(Path::new("x"), "boot = 'measured'").is_err());
        assert!(Config::parse(Path::new("x"), "memory = 512").is_err());
        assert!(Config::parse(Path::new("x"), "memory_mib = 1").is_err());
    }

    #[test]
    fn annotations_size_the_guest() {
        let c = Config::default()
            .with_annotations(&annotations(&[(MEMORY, "1024"), (VCPUS, "4")]))
            .unwrap();
        assert_eq!((c.memory_mib.get(), c.vcpus.get()), (1024, 4));
        for (key, bad) in [(MEMORY, "1"), (MEMORY, "lots"), (VCPUS, "0"), (VCPUS, "999")] {
            assert!(
                Config::default().with_annotations(&annotations(&[(key, bad)])).is_err(),
                "{key}={bad}"
            );
        }
    }

    #[test]
    fn annotations_stay_within_the_nodes_maxima() {
        let node = Config::parse(Path::new("x"), "max_memory_mib = 1024\nmax_vcpus = 2").unwrap();
        let sized = node
            .clone()
            .with_annotations(&annotations(&[(MEMORY, "1024"), (VCPUS, "2")]))
            .unwrap();
        assert_eq!((sized.memory_mib.get(), sized.vcpus.get()), (1024, 2));
        for (key, more) in [(MEMORY, "1025"), (VCPUS, "3")] {
            let refused = node.clone().with_annotations(&annotations(&[(key, more)]));
            assert!(matches!(refused, Err(ConfigError::AboveNode { .. })), "{key}={more}");
        }
    }

    #[test]
    fn scratch_is_where_the_annotation_says_else_where_the_node_says() {
        let scratch = |node: &str, pairs: &[(&str, &str)]| {
            let node = Config::parse(Path::new("x"), node).unwrap();
            node.with_annotations(&annotations(pairs)).map(|config| config.scratch).ok()
        };
        let memory = "scratch = 'memory'";
        assert_eq!(scratch("", &[]), Some(Scratch::Disk));
        assert_eq!(scratch("", &[(SCRATCH, "memory")]), Some(Scratch::Memory));
        assert_eq!(scratch(memory, &[]), Some(Scratch::Memory));
        assert_eq!(scratch(memory, &[(SCRATCH, "disk")]), Some(Scratch::Disk));
        for unknown in ["", "Memory", "ram"] {
            assert_eq!(scratch(memory, &[(SCRATCH, unknown)]), None, "{unknown}");
        }
        assert!(Config::parse(Path::new("x"), "scratch = 'ram'").is_err());
    }

    #[test]
    fn layers_are_brought_by_whom_the_annotation_names_else_by_whom_the_node_does() {
        let pull = |node: &str, pairs: &[(&str, &str)]| {
            let node = Config::parse(Path::new("x"), node).unwrap();
            node.with_annotations(&annotations(pairs)).map(|config| config.pull)
        };
        let guest = "pull = 'guest'";
        assert_eq!(pull("", &[]).unwrap(), Pull::Host);
        assert_eq!(pull("", &[(PULL, "guest")]).unwrap(), Pull::Guest);
        assert_eq!(pull(guest, &[]).unwrap(), Pull::Guest);
        assert_eq!(pull(guest, &[(PULL, "host")]).unwrap(), Pull::Host);
        for unknown in ["", "Guest", "both"] {
            let said = pull(guest, &[(PULL, unknown)]).unwrap_err().to_string();
            assert_eq!(
                said,
                format!("annotation io.casemate.pull is {unknown:?}; host and guest are known")
            );
        }
        assert!(Config::parse(Path::new("x"), "pull = 'both'").is_err());
    }

    #[test]
    fn protection_is_neither_lowered_nor_ignored() {
        let node = Config {
            tee: Tee::Snp,
            ..Config::default()
        };
        assert!(matches!(
            node.with_annotations(&annotations(&[(TEE, "plain")])),
            Err(ConfigError::TeeLowered { .. })
        ));
        assert!(matches!(
            Config::default().with_annotations(&annotations(&[(TEE, "Plain")])),
            Err(ConfigError::Tee(_))
        ));
        assert!(Config::default().with_annotations(&annotations(&[(TEE, "plain")])).is_ok());
    }

    #[test]
    fn whatever_is_measured_is_verified() {
        let simulated = Config::default().with_annotations(&annotations(&[(TEE, "simulated")])).unwrap();
        assert_eq!((simulated.tee, simulated.boot), (Tee::Simulated, Boot::Verified));
        let plain = Config::default().with_annotations(&annotations(&[(TEE, "plain")])).unwrap();
        assert_eq!(plain.boot, Boot::Direct);
    }

    #[test]
    fn a_guest_with_snp_is_verified_has_a_policy_and_room_for_its_buffers() {
        let text = "[snp]\npolicy = 0x30000\nid = { block = '/b', authentication = '/a' }\ncertificates = '/c'";
        let node = Config::parse(Path::new("x"), text).unwrap();
        assert_eq!(node.snp.id.as_ref().unwrap().authentication, Path::new("/a"));
        assert!(!node.requires_policy());
        let snp = node.clone().with_annotations(&annotations(&[(TEE, "snp")])).unwrap();
        assert_eq!((snp.tee, snp.boot, snp.requires_policy()), (Tee::Snp, Boot::Verified, true));
        for few in ["64", "254", "257", "522242"] {
            let refused = node.clone().with_annotations(&annotations(&[(TEE, "snp"), (MEMORY, few)]));
            assert!(matches!(refused, Err(ConfigError::SnpMemory(_))), "{few}");
        }
        assert!(Config::parse(Path::new("x"), "[snp]\nid = { block = '/b' }").is_err());
    }

    #[test]
    fn a_nodes_word_on_policies_does_not_weaken_snp() {
        let node = Config::parse(Path::new("x"), "require_policy = false").unwrap();
        assert!(!node.clone().with_annotations(&annotations(&[])).unwrap().requires_policy());
        assert!(node.with_annotations(&annotations(&[(TEE, "snp")])).unwrap().requires_policy());
        let node = Config::parse(Path::new("x"), "require_policy = false\ntee = 'snp'").unwrap();
        assert!(!node.with_annotations(&annotations(&[(TEE, "snp")])).unwrap().requires_policy());
    }

    #[test]
    fn a_container_is_not_put_into_a_weaker_vm() {
        let asked = |tee| Config::default().with_annotations(&annotations(&[(TEE, tee)])).unwrap();
        assert!(asked("snp").served_by(Tee::Snp).is_ok() && asked("plain").served_by(Tee::Snp).is_ok());
        assert!(matches!(
            asked("snp").served_by(Tee::Plain),
            Err(ConfigError::TeeOfPod {
                asked: "snp",
                booted: "plain"
            })
        ));
    }
}
