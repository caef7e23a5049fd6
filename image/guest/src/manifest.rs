//! The manifest: what the guest image consists of, by SHA-256.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// `manifest.json` beside `vmlinux` and `initramfs.cpio`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this form: 1.
    pub version: u32,
    /// The ELF kernel.
    pub kernel: Artifact,
    /// The initramfs.
    pub initrd: Artifact,
    /// Kernel command line.
    pub cmdline: String,
    /// What the two were made from.
    pub inputs: Vec<Input>,
    /// First line of the C compiler's `--version`.
    pub compiler: String,
}

/// A file of the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Name in the image's directory.
    pub file: String,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// Something the image was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What it is.
    pub name: String,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

impl Artifact {
    /// Hashes a file.
    pub fn of(path: &Path) -> Result<Self> {
        let file = path
            .file_name()
            .context("an artifact needs a file name")?
            .to_string_lossy()
            .into_owned();
        let bytes = std::fs::metadata(path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        Ok(Self {
            file,
            sha256: sha256_file(path)?,
            bytes,
        })
    }
}

impl Manifest {
    /// The JSON text, with a final newline.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// SHA-256 of a file in lower-case hex.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if n == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}
