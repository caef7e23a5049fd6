//! Changes limits of a running container, all or none.

use std::{fs, io, path::Path};

use policy::ContainerId;

use super::directory;
use crate::decode::Limits;

/// Sets the container's limits, all of them or none.
pub fn set(id: &ContainerId, limits: &Limits) -> io::Result<()> {
    set_at(&directory(id), limits)
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
    use launcher_protocol::Resources;

    fn limits(json: &str) -> Limits {
        Limits::try_from(&serde_json::from_str::<Resources>(json).unwrap()).unwrap()
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
