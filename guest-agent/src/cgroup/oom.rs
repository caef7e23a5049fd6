//! Reports OOM kills in a container.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
};

use policy::ContainerId;
use tokio::io::Interest;

use super::directory;
use crate::{
    reaper::{ExitWatch, ended},
    sys,
};

/// Longest `memory.events` that is read, in bytes; Linux 6.12 writes about 100.
const EVENTS_BYTES: usize = 4096;

/// The number of OOM kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomCount {
    /// Processes killed since the container's creation, including those in cgroups below its own.
    pub kills: u64,
    /// The init has exited, so this is the last count.
    pub is_last: bool,
}

/// Waits until there were more than `seen`, or until the init has exited.
///
/// The kernel counts before it sends SIGKILL, so the count read after the init's exit includes the kill of the init.
pub async fn beyond(id: &ContainerId, seen: u64, init: ExitWatch) -> io::Result<OomCount> {
    let file = match File::open(directory(id).join("memory.events")) {
        Ok(file) => sys::register_for_changes(file)?,
        // Removed between the look-up and here: nothing more will happen in it.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(OomCount {
                kills: seen,
                is_last: true,
            });
        }
        Err(error) => return Err(error),
    };
    loop {
        let is_last = init.borrow().is_some();
        match count(file.get_ref()) {
            Ok(kills) if is_last || kills > seen => return Ok(OomCount { kills, is_last }),
            Ok(_) => {}
            // The cgroup was removed while its file was open.
            Err(_) if is_last => return Ok(OomCount { kills: seen, is_last }),
            Err(error) => return Err(error),
        }
        tokio::select! {
            changed = file.ready(Interest::PRIORITY) => changed?.clear_ready(),
            _ = ended(init.clone()) => {}
        }
    }
}

fn count(file: &File) -> io::Result<u64> {
    let mut bytes = [0; EVENTS_BYTES];
    let length = file.read_at(&mut bytes, 0)?;
    let text = std::str::from_utf8(&bytes[..length]).map_err(|_| ErrorKind::InvalidData)?;
    Ok(kills(text))
}

fn kills(events: &str) -> u64 {
    let mut lines = events.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(name, _)| *name == "oom_kill")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_kills_are_distinguished_from_refused_allocations() {
        assert_eq!(kills("low 0\nhigh 0\nmax 5\noom 4\noom_kill 3\noom_group_kill 2\n"), 3);
        assert_eq!(kills("low 0\n"), 0);
        assert_eq!(kills("oom_kill many\n"), 0);
    }
}
