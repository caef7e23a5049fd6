//! `casemate ps` and `casemate stats`: the sandboxes of this node and the counters of their VMs.

use crate::{config::directories, output::print};
use agent_protocol::guest_text;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use shim_state::{Record, SandboxDir};
use std::fs;
use std::path::Path;
use vm_spec::control::{Client, Reply, Request, Stats};

/// One line of `ps`.
#[derive(Debug, PartialEq, Serialize)]
struct Line {
    namespace: String,
    id: String,
    /// `running`, or `dead` when only the directory is left.
    status: &'static str,
    vmm_pid: u32,
    shim_pid: u32,
    /// Resident memory of the VMM in KiB, including its guest's.
    memory_kib: u64,
}

/// Lists the sandboxes of this node.
pub fn ps(json: bool) -> Result<()> {
    let lines = list(&directories()?.state_dir)?;
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
            guest_text(&line.namespace),
            guest_text(&line.id),
            line.status,
            line.vmm_pid,
            line.shim_pid,
            memory
        ))?;
    }
    Ok(())
}

/// Prints the counters of one sandbox's VM.
pub fn stats(id: &str, json: bool) -> Result<()> {
    let stats = counters(&find(id)?)?;
    if json {
        print(&serde_json::to_string(&stats)?)?;
        return Ok(());
    }
    print(&format!("{:<40} {:>14}", "exits", stats.exits))?;
    for (name, count) in &stats.to_vmm {
        print(&format!("{:<40} {count:>14}", format!("to the VMM: {}", guest_text(name))))?;
    }
    let watchdog = &stats.watchdog;
    for (name, count) in [
        ("storms", watchdog.storms),
        ("throttled exits", watchdog.throttled),
        ("suspended queue handlers", watchdog.silenced),
    ] {
        print(&format!("{:<40} {count:>14}", format!("watchdog: {name}")))?;
    }
    for (name, count) in stats.kvm.iter().filter(|(_, count)| **count != 0) {
        print(&format!("{:<40} {count:>14}", format!("kvm: {}", guest_text(name))))?;
    }
    Ok(())
}

/// Every sandbox below `root`, by namespace and id.
fn list(root: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for directory in shim_state::all(root)? {
        // A sandbox that boots or ends right now has no record.
        let Some(record) = Record::load(&directory)? else {
            continue;
        };
        let alive = record.vmm.is_alive();
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

/// Opens the state directory of the sandbox `id` on this node.
pub(crate) fn find(id: &str) -> Result<SandboxDir> {
    Ok(shim_state::find(&directories()?.state_dir, id)?)
}

/// Reads the counters from the VMM of a sandbox.
fn counters(sandbox: &SandboxDir) -> Result<Stats> {
    let client = Client::connect(&sandbox.control_socket()).context("cannot connect to the VMM")?;
    match client.request(&Request::Stats).context("the VMM does not answer")? {
        Reply::Stats(stats) => Ok(stats),
        other => bail!("the VMM answered a request for its counters with {other:?}"),
    }
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
    use shim_state::{OwnedSandboxDir, ProcessId};
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    fn sandbox(root: &Path, namespace: &str, id: &str, vmm: ProcessId) -> PathBuf {
        let directory = SandboxDir::path_below(root, namespace, id);
        fs::create_dir_all(&directory).unwrap();
        let record = Record {
            id: id.to_owned(),
            namespace: namespace.to_owned(),
            vmm,
            shim: ProcessId { pid: 1, start_time: 0 },
            cgroups: Vec::new(),
        };
        fs::write(directory.join("state.json"), serde_json::to_vec(&record).unwrap()).unwrap();
        directory
    }

    #[test]
    fn ps_tells_running_from_dead_sandboxes() {
        let root = tempfile::tempdir().unwrap();
        let this = ProcessId::of(std::process::id()).unwrap();
        sandbox(root.path(), "default", "web", this);
        sandbox(root.path(), "k8s.io", "old", ProcessId { start_time: 1, ..this });
        let mut zombie = std::process::Command::new("true").spawn().unwrap();
        let vmm = ProcessId::of(zombie.id()).unwrap();
        while vmm.is_alive() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        sandbox(root.path(), "k8s.io", "zombie", vmm);
        fs::create_dir_all(root.path().join("default/booting")).unwrap();
        let lines = list(root.path()).unwrap();
        let seen: Vec<_> = lines.iter().map(|l| (l.namespace.as_str(), l.id.as_str(), l.status)).collect();
        assert_eq!(
            seen,
            [
                ("default", "web", "running"),
                ("k8s.io", "old", "dead"),
                ("k8s.io", "zombie", "dead")
            ]
        );
        assert!(lines[0].memory_kib > 0);
        assert!(list(Path::new("/nonexistent")).unwrap().is_empty());
        zombie.wait().unwrap();
    }

    #[test]
    fn counters_come_over_the_control_socket() {
        use nix::sys::socket::{MsgFlags, accept, recv, send};
        use vm_spec::control::MESSAGE_MAX_BYTES;
        let root = tempfile::tempdir().unwrap();
        let sandbox = OwnedSandboxDir::create(root.path(), "default", "web").unwrap();
        let listener = sandbox.bind_control().unwrap();
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
        assert_eq!(counters(sandbox.dir()).unwrap().exits, 42);
        vmm.join().unwrap();
    }
}
