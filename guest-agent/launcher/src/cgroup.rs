//! The cgroup that a request names.

use std::{fs, io, path::PathBuf};

use launcher_protocol::{CGROUP_ROOT, Cause};

/// The directory of a cgroup that is named relative to the hierarchy's root.
pub fn directory(cgroup: &str) -> PathBuf {
    PathBuf::from(CGROUP_ROOT).join(cgroup.trim_start_matches('/'))
}

/// Moves the calling process into the cgroup, and takes the agent's protection from the OOM killer away: the score is
/// inherited, and would have the container's init killed in place of the process that is started.
///
/// # Errors
/// The cgroup takes no process, or the kernel does not take the score.
pub fn join(cgroup: &str, oom_score_adj: i32) -> Result<(), Cause> {
    let joined = set_oom_score(oom_score_adj).and_then(|()| fs::write(directory(cgroup).join("cgroup.procs"), "0"));
    joined.map_err(|_| Cause::Resources)
}

/// Sets how likely the OOM killer chooses the calling process and what it starts.
///
/// # Errors
/// The kernel does not take the number.
pub fn set_oom_score(oom_score_adj: i32) -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", oom_score_adj.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn cgroups_lie_below_the_hierarchy() {
        assert_eq!(directory("/casemate/abc"), Path::new("/sys/fs/cgroup/casemate/abc"));
        assert_eq!(directory("casemate/abc"), Path::new("/sys/fs/cgroup/casemate/abc"));
    }
}
