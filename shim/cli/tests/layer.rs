//! `casemate layer` as an operator types it.

mod program;

use std::path::Path;
use std::process::Output;

use serde_json::Value;

fn casemate(directory: &Path, arguments: &[&str], input: &[u8]) -> Output {
    program::run("layer", directory, arguments, input)
}

#[test]
fn hash_and_convert_print_the_same_for_people_and_programs() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    // An empty tar.
    let tar = [0; 1024];
    std::fs::write(at.join("layer.tar"), tar).unwrap();
    let plain = casemate(at, &["hash", "layer.tar"], &[]);
    assert!(plain.status.success());
    let root = String::from_utf8(plain.stdout).unwrap();
    for arguments in [
        ["hash", "--json", "layer.tar"].as_slice(),
        &["hash", "-", "--json"],
        &["convert", "--json", "layer.tar", "layer.ext4"],
        &["convert", "-", "layer.ext4", "--json"],
    ] {
        let output = casemate(at, arguments, &tar);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["root_hash"], root.trim(), "{arguments:?}");
        assert_eq!(document["ext4_bytes"].as_u64().unwrap(), 14 * 4096);
        assert_eq!(document["notes"], serde_json::json!([]));
    }
    let length = std::fs::metadata(at.join("layer.ext4")).unwrap().len();
    assert_eq!(length, 16 * 4096);
}

#[test]
fn what_is_no_layer_is_named_with_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let output = casemate(directory.path(), &["hash", "-"], b"\xfd7zXZ\0\0\x04");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "casemate: cannot convert standard input: the layer is xz; OCI layers are tar archives, plain or compressed with gzip or zstd\n"
    );
}

#[test]
fn what_cannot_be_prepared_is_said_and_nothing_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    for (arguments, said) in [
        (
            ["prepare", "--address", "no-such-socket", "localhost/app:1"],
            "containerd does not answer at no-such-socket",
        ),
        (
            ["prepare", "--address", "no-such-socket", "No Name"],
            "neither a path, which begins with / or ./, nor an image's name",
        ),
    ] {
        let output = casemate(at, &arguments, &[]);
        assert_eq!(
            (output.status.code(), output.stdout.as_slice()),
            (Some(3), &[][..]),
            "{arguments:?}"
        );
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.lines().count() == 1 && text.contains(said), "{text}");
    }
}
