//! Policies of images in files: every form gives the same policy, and what cannot be chosen is refused with what there is.

use policy_tools::{Config, GenerateError, Sources, generate, generate_warning};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Names the directory whose `layouts` are the caller's images.
const VARIABLE: &str = "CASEMATE_CASES";

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// One image in the files that each form has.
struct Image {
    layer: Vec<u8>,
    config: String,
    manifest: String,
}

impl Image {
    fn new(change: impl FnOnce(&mut Value)) -> Self {
        let layer = tar_of(&[("bin/app", b"hi")]);
        let mut config = json!({"architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": ["/bin/app"], "Env": ["A=1"], "WorkingDir": "/srv"},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]}});
        change(&mut config);
        let config = config.to_string();
        let manifest = json!({"schemaVersion": 2, "config": {"digest": format!("sha256:{}", hex(config.as_bytes()))},
            "layers": [{"digest": format!("sha256:{}", hex(&layer))}]});
        Self {
            layer,
            config,
            manifest: manifest.to_string(),
        }
    }

    fn layout(&self) -> Vec<(String, Vec<u8>)> {
        let blob = |bytes: &[u8]| (format!("blobs/sha256/{}", hex(bytes)), bytes.to_vec());
        let index = json!({"schemaVersion": 2, "manifests": [{"digest": format!("sha256:{}", hex(self.manifest.as_bytes())),
            "annotations": {"org.opencontainers.image.ref.name": "1"}}]});
        vec![
            blob(&self.layer),
            blob(self.config.as_bytes()),
            blob(self.manifest.as_bytes()),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ]
    }

    fn directory(&self) -> Vec<(String, Vec<u8>)> {
        vec![
            (hex(&self.layer), self.layer.clone()),
            (hex(self.config.as_bytes()), self.config.clone().into_bytes()),
            ("manifest.json".to_owned(), self.manifest.clone().into_bytes()),
            ("version".to_owned(), b"Directory Transport Version: 1.1\n".to_vec()),
        ]
    }

    fn docker(&self) -> Vec<(String, Vec<u8>)> {
        let config = format!("{}.json", hex(self.config.as_bytes()));
        let list = json!([{"Config": config, "RepoTags": ["app:1"], "Layers": ["l/layer.tar"]}]);
        vec![
            ("l/layer.tar".to_owned(), self.layer.clone()),
            (config, self.config.clone().into_bytes()),
            ("manifest.json".to_owned(), list.to_string().into_bytes()),
        ]
    }
}

fn write(root: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

fn policy(base: &Path, image: &str, more: &str) -> Result<(String, Vec<String>), GenerateError> {
    let config = Config::from_toml(&format!("[[container]]\nimage = {image:?}\n{more}")).unwrap();
    let mut warnings = Vec::new();
    let text = generate_warning(&config, &Sources::of(base), &mut |warning| warnings.push(warning))?;
    Ok((text, warnings))
}

fn said(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(said);
    cause.map_or(error.to_string(), |cause| format!("{error}: {cause}"))
}

#[test]
fn every_form_gives_the_same_policy() {
    let at = tempfile::tempdir().unwrap();
    let image = Image::new(|_| {});
    let expected = {
        write(&at.path().join("layout"), &image.layout());
        policy(at.path(), "layout", "").unwrap().0
    };
    assert!(expected.contains(r#""command": ["/bin/app"]"#), "{expected}");
    for (name, files) in [("layout", image.layout()), ("dir", image.directory()), ("docker", image.docker())] {
        write(&at.path().join(name), &files);
        let named: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
        let tar = tar_of(&named);
        let zstd = ruzstd::encoding::compress_to_vec(tar.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
        write(at.path(), &[(format!("{name}.tar"), tar), (format!("{name}.tar.zst"), zstd)]);
        for form in ["", ".tar", ".tar.zst"] {
            let (text, warnings) =
                policy(at.path(), &format!("{name}{form}"), "").unwrap_or_else(|error| panic!("{name}{form}: {}", said(&error)));
            assert_eq!(text, expected, "{name}{form}");
            assert!(warnings.is_empty(), "{warnings:?}");
        }
    }
    for (name, tag) in [("layout.tar", "1"), ("docker", "app:1")] {
        assert_eq!(policy(at.path(), name, &format!("image_tag = {tag:?}\n")).unwrap().0, expected);
    }
}

#[test]
fn a_foreign_image_is_refused_and_an_empty_config_is_none() {
    let at = tempfile::tempdir().unwrap();
    for (name, files) in [
        ("layout", Image::layout as fn(&Image) -> _),
        ("dir", Image::directory),
        ("docker", Image::docker),
    ] {
        let foreign = Image::new(|config| config["architecture"] = json!("arm64"));
        write(&at.path().join(name), &files(&foreign));
        let error = said(&policy(at.path(), name, "").unwrap_err());
        assert!(
            error.contains("it has no image for linux/amd64; it has ") && error.contains("linux/arm64"),
            "{error}"
        );

        let empty = Image::new(|config| config["config"] = Value::Null);
        let name = format!("{name}-empty");
        write(&at.path().join(&name), &files(&empty));
        let error = policy(at.path(), &name, "").unwrap_err();
        assert!(matches!(error, GenerateError::Field { .. }), "{error}");
        assert!(policy(at.path(), &name, "command = [\"sh\"]\n").is_ok());
    }
}

#[test]
fn a_relative_working_directory_is_warned_of_at_once() {
    let at = tempfile::tempdir().unwrap();
    let image = Image::new(|config| config["config"]["WorkingDir"] = json!("data"));
    write(&at.path().join("app"), &image.layout());
    let (text, warnings) = policy(at.path(), "app", "").unwrap();
    assert!(text.contains(r#""working_dir": "data""#), "{text}");
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("container 1 (app): the working directory \"data\" is relative"),
        "{warnings:?}"
    );
    assert!(policy(at.path(), "app", "working_dir = \"/data\"\n").unwrap().1.is_empty());
}

#[test]
fn images_of_the_caller() {
    let Some(cases) = std::env::var_os(VARIABLE) else {
        eprintln!("skipped: images_of_the_caller: {VARIABLE} names no directory");
        return;
    };
    let layouts = Path::new(&cases).join("layouts");
    let made = |image: &str| policy(&layouts, image, "").unwrap_or_else(|error| panic!("{image}: {}", said(&error)));
    let (expected, _) = made("multiplatform-flat");
    for image in ["da.tar", "oa.tar", "skdir"] {
        assert_eq!(made(image).0, expected, "{image}");
    }
    assert!(said(&policy(&layouts, "arm-only", "").unwrap_err()).contains("linux/arm64"));
    assert!(matches!(policy(&layouts, "cfg-null", ""), Err(GenerateError::Field { .. })));
    let with_command = Config::from_toml("[[container]]\nimage = \"cfg-null\"\ncommand = [\"sh\"]\n").unwrap();
    assert!(generate(&with_command, &layouts).is_ok());
    assert!(made("wd-relative").1[0].contains("relative"));
}
