//! Data that the host damages leads to an error, never to wrong data; a killed VMM leaves nothing behind.

use crate::{
    lab::{Ended, Lab, Set, is_running, traces},
    stories::story::{Machines, OURS, Story},
    testbed::images::{BUSYBOX, DATA_FILE, data},
};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "flipped-bit",
        about: "a flipped bit in a cached layer is an I/O error inside, until casemate gc finds it",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: flipped_bit,
    },
    Story {
        name: "broken-layer",
        about: "a cached layer that cannot be mounted because it is damaged is made anew",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: broken_layer,
    },
    Story {
        name: "vmm-killed",
        about: "the VMM is killed: exit 137, nothing left",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: vmm_killed,
    },
];

const CACHE: &str = "/var/lib/casemate/layers";
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Offset of the magic number in an ext4 file system (kernel Documentation/filesystems/ext4, "Super Block").
const EXT4_MAGIC_OFFSET: usize = 1024 + 0x38;

/// Runs a container once, so that its layer is converted and cached; returns the cached file.
fn cached_layer(lab: &Lab) -> Result<PathBuf> {
    lab.container(BUSYBOX).command(["true"]).run()?.exits_with(0)?;
    lab.nothing_is_left()?;
    let entries = std::fs::read_dir(CACHE).with_context(|| format!("no layer cache at {CACHE}"))?;
    let files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.extension().is_some_and(|e| e == "ext4"))
        .collect();
    match &files[..] {
        [one] => Ok(one.clone()),
        others => bail!("one cached layer was expected: {others:?}"),
    }
}

fn flip(file: &Path, at: impl FnOnce(&[u8]) -> Option<usize>) -> Result<()> {
    let mut bytes = std::fs::read(file).context("cannot read a cached layer")?;
    let at = at(&bytes).context("the bytes to damage were not found")?;
    bytes[at] ^= 1;
    println!("  flips a bit of {} at byte {at}", file.display());
    std::fs::write(file, bytes).context("cannot write a cached layer")
}

fn flipped_bit(lab: &Lab) -> Result<()> {
    let file = cached_layer(lab)?;
    let piece = data()[100_000..100_030].to_vec();
    flip(&file, |bytes| bytes.windows(piece.len()).position(|window| window == piece))?;
    let read = format!("sha256sum /{DATA_FILE}; echo status $?; echo the rest still works");
    let ended = lab.container(BUSYBOX).command(["sh", "-c", &read]).run()?.exits_with(0)?;
    ended
        .mentions("Input/output error")?
        .mentions("status 1")?
        .mentions("the rest still works")?;
    let digest = file.file_stem().and_then(|stem| stem.to_str()).context("no name")?;
    Ended::of(&["casemate", "gc", "--verify"])?
        .exits_with(0)?
        .mentions(&format!("removed sha256:{digest}: damaged"))?;
    let ended = lab.container(BUSYBOX).command(["sh", "-c", &read]).run()?.exits_with(0)?;
    ended.mentions("status 0")?;
    lab.nothing_is_left()
}

fn broken_layer(lab: &Lab) -> Result<()> {
    let file = cached_layer(lab)?;
    let whole = std::fs::read(&file).context("cannot read a cached layer")?;
    flip(&file, |bytes| {
        (bytes.get(EXT4_MAGIC_OFFSET..EXT4_MAGIC_OFFSET + 2)? == [0x53, 0xef]).then_some(EXT4_MAGIC_OFFSET)
    })?;
    lab.container(BUSYBOX)
        .command(["echo", "started"])
        .run()?
        .exits_with(0)?
        .mentions("started")?;
    // The image has one layer, and each layer has one file.
    ensure!(std::fs::read(cached_layer(lab)?)? == whole, "the layer in the cache is another one");
    lab.nothing_is_left()
}

fn vmm_killed(lab: &Lab) -> Result<()> {
    let container = lab.container(BUSYBOX).command(["sleep", "1000"]);
    let id = container.id().to_owned();
    let foreground = container.start_in_foreground()?;
    let pid = lab.until("the VM runs", START_DEADLINE, || {
        traces::pids_of("casemate-vmm").ok()?.first().copied()
    })?;
    lab.until("the container runs", START_DEADLINE, || is_running(&id).then_some(()))?;
    kill(Pid::from_raw(pid), Signal::SIGKILL).context("cannot kill the VMM")?;
    foreground.end()?.exits_with(137)?;
    lab.nothing_is_left()
}
