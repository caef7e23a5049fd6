//! Scratch in the guest's memory: it behaves as the disk does, the host has no file of it, and a policy can require it.

use crate::{
    lab::{Ended, Lab, Policy, Set, traces},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use std::fs::{read_dir, read_link};

/// The story.
pub const STORY: Story = Story {
    name: "scratch-memory",
    about: "scratch in memory: files, whiteouts, a bound and no file on the host; a policy that requires it denies the disk",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run: scratch_memory,
};

const IN_MEMORY: &str = "io.casemate.scratch=memory";
/// A file and a directory with files, both of the image, hidden by a whiteout and an opaque directory.
const CHANGES: &str = "set -e; echo kept > /file; cat /file; echo more >> /etc/group; mv /etc/group /moved; tail -n 1 /moved; \
                       rm /etc/passwd; ! test -e /etc/passwd; rm -r /usr/share; mkdir /usr/share; ls -A /usr/share | wc -l";
/// Bytes, less than the scratch of a guest of the default size.
const LIMIT: &str = "33554432";
/// More than a guest of the default size has memory.
const FILL: &str = "dd if=/dev/zero of=/fill bs=65536 count=8192";

fn scratch_memory(lab: &Lab) -> Result<()> {
    let on_disk = lab.container(BUSYBOX).command(["sleep", "1000"]).start()?;
    ensure!(
        scratch_files()? == 1,
        "the VMM of a container with a scratch disk does not have its file"
    );
    on_disk.killed(lab)?;

    let container = lab
        .container(BUSYBOX)
        .option("--annotation", IN_MEMORY)
        .command(["sleep", "1000"])
        .start()?;
    ensure!(scratch_files()? == 0, "the host has a file for scratch in memory");
    let mounts = Ended::of(&["casemate", "console", container.id(), "--", "/init", "show", "mounts"])?.exits_with(0)?;
    let text = mounts.text();
    let scratch: Vec<&str> = text.lines().filter(|line| line.contains("scratch /run/gcs/c/")).collect();
    println!("  {scratch:?}");
    ensure!(
        matches!(scratch[..], [one] if one.contains(" tmpfs ") && one.contains("nr_inodes=")),
        "no tmpfs is mounted as scratch: {text}"
    );
    container
        .exec("changes", ["sh", "-c", CHANGES])?
        .exits_with(0)?
        .prints("kept\nmore\n0")?;
    for n in 0..2 {
        container
            .exec(&format!("fill-{n}"), ["sh", "-c", FILL])?
            .fails()?
            .mentions("No space left on device")?;
        container
            .exec(
                &format!("free-{n}"),
                ["sh", "-c", "cat /file; rm /fill; echo again > /small; cat /small"],
            )?
            .exits_with(0)?
            .prints("kept\nagain")?;
    }
    container.killed(lab)?;
    limited(lab)?;
    required(lab)?;
    lab.nothing_is_left()
}

/// What a container writes counts towards its own limit.
fn limited(lab: &Lab) -> Result<()> {
    let container = lab
        .container(BUSYBOX)
        .option("--annotation", IN_MEMORY)
        .option("--memory-limit", LIMIT)
        .command(["sleep", "1000"])
        .start()?;
    container.exec("fill", ["sh", "-c", FILL])?.exits_with(137)?;
    container.killed(lab)
}

/// A policy that requires memory denies the disk, and runs the container with memory.
fn required(lab: &Lab) -> Result<()> {
    let container = Policy::of(BUSYBOX).command(&["echo", "ran"]).generate()?;
    let policy = Policy::of_config(&format!("scratch_medium = \"memory\"\n{}", container.config()))?;
    lab.container(BUSYBOX)
        .under(&policy)
        .command(["echo", "ran"])
        .run()?
        .fails()?
        .mentions("may not be mounted: the policy requires scratch in the guest's memory")?
        .mentions("(rule rw_mount_device)")?;
    lab.container(BUSYBOX)
        .under(&policy)
        .option("--annotation", IN_MEMORY)
        .command(["echo", "ran"])
        .run()?
        .exits_with(0)?
        .prints("ran")?;
    Ok(())
}

/// The scratch files that the VMM has open.
fn scratch_files() -> Result<usize> {
    let vmm = *traces::pids_of("casemate-vmm")?.first().context("no VMM runs")?;
    let open = read_dir(format!("/proc/{vmm}/fd")).context("cannot list the VMM's files")?;
    let targets = open.filter_map(|entry| read_link(entry.ok()?.path()).ok());
    Ok(targets
        .filter(|target| target.to_string_lossy().contains("/casemate/scratch/"))
        .count())
}
