//! Full or read-only disks: what needs them fails with the reason, everything else keeps working, and freed space is usable again.

use super::forget_containers;
use crate::{
    lab::{Ended, Lab, Set, Traces},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "scratch-full",
        about: "a full scratch disk is an error for the writer, and freed space can be used again",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: scratch_full,
    },
    Story {
        name: "cache-full",
        about: "a full disk under the layer cache and the scratch disk is a clear error, and no partial layer stays",
        runtimes: OURS,
        set: Set::Full,
        machines: Machines::Spread { machines: 2, minutes: 20 },
        run: cache_full,
    },
    Story {
        name: "cache-read-only",
        about: "a read-only layer cache is a clear error",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: cache_read_only,
    },
    Story {
        name: "run-full",
        about: "a full /run is a clear error to a new container, and a running one can still be stopped",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Spread { machines: 2, minutes: 20 },
        run: run_full,
    },
];

const CACHE: &str = "/var/lib/casemate";
const RUN: &str = "/run";
const CONFIG: &str = "/etc/casemate/config.toml";
/// A scratch disk in MiB that is smaller than what the story writes.
const SCRATCH_MIB: u32 = 48;
/// fsync, because data in the guest's page cache is not on the disk yet.
const FILL: &str = "dd if=/dev/zero of=/fill bs=65536 count=1024 conv=fsync";
const ROUNDS_SHORT: u32 = 2;
const ROUNDS_FULL: u32 = 40;
/// Free space up to this size, in KiB: busybox's layer has about 2 MiB, so more always suffices.
const CACHE_SLACK_KIB: usize = 3072;
/// Free space in /run, in KiB: a console takes 128 KiB, a bundle and a record a few pages each.
const RUN_SLACK_KIB: usize = 288;
const NO_SPACE: [&str; 2] = ["No space left on device", "no space left on device"];
/// If the layer fits but the scratch disk does not, the guest fails: it sees that its disk fails but not why.
const NO_SPACE_IN_THE_CACHE: [&str; 3] = [NO_SPACE[0], NO_SPACE[1], "Input/output error"];
const READ_ONLY: [&str; 2] = ["Read-only file system", "read-only file system"];

fn scratch_full(lab: &Lab) -> Result<()> {
    std::fs::write(CONFIG, format!("scratch_mib = {SCRATCH_MIB}\n")).context("cannot write the configuration")?;
    let container = lab.container(BUSYBOX).command(["sleep", "100000"]).start()?;
    for n in 0..2 {
        says(&container.exec(&format!("fill-{n}"), ["sh", "-c", FILL])?.fails()?, &NO_SPACE)?;
        // Only what did not fit is lost, and freed space can be used again.
        container
            .exec(&format!("full-{n}"), ["echo", "here"])?
            .exits_with(0)?
            .prints("here")?;
        container
            .exec(
                &format!("free-{n}"),
                ["sh", "-c", "rm /fill && echo small >/small && sync && cat /small"],
            )?
            .exits_with(0)?
            .prints("small")?;
    }
    container.killed(lab)?;
    std::fs::remove_file(CONFIG).context("cannot remove the configuration")?;
    lab.nothing_is_left()
}

fn cache_full(lab: &Lab) -> Result<()> {
    let mut random = lab.scope().random();
    for _ in 0..lab.scope().rounds(ROUNDS_SHORT, ROUNDS_FULL) {
        let slack = random.below(CACHE_SLACK_KIB);
        let full = FullDisk::leaving(CACHE, slack)?;
        runs_or_fails_with(lab, &NO_SPACE_IN_THE_CACHE)?;
        drop(full);
        forget_containers(&[])?;
        lab.nothing_is_left()?;
        no_half_layers()?;
        let _ = std::fs::remove_dir_all(Path::new(CACHE).join("layers"));
    }
    // The disk becomes full after the start: the backing file of the scratch disk cannot grow.
    let container = lab.container(BUSYBOX).command(["sleep", "100000"]).start()?;
    let full = FullDisk::leaving(CACHE, 0)?;
    container.exec("write", ["sh", "-c", FILL])?.fails()?;
    container.exec("still", ["echo", "here"])?.exits_with(0)?.prints("here")?;
    container.killed(lab)?;
    drop(full);
    lab.nothing_is_left()?;
    runs_again(lab)?;
    lab.nothing_is_left()
}

