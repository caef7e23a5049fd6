//! The hashes that existing policies carry: every vector, made with the peer's own writer, must come out the same.

use layer::{BLOCK_BYTES, ConvertError, Converted, Limits};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Vectors in the repository: small, one of each kind.
fn own_vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// All vectors, where they are: `CASEMATE_VECTORS`, or `../shared/vectors` beside the repository.
fn all_vectors() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    std::env::var_os("CASEMATE_VECTORS")
        .map_or_else(beside, PathBuf::from)
        .join("layers")
}

fn replay(directory: &Path) -> usize {
    let text = fs::read_to_string(directory.join("layers.json")).expect("the list of vectors");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let layers = list["layers"].as_array().expect("an array of layers");
    let failures: Vec<String> = layers.iter().filter_map(|layer| check(directory, layer).err()).collect();
    assert!(
        failures.is_empty(),
        "{} of {} failed:\n{}",
        failures.len(),
        layers.len(),
        failures.join("\n")
    );
    layers.len()
}

fn check(directory: &Path, vector: &Value) -> Result<(), String> {
    let text = |key: &str| vector[key].as_str().unwrap_or_default().to_owned();
    let mut image = Cursor::new(Vec::new());
    let input = File::open(directory.join(text("tar"))).map_err(|error| format!("{}: {error}", text("name")))?;
    let converted = match layer::convert(input, &mut image, &Limits::default()) {
        Ok(converted) => converted,
        Err(ConvertError::Entry { .. }) if vector["error"].is_string() => return Ok(()),
        Err(error) => return Err(format!("{}: {error:?}", text("name"))),
    };
    compare(&converted, image.get_ref(), vector).map_err(|what| format!("{}: {what}", text("name")))
}

fn compare(converted: &Converted, image: &[u8], vector: &Value) -> Result<(), String> {
    let ext4_bytes = converted.data_blocks as usize * BLOCK_BYTES;
    let mut found = vec![("tar_sha256", converted.diff_id.to_string())];
    if vector["error"].is_null() {
        found.push(("image_size", ext4_bytes.to_string()));
        found.push(("image_sha256", format!("{:x}", Sha256::digest(&image[..ext4_bytes]))));
        found.push(("root_hash", converted.root_hash.to_string()));
    }
    assert_eq!(image.len() as u64, converted.total_blocks * BLOCK_BYTES as u64);
    for (key, found) in found {
        let expected = vector[key].as_str().map_or_else(|| vector[key].to_string(), str::to_owned);
        if expected != found {
            return Err(format!("{key} is {found} instead of {expected}"));
        }
    }
    Ok(())
}

#[test]
fn the_vectors_of_the_repository() {
    assert!(replay(&own_vectors()) >= 20);
}

#[test]
fn all_vectors_of_the_peer() {
    let directory = all_vectors();
    if !directory.join("layers.json").exists() {
        eprintln!(
            "skipped: all_vectors_of_the_peer: no layers.json in {} (set CASEMATE_VECTORS)",
            directory.display()
        );
        return;
    }
    assert_eq!(replay(&directory), 35);
}
