//! The hashes that existing policies carry: every vector, made with hcsshim's tar2ext4, must come out the same.

use layer::{BLOCK_BYTES, ConvertError, Converted, Limits};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;

/// Environment variable with the path of a `layers.json` of further vectors; their tars are beside it.
const VARIABLE: &str = "CASEMATE_LAYER_VECTORS";

fn replay(list: &Path) -> usize {
    let directory = list.parent().expect("a file");
    let text = fs::read_to_string(list).expect("the list of vectors");
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
    let mut found = vec![("tar_sha256", converted.diff_id.hex())];
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
fn vectors_of_the_repository() {
    assert!(replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/layers.json")) >= 20);
}

#[test]
fn vectors_of_the_caller() {
    match std::env::var_os(VARIABLE) {
        Some(list) => assert!(replay(Path::new(&list)) > 0),
        None => eprintln!("skipped: vectors_of_the_caller: {VARIABLE} names no layers.json"),
    }
}
