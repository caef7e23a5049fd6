//! Images in temporary directories, and the same in tar files.

use super::*;
use crate::limits::{DOCUMENT_MAX_BYTES, ENTRIES_MAX, INDEXES_MAX};
use serde_json::{Value, json};
use std::path::Path;

/// A directory of images under construction.
struct Layout {
    dir: tempfile::TempDir,
}

impl Layout {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        Self { dir }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes);
        self.write(&format!("blobs/sha256/{}", digest.hex()), bytes);
        digest.to_string()
    }

    /// An image of `layers` layers whose command is its platform.
    fn image_for(&self, platform: Value, layers: usize, diff_ids: usize) -> String {
        let diff_id = Digest::of(b"layer").to_string();
        let mut config = json!({"config": {"Env": ["A=1"], "Cmd": [platform.to_string()], "User": "7"},
            "rootfs": {"diff_ids": vec![diff_id; diff_ids]}});
        config.as_object_mut().unwrap().extend(platform.as_object().unwrap().clone());
        let config = self.blob(config.to_string().as_bytes());
        let layer = self.blob(b"layer");
        let manifest = json!({"config": {"digest": config}, "layers": vec![json!({"digest": layer}); layers]});
        self.blob(manifest.to_string().as_bytes())
    }

    fn image(&self, layers: usize, diff_ids: usize) -> String {
        self.image_for(json!({"os": "linux", "architecture": "amd64"}), layers, diff_ids)
    }

    fn arm(&self) -> String {
        self.image_for(json!({"os": "linux", "architecture": "arm64", "variant": "v8"}), 1, 1)
    }

    fn index(&self, manifests: Value) {
        self.write("index.json", json!({"manifests": manifests}).to_string().as_bytes());
    }

    fn open(&self, pick: Option<&str>) -> Result<StoredImage, StoreError> {
        let from_directory = ImageStore::open(self.dir.path())?.image(pick);
        // The same in a tar file.
        let tar = self.tar();
        let from_tar = ImageStore::open(tar.path()).and_then(|store| store.image(pick));
        assert_eq!(from_tar.is_ok(), from_directory.is_ok());
        if let (Ok(one), Ok(other)) = (&from_directory, &from_tar) {
            assert_eq!(one, other);
        }
        from_directory
    }

    fn tar(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(file.as_file());
        tar.append_dir_all(".", self.dir.path()).unwrap();
        tar.finish().unwrap();
        drop(tar);
        file
    }
}

fn tagged(digest: &str, tag: &str) -> Value {
    json!({"digest": digest, "annotations": {"org.opencontainers.image.ref.name": tag}})
}

fn on(digest: &str, architecture: &str) -> Value {
    json!({"digest": digest, "platform": {"os": "linux", "architecture": architecture}})
}

fn said(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(said);
    cause.map_or(error.to_string(), |cause| format!("{error}: {cause}"))
}

fn refusal(result: Result<StoredImage, StoreError>) -> String {
    said(&result.expect_err("a refusal"))
}

#[test]
fn an_image_is_found_by_tag_and_through_an_index() {
    let layout = Layout::new();
    let manifest = layout.image(2, 2);
    let other = on(&format!("sha256:{}", "00".repeat(32)), "arm64");
    let inner = json!({"manifests": [other, on(&manifest, "amd64")]});
    let inner = layout.blob(inner.to_string().as_bytes());
    layout.index(json!([{"digest": inner, "mediaType": "application/vnd.oci.image.index.v1+json",
        "annotations": {"org.opencontainers.image.ref.name": "demo"}}]));
    for pick in [None, Some("demo"), Some(manifest.as_str()), Some(inner.as_str())] {
        let image = layout.open(pick).unwrap();
        assert_eq!(image.layers.len(), 2);
        assert_eq!(image.config.user, "7");
    }
    let error = refusal(layout.open(Some("other")));
    assert!(error.contains("it has no image \"other\"; it has \"demo\" sha256:"), "{error}");
}

#[test]
fn of_several_images_one_must_be_chosen() {
    let layout = Layout::new();
    let (one, two) = (layout.image(1, 1), layout.image(2, 2));
    layout.index(json!([
        tagged(&one, "1"),
        tagged(&two, "docker.io/library/app:2"),
        tagged(&one, "latest")
    ]));
    let error = refusal(layout.open(None));
    assert!(
        error.contains(&format!("choose one by its tag or digest: \"1\" linux/amd64 {one}, ")),
        "{error}"
    );
    for (pick, layers) in [
        ("1", 1),
        ("latest", 1),
        ("app:2", 2),
        ("2", 2),
        (&one, 1),
        (&format!("app@{two}"), 2),
    ] {
        assert_eq!(layout.open(Some(pick)).unwrap().layers.len(), layers, "{pick}");
    }
    // Two names of one image are no choice.
    layout.index(json!([tagged(&one, "1"), tagged(&one, "latest")]));
    assert_eq!(layout.open(None).unwrap().layers.len(), 1);
}

