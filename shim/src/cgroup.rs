//! Puts VMM and converters into the pod's cgroup, so that their memory and CPU time count against the pod.
//!
//! Best effort: the container's leaf is made only where its parent exists (kubelet makes it). A process that cannot be moved
//! runs in the shim's cgroup.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

/// Where cgroup file systems are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Controllers of cgroup v1 that account for a VM.
const V1_CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "blkio"];

/// What the name of a converter's leaf has between that of its container and the process id.
const CONVERTER: &str = "-layer-";

/// Pause between attempts to remove a leaf whose last process is ending.
const POLL: Duration = Duration::from_millis(5);

/// Moves `pid`, a process that the log calls `name`, into each of the leaves, which are made where they do not exist.
pub fn place(leaves: &[PathBuf], name: &str, pid: u32) {
    if leaves.is_empty() {
        log::info!("{name} {pid} runs in the shim's cgroup: the parent of the container's cgroup does not exist on this host");
    }
    for leaf in leaves {
        if let Err(error) = enter(leaf, pid) {
            log::warn!("{name} {pid} stays outside of cgroup {}: {error}", leaf.display());
        }
    }
}

/// The leaf that `cgroups_path` names, in each hierarchy that has its parent.
pub fn leaves(cgroups_path: &str) -> Vec<PathBuf> {
    let path = relative(cgroups_path);
    let leaves = path.iter().flat_map(|path| roots().into_iter().map(move |root| root.join(path)));
    leaves.filter(|leaf| leaf.parent().is_some_and(Path::is_dir)).collect()
}

/// Removes the leaves; they are empty once their process has ended.
pub fn remove(leaves: &[PathBuf]) {
    for leaf in leaves {
        if let Err(error) = fs::remove_dir(leaf)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("cannot remove cgroup {}: {error}", leaf.display());
        }
    }
}

/// Removes the leaves of a VMM that was just killed and is not our child, and those of converters beside them. A leaf is busy
/// until the last thread has left it; waits for that at most `limit`.
pub fn remove_within(leaves: &[PathBuf], limit: Duration) {
    let deadline = Instant::now() + limit;
    let converters = leaves.iter().flat_map(|leaf| of_converters(leaf));
    let leaves: &Vec<_> = &leaves.iter().cloned().chain(converters).collect();
    let busy = |leaf: &PathBuf| fs::remove_dir(leaf).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy);
    while leaves.iter().filter(|leaf| busy(leaf)).count() > 0 && Instant::now() < deadline {
        std::thread::sleep(POLL);
    }
    remove(leaves);
}

/// The `cgroups_path` of a converter: beside the leaf of its container, which the VMM may be in.
pub fn of_converter(cgroups_path: &str, pid: u32) -> String {
    format!("{cgroups_path}{CONVERTER}{pid}")
}

/// Leaves of converters beside a container's leaf.
fn of_converters(leaf: &Path) -> Vec<PathBuf> {
    let (Some(parent), Some(name)) = (leaf.parent(), leaf.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{}{CONVERTER}", name.strip_suffix(".scope").unwrap_or(name));
    let found = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
    found.filter(is_one).collect()
}

/// Makes the leaf if need be and moves the process into it; a leaf that was made in vain is removed.
fn enter(leaf: &Path, pid: u32) -> io::Result<()> {
    let made = match fs::create_dir(leaf) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        other => other.map(|()| true)?,
    };
    let entered = File::options()
        .write(true)
        .open(leaf.join("cgroup.procs"))
        .and_then(|mut procs| procs.write_all(pid.to_string().as_bytes()));
    if entered.is_err() && made {
        let _ = fs::remove_dir(leaf);
    }
    entered
}

fn roots() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    V1_CONTROLLERS
        .iter()
        .map(|controller| root.join(controller))
        .filter(|dir| dir.is_dir())
        .collect()
}

/// The path below the root of a hierarchy. systemd's form `slice:prefix:name` becomes the path of its scope.
fn relative(cgroups_path: &str) -> Option<PathBuf> {
    let path = match cgroups_path.split(':').collect::<Vec<_>>()[..] {
        [slice, prefix, name] => expand_slice(slice)?.join(format!("{prefix}-{name}.scope")),
        _ => PathBuf::from(cgroups_path.trim_start_matches('/')),
    };
    // A leaf directly below the root would have the root itself as its parent, which always exists.
    let normal = path.components().all(|c| matches!(c, Component::Normal(_)));
    (normal && path.components().count() > 1).then_some(path)
}

/// systemd.slice(5): `a-b.slice` lies in `a.slice`.
fn expand_slice(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(".slice")?;
    let mut path = PathBuf::new();
    let mut name = String::new();
    for part in stem.split('-').filter(|_| stem != "-") {
        if part.is_empty() {
            return None;
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push(format!("{name}.slice"));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_become_paths_below_the_root() {
        assert_eq!(relative("/kubepods/pod1/c1"), Some("kubepods/pod1/c1".into()));
        assert_eq!(
            relative("kubepods-burstable-pod1.slice:cri-containerd:c1"),
            Some("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-c1.scope".into())
        );
    }

    #[test]
    fn leaves_of_converters_that_a_killed_shim_left_are_removed_with_the_vmms() {
        for (path, leaf) in [("/pod/c1", "pod/c1"), ("pod.slice:cri:c1", "pod.slice/cri-c1.scope")] {
            let root = tempfile::tempdir().unwrap();
            let below = |path: &str| root.path().join(relative(path).unwrap());
            let converter = below(&of_converter(path, 17));
            let other = below(&of_converter(&path.replace("c1", "c2"), 18));
            let leaf = root.path().join(leaf);
            for dir in [&leaf, &converter, &other] {
                fs::create_dir_all(dir).unwrap();
            }
            remove_within(std::slice::from_ref(&leaf), Duration::ZERO);
            assert!(!leaf.exists() && !converter.exists() && other.exists());
        }
    }

    #[test]
    fn no_path_leads_out_of_the_hierarchy() {
        for bad in ["", "/", "/c1", "/a/../../b", "../x/y", "a--b.slice:p:n", "noslice:p:n"] {
            assert_eq!(relative(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_leaf_that_cannot_be_entered_is_not_left() {
        // A directory that is no cgroup has no cgroup.procs.
        let dir = tempfile::tempdir().unwrap();
        assert!(enter(&dir.path().join("leaf"), std::process::id()).is_err());
        assert!(!dir.path().join("leaf").exists());
        // One that was there is not ours to remove.
        fs::create_dir(dir.path().join("theirs")).unwrap();
        assert!(enter(&dir.path().join("theirs"), std::process::id()).is_err());
        assert!(dir.path().join("theirs").exists());
    }
}
