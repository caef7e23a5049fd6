//! Tests with an image of a few bytes: which of its parts its digests depend on, and what is refused.

use super::*;
use std::fs::write;
use tempfile::TempDir;

/// A packed kernel with one segment (ELF-64 object file format, in words of eight bytes): a page of headers, then its contents.
fn kernel() -> Vec<u8> {
    const START: u64 = 16 << 20;
    let identification = u64::from_le_bytes(*b"\x7fELF\x02\x01\x01\0");
    let header = [identification, 0, 2 | 62 << 16 | 1 << 32, START, 64, 0, 64 << 32 | 56 << 48, 1];
    let load = [1 | 7 << 32, 4096, START, START, 4096, 8192, 4096];
    let mut elf: Vec<u8> = header.into_iter().chain(load).flat_map(u64::to_le_bytes).collect();
    elf.resize(4096, 0);
    elf.resize(8192, 0x90);
    elf
}

/// An image whose manifest has digests, as [`crate::build`] makes it.
fn image() -> (TempDir, Manifest) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        write(directory.path().join(name), bytes).unwrap();
        crate::hash::artifact(&directory.path().join(name)).unwrap()
    };
    let mut manifest = Manifest {
        version: guest_manifest::VERSION,
        kernel: file("vmlinux", &kernel()),
        initrd: file("initramfs.cpio", b"initramfs"),
        stage0: Some(file("stage0", &[0xcc; 5000])),
        cmdline: "quiet".to_owned(),
        launch_digests: BTreeMap::new(),
        inputs: Vec::new(),
        compiler: String::new(),
    };
    manifest.launch_digests = digests(directory.path(), &manifest).unwrap();
    save(&directory, &manifest);
    (directory, manifest)
}

fn save(directory: &TempDir, manifest: &Manifest) {
    write(directory.path().join(FILE_NAME), manifest.to_json().unwrap()).unwrap();
}

fn vcpus(n: u8) -> Vcpus {
    Vcpus::try_from(n).unwrap()
}

fn error(directory: &TempDir) -> String {
    let launch = Image::open(directory.path()).and_then(|image| image.launch(vcpus(1), Tee::Snp));
    format!("{:#}", launch.err().expect("an error"))
}

#[test]
fn the_manifest_names_the_digests_that_are_measured() {
    let (directory, manifest) = image();
    let image = Image::open(directory.path()).unwrap();
    assert_eq!(
        manifest.launch_digests.keys().copied().collect::<Vec<_>>(),
        VCPUS.collect::<Vec<_>>()
    );
    for (&n, named) in &manifest.launch_digests {
        let launch = image.launch(vcpus(n), Tee::Snp).unwrap();
        assert_eq!((launch.digest, launch.pages()), (*named, 21 + usize::from(n)));
        // stage0 has two pages; page tables, boot page and ACPI five.
        assert_eq!(launch.hashed_bytes(), (2 + 5 + u64::from(n)) * 4096);
        assert_ne!(image.launch(vcpus(n), Tee::Simulated).unwrap().digest, *named);
    }
    let distinct: std::collections::BTreeSet<_> = manifest.launch_digests.values().map(|digest| digest.0).collect();
    assert_eq!(distinct.len(), 16);
    assert!(image.launch(vcpus(17), Tee::Snp).is_ok());
    assert_eq!((image.verified_bytes(), image.stage0_bytes()), (8192 + 9, 5000));
    assert_eq!(
        image
            .launch(vcpus(2), Tee::Snp)
            .unwrap()
            .plan()
            .unwrap()
            .split(|&byte| byte == b'\n')
            .count(),
        24
    );
}

#[test]
fn every_part_of_the_image_changes_the_digest() {
    let (directory, manifest) = image();
    let digest = |change: &dyn Fn(&mut Manifest, &mut Vec<u8>)| {
        let (mut changed, mut program) = (manifest.clone(), vec![0xcc; 5000]);
        change(&mut changed, &mut program);
        let load = load_map(directory.path(), &changed).unwrap();
        launch(&changed, &program, load, vcpus(1), Tee::Snp).unwrap().digest
    };
    let unchanged = digest(&|_, _| ());
    assert_eq!(manifest.launch_digests[&1], unchanged);
    assert_ne!(digest(&|manifest, _| manifest.kernel.sha256[31] ^= 1), unchanged);
    assert_ne!(digest(&|manifest, _| manifest.initrd.sha256[0] ^= 1), unchanged);
    assert_ne!(digest(&|manifest, _| manifest.cmdline.push(' ')), unchanged);
    assert_ne!(digest(&|_, program| program[4999] ^= 1), unchanged);
    assert_ne!(digest(&|manifest, _| manifest.initrd.bytes += 1), unchanged);
    assert_eq!(digest(&|manifest, _| manifest.compiler.push('x')), unchanged);
}

#[test]
fn an_image_without_stage0_is_refused() {
    let (directory, mut manifest) = image();
    manifest.stage0 = None;
    save(&directory, &manifest);
    assert!(error(&directory).ends_with("has no stage0, so nothing measures it"));
}

#[test]
fn files_other_than_the_manifest_s_are_refused_by_name() {
    for name in ["vmlinux", "initramfs.cpio", "stage0"] {
        let (directory, _) = image();
        write(directory.path().join(name), b"other").unwrap();
        assert!(
            error(&directory).contains(&format!("{name} is not the file that manifest.json names")),
            "{name}"
        );
        std::fs::remove_file(directory.path().join(name)).unwrap();
        assert!(error(&directory).contains(name));
    }
    let (directory, mut manifest) = image();
    manifest.kernel.file = "../vmlinux".to_owned();
    save(&directory, &manifest);
    assert!(error(&directory).contains("no plain file name"));
    write(directory.path().join("stage0"), vec![0; STAGE0_MAX_BYTES + 1]).unwrap();
    manifest.kernel.file = "vmlinux".to_owned();
    save(&directory, &manifest);
    assert!(error(&directory).contains("longer than 49152 bytes"));
}

#[test]
fn a_manifest_that_names_another_digest_is_refused() {
    let (directory, mut manifest) = image();
    manifest.launch_digests.insert(1, LaunchDigest([0xab; 48]));
    save(&directory, &manifest);
    assert!(error(&directory).contains("abab as the launch digest for 1 vCPUs"));
}
