//! `casemate conformance layers`: replays layer vectors through the production converter.

use crate::input;
use crate::output::print;
use ::layer::{BLOCK_BYTES, ConvertError, Limits};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

#[derive(Deserialize)]
struct Vectors {
    layers: Vec<Vector>,
}

/// One layer, and hcsshim's result for it.
#[derive(Deserialize)]
struct Vector {
    name: String,
    /// File in the directory of the list.
    tar: String,
    /// Digest of the decompressed tar.
    tar_sha256: Option<String>,
    root_hash: Option<String>,
    /// Bytes of the ext4 image without the hash tree.
    image_size: Option<u64>,
    image_sha256: Option<String>,
    /// Set if hcsshim refuses the layer; this converter may refuse it too, or use the last entry.
    error: Option<String>,
}

/// Replays every vector of `file`; returns how many passed and how many failed.
pub fn run(file: &Path) -> Result<(usize, usize)> {
    let name = input::shown(file);
    let vectors: Vectors = serde_json::from_str(&input::text(file)?).with_context(|| format!("{name} is not a list of layer vectors"))?;
    ensure!(!vectors.layers.is_empty(), "{name} holds no vectors");
    let directory = file.parent().unwrap_or(Path::new("."));
    let mut failed = 0;
    for vector in &vectors.layers {
        if let Err(error) = check(directory, vector) {
            failed += 1;
            print(&format!("{}: {error:#}", vector.name))?;
        }
    }
    let passed = vectors.layers.len() - failed;
    print(&format!("{passed} passed, {failed} failed"))?;
    Ok((passed, failed))
}

fn check(directory: &Path, vector: &Vector) -> Result<()> {
    let path = directory.join(&vector.tar);
    let input = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut image = tempfile::tempfile().context("cannot create a temporary file")?;
    let converted = match ::layer::convert(input, &mut image, &Limits::default()) {
        Ok(converted) => converted,
        Err(ConvertError::Entry { .. }) if vector.error.is_some() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let ext4_bytes = converted.data_blocks * BLOCK_BYTES as u64;
    same("tar_sha256", &vector.tar_sha256, converted.diff_id.hex())?;
    same(
        "image_size",
        &vector.image_size.map(|size| size.to_string()),
        ext4_bytes.to_string(),
    )?;
    same("root_hash", &vector.root_hash, converted.root_hash.to_string())?;
    image.rewind()?;
    same("image_sha256", &vector.image_sha256, sha256(image.take(ext4_bytes))?)
}

fn sha256(mut image: impl Read) -> Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match image.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}

fn same(what: &str, expected: &Option<String>, found: String) -> Result<()> {
    match expected {
        Some(expected) if *expected != found => bail!("{what} is {found} instead of {expected}"),
        _ => Ok(()),
    }
}
