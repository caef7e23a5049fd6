//! Guests that stage0 starts: the same kernel and initramfs, with one and several virtual CPUs, and none that was changed.

use crate::{
    lab::{GuestImage, Lab, NODE_CONFIG, Set},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result};
use std::{fs, time::Instant};

/// The story.
pub const STORY: Story = Story {
    name: "boot-verified",
    about: "stage0 starts a guest with 1 and with 4 virtual CPUs; a flipped bit in kernel or initramfs stops it with a code of its own",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run: boot_verified,
};

fn boot_verified(lab: &Lab) -> Result<()> {
    timed(lab, "the VMM loads the kernel", "1")?;
    let image = GuestImage::copy()?;
    let config = format!("boot = \"verified\"\nimage_dir = \"{}\"\n", image.dir().display());
    fs::write(NODE_CONFIG, config).context("cannot write the configuration")?;
    for count in ["1", "4"] {
        timed(lab, "stage0 loads the kernel", count)?;
    }
    for (file, words) in [
        ("vmlinux", "(code 0x20): the kernel is not"),
        ("initramfs.cpio", "(code 0x21): the initramfs is not"),
    ] {
        image.flip(file)?;
        lab.container(BUSYBOX)
            .command(["echo", "started"])
            .run()?
            .fails()?
            .mentions(words)?;
        lab.nothing_is_left()?;
        image.flip(file)?;
    }
    timed(lab, "stage0 loads the kernel", "1")?;
    lab.nothing_is_left()
}

/// Runs a container that counts its processors.
fn timed(lab: &Lab, what: &str, count: &str) -> Result<()> {
    let started = Instant::now();
    let container = lab
        .container(BUSYBOX)
        .option("--annotation", &format!("io.casemate.vcpus={count}"))
        .command(["grep", "-c", "^processor", "/proc/cpuinfo"]);
    container.run()?.exits_with(0)?.prints(count)?;
    println!(
        "  {what}, {count} virtual CPUs: {:.1} s from start to end",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
