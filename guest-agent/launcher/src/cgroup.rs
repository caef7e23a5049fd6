//! The cgroup that a request names.

use std::{fs, io, path::PathBuf};

use launcher_protocol::{CGROUP_ROOT, Cause};

/// The directory of a cgroup whose path is relative to the hierarchy's root.
pub fn directory(cgroup: &str) -> PathBuf {
    PathBuf::from(CGROUP_ROOT).join(cgroup.trim_start_matches('/'))
}

/// Moves the calling process into the cgroup, and resets the OOM score that it inherited from the agent: with the agent's score,
/// the OOM killer would choose the container's init instead of the new process.
///
/// # Errors
/// The kernel rejects the process or the score.
pub fn join(cgroup: &str, oom_score_adj: i32) -> Result<(), Cause> {
    let joined = set_oom_score(oom_score_adj).and_then(|()| fs::write(directory(cgroup).join("cgroup.procs"), "0"));
    joined.map_err(|_| Cause::Resources)
}

/// Sets the OOM score adjustment of the calling process and its children.
///
/// # Errors
/// The kernel rejects the number.
pub fn set_oom_score(oom_score_adj: i32) -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", oom_score_adj.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn cgroups_are_below_the_hierarchy() {
        assert_eq!(directory("/casemate/abc"), Path::new("/sys/fs/cgroup/casemate/abc"));
        assert_eq!(directory("casemate/abc"), Path::new("/sys/fs/cgroup/casemate/abc"));
    }
}
