//! Builds the guest: kernel, initramfs and the manifest that names the SHA-256 of every input.
//!
//! [`build`] runs the steps, one per module. Slow results are cached in `${XDG_CACHE_HOME:-~/.cache}/casemate`,
//! keyed by everything that can change them.
#![forbid(unsafe_code)]

pub mod cache;
mod hash;
pub mod initramfs;
pub mod kernel;
pub mod measure;
pub mod progress;

pub use guest_manifest::LaunchDigest;
pub use hash::sha256_file;

use anyhow::{Context, Result};
use guest_manifest::{FILE_NAME, Input, Manifest, VERSION};
use hash::artifact;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Kernel command line of every guest. Each word skips probing of hardware that a microVM does not have, or makes a crash
/// stop the VM. Every character on the console costs two VM exits, so `loglevel=1` prints only panics until the agent raises
/// the level. `swiotlb`: bounce buffers of 32 MiB, in slabs of 2 KiB, where the guest is encrypted; Linux would take a quarter of a small
/// guest.
pub const CMDLINE: &str = "console=ttyS0 quiet loglevel=1 panic=-1 reboot=t tsc=reliable no_timer_check pci=off \
     8250.nr_uarts=1 random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1 swiotlb=16384";

/// What the image is built from.
pub struct Inputs {
    /// `casemate-agent`, static; becomes `/init`.
    pub agent: PathBuf,
    /// `casemate-launcher`, static; becomes `/bin/casemate-launcher`.
    pub launcher: PathBuf,
    /// `casemate-puller`, static; becomes `/bin/casemate-puller.gz`.
    pub puller: PathBuf,
    /// `casemate-pause`, static; becomes `/bin/casemate-pause`.
    pub pause: PathBuf,
    /// stage0's program, flat; without it the image has no launch digest.
    pub stage0: Option<PathBuf>,
    /// Which kernel.
    pub kernel: kernel::Kind,
}

/// File name of stage0's program in the image.
const STAGE0: &str = "stage0";

/// Builds the guest image into `out` (`vmlinux`, `initramfs.cpio`, `stage0`, `manifest.json`) and returns the manifest.
pub fn build(inputs: &Inputs, out: &Path) -> Result<Manifest> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let kernel = kernel::obtain(inputs.kernel)?;
    let initramfs = initramfs::Builder::guest(&inputs.agent, &inputs.launcher, &inputs.puller, &inputs.pause, &kernel.modules)?;
    let initrd = out.join("initramfs.cpio");
    cache::write_whole(&initrd, &initramfs.into_bytes())?;
    let vmlinux = out.join("vmlinux");
    cache::copy_whole(&kernel.vmlinux, &vmlinux)?;
    let stage0 = match &inputs.stage0 {
        Some(program) => {
            let copy = out.join(STAGE0);
            cache::copy_whole(program, &copy)?;
            Some(artifact(&copy)?)
        }
        None => None,
    };
    let mut manifest = Manifest {
        version: VERSION,
        kernel: artifact(&vmlinux)?,
        initrd: artifact(&initrd)?,
        stage0,
        cmdline: CMDLINE.to_owned(),
        launch_digests: BTreeMap::new(),
        inputs: [
            ("casemate-agent", sha256_file(&inputs.agent)?),
            ("casemate-launcher", sha256_file(&inputs.launcher)?),
            ("casemate-puller", sha256_file(&inputs.puller)?),
            ("casemate-pause", sha256_file(&inputs.pause)?),
        ]
        .map(|(name, sha256)| Input {
            name: name.to_owned(),
            sha256,
        })
        .into_iter()
        .chain(kernel.inputs)
        .collect(),
        compiler: kernel.compiler,
    };
    if manifest.stage0.is_some() {
        manifest.launch_digests = measure::digests(out, &manifest)?;
    }
    cache::write_whole(&out.join(FILE_NAME), &manifest.to_json()?)?;
    Ok(manifest)
}
