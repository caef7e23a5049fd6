//! The cgroup freezer: freezes and thaws every process of a container.
//!
//! A frozen process can still be killed by SIGKILL (cgroup-v2.rst, `cgroup.freeze`), so a paused container can be killed.

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use policy::ContainerId;

use super::{POLL, directory};

/// Freezes every process of the container; if some are not frozen at the deadline, thaws them all and returns false.
pub fn freeze(id: &ContainerId, within: Duration) -> io::Result<bool> {
    freeze_at(&directory(id), within)
}

/// Thaws the processes.
pub fn thaw(id: &ContainerId) -> io::Result<()> {
    thaw_at(&directory(id))
}

fn freeze_at(cgroup: &Path, within: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + within;
    fs::write(cgroup.join("cgroup.freeze"), "1")?;
    loop {
        let frozen = is_frozen(cgroup).inspect_err(|_| {
            // The first error is reported.
            let _ = thaw_at(cgroup);
        });
        if frozen? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            thaw_at(cgroup)?;
            return Ok(false);
        }
        thread::sleep(POLL);
    }
}

fn thaw_at(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.freeze"), "0")
}

fn is_frozen(cgroup: &Path) -> io::Result<bool> {
    let events = fs::read_to_string(cgroup.join("cgroup.events"))?;
    Ok(events.lines().any(|line| line == "frozen 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_freeze_is_thawed() {
        let cgroup = tempfile::tempdir().unwrap();
        let events = cgroup.path().join("cgroup.events");
        let asked = || fs::read_to_string(cgroup.path().join("cgroup.freeze")).unwrap();
        fs::write(&events, "populated 1\nfrozen 0\n").unwrap();
        assert!(!freeze_at(cgroup.path(), Duration::from_millis(5)).unwrap());
        assert_eq!(asked(), "0");
        fs::write(&events, "populated 1\nfrozen 1\n").unwrap();
        assert!(freeze_at(cgroup.path(), Duration::from_millis(5)).unwrap());
        assert_eq!(asked(), "1");
    }
}
