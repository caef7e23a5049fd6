//! Boots that fail, with shell scripts in place of the VMM.

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
        oom_score_adj: Some(321),
    };
    match Vm::boot(request).await {
        Ok(_) => panic!("a script booted"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_vmm_that_ends_is_an_error_with_its_console() {
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

/// The guest's output came first, and both are found by who looks at the file.
#[tokio::test]
async fn the_last_words_of_a_vmm_follow_its_guests() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("console.log");
    let console = console_file::create(&path).unwrap();
    let mut vmm = tokio::process::Command::new("sh");
    vmm.args([
        "-c",
        "printf 'Kernel panic' 1<>\"$0\"; echo 'casemate-vmm: triple fault in the guest' >&2; exit 4",
    ])
    .arg(&path)
    .stderr(std::process::Stdio::piped());
    let child = vmm.spawn().unwrap();
    let pid = child.id().unwrap();
    let exit = Vmm::supervise(child, pid, vec![], console).ended().await;
    let words = "Kernel panic\ncasemate-vmm: triple fault in the guest";
    assert_eq!((exit.status.as_str(), exit.console.as_str()), ("exit status: 4", words));
    assert_eq!(console_file::read(&path).unwrap(), format!("{words}\n").as_bytes());
    assert_eq!(fs::metadata(path).unwrap().len(), console_file::CONSOLE_BYTES as u64);
}

#[tokio::test]
async fn a_vmm_that_hangs_is_killed_at_the_deadline() {
    let node = node(&format!("echo $$ > {0}/pid; exec sleep 1000", "$(dirname $0)"));
    let error = boot(&node).await;
    assert!(matches!(error, VmError::Timeout { .. }), "{error}");
    let pid: u32 = fs::read_to_string(node.dir.path().join("pid")).unwrap().trim().parse().unwrap();
    let gone = shim_state::ProcessId::of(pid).is_none_or(|p| !p.is_alive());
    assert!(gone, "VMM {pid} survived its deadline");
    assert!(!node.dir.path().join("run/ns").exists());
}

#[tokio::test]
async fn the_vmm_gets_its_spec_and_the_files_in_it_and_no_more() {
    let node = node(
        "d=$(dirname $0); readlink /proc/$$/fd/$2 > $d/pipe; cat /proc/self/fd/$2 > $d/spec; cp /proc/$$/oom_score_adj $d; ls -l /proc/$$/fd > $d/fds; exit 1",
    );
    boot(&node).await;
    let spec = VmSpecText::read(&node.dir.path().join("spec"));
    assert_eq!(spec.0.host_data.0, [7; 32]);
    assert_eq!(spec.0.scratch.is_some(), spec.0.layers);
    // Before the spec, so before any memory of the guest is used.
    assert_eq!(fs::read_to_string(node.dir.path().join("oom_score_adj")).unwrap(), "321\n");
    let fds = fs::read_to_string(node.dir.path().join("fds")).unwrap();
    let targets: Vec<_> = fds
        .lines()
        .filter_map(|line| line.split_once(" -> ").map(|(_, target)| target))
        .collect();
    let count = |part: &str| targets.iter().filter(|target| target.contains(part)).count();
    // The test may itself have inherited other pipes.
    let pipe = fs::read_to_string(node.dir.path().join("pipe")).unwrap();
    assert!(pipe.starts_with("pipe:"), "the spec came through {pipe}");
    assert_eq!(
        [count("/image/"), count("socket:"), count("/scratch/"), count(pipe.trim())],
        [2, 2, 1, 1],
        "inherited: {fds}"
    );
    // Nothing that polls or waits for other events of the shim.
    assert_eq!([count("console.log"), count("anon_inode:")], [1, 0], "inherited: {fds}");
    // Of files, it can write its scratch disk, which nobody else reads, and the console, whose length it keeps by mapping it.
    let written = |line: &&str| line.starts_with("lrw") || line.starts_with("l-w");
    let written = fds.lines().filter(written).filter_map(|line| line.split_once(" -> "));
    // The test may itself have inherited other files, and the shell writes this list.
    let node = node.dir.path().to_str().unwrap();
    let files: Vec<_> = written.filter(|(_, to)| to.starts_with(node) && !to.ends_with("/fds")).collect();
    assert_eq!(files.len(), 2, "inherited: {fds}");
    assert!(
        files.iter().all(|(_, to)| to.contains("/scratch/") || to.ends_with("console.log")),
        "inherited: {fds}"
    );
}

#[tokio::test]
async fn scratch_in_memory_needs_no_disk() {
    let mut node = node("d=$(dirname $0); cat /proc/self/fd/$2 > $d/spec; ls -l /proc/$$/fd > $d/fds; exit 1");
    node.config.scratch = Scratch::Memory;
    boot(&node).await;
    assert!(VmSpecText::read(&node.dir.path().join("spec")).0.scratch.is_none());
    assert!(!fs::read_to_string(node.dir.path().join("fds")).unwrap().contains("/scratch/"));
    assert!(!node.config.cache_dir.join("scratch").exists());
}

struct VmSpecText(vm_spec::VmSpec);

impl VmSpecText {
    fn read(path: &Path) -> Self {
        Self(vm_spec::VmSpec::from_json(&fs::read(path).unwrap()).unwrap())
    }
}

#[test]
fn a_forbidden_system_call_is_distinguished_from_other_exits() {
    assert!(describe(ExitStatus::from_raw(Signal::SIGSYS as i32)).contains("filter forbids"));
    for other in [0, Signal::SIGKILL as i32, 7 << 8] {
        assert!(!describe(ExitStatus::from_raw(other)).contains("filter"));
    }
}

/// A script that has started in place of the VMM, without its spec.
fn started(config: &Config) -> (OwnedSandboxDir, Started) {
    let state = OwnedSandboxDir::create(&config.state_dir, "ns", "web").unwrap();
    let parts = spawn::Parts {
        control: state.bind_control().unwrap(),
        vsock: state.bind_vsock().unwrap(),
        console: console_file::create(&state.dir().console()).unwrap(),
        scratch: scratch(config).unwrap(),
        registries: None,
        image: GuestImage::open(&config.image_dir, config.boot).unwrap(),
        endorsement: None,
        snp: None,
    };
    let started = spawn::vmm(config, [0; 32], "ns/web", parts).unwrap();
    (state, started)
}

#[tokio::test]
async fn a_spec_larger_than_the_pipe_is_not_written_to_a_vmm_that_has_ended() {
    let node = node("exit 3");
    let (_state, mut started) = started(&node.config);
    started.child.wait().await.unwrap();
    let sent = timeout(Duration::from_secs(10), started.spec.padded_to(1 << 20).send())
        .await
        .unwrap();
    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_vmm_that_never_reads_its_spec_does_not_block_the_shim() {
    let node = node("exec sleep 1000");
    let (state, started) = started(&node.config);
    let pid = started.child.id().unwrap();
    let console = File::open(state.dir().console()).unwrap();
    let vmm = Vmm::supervise(started.child, pid, vec![], console);
    let limit = Limit {
        deadline: Instant::now() + Duration::from_millis(50),
        boot_timeout: Duration::from_millis(50),
    };
    let sent = send_spec(&vmm, started.spec.padded_to(1 << 20), &limit).await;
    assert!(matches!(sent, Err(VmError::Timeout { .. })));
    assert!(vmm.exit.borrow().is_some(), "the VMM was not ended");
}