#[test]
fn an_image_for_another_platform_is_refused_with_what_there_is() {
    let layout = Layout::new();
    let (arm, amd) = (layout.arm(), layout.image(2, 2));
    // By the index, and by the config where the index is silent.
    for entry in [on(&arm, "arm64"), json!({"digest": arm})] {
        layout.index(json!([entry]));
        let error = refusal(layout.open(None));
        assert!(error.contains("it has no image for linux/amd64; it has linux/arm64"), "{error}");
        // Nor does its digest make it one that runs.
        assert!(refusal(layout.open(Some(&arm))).contains("linux/arm64"));
    }
    for entries in [
        json!([on(&arm, "arm64"), on(&amd, "amd64")]),
        json!([{"digest": arm}, {"digest": amd}]),
    ] {
        layout.index(entries);
        assert_eq!(layout.open(None).unwrap().layers.len(), 2);
    }
    layout.index(json!([on(&arm, "amd64"), on(&amd, "amd64")]));
    let error = refusal(layout.open(None));
    assert!(
        error.contains("its index says linux/amd64") && error.ends_with("linux/arm64/v8"),
        "{error}"
    );
}

#[test]
fn a_variant_that_not_every_guest_runs_is_taken_by_its_digest_only() {
    let layout = Layout::new();
    let fast = layout.image_for(json!({"os": "linux", "architecture": "amd64", "variant": "v3"}), 1, 1);
    layout.index(json!([{"digest": fast, "platform": {"os": "linux", "architecture": "amd64", "variant": "v3"}}]));
    assert!(refusal(layout.open(None)).contains("it has linux/amd64/v3"));
    assert!(layout.open(Some(&fast)).is_ok());
}

/// The image for a platform that the caller asks for.
fn asking(layout: &Layout, platform: &str) -> Result<StoredImage, StoreError> {
    let asked = Some(platform.parse().unwrap());
    let tar = layout.tar();
    let from_tar = ImageStore::open(tar.path())?.asking(asked.clone()).image(None);
    let from_directory = ImageStore::open(layout.dir.path())?.asking(asked).image(None);
    assert_eq!(from_tar.is_ok(), from_directory.is_ok());
    from_directory
}

#[test]
fn a_platform_that_is_asked_for_chooses_among_entries_that_differ() {
    let layout = Layout::new();
    let amd = |variant: &str, version: &str| {
        let mut platform = json!({"os": "linux", "architecture": "amd64"});
        for (key, value) in [("variant", variant), ("os.version", version)] {
            if !value.is_empty() {
                platform[key] = json!(value);
            }
        }
        platform
    };
    let kinds = [
        ("linux/amd64", amd("", "")),
        ("linux/amd64/v1", amd("v1", "")),
        ("linux/amd64/v3", amd("v3", "")),
    ];
    let entries: Vec<_> = kinds
        .iter()
        .map(|(_, platform)| json!({"digest": layout.image_for(platform.clone(), 1, 1), "platform": platform}))
        .collect();
    layout.index(json!(entries));
    let error = refusal(layout.open(None));
    assert!(
        error.contains(
            "several images for linux/amd64, choose one by its tag, its digest, or for a policy its --platform: linux/amd64 sha256:"
        ),
        "{error}"
    );
    let chosen = |platform: &str| asking(&layout, platform).unwrap().config.cmd.unwrap();
    for (asked, platform) in &kinds {
        assert_eq!(chosen(asked), [platform.to_string()], "{asked}");
    }
    let error = refusal(asking(&layout, "linux/amd64/v4"));
    assert!(
        error.contains("it has no image for linux/amd64/v4; it has linux/amd64 sha256:"),
        "{error}"
    );

    // One entry answers to either name of its variant, and versions count if they are asked for.
    layout.index(json!([entries[1].clone()]));
    assert_eq!(chosen("linux/amd64"), chosen("linux/amd64/v1"));
    let versions = [amd("", "22.04"), amd("", "24.04")];
    layout.index(json!(versions.clone().map(
        |platform| json!({"digest": layout.image_for(platform.clone(), 1, 1), "platform": platform})
    )));
    assert!(refusal(layout.open(None)).contains("linux(22.04)/amd64 sha256:"));
    assert_eq!(chosen("linux(24.04)/amd64"), [versions[1].to_string()]);
    assert!(refusal(asking(&layout, "linux/amd64")).contains("several images"));

    // Without platforms in the index, the configs decide; nothing asked for makes an image of another system fit.
    let entries: Vec<_> = kinds
        .iter()
        .map(|(_, platform)| json!({"digest": layout.image_for(platform.clone(), 1, 1)}))
        .collect();
    layout.index(json!([entries[0], entries[2], {"digest": layout.arm()}]));
    assert_eq!(chosen("linux/amd64/v3"), [kinds[2].1.to_string()]);
    assert_eq!(chosen("linux/amd64"), [kinds[0].1.to_string()]);
    layout.index(json!([{"digest": layout.arm()}]));
    assert!(refusal(asking(&layout, "linux/amd64/v3")).contains("it has linux/arm64/v8"));
}

