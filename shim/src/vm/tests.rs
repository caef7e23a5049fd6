//! Boots that fail, with programs in the VMM's place.

use super::*;
use std::{fs, os::unix::fs::PermissionsExt};
use tempfile::TempDir;

struct Node {
    dir: TempDir,
    config: Config,
}

/// A node whose VMM is a shell script.
fn node(script: &str) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::create_dir(&image).unwrap();
    let digest = "00".repeat(32);
    let manifest = format!(
        r#"{{"version":1,"kernel":{{"file":"vmlinux","sha256":"{digest}","bytes":0}},"initrd":{{"file":"initramfs.cpio","sha256":"{digest}","bytes":0}},"cmdline":"","inputs":[],"compiler":""}}"#
    );
    fs::write(image.join("manifest.json"), manifest).unwrap();
    fs::write(image.join("vmlinux"), "k").unwrap();
    fs::write(image.join("initramfs.cpio"), "i").unwrap();
    let vmm = dir.path().join("vmm");
    fs::write(&vmm, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&vmm, fs::Permissions::from_mode(0o755)).unwrap();
    let config = Config {
        image_dir: image,
        vmm: Some(vmm),
        cache_dir: dir.path().join("cache"),
        state_dir: dir.path().join("run"),
        boot_timeout_seconds: 2,
        ..Config::default()
    };
    Node { dir, config }
}

async fn boot(node: &Node) -> VmError {
    let policy = PolicyText {
        text: vec![],
        digest: [7; 32],
    };
    let request = BootRequest {
        namespace: "ns",
        id: "web",
        config: &node.config,
        policy: &policy,
        cgroups_path: "",
    };
    match Vm::boot(request).await {
        Ok(_) => panic!("a script booted"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_vmm_that_ends_is_an_error_with_its_last_words() {
    let node = node("echo 'Kernel panic - not syncing' >&2; exit 3");
    let error = boot(&node).await;
    assert!(
        matches!(&error, VmError::Died { .. } | VmError::State(StateError::Ended(_))),
        "{error}"
    );
    if let VmError::Died { status, console } = error {
        assert_eq!(status, "exit status: 3");
        assert_eq!(console, "Kernel panic - not syncing");
    }
    assert!(!node.dir.path().join("run/ns").exists());
}

#[tokio::test]
async fn a_vmm_that_hangs_is_killed_at_the_deadline() {
    let node = node(&format!("echo $$ > {0}/pid; exec sleep 1000", "$(dirname $0)"));
    let error = boot(&node).await;
    assert!(matches!(error, VmError::Timeout { .. }), "{error}");
    let pid: u32 = fs::read_to_string(node.dir.path().join("pid")).unwrap().trim().parse().unwrap();
    let gone = process::ProcessId::of(pid).is_none_or(|p| !p.is_alive());
    assert!(gone, "VMM {pid} survived its deadline");
    assert!(!node.dir.path().join("run/ns").exists());
}

#[tokio::test]
async fn the_vmm_gets_its_spec_and_the_files_in_it_and_no_more() {
    let node = node("cat /proc/self/fd/$2 > $(dirname $0)/spec; ls -l /proc/$$/fd > $(dirname $0)/fds; exit 1");
    boot(&node).await;
    let spec = VmSpecText::read(&node.dir.path().join("spec"));
    assert_eq!(spec.0.host_data.0, [7; 32]);
    assert_eq!(spec.0.scratch.is_some(), spec.0.layers);
    let fds = fs::read_to_string(node.dir.path().join("fds")).unwrap();
    let targets: Vec<_> = fds
        .lines()
        .filter_map(|line| line.split_once(" -> ").map(|(_, target)| target))
        .collect();
    let count = |part: &str| targets.iter().filter(|target| target.contains(part)).count();
    assert_eq!(
        [count("/image/"), count("socket:"), count("/scratch/"), count("memfd:")],
        [2, 2, 1, 1],
        "inherited: {fds}"
    );
    // Standard error and the console; nothing that polls or waits for other events of the shim.
    assert_eq!([count("console.log"), count("anon_inode:")], [2, 0], "inherited: {fds}");
}

struct VmSpecText(vm_spec::VmSpec);

impl VmSpecText {
    fn read(path: &Path) -> Self {
        Self(vm_spec::VmSpec::from_json(&fs::read(path).unwrap()).unwrap())
    }
}

#[test]
fn a_forbidden_system_call_is_told_from_other_deaths() {
    assert!(describe(ExitStatus::from_raw(Signal::SIGSYS as i32)).contains("filter forbids"));
    for other in [0, Signal::SIGKILL as i32, 7 << 8] {
        assert!(!describe(ExitStatus::from_raw(other)).contains("filter"));
    }
}
