//! Pulls from Debian's registry.

use crate::bench::Bench;
use layer::{Converted, Limits};
use oci::Digest;
use registry_testing::{
    authority::Authority,
    image::Image,
    program::installed,
    registry::{Guard, NAME, PROGRAMS, Registry},
    section,
};
use std::{
    io::Cursor,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

pub const OPEN: &str = "[registries.\".\"]\ninsecure-skip-verify = true";

/// What the host's converter makes of a blob.
pub fn converted(blob: &[u8]) -> (Converted, Vec<u8>) {
    let mut image = Cursor::new(Vec::new());
    let converted = layer::convert(blob, &mut image, &Limits::default()).unwrap();
    (converted, image.into_inner())
}

/// Pulls the image, and compares each layer with the host's, byte for byte.
fn check(bench: &mut Bench, image: &Image, name: &str, digest: Digest, configuration: &str) {
    let roots = bench.pull(&format!("{name}@{digest}"), Some(configuration)).unwrap();
    assert_eq!(roots.len(), image.layers.len());
    for (root, blob) in roots.iter().zip(&image.layers) {
        let (host, bytes) = converted(&image.blobs[blob]);
        assert_eq!(*root, host.root_hash);
        let layer = bench.store.by_root(root).unwrap();
        assert_eq!((layer.blob.digest, layer.blob.diff_id), (*blob, host.diff_id));
        assert_eq!((layer.data_blocks, layer.total_blocks), (host.data_blocks, host.total_blocks));
        let mut file = vec![0; bytes.len()];
        layer.file.read_exact_at(&mut file, 0).unwrap();
        assert!(file == bytes && layer.file.metadata().unwrap().len() == bytes.len() as u64);
        let mut read_at = |buffer: &mut [u8], offset| layer.file.read_exact_at(buffer, offset);
        assert!(layer::is_whole(&mut read_at, layer.data_blocks, root).unwrap());
    }
}

pub fn layers_are_those_of_the_host_and_pulled_once() {
    if !installed("layers_are_those_of_the_host_and_pulled_once", &PROGRAMS) {
        return;
    }
    let image = Image::new(5, 300_000);
    let registry = Registry::with(&image);
    let name = format!("127.0.0.1:{}/{NAME}", registry.port);
    let mut bench = Bench::new();
    // By the index and by the manifest.
    check(&mut bench, &image, &name, image.index, OPEN);
    // What the registry has lost by now need not be pulled again.
    for blob in &image.layers {
        std::fs::remove_file(registry.blob_file(&blob.hex())).unwrap();
    }
    check(&mut bench, &image, &name, image.manifest, OPEN);
    let text = Bench::new().refused(&format!("{name}@{}", image.manifest), Some(OPEN));
    assert!(text.contains("cannot get layer"), "{text}");
    let text = bench.refused(&format!("{name}@{}", Digest::of(b"another")), Some(OPEN));
    for word in ["cannot get manifest sha256:", NAME, "404", "manifest unknown"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

pub fn a_login_and_an_authority_of_the_configuration() {
    if !installed(
        "a_login_and_an_authority_of_the_configuration",
        &[PROGRAMS[0], PROGRAMS[1], "htpasswd"],
    ) {
        return;
    }
    let image = Image::new(2, 10_000);
    let authority = Authority::new();
    let identity = authority.issue(&["127.0.0.1"]);
    let guard = Guard {
        tls: Some(&identity),
        basic: Some(("robot", "hunter2:x")),
        ..Guard::default()
    };
    let registry = Registry::with(&image).guarded(&guard);
    let host = format!("127.0.0.1:{}", registry.port);
    let name = format!("{host}/{NAME}");
    let with = |password: &str| {
        section(
            &host,
            &authority.certificate,
            &format!("username = 'robot'\npassword = '{password}'"),
        )
    };
    check(&mut Bench::new(), &image, &name, image.index, &with("hunter2:x"));

    let mut bench = Bench::new();
    let pinned = format!("{name}@{}", image.index);
    let text = bench.refused(&pinned, Some(&with("wrong-password")));
    assert!(
        text.contains("401") && text.contains("basic credentials") && !text.contains("wrong-password"),
        "{text}"
    );
    let other = section(&host, &Authority::new().certificate, "username = 'robot'\npassword = 'hunter2:x'");
    // It is there, so that it is not waited for.
    bench.wait = Duration::from_secs(60);
    let start = Instant::now();
    let text = bench.refused(&pinned, Some(&other));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert!(
        text.starts_with("cannot reach the registry of") && !text.contains("hunter2"),
        "{text}"
    );
    assert!(!registry.log().contains("hunter2"));
}
