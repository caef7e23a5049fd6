//! Pulls that fail, each with a line that names the step.

use crate::{
    bench::{Bench, file},
    registry::OPEN,
};
use flate2::{Compression, write::GzEncoder};
use guest_images::{LAYERS_MAX, PullerError};
use oci::Digest;
use registry_testing::{
    image::{CONFIG, Image, LAYER, MANIFEST, descriptor},
    server::{Answer, Body, Request, Server},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::Write,
    net::TcpListener,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

type Blobs = BTreeMap<Digest, Vec<u8>>;

/// A server of these blobs; `special` answers first.
pub fn serve(blobs: Blobs, special: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> Server {
    Server::start(None, move |request| {
        let name = request.target.rsplit('/').next().unwrap_or_default();
        let blob = name.parse().ok().and_then(|digest: Digest| blobs.get(&digest));
        let stored = || match blob {
            _ if request.target == "/v2/" => Answer::new(200, "{}"),
            Some(blob) => Answer::new(200, blob.clone()),
            None => Answer::new(404, r#"{"errors":[{"message":"unknown \u001b[31mto us"}]}"#),
        };
        special(request).unwrap_or_else(stored)
    })
}

fn refused(server: &Server, digest: Digest, words: &[&str]) {
    let text = Bench::new().refused(&format!("{}/a/b@{digest}", server.host()), Some(OPEN));
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

pub fn a_registry_that_is_not_there_yet() {
    let image = Image::new(2, 1000);
    let absences = AtomicU32::new(3);
    let server = serve(image.blobs.clone(), move |_| {
        let absent = absences.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        absent.then(|| Answer::new(503, "starting"))
    });
    let mut bench = Bench::new();
    bench.wait = Duration::from_secs(60);
    assert_eq!(
        bench
            .pull(&format!("{}/a/b@{}", server.host(), image.index), Some(OPEN))
            .unwrap()
            .len(),
        2
    );

    // Nobody listens at what was a free port a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bench.wait = Duration::from_secs(1);
    let start = Instant::now();
    let text = bench.refused(&format!("127.0.0.1:{port}/a/b@{}", image.index), Some(OPEN));
    assert!(start.elapsed() > Duration::from_millis(600), "{:?}", start.elapsed());
    assert!(
        text.starts_with(&format!(
            "the registry was not there for 1 s: cannot reach the registry of 127.0.0.1:{port}/a/b: "
        )),
        "{text}"
    );
}

pub fn what_a_hostile_registry_sends() {
    let image = Image::new(3, 100_000);
    let (layer, size) = (image.layers[1], image.blobs[&image.layers[1]].len() as u64);
    let named = format!("cannot get layer {layer}");

    let mut blobs = image.blobs.clone();
    // The bit is in the content: what is decompressed is wrong, or damaged.
    blobs.get_mut(&layer).unwrap()[5000] ^= 1;
    refused(&serve(blobs, |_| None), image.index, &[&named, "the content has the digest"]);

    let mut blobs = image.blobs.clone();
    blobs.insert(image.index, blobs[&image.manifest].clone());
    let manifest = format!("cannot get manifest {}", image.index);
    refused(&serve(blobs, |_| None), image.index, &[&manifest, "the content has the digest"]);

    let whole = image.blobs[&layer].clone();
    for (body, reason) in [(0, "it ends after 50000 of"), (1, "does not end after"), (2, "does not end after")] {
        let whole = whole.clone();
        let server = serve(image.blobs.clone(), move |request| {
            let body = match body {
                0 => Body::Chunked(whole[..50_000].to_vec()),
                // A gzip stream may go on after its end.
                1 => Body::Chunked([&whole[..], &[0; 512]].concat()),
                _ => Body::Endless,
            };
            request.target.ends_with(&format!("blobs/{layer}")).then(|| Answer::of(200, body))
        });
        refused(&server, image.index, &[&named, reason, &size.to_string()]);
    }
    refused(&serve(Blobs::new(), |_| None), image.index, &["404", "unknown"]);

    let layers = vec![descriptor(LAYER, &whole); LAYERS_MAX + 1];
    let (blobs, digest) = manifest_of(layers, vec![Digest::of(b"tar"); LAYERS_MAX + 1]);
    refused(&serve(blobs, |_| None), digest, &["129 layers, more than 128"]);
}

/// An image of these layers.
fn manifest_of(layers: Vec<serde_json::Value>, diff_ids: Vec<Digest>) -> (Blobs, Digest) {
    let mut blobs = Blobs::new();
    let mut keep = |document: serde_json::Value| {
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        blobs.insert(digest, bytes.clone());
        (digest, bytes)
    };
    let diff_ids: Vec<_> = diff_ids.iter().map(Digest::to_string).collect();
    let (_, config) = keep(json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids } }));
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config), "layers": layers });
    let (digest, _) = keep(manifest);
    (blobs, digest)
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

