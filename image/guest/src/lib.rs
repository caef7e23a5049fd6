//! Builds the guest: kernel, initramfs and the manifest that names the SHA-256 of every input.
//!
//! [`build`] is the recipe; each step is a file beside this one. Slow results live in the cache
//! (`${XDG_CACHE_HOME:-~/.cache}/casemate`), keyed by everything that can change them.
#![forbid(unsafe_code)]

pub mod cache;
pub mod initramfs;
pub mod kernel;
pub mod manifest;
pub mod progress;

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Kernel command line of every guest. Each word saves probing of hardware that a microVM does not have,
/// or turns a crash into the end of the VM. Every character on the console costs two exits: until the agent opens it to errors
/// (`loglevel=1`), only a panic is written there.
pub const CMDLINE: &str = "console=ttyS0 quiet loglevel=1 panic=-1 reboot=t tsc=reliable no_timer_check pci=off \
     8250.nr_uarts=1 random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1";

/// What goes in.
pub struct Inputs {
    /// `casemate-agent`, static; becomes `/init`.
    pub agent: PathBuf,
    /// `casemate-launcher`, static; becomes `/bin/casemate-launcher`.
    pub launcher: PathBuf,
    /// Which kernel.
    pub kernel: kernel::Kind,
}

/// Builds the guest image into `out` (`vmlinux`, `initramfs.cpio`, `manifest.json`) and returns the manifest.
pub fn build(inputs: &Inputs, out: &Path) -> Result<manifest::Manifest> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let kernel = kernel::obtain(inputs.kernel)?;
    let initramfs = initramfs::Builder::guest(&inputs.agent, &inputs.launcher, &kernel.modules)?;
    let initrd = out.join("initramfs.cpio");
    cache::write_whole(&initrd, &initramfs.into_bytes())?;
    let vmlinux = out.join("vmlinux");
    cache::copy_whole(&kernel.vmlinux, &vmlinux)?;
    let manifest = manifest::Manifest {
        version: 1,
        kernel: manifest::Artifact::of(&vmlinux)?,
        initrd: manifest::Artifact::of(&initrd)?,
        cmdline: CMDLINE.to_owned(),
        inputs: [
            ("casemate-agent", manifest::sha256_file(&inputs.agent)?),
            ("casemate-launcher", manifest::sha256_file(&inputs.launcher)?),
        ]
        .map(|(name, sha256)| manifest::Input {
            name: name.to_owned(),
            sha256,
        })
        .into_iter()
        .chain(kernel.inputs)
        .collect(),
        compiler: kernel.compiler,
    };
    cache::write_whole(&out.join("manifest.json"), &manifest.to_json()?)?;
    Ok(manifest)
}