#[test]
fn what_is_no_image_is_passed_over() {
    let layout = Layout::new();
    let image = layout.image(1, 1);
    let empty = layout.blob(b"{}");
    let signature = json!({"artifactType": "application/x", "config": {"digest": empty, "mediaType": "application/vnd.oci.empty.v1+json"}, "layers": []});
    let signature = layout.blob(signature.to_string().as_bytes());
    let config = layout.blob(br#"{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":[]}}"#);
    let chart = json!({"config": {"digest": config}, "layers": [{"digest": empty, "mediaType": "application/vnd.in-toto+json"}]});
    let chart = layout.blob(chart.to_string().as_bytes());
    let attestation = json!({"digest": empty, "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        "platform": {"os": "unknown", "architecture": "unknown"}});
    let odd = json!({"digest": empty, "mediaType": "application/vnd.example+json"});
    layout.index(json!([{"digest": signature}, {"digest": chart}, attestation, odd, {"digest": image}]));
    assert_eq!(layout.open(None).unwrap().layers.len(), 1);
    layout.index(json!([{"digest": signature}]));
    assert!(refusal(layout.open(None)).contains("an artefact of type \"application/x\""));
    layout.index(json!([]));
    assert!(refusal(layout.open(None)).contains("it has none at all"));
}

#[test]
fn equal_images_are_one_even_if_only_one_of_them_is_there() {
    let layout = Layout::new();
    let image = layout.image(1, 1);
    let mut other: Value =
        serde_json::from_slice(&std::fs::read(layout.dir.path().join("blobs/sha256").join(&image[7..])).unwrap()).unwrap();
    other["annotations"] = json!({"compressed": "otherwise"});
    let other = layout.blob(other.to_string().as_bytes());
    let absent = format!("sha256:{}", "11".repeat(32));
    layout.index(json!([on(&image, "amd64"), on(&other, "amd64"), on(&absent, "amd64")]));
    assert_eq!(layout.open(None).unwrap().layers.len(), 1);
    layout.index(json!([on(&absent, "amd64")]));
    assert!(matches!(layout.open(None), Err(StoreError::File(FileError::Read(path, _))) if path.ends_with("11".repeat(32))));
}

#[test]
fn an_index_that_is_a_manifest_too_is_refused() {
    let layout = Layout::new();
    let image = layout.image(1, 1);
    let entry = json!([{"digest": image}]);
    for (both, refused) in [
        (json!({"manifests": entry, "layers": entry, "config": {"digest": image}}), "both"),
        (json!({"layers": entry, "config": {"digest": image}}), "not an index"),
    ] {
        // As index.json, and as a document that it names.
        layout.write("index.json", both.to_string().as_bytes());
        let error = layout.open(None).unwrap_err();
        assert!(said(&error).contains(refused), "{}", said(&error));
    }
    let both = json!({"manifests": entry, "layers": entry, "config": {"digest": image}});
    layout.index(json!([{"digest": layout.blob(both.to_string().as_bytes())}]));
    assert!(matches!(layout.open(None), Err(StoreError::Document(_, DocumentError::Both))));
}

#[test]
fn changed_content_is_refused() {
    let layout = Layout::new();
    let manifest = layout.image(1, 1);
    layout.index(json!([{"digest": manifest}]));
    layout.open(None).unwrap();
    let path = layout.dir.path().join("blobs/sha256").join(manifest.trim_start_matches("sha256:"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(b' ');
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(layout.open(None), Err(StoreError::Content(_))));
}

#[test]
fn layers_and_diff_ids_must_pair() {
    let layout = Layout::new();
    layout.index(json!([{"digest": layout.image(2, 1)}]));
    assert!(matches!(
        layout.open(None),
        Err(StoreError::Image(_, ImageError::Layers { blobs: 2, diff_ids: 1 }))
    ));
}

#[test]
fn nested_indexes_and_documents_are_limited() {
    let layout = Layout::new();
    let nested = |levels: usize| {
        let mut inner = layout.image(1, 1);
        for _ in 0..levels {
            inner = layout.blob(json!({"manifests": [{"digest": inner}]}).to_string().as_bytes());
        }
        layout.index(json!([{"digest": inner}]));
        layout.open(None)
    };
    assert_eq!(nested(INDEXES_MAX).unwrap().layers.len(), 1);
    assert!(matches!(nested(INDEXES_MAX + 1), Err(StoreError::Choice(_, ChoiceError::Nesting))));
    let arms: Vec<_> = (0..200)
        .map(|variant| {
            let arm = json!({"os": "linux", "architecture": "arm64", "variant": variant.to_string()});
            json!({"digest": layout.image_for(arm, 1, 1)})
        })
        .collect();
    layout.index(json!(arms));
    assert!(matches!(layout.open(None), Err(StoreError::Choice(_, ChoiceError::TooMany))));
}

#[test]
fn a_document_may_not_be_larger_than_the_limit() {
    let layout = Layout::new();
    layout.write("index.json", &vec![b' '; DOCUMENT_MAX_BYTES + 1]);
    assert!(matches!(layout.open(None), Err(StoreError::File(FileError::TooLarge(_)))));
    layout.write("index.json", &vec![b' '; DOCUMENT_MAX_BYTES]);
    assert!(matches!(layout.open(None), Err(StoreError::Document(..))));
}

#[test]
fn a_directory_of_skopeo_is_read() {
    let layout = Layout::new();
    let manifest = layout.image(2, 2);
    let blobs = layout.dir.path().join("blobs/sha256");
    for blob in std::fs::read_dir(&blobs).unwrap() {
        let blob = blob.unwrap();
        std::fs::rename(blob.path(), layout.dir.path().join(blob.file_name())).unwrap();
    }
    let at = |name: &str| layout.dir.path().join(name);
    std::fs::rename(at(&manifest[7..]), at("manifest.json")).unwrap();
    for pick in [None, Some(manifest.as_str())] {
        assert_eq!(layout.open(pick).unwrap().layers.len(), 2);
    }
    assert!(refusal(layout.open(Some("latest"))).contains("no image \"latest\""));
    // Several platforms: the manifests have names of their own.
    std::fs::rename(at("manifest.json"), at(&format!("{}.manifest.json", &manifest[7..]))).unwrap();
    let index = json!({"manifests": [on(&format!("sha256:{}", "22".repeat(32)), "arm64"), on(&manifest, "amd64")]});
    layout.write("manifest.json", index.to_string().as_bytes());
    assert_eq!(layout.open(None).unwrap().layers.len(), 2);
}

fn docker(layout: &Layout, images: &[(&str, &[&str], Value)]) {
    let mut list = Vec::new();
    for (name, tags, platform) in images {
        let mut config = json!({"config": {"Cmd": [name]}, "rootfs": {"diff_ids": [Digest::of(b"layer").to_string()]}});
        config.as_object_mut().unwrap().extend(platform.as_object().unwrap().clone());
        let config = config.to_string();
        let file = format!("{}.json", Digest::of(config.as_bytes()).hex());
        layout.write(&file, config.as_bytes());
        list.push(json!({"Config": file, "RepoTags": tags, "Layers": ["one/layer.tar"]}));
    }
    layout.write("manifest.json", json!(list).to_string().as_bytes());
    layout.write("one.tar", b"layer");
    let _ = std::fs::create_dir(layout.dir.path().join("one"));
    let _ = std::os::unix::fs::symlink("../one.tar", layout.dir.path().join("one/layer.tar"));
}

#[test]
fn an_archive_of_docker_is_read_by_the_same_rule() {
    let layout = Layout::new();
    let (amd, arm) = (
        json!({"os": "linux", "architecture": "amd64"}),
        json!({"os": "linux", "architecture": "arm64"}),
    );
    docker(&layout, &[("a", &["app:1"], amd.clone())]);
    let store = ImageStore::open(layout.dir.path()).unwrap();
    let image = store.image(None).unwrap();
    let mut content = Vec::new();
    store.layer(&image.layers[0]).unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content, b"layer");

    docker(&layout, &[("a", &["app:1"], amd.clone()), ("b", &["app:2"], amd.clone())]);
    assert!(refusal(layout.open(None)).contains("several images"), "two images");
    for (pick, name) in [("app:1", "a"), ("docker.io/library/app:2", "b"), ("2", "b")] {
        assert_eq!(layout.open(Some(pick)).unwrap().config.cmd.unwrap(), [name]);
    }
    let fast = json!({"os": "linux", "architecture": "amd64", "variant": "v3"});
    docker(&layout, &[("a", &["app:1"], amd.clone()), ("b", &["app:2"], fast)]);
    for (platform, name) in [("linux/amd64", "a"), ("linux/amd64/v3", "b")] {
        assert_eq!(asking(&layout, platform).unwrap().config.cmd.unwrap(), [name]);
    }
    docker(&layout, &[("a", &["app:1"], arm)]);
    assert!(refusal(layout.open(None)).contains("it has \"app:1\" linux/arm64 sha256:"));

    docker(&layout, &[("a", &[], amd)]);
    let list = std::fs::read_to_string(layout.dir.path().join("manifest.json")).unwrap();
    layout.write("manifest.json", list.replace("one/layer.tar", "../../etc/passwd").as_bytes());
    let store = ImageStore::open(layout.dir.path()).unwrap();
    let image = store.image(None).unwrap();
    assert!(matches!(
        store.layer(&image.layers[0]),
        Err(StoreError::File(FileError::Outside(_)))
    ));
}

#[test]
fn the_documents_of_an_image_can_be_copied_where_it_has_a_manifest() {
    let layout = Layout::new();
    let manifest = layout.image(2, 2);
    layout.index(json!([{"digest": manifest}]));
    let store = ImageStore::open(layout.dir.path()).unwrap();
    let chosen = store.chosen(None).unwrap();
    assert_eq!(chosen.digest.to_string(), manifest);
    for digest in [chosen.digest, chosen.manifest.config.digest] {
        assert_eq!(Digest::of(&store.document_of(digest).unwrap()), digest);
    }
    let mut content = Vec::new();
    let layer = chosen.manifest.layers[0].digest;
    store.blob_of(layer).unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content, b"layer");
    let absent = Digest::of(b"absent");
    assert!(matches!(store.document_of(absent), Err(StoreError::File(FileError::Read(..)))));
    assert!(store.blob_of(absent).is_err());

    let layout = Layout::new();
    docker(&layout, &[("a", &["app:1"], json!({"os": "linux", "architecture": "amd64"}))]);
    let store = ImageStore::open(layout.dir.path()).unwrap();
    assert!(store.image(None).is_ok() && matches!(store.chosen(None), Err(StoreError::NoManifest(_))));
}

#[test]
fn other_directories_and_files_are_refused() {
    let layout = Layout::new();
    assert!(matches!(layout.open(None), Err(StoreError::Form(_))));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "no tar at all").unwrap();
    assert!(matches!(ImageStore::open(file.path()), Err(StoreError::File(FileError::NoTar(..)))));
    assert!(matches!(
        ImageStore::open(Path::new("/nonexistent")),
        Err(StoreError::File(FileError::Read(..)))
    ));
}

/// An author can repeat in every entry of an index what the entry above it is called; only a name's length and the number of entries
/// limit what that takes.
#[test]
fn names_of_an_index_are_not_multiplied() {
    let layout = Layout::new();
    let image = layout.image(1, 1);
    let many = |count: usize| {
        let entries: Vec<Value> = (0..count).map(|_| json!({"digest": image})).collect();
        layout.blob(json!({ "manifests": entries }).to_string().as_bytes())
    };
    let named = |inner: &str, name: &str| {
        layout.index(json!([{"digest": inner, "annotations": {"org.opencontainers.image.ref.name": name}}]));
    };
    named(&many(100), &"x".repeat(1 << 20));
    layout.open(None).unwrap();
    assert!(matches!(
        layout.open(Some(&"x".repeat(1 << 20))),
        Err(StoreError::Choice(_, ChoiceError::Unknown { .. }))
    ));
    named(&many(ENTRIES_MAX), "v1");
    assert!(matches!(layout.open(Some("v1")), Err(StoreError::Choice(_, ChoiceError::Entries))));
}

#[test]
fn the_documents_of_a_search_have_a_limit_together() {
    let layout = Layout::new();
    let padding = " ".repeat(DOCUMENT_MAX_BYTES - 1000);
    let entries: Vec<Value> = (0..6)
        .map(|number| {
            let text = format!("{{\"manifests\":[],\"number\":{number}}}{padding}");
            json!({"digest": layout.blob(text.as_bytes()), "mediaType": "application/vnd.oci.image.index.v1+json"})
        })
        .collect();
    layout.index(json!(entries));
    assert!(matches!(layout.open(None), Err(StoreError::Choice(_, ChoiceError::TooLong))));
}
