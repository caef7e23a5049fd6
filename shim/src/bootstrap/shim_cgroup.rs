//! The cgroup that a client of containerd wants its shim in (`shim_cgroup` of runc's options).

use super::BootstrapError;
use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

/// Where cgroup file systems are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// Puts the process into `cgroup`, which must exist: in the unified hierarchy, or in every one of version 1 that has it.
///
/// # Errors
/// When no hierarchy has the cgroup, or the process cannot be put into it.
pub fn join(cgroup: &str, pid: u32) -> Result<(), BootstrapError> {
    join_below(Path::new(ROOT), cgroup, pid)
}

fn join_below(root: &Path, cgroup: &str, pid: u32) -> Result<(), BootstrapError> {
    let inside = Path::new(cgroup.trim_start_matches('/'));
    let failed = |path: PathBuf, source| BootstrapError::Path {
        doing: "put the shim into cgroup",
        path,
        source,
    };
    if inside.as_os_str().is_empty() || !inside.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(failed(cgroup.into(), io::ErrorKind::InvalidInput.into()));
    }
    let mut found = false;
    for hierarchy in hierarchies(root) {
        let dir = hierarchy.join(inside);
        if dir.is_dir() {
            fs::write(dir.join("cgroup.procs"), pid.to_string()).map_err(|e| failed(dir, e))?;
            found = true;
        }
    }
    if found {
        Ok(())
    } else {
        Err(failed(root.join(inside), io::ErrorKind::NotFound.into()))
    }
}

fn hierarchies(root: &Path) -> Vec<PathBuf> {
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    // Some are links to another one, such as cpu to cpu,cpuacct: entered once.
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    real.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shim_enters_the_cgroup_in_every_hierarchy_that_has_it() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["memory/a/b", "devices/a/b", "pids"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        join_below(root.path(), "/a/b", 77).unwrap();
        let procs = |hierarchy: &str| fs::read_to_string(root.path().join(hierarchy).join("a/b/cgroup.procs")).ok();
        assert_eq!(
            [procs("memory"), procs("devices"), procs("pids")],
            [Some("77".into()), Some("77".into()), None]
        );
        // One hierarchy, whose root has this file.
        fs::write(root.path().join("cgroup.controllers"), "").unwrap();
        let missing = join_below(root.path(), "/a/b", 77).unwrap_err();
        assert!(missing.to_string().ends_with("/a/b"), "{missing}");
    }

    #[test]
    fn no_path_leads_out_of_the_hierarchy() {
        let root = tempfile::tempdir().unwrap();
        for bad in ["", "/", "/../a", "a/../../b"] {
            assert!(join_below(root.path(), bad, 77).is_err(), "{bad:?}");
        }
    }
}
