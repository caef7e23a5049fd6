//! Counters of a container's cgroup, by the kernel's names.

use std::{
    collections::HashMap,
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use agent_protocol::limits::{BLOCK_DEVICES, COUNTERS};
use policy::ContainerId;

use super::directory;

/// Files with one value.
const SINGLE: [&str; 5] = ["memory.current", "memory.max", "memory.peak", "pids.current", "pids.max"];
/// Files with a name and a value per line.
const FLAT: [&str; 3] = ["cpu.stat", "memory.stat", "memory.events"];

/// The resources that a cgroup has used so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `memory.current` for a file with one value, `cpu.stat/usage_usec` for one with several; `max` is the largest number.
    pub values: HashMap<String, u64>,
    /// `io.stat`
    pub io: Vec<BlockIo>,
}

/// The line of `io.stat` for a block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockIo {
    pub major: u64,
    pub minor: u64,
    pub rbytes: u64,
    pub wbytes: u64,
    pub rios: u64,
    pub wios: u64,
}

/// Reads the container's counters; a file that this kernel does not have is omitted.
pub fn read(id: &ContainerId) -> io::Result<Counters> {
    read_at(&directory(id))
}

fn read_at(cgroup: &Path) -> io::Result<Counters> {
    let mut counters = Counters::default();
    for file in SINGLE {
        let value = text(cgroup, file)?.as_deref().map(str::trim).and_then(number);
        counters.values.extend(value.map(|value| (file.to_owned(), value)));
    }
    for file in FLAT {
        let text = text(cgroup, file)?.unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        let values = pairs.filter_map(|(name, value)| Some((format!("{file}/{name}"), number(value)?)));
        let room = COUNTERS.saturating_sub(counters.values.len());
        counters.values.extend(values.take(room));
    }
    let io = text(cgroup, "io.stat")?.unwrap_or_default();
    counters.io = io.lines().filter_map(block_io).take(BLOCK_DEVICES).collect();
    Ok(counters)
}

fn text(cgroup: &Path, file: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(cgroup.join(file)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn number(text: &str) -> Option<u64> {
    if text == "max" { Some(u64::MAX) } else { text.parse().ok() }
}

/// `254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`; a device without traffic may have only its numbers.
fn block_io(line: &str) -> Option<BlockIo> {
    let mut words = line.split(' ');
    let (major, minor) = words.next()?.split_once(':')?;
    let mut io = BlockIo {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        ..BlockIo::default()
    };
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        let value = number(value)?;
        match name {
            "rbytes" => io.rbytes = value,
            "wbytes" => io.wbytes = value,
            "rios" => io.rios = value,
            "wios" => io.wios = value,
            _ => {}
        }
    }
    Some(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_are_named_after_their_files() {
        let cgroup = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(cgroup.path().join(file), text).unwrap();
        write("memory.current", "4096\n");
        write("memory.max", "max\n");
        write("cpu.stat", "usage_usec 12\nuser_usec 7\nodd\nother x\n");
        write(
            "io.stat",
            "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n254:16 \nnonsense\n",
        );
        let counters = read_at(cgroup.path()).unwrap();
        let expected = [
            ("memory.current", 4096),
            ("memory.max", u64::MAX),
            ("cpu.stat/usage_usec", 12),
            ("cpu.stat/user_usec", 7),
        ];
        assert_eq!(
            counters.values,
            expected.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
        );
        let used = BlockIo {
            major: 254,
            minor: 0,
            rbytes: 1,
            wbytes: 2,
            rios: 3,
            wios: 4,
        };
        let idle = BlockIo {
            major: 254,
            minor: 16,
            ..BlockIo::default()
        };
        assert_eq!(counters.io, [used, idle]);
    }

    #[test]
    fn counters_are_limited_in_number() {
        let cgroup = tempfile::tempdir().unwrap();
        let many = (0..2 * COUNTERS).map(|n| format!("name{n} 1\n")).collect::<String>();
        fs::write(cgroup.path().join("memory.stat"), many).unwrap();
        assert_eq!(read_at(cgroup.path()).unwrap().values.len(), COUNTERS);
    }

    proptest! {
        #[test]
        fn any_line_is_accepted(line in ".*") {
            let _ = block_io(&line);
        }
    }
}
