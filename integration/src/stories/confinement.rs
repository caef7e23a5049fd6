//! A running VMM as seen from the host: its user and its remaining privileges.

use crate::{
    lab::{Lab, Set, traces, vm},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use std::fs::{read_dir, read_to_string};
use std::path::Path;
use vm_spec::control::WatchdogStats;

/// The story.
pub const STORY: Story = Story {
    name: "vmm-confined",
    about: "the VMM of a running container has a user of its own, no privilege, no file, and a seccomp filter on every thread",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run: vmm_confined,
};

/// Ids of VMMs (the shim's `spawn.rs`).
const IDS: std::ops::Range<u32> = 0x7000_0000..0x7800_0000;

fn vmm_confined(lab: &Lab) -> Result<()> {
    let container = lab.container(BUSYBOX).command(["sleep", "1000"]).start()?;
    container.exec("work", ["sh", "-c", "find / -xdev | wc -l"])?.exits_with(0)?;
    let pid = *traces::pids_of("casemate-vmm")?.first().context("no VMM runs")?;
    let field = |file: &str, name: &str| -> Result<String> {
        let text = read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("cannot read {file} of the VMM"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        Ok(line.split_ascii_whitespace().next().unwrap_or_default().to_owned())
    };
    let uid: u32 = field("status", "Uid:")?.parse().context("no user id")?;
    println!("  the VMM {pid} is user {uid:#x}");
    ensure!(IDS.contains(&uid), "the VMM runs as user {uid}");
    for set in ["CapPrm:", "CapEff:", "CapInh:", "CapBnd:", "CapAmb:"] {
        ensure!(field("status", set)? == "0000000000000000", "{set} is not empty");
    }
    for thread in read_dir(format!("/proc/{pid}/task")).context("no threads")? {
        let status = format!("task/{}/status", thread?.file_name().display());
        // Kernel threads that KVM starts under the VMM's name never run user code.
        let is_kernels = field(&status, "Name:")?.starts_with("kvm-");
        ensure!(is_kernels || field(&status, "Seccomp:")? == "2", "{status}: no filter");
    }
    ensure!(
        read_dir(format!("/proc/{pid}/root/")).context("no root")?.count() == 0,
        "the VMM's root has files"
    );
    let sandbox = shim_state::find(Path::new(shim_state::DEFAULT_ROOT), container.id())?;
    let stats = vm::stats(&sandbox.control_socket())?;
    ensure!(
        stats.watchdog == WatchdogStats::default(),
        "the watchdog reacted to a well-behaved guest: {:?}",
        stats.watchdog
    );
    println!("  {} exits so far, to the VMM: {:?}", stats.exits, stats.to_vmm);
    container.killed(lab)?;
    lab.nothing_is_left()
}
