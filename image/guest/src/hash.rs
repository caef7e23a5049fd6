//! SHA-256 of the files that the image consists of and is built from.

use anyhow::{Context, Result};
use guest_manifest::Artifact;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// SHA-256 of a file.
pub fn sha256_file(path: &Path) -> Result<[u8; 32]> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if n == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..n]);
    }
}

/// The manifest's entry for a file of the image.
pub(crate) fn artifact(path: &Path) -> Result<Artifact> {
    let file = path.file_name().context("an artifact needs a file name")?;
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Artifact {
        file: file.to_string_lossy().into_owned(),
        sha256: sha256_file(path)?,
        bytes: metadata.len(),
    })
}

/// The digest that a cached file holds in hex.
pub(crate) fn read_hex(path: &Path) -> Result<[u8; 32]> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hash = [0; 32];
    hex::decode_to_slice(&text, &mut hash).with_context(|| format!("{} holds no SHA-256 in hex", path.display()))?;
    Ok(hash)
}
