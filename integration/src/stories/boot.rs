//! Guests that stage0 starts: the same kernel and initramfs, with one and several virtual CPUs, and none that was changed.

use crate::{
    lab::{Lab, Set},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// The story.
pub const STORY: Story = Story {
    name: "boot-verified",
    about: "stage0 starts a guest with 1 and with 4 virtual CPUs; a flipped bit in kernel or initramfs stops it with a code of its own",
    runtimes: OURS,
    set: Set::Short,
    machines: Machines::Shared,
    run: boot_verified,
};

const CONFIG: &str = "/etc/casemate/config.toml";
const IMAGE: &str = "/usr/local/share/casemate";
const FILES: [&str; 4] = ["vmlinux", "initramfs.cpio", "stage0", "manifest.json"];
/// A byte well inside of either file.
const FLIPPED: usize = 1 << 20;

/// A copy of the installed guest image, removed at the end.
struct Image(PathBuf);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Image {
    fn copy() -> Result<Self> {
        let image = Self("/run/boot-verified".into());
        fs::create_dir_all(&image.0).context("cannot create a directory for the image")?;
        for file in FILES {
            fs::copy(Path::new(IMAGE).join(file), image.0.join(file)).with_context(|| format!("cannot copy {file}"))?;
        }
        Ok(image)
    }

    /// Flips a bit of a file, or flips it back.
    fn flip(&self, file: &str) -> Result<()> {
        let path = self.0.join(file);
        let mut bytes = fs::read(&path).with_context(|| format!("cannot read {file}"))?;
        *bytes.get_mut(FLIPPED).with_context(|| format!("{file} is too short"))? ^= 1;
        fs::write(&path, bytes).with_context(|| format!("cannot write {file}"))
    }
}

fn boot_verified(lab: &Lab) -> Result<()> {
    timed(lab, "the VMM loads the kernel", "1")?;
    let image = Image::copy()?;
    let config = format!("boot = \"verified\"\nimage_dir = \"{}\"\n", image.0.display());
    fs::write(CONFIG, config).context("cannot write the configuration")?;
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
