//! `casemate policy generate` of layouts as builders write them: attestations, indexes in indexes, several images for one platform.

mod program;

use oci::Digest;
use serde_json::{Value, json};
use std::path::Path;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A directory with layouts under construction.
struct Lab {
    at: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self {
            at: tempfile::tempdir().unwrap(),
        }
    }

    /// Keeps a blob of the layout `app`, and returns its descriptor.
    fn keep(&self, media_type: &str, blob: &[u8]) -> Value {
        let path = self.at.path().join("app/blobs/sha256").join(Digest::of(blob).hex());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, blob).unwrap();
        json!({"mediaType": media_type, "digest": Digest::of(blob).to_string(), "size": blob.len()})
    }

    fn document(&self, media_type: &str, document: &Value) -> Value {
        self.keep(media_type, document.to_string().as_bytes())
    }

    /// An image with this command and this many layers, which are one blob.
    fn image(&self, command: &str, platform: &Value, layers: usize) -> Value {
        let tar = vec![0; 1024];
        let layer = self.keep("application/vnd.oci.image.layer.v1.tar", &tar);
        let mut config = json!({"config": {"Cmd": [command], "StopSignal": "SIGRTMIN+3", "User": "app:staff"},
            "rootfs": {"type": "layers", "diff_ids": vec![Digest::of(&tar).to_string(); layers]}});
        config.as_object_mut().unwrap().extend(platform.as_object().unwrap().clone());
        let config = self.document(CONFIG, &config);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": vec![layer; layers]});
        self.document(MANIFEST, &manifest)
    }

    /// Of an index in the blobs.
    fn index(&self, entries: &[Value]) -> Value {
        self.document(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
    }

    /// The policy, or the line that refuses.
    fn generate(&self, entries: &[Value], arguments: &[&str]) -> Result<String, String> {
        let index = json!({"schemaVersion": 2, "manifests": entries});
        std::fs::write(self.at.path().join("app/index.json"), index.to_string()).unwrap();
        generate(self.at.path(), &[&["./app"][..], arguments].concat())
    }
}

fn generate(at: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = program::run("policy", at, &[&["generate"][..], arguments].concat(), b"");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

fn amd64() -> Value {
    json!({"os": "linux", "architecture": "amd64"})
}

fn on(mut entry: Value, platform: &Value) -> Value {
    entry["platform"] = platform.clone();
    entry
}

/// The attestation that buildx puts beside an image.
fn attestation(lab: &Lab, of: &Value) -> Value {
    let statement = lab.keep(
        "application/vnd.in-toto+json",
        b"{\"_type\": \"https://in-toto.io/Statement/v0.1\"}",
    );
    let config = lab.keep(
        CONFIG,
        br#"{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#,
    );
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [statement]});
    let mut entry = on(
        lab.document(MANIFEST, &manifest),
        &json!({"os": "unknown", "architecture": "unknown"}),
    );
    entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of["digest"]});
    entry
}

#[test]
fn what_buildx_writes_is_one_image() {
    let lab = Lab::new();
    let arm = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
    let (amd, other) = (lab.image("/amd", &amd64(), 2), lab.image("/arm", &arm, 1));
    let entries = [
        on(amd.clone(), &amd64()),
        on(other.clone(), &arm),
        attestation(&lab, &amd),
        attestation(&lab, &other),
    ];
    let mut index = lab.index(&entries);
    index["annotations"] = json!({"io.containerd.image.name": "docker.io/team/app:1", "org.opencontainers.image.ref.name": "1"});
    let policy = lab.generate(&[index.clone()], &[]).unwrap();
    assert!(policy.starts_with("package policy\n"), "a path is no name to pin: {policy}");
    // The image's own stop signal, and its user by name.
    for words in [
        "[\"/amd\"]",
        "\"signals\": [9,15,37]",
        // As every runtime gives it to an image without one.
        "PATH=/usr/local/sbin:",
        "{\"pattern\":\"app\",\"strategy\":\"name\"}",
        "{\"pattern\":\"staff\",\"strategy\":\"name\"}",
    ] {
        assert!(policy.contains(words), "{words}: {policy}");
    }
    assert_eq!(lab.generate(&[index.clone()], &["--platform", "linux/amd64"]).unwrap(), policy);

    // The same without platforms in the index, with an index in the index, and both in a row of names.
    let silent = lab.index(&[amd.clone(), other.clone(), attestation(&lab, &amd)]);
    for entries in [vec![silent.clone()], vec![lab.index(&[index.clone()])], vec![index.clone(), silent]] {
        assert_eq!(lab.generate(&entries, &[]).unwrap(), policy);
    }
    let error = lab.generate(&[on(other, &arm)], &[]).unwrap_err();
    assert!(
        error.contains("it has no image for linux/amd64; it has linux/arm64/v8 sha256:"),
        "{error}"
    );
    let error = lab.generate(&[attestation(&lab, &amd)], &[]).unwrap_err();
    assert!(error.contains("it has no image for linux/amd64; it has none at all"), "{error}");
}

