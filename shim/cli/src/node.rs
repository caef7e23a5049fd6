//! `casemate ps` and `casemate stats`: the sandboxes of this node and what KVM counts for them.
//!
//! A sandbox's directory, `/run/casemate/<namespace>/<id>`, holds the shim's record and the VMM's control socket.

use crate::answer::print;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use vm_spec::control::{Client, Reply, Request, Stats};

/// Where shims keep their sandboxes, unless the node's configuration says otherwise.
const STATE_DIR: &str = "/run/casemate";
/// The node's configuration.
const CONFIG: &str = "/etc/casemate/config.toml";

/// The part of the shim's record that is shown.
#[derive(Deserialize)]
struct Record {
    id: String,
    namespace: String,
    vmm: Process,
    shim: Process,
}

#[derive(Deserialize)]
struct Process {
    pid: u32,
    start_time: u64,
}

/// One line of `ps`.
#[derive(Debug, PartialEq, Serialize)]
struct Line {
    namespace: String,
    id: String,
    /// `running`, or `dead` when only the directory is left.
    status: &'static str,
    vmm_pid: u32,
    shim_pid: u32,
    /// Resident memory of the VMM in KiB, its guest's included.
    memory_kib: u64,
}

/// Lists the sandboxes of this node.
pub fn ps(json: bool) -> Result<()> {
    let lines = list(&state_dir()?)?;
    if json {
        print(&serde_json::to_string(&lines)?)?;
        return Ok(());
    }
    print(&format!(
        "{:<12} {:<40} {:<8} {:>8} {:>8} {:>10}",
        "NAMESPACE", "SANDBOX", "STATUS", "VMM", "SHIM", "MEMORY"
    ))?;
    for line in lines {
        let memory = format!("{} MiB", line.memory_kib / 1024);
        print(&format!(
            "{:<12} {:<40} {:<8} {:>8} {:>8} {:>10}",
            line.namespace, line.id, line.status, line.vmm_pid, line.shim_pid, memory
        ))?;
    }
    Ok(())
}

/// Prints the counters of one sandbox's VM.
pub fn stats(id: &str, json: bool) -> Result<()> {
    let stats = ask(&find(&state_dir()?, id)?)?;
    if json {
        print(&serde_json::to_string(&stats)?)?;
        return Ok(());
    }
    print(&format!("{:<40} {:>14}", "exits", stats.exits))?;
    for (name, count) in &stats.to_vmm {
        print(&format!("{:<40} {count:>14}", format!("to the VMM: {name}")))?;
    }
    let watchdog = &stats.watchdog;
    for (name, count) in [
        ("storms", watchdog.storms),
        ("throttled exits", watchdog.throttled),
        ("silenced doorbells", watchdog.silenced),
    ] {
        print(&format!("{:<40} {count:>14}", format!("watchdog: {name}")))?;
    }
    for (name, count) in stats.kvm.iter().filter(|(_, count)| **count != 0) {
        print(&format!("{:<40} {count:>14}", format!("kvm: {name}")))?;
    }
    Ok(())
}

/// What the configuration says, as far as it concerns these commands.
pub(crate) fn state_dir() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Config {
        state_dir: Option<PathBuf>,
    }
    let text = match fs::read_to_string(CONFIG) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(STATE_DIR.into()),
        other => other.with_context(|| format!("cannot read {CONFIG}"))?,
    };
    let config: Config = toml::from_str(&text).with_context(|| format!("{CONFIG} is not valid"))?;
    Ok(config.state_dir.unwrap_or_else(|| STATE_DIR.into()))
}

/// Every sandbox below `root`, by namespace and id.
fn list(root: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for directory in sandboxes(root)? {
        // A sandbox that boots or ends right now has no record.
        let Ok(text) = fs::read(directory.join("state.json")) else {
            continue;
        };
        let record: Record = serde_json::from_slice(&text).with_context(|| format!("{} is no record", directory.display()))?;
        let alive = start_time(record.vmm.pid) == Some(record.vmm.start_time);
        lines.push(Line {
            namespace: record.namespace,
            id: record.id,
            status: if alive { "running" } else { "dead" },
            vmm_pid: record.vmm.pid,
            shim_pid: record.shim.pid,
            memory_kib: if alive { resident_kib(record.vmm.pid) } else { 0 },
        });
    }
    Ok(lines)
}