/// A tar with one file.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

pub fn a_blob_that_is_no_layer_or_another_one() {
    let content = tar("file", b"content");
    for (blob, diff_id, reason) in [
        (gzip(&content), Digest::of(b"another tar"), "and the image's config says"),
        (gzip(&[7; 4096]), Digest::of(&[7; 4096]), "bad tar header"),
        (b"no gzip".repeat(100), Digest::of(b"tar"), "cannot be converted"),
        (gzip(&content)[..60].to_vec(), Digest::of(&content), "cannot be converted"),
    ] {
        let (mut blobs, digest) = manifest_of(vec![descriptor(LAYER, &blob)], vec![diff_id]);
        let name = Digest::of(&blob);
        blobs.insert(name, blob);
        refused(&serve(blobs, |_| None), digest, &[&format!("layer {name}"), reason]);
    }
}

pub fn configurations_that_are_damaged_or_absent() {
    let image = Image::new(1, 1000);
    let server = serve(image.blobs.clone(), |_| None);
    let pinned = format!("{}/a/b@{}", server.host(), image.index);
    let mut bench = Bench::new();
    assert_eq!(bench.pull(&pinned, Some(OPEN)).unwrap().len(), 1);
    // Without one nothing speaks plain HTTP.
    let text = Bench::new().refused(&pinned, None);
    assert!(text.contains("cannot reach the registry of"), "{text}");
    let unusable = "the operator's configuration of registries cannot be used: ";
    for (configuration, reason) in [
        ("[registries", "not TOML"),
        ("[registries.a]\npassword = 7", "password"),
        ("[registries.a.b]\nx = 'secret-word'", "registries"),
    ] {
        let text = bench.refused(&pinned, Some(configuration));
        assert!(
            text.starts_with(unusable) && text.contains(reason) && !text.contains("secret-word"),
            "{text}"
        );
    }
    let whole = registry_device::encode(OPEN.as_bytes()).unwrap();
    for (damaged, reason) in [
        (&b""[..], "damaged"),
        (&[0; 512], "does not start as one"),
        (&whole[..20], "damaged"),
        (&[&whole[..9], &[255; 7], &whole[16..]].concat(), "larger than"),
    ] {
        let ended = bench.run(&bench.staging(), &pinned, Some(file(damaged)), &[]);
        let error = ended.outcome().unwrap_err().to_string();
        assert!(error.starts_with(unusable) && error.contains(reason), "{error}");
    }
    for image in [
        format!("{}/a/b", server.host()),
        format!("{}/a/b:tag", server.host()),
        format!("{}/A@{}", server.host(), image.index),
    ] {
        let text = bench.refused(&image, Some(OPEN));
        assert!(text.contains("does not name by digest"), "{text}");
    }
}

pub fn no_room() {
    let image = Image::new(3, 400_000);
    let server = serve(image.blobs.clone(), |_| None);
    let pinned = format!("{}/a/b@{}", server.host(), image.index);
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: no_room: needs root, for a small file system");
    }
    // Room for less than the blobs, and then for the blobs but not for what is in them.
    let blobs: usize = image.layers.iter().map(|layer| image.blobs[layer].len()).sum();
    for (bytes, reason) in [
        (1 << 20, format!("layers have {blobs} bytes")),
        (1300 << 10, "No space left".to_owned()),
    ] {
        let mount = SmallDisk::mount(bytes);
        let mut bench = Bench::at(mount.0.path().to_owned());
        let text = bench.refused(&pinned, Some(OPEN));
        assert!(text.contains(&reason), "{text}");
        if bytes == 1 << 20 {
            assert!(text.contains("has room for 1048576"), "{text}");
        }
        // What was written is gone.
        assert_eq!(bench.staging().free_bytes(), bytes);
    }
}

/// A tmpfs.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "small"])
            .arg(directory.path());
        assert!(mount.status().unwrap().success());
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

pub fn a_puller_without_an_agent_or_a_job() {
    let start = |input: &str, argument: Option<&str>| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(argument)
            .env(crate::filter::PULLER, "")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        match guest_images::outcome(&output.stderr, output.status.code().unwrap() as u32) {
            Err(PullerError::Unable(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(start("", None), "no job was sent");
    assert!(start("{}", None).contains("the job is not valid"));
    assert!(start("", Some("--help")).contains("usage"));
    let job = |parent, files: &str| {
        format!(
            r#"{{"image":"","parent":{parent},"id":null,"files":{files},"configuration":null,"known":[],"free_bytes":0,"nameservers":[],"wait_seconds":0}}"#
        )
    };
    assert!(start(&job(1, "[]"), None).contains("the agent has ended"));
    assert!(start(&job(1, "[900]"), None).contains("which is not open"));
    assert!(start(&job(1, "[1]"), None).contains("descriptors from 3 on"));
}