#[test]
fn of_several_images_for_one_platform_the_command_line_chooses() {
    let lab = Lab::new();
    let fast = json!({"os": "linux", "architecture": "amd64", "variant": "v3"});
    let older = json!({"os": "linux", "architecture": "amd64", "variant": "v1", "os.version": "22.04"});
    let entries = [
        on(lab.image("/plain", &amd64(), 1), &amd64()),
        on(lab.image("/fast", &fast, 1), &fast),
        on(lab.image("/older", &older, 1), &older),
    ];
    let index = [lab.index(&entries)];
    let error = lab.generate(&index, &[]).unwrap_err();
    assert!(
        error.contains(
            "several images for linux/amd64, choose one by its tag, its digest, or for a policy its --platform: linux/amd64 sha256:"
        ),
        "{error}"
    );
    for (platform, command) in [
        ("linux/amd64", "/plain"),
        ("linux/amd64/v3", "/fast"),
        ("linux/x86_64/v3", "/fast"),
        ("linux/amd64/v1", "/older"),
        ("linux(22.04)/amd64", "/older"),
    ] {
        let policy = lab
            .generate(&index, &["--platform", platform])
            .unwrap_or_else(|error| panic!("{platform}: {error}"));
        assert!(policy.contains(&format!("[\"{command}\"]")), "{platform}: {policy}");
    }
    let error = lab.generate(&index, &["--platform", "linux/amd64/v4"]).unwrap_err();
    assert!(
        error.contains("it has no image for linux/amd64/v4; it has linux/amd64 sha256:"),
        "{error}"
    );
    for (platform, words) in [
        (
            "linux/arm64",
            "guests run images for linux/amd64 and its variants, never for linux/arm64",
        ),
        ("windows/amd64", "never for windows/amd64"),
        ("amd64", "is not a platform: give OS/ARCHITECTURE[/VARIANT]"),
    ] {
        let error = lab.generate(&index, &["--platform", platform]).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn indexes_without_an_end_and_too_many_layers_are_refused() {
    let lab = Lab::new();
    let mut index = lab.image("/app", &amd64(), 1);
    for _ in 0..4 {
        index = lab.index(&[index]);
    }
    assert!(lab.generate(&[index.clone()], &[]).is_ok());
    let error = lab.generate(&[lab.index(&[index])], &[]).unwrap_err();
    assert!(error.contains("its manifest is more than 4 indexes away"), "{error}");
    let error = lab.generate(&[lab.image("/app", &amd64(), 10_000)], &[]).unwrap_err();
    assert!(error.contains("it has 10000 layers, more than 500"), "{error}");
    let other = json!({"os": "linux", "architecture": "arm64"});
    let many: Vec<_> = (0..257).map(|number| lab.image(&format!("/{number}"), &other, 1)).collect();
    let error = lab.generate(&[lab.index(&many)], &[]).unwrap_err();
    assert!(error.contains("more than 256 of its documents may be the guest's image"), "{error}");
}

#[test]
fn a_layout_whose_layers_are_known_is_not_read_again() {
    let lab = Lab::new();
    let image = lab.image("/app", &amd64(), 1);
    let policy = lab.generate(std::slice::from_ref(&image), &[]).unwrap();
    let layer = lab.at.path().join("app/blobs/sha256").join(Digest::of(&vec![0; 1024]).hex());
    std::fs::remove_file(&layer).unwrap();
    assert_eq!(lab.generate(std::slice::from_ref(&image), &[]).unwrap(), policy);
    std::fs::remove_dir_all(lab.at.path().join(".cache")).unwrap();
    let error = lab.generate(&[image], &[]).unwrap_err();
    assert!(
        error.contains("cannot read") && error.contains(&layer.display().to_string()),
        "{error}"
    );
}
