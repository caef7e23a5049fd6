//! Diagnostics for an operator, from the guest's only program: `/init show`, started under exec_external.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    process::ExitCode,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::statvfs::{FsFlags, statvfs},
};

use crate::launcher;

/// Names of the kernel's tables that can be shown (proc(5)).
const TABLES: [(&str, &str); 6] = [
    ("disks", "/proc/diskstats"),
    ("interfaces", "/proc/net/dev"),
    ("memory", "/proc/meminfo"),
    ("mounts", "/proc/self/mounts"),
    ("pressure", "/proc/pressure/memory"),
    ("version", "/proc/version"),
];
/// Longest record of the kernel's log (`CONSOLE_EXT_LOG_MAX`).
const RECORD_BYTES: usize = 8192;

/// Runs the command line, in a process that is not PID 1.
pub fn run(words: &[String]) -> ExitCode {
    let words = words.iter().map(String::as_str).collect::<Vec<_>>();
    let shown = match words.as_slice() {
        ["show"] => print(&help()),
        ["show", "processes"] => processes().and_then(|text| print(&text)),
        ["show", "integrity"] => integrity().and_then(|text| print(&text)),
        ["show", "log"] => log(),
        ["show", what] => match TABLES.iter().find(|(word, _)| word == what) {
            Some((_, file)) => fs::read_to_string(file).and_then(|text| print(&text)),
            None => return usage(),
        },
        _ => return usage(),
    };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("init: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("casemate-agent is the init of a guest; in one, an operator may ask it:\n{}", help());
    ExitCode::from(2)
}

fn help() -> String {
    let tables = TABLES.map(|(word, _)| format!("/init show {word}\n")).concat();
    format!("{tables}/init show integrity\n/init show log\n/init show processes\n")
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

/// Whether the guest's own programs can be changed: the mount flags of its root, and the seals of the launcher.
fn integrity() -> io::Result<String> {
    let flags = statvfs("/")?.flags();
    let root = if flags.contains(FsFlags::ST_RDONLY) {
        "read-only"
    } else {
        "writable"
    };
    let seals = launcher_of("/proc/1/fd")?
        .map(|file| fcntl(&file, FcntlArg::F_GET_SEALS))
        .transpose()?;
    Ok(format!("root {root}\nlauncher {}\n", seals.map_or("not sealed".to_owned(), names)))
}

/// Finds the launcher's memory file among the descriptors of a process.
fn launcher_of(descriptors: &str) -> io::Result<Option<File>> {
    let name = format!("/memfd:{}", launcher::NAME);
    for entry in fs::read_dir(descriptors)? {
        let path = entry?.path();
        if fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with(&name)) {
            return File::open(path).map(Some);
        }
    }
    Ok(None)
}

fn names(seals: i32) -> String {
    let held = SealFlag::from_bits_retain(seals)
        .iter_names()
        .map(|(name, _)| name.trim_start_matches("F_SEAL_").to_lowercase());
    held.fold("sealed".to_owned(), |text, name| text + " " + &name)
}

/// Pid, state, cgroup and name of every process.
fn processes() -> io::Result<String> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_string_lossy().parse::<u32>());
    }
    pids.sort_unstable();
    // A process that exits meanwhile is not shown.
    let lines = pids.into_iter().filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        line(pid, &stat, &cgroup)
    });
    Ok(lines.collect())
}

fn line(pid: u32, stat: &str, cgroup: &str) -> Option<String> {
    // The name is in parentheses and may contain any character, parentheses too (proc_pid_stat(5)).
    let (head, fields) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let state = fields.split(' ').next()?;
    let cgroup = cgroup.trim_end().rsplit(':').next()?;
    Some(format!("{pid:>6} {state} {cgroup} {}\n", name.escape_default()))
}

/// The kernel's log so far (Documentation/ABI/testing/dev-kmsg): each read returns one record.
fn log() -> io::Result<()> {
    let mut kmsg = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    let mut record = [0; RECORD_BYTES];
    loop {
        match kmsg.read(&mut record) {
            Ok(count) => print(&text_of(&String::from_utf8_lossy(&record[..count])))?,
            // The record was overwritten before it was read: continue with the next.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// `priority,sequence,microseconds,flags;text`, then lines with details that begin with a space.
fn text_of(record: &str) -> String {
    let (head, text) = record.split_once(';').unwrap_or(("", record));
    let microseconds = head.split(',').nth(2).unwrap_or_default();
    format!("{microseconds:>12} {}\n", text.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_line_whatever_its_name() {
        let shown = line(7, "7 (a) S (b\n) R 1 7 7", "0::/casemate/abc\n").unwrap();
        assert_eq!(shown, "     7 R /casemate/abc a) S (b\\n\n");
        assert_eq!(line(7, "nonsense", ""), None);
        assert!(processes().unwrap().lines().count() > 0);
    }

    #[test]
    fn a_sealed_launcher_is_found_among_descriptors() {
        let own = format!("/proc/{}/fd", std::process::id());
        let program = launcher::Program::sealed("/bin/true".as_ref()).unwrap();
        let found = launcher_of(&own).unwrap().unwrap();
        let seals = fcntl(&found, FcntlArg::F_GET_SEALS).unwrap();
        assert!(names(seals).starts_with("sealed seal shrink grow write"), "{}", names(seals));
        drop(program);
        assert_eq!(names(0), "sealed");
    }

    #[test]
    fn a_record_is_shown_as_time_and_first_line() {
        assert_eq!(text_of("6,1,123,-;hello\n SUBSYSTEM=x\n"), "         123 hello\n");
        assert_eq!(text_of("odd"), "             odd\n");
    }

    #[test]
    fn every_table_is_one_that_linux_has() {
        for (_, file) in TABLES.iter().filter(|(word, _)| *word != "pressure") {
            assert!(fs::metadata(file).is_ok(), "{file}");
        }
        assert!(help().contains("/init show mounts\n"));
    }
}
