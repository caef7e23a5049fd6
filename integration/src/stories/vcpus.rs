//! Guests with several virtual CPUs, under the system call filters and with the VMM's limit of threads.

use crate::{
    lab::{
        Lab, Set,
        traces::{pids_named, pss_kib},
    },
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::Result;

/// The story.
pub const STORY: Story = Story {
    name: "vcpus",
    about: "a guest boots with 2 and with 16 virtual CPUs, and its container sees each of them",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run: vcpus,
};

fn vcpus(lab: &Lab) -> Result<()> {
    for count in ["2", "16"] {
        let container = lab
            .container(BUSYBOX)
            .option("--annotation", &format!("io.casemate.vcpus={count}"))
            .command(["sleep", "1000"])
            .start()?;
        container
            .exec("count", ["grep", "-c", "^processor", "/proc/cpuinfo"])?
            .exits_with(0)?
            .prints(count)?;
        for pid in pids_named("casemate-vmm")? {
            println!("  a VM with {count} virtual CPUs takes {} KiB of the host's memory", pss_kib(pid)?);
        }
        container.killed(lab)?;
    }
    lab.nothing_is_left()
}
