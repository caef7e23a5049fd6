//! Copies of the installed guest image with something changed.

use anyhow::{Context, Result};
use guest_manifest::Manifest;
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The installed guest image.
pub const GUEST_IMAGE: &str = "/usr/local/share/casemate";
/// The node's configuration.
pub const NODE_CONFIG: &str = "/etc/casemate/config.toml";

const FILES: [&str; 4] = ["vmlinux", "initramfs.cpio", "stage0", MANIFEST];
const MANIFEST: &str = "manifest.json";
/// A byte well inside of either file.
const FLIPPED: usize = 1 << 20;
/// Text in the kernel that it prints and does not need.
const BANNER: &[u8] = b"Linux version ";

/// A copy of the installed guest image, removed at the end.
pub struct GuestImage(PathBuf);

impl Drop for GuestImage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl GuestImage {
    /// Copies it.
    pub fn copy() -> Result<Self> {
        let image = Self("/run/guest-image".into());
        fs::create_dir_all(&image.0).context("cannot create a directory for the image")?;
        for file in FILES {
            fs::copy(Path::new(GUEST_IMAGE).join(file), image.0.join(file)).with_context(|| format!("cannot copy {file}"))?;
        }
        Ok(image)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Flips a bit of a file, or flips it back. The manifest keeps the file's digest.
    pub fn flip(&self, file: &str) -> Result<()> {
        self.change(file, |bytes| {
            *bytes.get_mut(FLIPPED).with_context(|| format!("{file} is too short"))? ^= 1;
            Ok(())
        })
    }

    /// Changes one byte of the kernel that it can run without, and its digest in the manifest, as whoever replaces a kernel would.
    pub fn replace_kernel(&self) -> Result<()> {
        let mut digest = [0; 32];
        self.change("vmlinux", |kernel| {
            let at = kernel.windows(BANNER.len()).position(|window| window == BANNER);
            kernel[at.context("the kernel has no banner")?] = b'l';
            digest = Sha256::digest(kernel).into();
            Ok(())
        })?;
        self.change_manifest(|manifest| manifest.kernel.sha256 = digest)
    }

    /// Appends to the kernel's command line.
    pub fn append_to_cmdline(&self, text: &str) -> Result<()> {
        self.change_manifest(|manifest| manifest.cmdline.push_str(text))
    }

    fn change_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        self.change(MANIFEST, |bytes| {
            let mut manifest = Manifest::from_json(bytes).context("cannot read the manifest")?;
            change(&mut manifest);
            *bytes = manifest.to_json().context("cannot write the manifest")?;
            Ok(())
        })
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        let path = self.0.join(file);
        let mut bytes = fs::read(&path).with_context(|| format!("cannot read {file}"))?;
        change(&mut bytes)?;
        fs::write(&path, bytes).with_context(|| format!("cannot write {file}"))
    }
}
