//! The size of a pod's VM: from the sum of its containers' limits, which CRI puts into the sandbox's annotations, held against what the
//! pod's cgroup allows.

use super::{Config, ConfigError};
use std::{collections::BTreeMap, fs, path::Path};
use vm_spec::{MemoryMib, Tee, Vcpus};

/// CRI: sum of the containers' memory limits in bytes, restartable init containers included (`pkg/cri/annotations`).
const MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
/// CRI: sum of the containers' CPU quotas in microseconds.
const CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
/// CRI: the period of the quota in microseconds.
const CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
/// What shim and VMM take besides the guest's memory, in MiB.
const HOST_SIDE_MIB: u64 = 20;
/// A limit of a cgroup from this on is none: cgroup v1 has no other word for it.
const UNLIMITED: u64 = 1 << 62;

/// Gives `config` the size that the limits of the pod's containers ask for.
///
/// # Errors
/// More memory than the node gives a sandbox. Processors beyond the node's maximum are left out: a quota is an upper bound.
pub fn apply(config: &mut Config, annotations: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let number = |key: &str| annotations.get(key).and_then(|text| text.parse::<u64>().ok()).filter(|n| *n > 0);
    if let Some(bytes) = number(MEMORY) {
        let wanted = bytes.div_ceil(1 << 20).saturating_add(config.guest_overhead_mib.into());
        let wanted = wanted.next_multiple_of(2).min(u32::MAX.into()) as u32;
        super::at_most(MEMORY, wanted, config.max_memory_mib.map(MemoryMib::get))?;
        // The annotation may raise what the node says.
        let is_snp = config.tee == Tee::Snp || annotations.get(super::TEE).is_some_and(|asked| asked == super::name(Tee::Snp));
        let least = if is_snp { *super::SNP_MEMORY_MIB.start() } else { 0 };
        config.memory_mib = MemoryMib::try_from(wanted.max(least)).map_err(|e| ConfigError::Range(MEMORY, e))?;
    }
    if let (Some(quota), Some(period)) = (number(CPU_QUOTA), number(CPU_PERIOD)) {
        let host = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let most = config.max_vcpus.map_or(u64::from(VCPUS_MAX), |most| most.get().into());
        let count = quota.div_ceil(period).clamp(1, host.max(1).min(most)) as u8;
        config.vcpus = Vcpus::try_from(count).map_err(|e| ConfigError::Range(CPU_QUOTA, e))?;
    }
    Ok(())
}

/// Most processors of a VM.
const VCPUS_MAX: u8 = 64;

/// Refuses a VM that does not fit into the pod's cgroup, whose limit the kubelet sets to the containers' limits and the overhead of
/// the RuntimeClass. `leaves` are the cgroups of the VMM; their parents are the pod's.
///
/// # Errors
/// With both numbers.
pub fn fits(config: &Config, leaves: &[impl AsRef<Path>]) -> Result<(), ConfigError> {
    let needed = u64::from(config.memory_mib.get()) + HOST_SIDE_MIB;
    let limits = leaves.iter().filter_map(|leaf| limit(leaf.as_ref().parent()?));
    match limits.min() {
        Some(bytes) if needed << 20 > bytes => Err(ConfigError::AbovePod {
            needed,
            guest: config.memory_mib.get(),
            allowed: bytes >> 20,
        }),
        _ => Ok(()),
    }
}

/// The memory limit of a cgroup in bytes.
fn limit(cgroup: &Path) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).ok();
    let text = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?;
    text.trim().parse().ok().filter(|bytes| *bytes < UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(node: &str, pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut config = Config::parse(Path::new("x"), node).unwrap();
        apply(&mut config, &annotations).map(|()| config)
    }

    #[test]
    fn a_pod_has_room_for_its_containers_and_its_guest() {
        let config = sized(
            "guest_overhead_mib = 100",
            &[(MEMORY, "209715201"), (CPU_QUOTA, "0"), (CPU_PERIOD, "100000")],
        )
        .unwrap();
        assert_eq!((config.memory_mib.get(), config.vcpus.get()), (302, 1));
        // A guest with SEV-SNP is never too small for its buffers.
        let snp = Config::default().with_annotations(&BTreeMap::from(
            [(MEMORY, "1048576"), (super::super::TEE, "snp")].map(|(k, v)| (k.to_owned(), v.to_owned())),
        ));
        assert_eq!(snp.unwrap().memory_mib.get(), 256);
        // Without limits it is as the configuration says.
        let config = sized("memory_mib = 512", &[(MEMORY, "0")]).unwrap();
        assert_eq!(config.memory_mib.get(), 512);
        assert!(matches!(
            sized("max_memory_mib = 256", &[(MEMORY, "268435456")]),
            Err(ConfigError::AboveNode { .. })
        ));
    }

    #[test]
    fn processors_follow_the_quota_within_the_nodes() {
        let count = |quota: &str| {
            let config = sized("max_vcpus = 1", &[(CPU_QUOTA, quota), (CPU_PERIOD, "100000")]);
            config.unwrap().vcpus.get()
        };
        assert_eq!((count("1000"), count("100000"), count("6400000")), (1, 1, 1));
    }

    #[test]
    fn a_vm_beyond_the_pods_cgroup_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let leaf = [dir.path().join("leaf")];
        let config = Config::parse(Path::new("x"), "memory_mib = 256").unwrap();
        fits(&config, &leaf).unwrap();
        for (limit, allowed) in [
            ("max", true),
            ("289406976", true),
            ("289406975", false),
            ("9223372036854771712", true),
        ] {
            fs::write(dir.path().join("memory.max"), limit).unwrap();
            assert_eq!(fits(&config, &leaf).is_ok(), allowed, "{limit}");
        }
        fs::write(dir.path().join("memory.max"), "209715200").unwrap();
        let text = fits(&config, &leaf).unwrap_err().to_string();
        assert!(text.contains("276") && text.contains("200"), "{text}");
    }
}