fn sandboxes(root: &Path) -> Result<Vec<PathBuf>> {
    let below = |directory: &Path| -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        match fs::read_dir(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            entries => {
                for entry in entries.with_context(|| format!("cannot read {}", directory.display()))? {
                    found.push(entry?.path());
                }
            }
        }
        found.retain(|path| path.is_dir());
        found.sort();
        Ok(found)
    };
    let mut all = Vec::new();
    for namespace in below(root)? {
        all.extend(below(&namespace)?);
    }
    Ok(all)
}

/// The directory of the sandbox `id`, in whichever namespace it is.
pub(crate) fn find(root: &Path, id: &str) -> Result<PathBuf> {
    let mut found = sandboxes(root)?;
    found.retain(|path| path.file_name().is_some_and(|name| name == id));
    match found.len() {
        0 => bail!("no sandbox {id} runs on this node"),
        1 => Ok(found.remove(0)),
        n => bail!("{n} namespaces have a sandbox {id}"),
    }
}

/// Asks the VMM of the sandbox in `directory`.
fn ask(directory: &Path) -> Result<Stats> {
    let handle = File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    // By descriptor: a socket's path ends at 107 bytes, ids may be longer.
    let path = PathBuf::from(format!("/proc/self/fd/{}/control.sock", handle.as_raw_fd()));
    let client = Client::connect(&path).context("the VMM cannot be asked")?;
    match client.request(&Request::Stats).context("the VMM does not answer")? {
        Reply::Stats(stats) => Ok(stats),
        other => bail!("the VMM gave another answer: {other:?}"),
    }
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)); the name before it may hold spaces and parentheses.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(root: &Path, namespace: &str, id: &str, start_time: u64) -> PathBuf {
        let directory = root.join(namespace).join(id);
        fs::create_dir_all(&directory).unwrap();
        let pid = std::process::id();
        let record = format!(
            r#"{{"id":"{id}","namespace":"{namespace}","vmm":{{"pid":{pid},"start_time":{start_time}}},"shim":{{"pid":1,"start_time":0}},"cgroups":[]}}"#
        );
        fs::write(directory.join("state.json"), record).unwrap();
        directory
    }

    #[test]
    fn living_and_dead_sandboxes_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        sandbox(root.path(), "default", "web", start_time(std::process::id()).unwrap());
        sandbox(root.path(), "k8s.io", "old", 1);
        fs::create_dir_all(root.path().join("default/booting")).unwrap();
        let lines = list(root.path()).unwrap();
        let seen: Vec<_> = lines.iter().map(|l| (l.namespace.as_str(), l.id.as_str(), l.status)).collect();
        assert_eq!(seen, [("default", "web", "running"), ("k8s.io", "old", "dead")]);
        assert!(lines[0].memory_kib > 0);
        assert!(list(Path::new("/nonexistent")).unwrap().is_empty());
    }

    #[test]
    fn an_id_must_name_one_sandbox() {
        let root = tempfile::tempdir().unwrap();
        let directory = sandbox(root.path(), "default", "web", 1);
        assert_eq!(find(root.path(), "web").unwrap(), directory);
        assert!(find(root.path(), "db").is_err());
        sandbox(root.path(), "other", "web", 1);
        assert!(find(root.path(), "web").is_err());
    }

    #[test]
    fn counters_come_over_the_control_socket() {
        use nix::sys::socket::{AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept, bind, listen, recv, send, socket};
        use vm_spec::control::MESSAGE_MAX_BYTES;
        let root = tempfile::tempdir().unwrap();
        let directory = sandbox(root.path(), "default", "web", 1);
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&directory.join("control.sock")).unwrap()).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let vmm = std::thread::spawn(move || {
            let client = accept(listener.as_raw_fd()).unwrap();
            let mut request = vec![0; MESSAGE_MAX_BYTES];
            let length = recv(client, &mut request, MsgFlags::empty()).unwrap();
            assert_eq!(serde_json::from_slice::<Request>(&request[..length]).unwrap(), Request::Stats);
            let reply = Reply::Stats(Stats {
                exits: 42,
                ..Default::default()
            });
            send(client, &serde_json::to_vec(&reply).unwrap(), MsgFlags::empty()).unwrap();
            nix::unistd::close(client).unwrap();
        });
        assert_eq!(ask(&directory).unwrap().exits, 42);
        vmm.join().unwrap();
    }
}