fn cache_read_only(lab: &Lab) -> Result<()> {
    // First without the layer in the cache, then with it.
    for _ in 0..2 {
        remount(CACHE, "ro")?;
        let result = lab.container(BUSYBOX).command(["echo", "ran"]).run();
        remount(CACHE, "rw")?;
        says(&result?.fails()?, &READ_ONLY)?;
        forget_containers(&[])?;
        lab.nothing_is_left()?;
        runs_again(lab)?;
        no_half_layers()?;
    }
    lab.nothing_is_left()
}

fn run_full(lab: &Lab) -> Result<()> {
    let mut random = lab.scope().random();
    let container = lab.container(BUSYBOX).command(["sleep", "100000"]).start()?;
    let known = Traces::now()?;
    for _ in 0..lab.scope().rounds(ROUNDS_SHORT, ROUNDS_FULL) {
        let full = FullDisk::leaving(RUN, random.below(RUN_SLACK_KIB))?;
        runs_or_fails_with(lab, &NO_SPACE)?;
        drop(full);
        forget_containers(&[container.id()])?;
        lab.nothing_is_left_but(&known)?;
    }
    // A running container can be stopped without free space.
    let full = FullDisk::leaving(RUN, 0)?;
    container.killed(lab)?;
    drop(full);
    lab.nothing_is_left()?;
    runs_again(lab)?;
    lab.nothing_is_left()
}

/// With free space again, a container runs.
fn runs_again(lab: &Lab) -> Result<()> {
    lab.container(BUSYBOX)
        .command(["echo", "room"])
        .run()?
        .exits_with(0)?
        .prints("room")?;
    Ok(())
}

/// Checks that a container either runs normally, or fails with one of the reasons.
fn runs_or_fails_with(lab: &Lab, reasons: &[&str]) -> Result<()> {
    let ended = lab.container(BUSYBOX).command(["echo", "ran"]).run()?;
    match ended.status {
        0 => ended.prints("ran").map(drop),
        _ => says(&ended, reasons),
    }
}

fn says(ended: &Ended, reasons: &[&str]) -> Result<()> {
    let said = ended.said();
    ensure!(
        reasons.iter().any(|reason| said.contains(reason)),
        "`{}` mentions none of {reasons:?}; it printed: {said}",
        ended.words
    );
    Ok(())
}

/// Checks that the cache has the whole layer or none of it, and no lock but those of the node's slots.
fn no_half_layers() -> Result<()> {
    let entries = std::fs::read_dir(Path::new(CACHE).join("layers")).into_iter().flatten();
    let names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| !name.starts_with("slot-"))
        .collect();
    let whole = |name: &String| match name.rsplit_once('.') {
        Some((stem, "ext4" | "json")) => names.contains(&format!("{stem}.ext4")) && names.contains(&format!("{stem}.json")),
        _ => false,
    };
    ensure!(names.iter().all(whole), "the cache has an incomplete layer: {names:?}");
    Ok(())
}

fn remount(path: &str, options: &str) -> Result<()> {
    Ended::of(&["mount", "-o", &format!("remount,{options}"), path])?.exits_with(0)?;
    Ok(())
}

/// A tmpfs that was shrunk to little free space; dropping this restores its size.
struct FullDisk(&'static str);

impl FullDisk {
    fn leaving(path: &'static str, kib: usize) -> Result<Self> {
        let now = nix::sys::statvfs::statvfs(path).with_context(|| format!("cannot measure {path}"))?;
        let used = (now.blocks() - now.blocks_free()) * now.fragment_size() / 1024;
        remount(path, &format!("size={}k", used + kib as u64))?;
        Ok(Self(path))
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        if let Err(error) = remount(self.0, "size=50%") {
            println!("  {} stays small: {error:#}", self.0);
        }
    }
}
