//! A machine converts layers into a cache on its disk, and its power is cut at points that are drawn: no layer that a shim would use
//! is wrong afterwards, and none is missing that was said to be made.
//!
//! ```text
//!            ┌────────────── machine: QEMU, the guest's kernel, one program (shim/tests/converter/power.rs) ──────────────┐
//! boot ──►   mounts the disk, reads every layer in the cache, says what it found ──► converts layers, collects some, …   ─┼─► cut
//!            └──── console: Account judges each line          NBD: Disk loses what was not flushed ────────────────────┘
//!  ▲                                                                                                                      │
//!  └──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! The cut ends QEMU, so the guest's page cache is lost, and the disk is this program's own, so what the disk had not flushed is lost
//! too, in part or all of it. Times choose where a cut hits, and decide nothing.

mod account;
mod disk;
mod machine;
mod nbd;

use crate::testbed::host;
use account::Account;
use anyhow::{Context, Result, ensure};
use disk::Disk;
use guest_image::{
    cache,
    initramfs::{Builder, stripped},
};
use machine::{Boot, Cut, Machine};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Cuts of `testbed test`.
pub const COUNT: u32 = 50;

/// Room for every layer twice, and small enough that ext4 often begins its journal anew.
const DISK: &str = "64M";
/// How long after the check of the cache the power is cut, at most: a few conversions.
const WORK: Duration = Duration::from_millis(2500);

/// How often and where the power is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    /// How often.
    pub count: u32,
    /// Of all random choices.
    pub seed: u64,
}

/// Cuts the power of a machine with `kernel` and `program`; files of the machine go to `dir`. Returns a sentence on what the cuts hit.
///
/// # Errors
/// If a layer is wrong or missing after a cut, with the seed and the number of the cut, or the machine does not run.
pub fn run(kernel: &Path, program: &Path, cuts: Cuts, dir: &Path) -> Result<String> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let initrd = dir.join("initramfs.cpio");
    cache::write_whole(&initrd, &Builder::of_program(&stripped(program)?, &[])?.into_bytes())?;
    let machine = Machine {
        kernel: kernel.to_owned(),
        initrd,
        dir: dir.to_owned(),
    };
    let mut random = fastrand::Rng::with_seed(cuts.seed);
    let mut disk = Disk::new(empty_file_system(dir)?);
    let mut account = Account::default();
    for n in 0..cuts.count {
        let boot = draw(&mut random);
        let cut = one(&machine, &boot, &mut disk, &mut account, &mut random);
        cut.with_context(|| format!("cut {n} of --seed {} ({boot:?}); the console is in {}", cuts.seed, dir.display()))?;
    }
    // The last cut's remains are judged too.
    let last = Boot {
        cut: Cut::Checked(Duration::ZERO),
        ..draw(&mut random)
    };
    one(&machine, &last, &mut disk, &mut account, &mut random).context("after the last cut")?;
    ensure!(account.has_hit(), "the cuts hit nothing that matters: {account}");
    Ok(format!("{account}; {}", disk.lost()))
}

/// One boot until its cut.
fn one(machine: &Machine, boot: &Boot, disk: &mut Disk, account: &mut Account, random: &mut fastrand::Rng) -> Result<()> {
    account.boots();
    // How often the disk draws depends on the guest; the seed still repeats every boot and every cut.
    let (mut of_disk, mut of_cut) = (random.fork(), random.fork());
    machine.run(boot, disk, &mut of_disk, &mut |line| account.take(line))?;
    // Half of the cuts are resets, after which the disk keeps all that it was given; the others are power cuts.
    let survives = if of_cut.bool() { 1.0 } else { of_cut.f64() };
    disk.cut(survives, &mut of_cut);
    Ok(())
}

fn draw(random: &mut fastrand::Rng) -> Boot {
    Boot {
        seed: random.u64(..),
        // `data=writeback` lets a file have its length before its blocks are written.
        mount: if random.bool() { "" } else { "data=writeback" },
        // From "as soon as it is written" to "when somebody flushes".
        writeback: [1, 5, 20, 3000][random.usize(0..4)],
        cut: match random.u32(0..8) {
            0 => Cut::Started(Duration::from_secs(3).mul_f64(random.f64())),
            1..=2 => Cut::Made(random.u32(1..=4)),
            _ => Cut::Checked(WORK.mul_f64(random.f64())),
        },
    }
}

/// A disk with an empty ext4, made with mke2fs's defaults.
fn empty_file_system(dir: &Path) -> Result<Vec<u8>> {
    let image = dir.join("empty.ext4");
    // Half of the work that the kernel would do after the first mount is about inodes that nobody uses.
    let options = ["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0"];
    host::run(Command::new("mke2fs").args(options).arg(&image).arg(DISK))?;
    fs::read(&image).with_context(|| format!("cannot read {}", image.display()))
}
