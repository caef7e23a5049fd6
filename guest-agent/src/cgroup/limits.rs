//! Changes limits of a running container, all or none.

use std::{fs, io, path::Path};

use policy::{ContainerId, action};

use super::directory;
use crate::decode::Limits;

/// Sets the container's limits, all of them or none.
pub fn set(id: &ContainerId, limits: &Limits) -> io::Result<()> {
    set_at(&directory(id), limits)
}

/// A limit that is less than what the container uses.
#[derive(Debug, PartialEq, Eq)]
pub struct BelowUse {
    /// Its file.
    pub file: &'static str,
    /// The new limit.
    pub requested: u64,
    /// The least that would be accepted.
    pub least: u64,
}

/// Least `cpu.max` where no policy judges it, in microseconds per 100 ms: the least that Kubernetes sets (1 % of a CPU).
const LEAST_CPU: u64 = 1_000;

/// The first limit that is less than what the container uses now.
pub fn below_use(id: &ContainerId, limits: &action::Limits) -> io::Result<Option<BelowUse>> {
    below_use_at(&directory(id), limits)
}

fn below_use_at(cgroup: &Path, limits: &action::Limits) -> io::Result<Option<BelowUse>> {
    let used = |file: &str| -> io::Result<u64> {
        let text = fs::read_to_string(cgroup.join(file))?;
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    };
    for (file, usage) in [
        ("memory.max", Some("memory.current")),
        ("pids.max", Some("pids.current")),
        ("cpu.max", None),
    ] {
        let Some(requested) = limits.get(file).copied().flatten() else {
            continue;
        };
        let least = usage.map_or(Ok(LEAST_CPU), used)?;
        if requested < least {
            return Ok(Some(BelowUse { file, requested, least }));
        }
    }
    Ok(None)
}

fn set_at(cgroup: &Path, limits: &Limits) -> io::Result<()> {
    let mut before = Vec::with_capacity(limits.files().len());
    for (file, text) in limits.files() {
        let path = cgroup.join(file);
        let changed = fs::read_to_string(&path).and_then(|old| {
            before.push((path.clone(), old));
            fs::write(&path, text)
        });
        if let Err(error) = changed {
            for (path, old) in before.iter().rev() {
                // The kernel had these values before; the first error is reported.
                let _ = fs::write(path, old.trim_end());
            }
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use container_document::Resources;

    fn limits(json: &str) -> Limits {
        Limits::try_from(&serde_json::from_str::<Resources>(json).unwrap()).unwrap()
    }

    #[test]
    fn no_limit_is_below_what_is_in_use() {
        let cgroup = tempfile::tempdir().unwrap();
        fs::write(cgroup.path().join("memory.current"), "8192\n").unwrap();
        fs::write(cgroup.path().join("pids.current"), "3\n").unwrap();
        let below = |json: &str| below_use_at(cgroup.path(), &limits(json).values()).unwrap();
        for fine in [
            "{}",
            r#"{"memory":{"limit":8192},"pids":{"limit":3}}"#,
            r#"{"memory":{"limit":-1},"cpu":{"quota":-1}}"#,
            r#"{"cpu":{"quota":1000}}"#,
        ] {
            assert_eq!(below(fine), None, "{fine}");
        }
        let (file, requested, least) = ("memory.max", 4096, 8192);
        assert_eq!(below(r#"{"memory":{"limit":4096}}"#), Some(BelowUse { file, requested, least }));
        assert_eq!(below(r#"{"pids":{"limit":2}}"#).unwrap().file, "pids.max");
        assert_eq!(below(r#"{"cpu":{"quota":1000,"period":1000000}}"#).unwrap().requested, 100);
    }

    #[test]
    fn if_one_limit_cannot_be_set_the_others_are_restored() {
        let cgroup = tempfile::tempdir().unwrap();
        let memory = cgroup.path().join("memory.max");
        fs::write(&memory, "max\n").unwrap();
        let both = limits(r#"{"memory":{"limit":4096},"pids":{"limit":3}}"#);
        assert!(set_at(cgroup.path(), &both).is_err(), "there is no pids.max");
        assert_eq!(fs::read_to_string(&memory).unwrap(), "max");
        fs::write(cgroup.path().join("pids.max"), "max\n").unwrap();
        set_at(cgroup.path(), &both).unwrap();
        assert_eq!(fs::read_to_string(&memory).unwrap(), "4096");
    }
}
