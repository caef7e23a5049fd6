//! The cgroup that a spec names.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use oci_spec::runtime::Spec;

/// The cgroup v2 hierarchy.
const ROOT: &str = "/sys/fs/cgroup";

/// Why a process is in no cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The agent sent a spec without one.
    #[error("the spec has no cgroup")]
    Missing,
    /// The kernel refused.
    #[error("joining the cgroup: {0}")]
    Join(#[source] io::Error),
}

/// The directory of the cgroup that `spec` names.
///
/// # Errors
/// It names none.
pub fn of(spec: &Spec) -> Result<PathBuf, CgroupError> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    let path = path.ok_or(CgroupError::Missing)?;
    Ok(Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(path)))
}

/// Moves the calling process into the cgroup that `spec` names.
///
/// # Errors
/// There is none, or it takes no process.
pub fn join(spec: &Spec) -> Result<(), CgroupError> {
    fs::write(of(spec)?.join("cgroup.procs"), "0").map_err(CgroupError::Join)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_lie_below_the_hierarchy() {
        let spec: Spec = serde_json::from_str(r#"{"ociVersion":"1.0.2","linux":{"cgroupsPath":"/casemate/abc"}}"#).unwrap();
        assert_eq!(of(&spec).unwrap(), Path::new("/sys/fs/cgroup/casemate/abc"));
        let spec: Spec = serde_json::from_str(r#"{"ociVersion":"1.0.2","linux":{}}"#).unwrap();
        assert!(matches!(of(&spec), Err(CgroupError::Missing)));
    }
}
