//! Privileges of a running VMM: ids, capabilities, namespaces, files, limits, and a seccomp filter on every thread.

use super::{Vm, elf, guests, has_kvm, start_as, start_with, with};
use std::{
    collections::BTreeSet,
    fs::{File, FileType, metadata, read_dir, read_link, read_to_string},
    io::{Read, pipe},
    os::unix::{fs::FileTypeExt, net::UnixListener},
    process::Command,
};
use vm_spec::{
    Identity, Network,
    control::{Reply, Request},
};

const USER: u32 = 0x7000_1234;

/// The value of a line `name: value` in a file of /proc/PID.
fn field(vm: &Vm, file: &str, name: &str) -> String {
    let text = read_to_string(format!("/proc/{}/{file}", vm.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: the jail needs root");
    }
    is_root
}

fn halted(program: Command, identity: Option<Identity>) -> Vm {
    let socket = tempfile::tempdir().unwrap();
    let vm = start_as(program, elf(guests::halted()), |vm| {
        vm.spec.identity = identity;
        vm.spec.vcpus = 2.try_into().unwrap();
        vm.spec.network = Some(Network { mac: [2, 0, 0, 0, 0, 1] });
        vm.spec.layers = true;
        vm.spec.rng = true;
        vm.scratch(with(&[0; 4096])).unwrap();
        vm.vsock(UnixListener::bind(socket.path().join("vsock")).unwrap().into()).unwrap();
    });
    vm.wait_for_output();
    vm
}

fn assert_stops(vm: Vm) {
    for request in [Request::Stats, Request::Pause, Request::Resume, Request::Stop] {
        assert!(!matches!(vm.ask(request), Reply::Error(_)));
    }
    let (status, _, stderr) = vm.wait();
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
}

fn assert_unprivileged(vm: &Vm) {
    let threads = read_dir(format!("/proc/{}/task", vm.child.id())).unwrap();
    let mut own = 0;
    for thread in threads {
        let status = |name| field(vm, &format!("task/{}/status", thread.as_ref().unwrap().file_name().display()), name);
        // Worker threads of KVM never return to user space.
        if status("Name:").starts_with("kvm-") {
            continue;
        }
        own += 1;
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(status(set), "0000000000000000", "{set}");
        }
        assert_eq!((status("NoNewPrivs:").as_str(), status("Seccomp:").as_str()), ("1", "2"));
    }
    assert_eq!(own, 6, "two vCPUs, the network device, two disks and the main thread");
    assert_eq!(field(vm, "limits", "Max core file size"), "0 0 bytes");
    let files: u64 = field(vm, "limits", "Max open files").split(' ').next().unwrap().parse().unwrap();
    assert!(files <= 8192);
}

#[test]
fn a_vmm_with_an_identity_has_no_access_to_the_host() {
    if !has_kvm() || !is_root() {
        return;
    }
    let own = USER.try_into().unwrap();
    // A descriptor that the spec does not name.
    let leaked = File::open("/etc/passwd").unwrap();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let vm = halted(Command::new(super::VMM), Some(Identity { uid: own, gid: own }));
    assert_unprivileged(&vm);
    let ids = format!("{USER} {USER} {USER} {USER}");
    assert_eq!(field(&vm, "status", "Uid:"), ids);
    assert_eq!(field(&vm, "status", "Gid:"), ids);
    assert_eq!(field(&vm, "status", "Groups:"), "");
    assert_eq!(field(&vm, "status", "CapBnd:"), "0000000000000000");
    assert_eq!(field(&vm, "limits", "Max processes"), "28 28 processes");
    let directory = format!("/proc/{}", vm.child.id());
    for namespace in ["mnt", "net", "ipc", "uts"] {
        let of = |process: &str| read_link(format!("{process}/ns/{namespace}")).unwrap();
        assert_ne!(of(&directory), of("/proc/self"), "{namespace}");
    }
    assert_eq!(read_dir(format!("{directory}/root/")).unwrap().count(), 0);
    assert_eq!(
        field(&vm, "mountinfo", "").split(' ').count(),
        10,
        "one mount: {}",
        field(&vm, "mountinfo", "")
    );
    assert_eq!(
        read_to_string(format!("{directory}/net/dev")).unwrap().lines().count(),
        3,
        "two header lines, and lo"
    );
    let files: BTreeSet<String> = read_dir(format!("{directory}/fd"))
        .unwrap()
        .map(|fd| read_link(fd.unwrap().path()).unwrap().display().to_string())
        .collect();
    assert!(files.iter().all(|file| !file.contains("passwd")), "{files:?}");
    assert_stops(vm);
}

/// A file or pipe that a VMM has open.
#[derive(Debug)]
struct Open {
    number: String,
    kind: FileType,
    bytes: u64,
    access: i32,
}

fn open_files(vm: &Vm) -> Vec<Open> {
    let directory = format!("/proc/{}", vm.child.id());
    let all = read_dir(format!("{directory}/fd")).unwrap().map(|fd| {
        let number = fd.unwrap().file_name().display().to_string();
        let metadata = metadata(format!("{directory}/fd/{number}")).unwrap();
        let info = read_to_string(format!("{directory}/fdinfo/{number}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        Open {
            number,
            kind: metadata.file_type(),
            bytes: metadata.len(),
            access: i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_ACCMODE,
        }
    });
    all.filter(|open| open.kind.is_file() || open.kind.is_fifo()).collect()
}

/// What a taken-over VMM can write to: its scratch disk, no longer than it is, and the pipe for its last words.
#[test]
fn the_scratch_disk_is_the_only_file_that_a_vmm_can_write() {
    if !has_kvm() || !is_root() {
        return;
    }
    let (mut words, to) = pipe().unwrap();
    let own = USER.try_into().unwrap();
    let socket = tempfile::tempdir().unwrap();
    let vm = start_with(Command::new(super::VMM), elf(guests::halted()), with(&[]), to.into(), |vm| {
        vm.spec.identity = Some(Identity { uid: own, gid: own });
        vm.spec.layers = true;
        vm.spec.rng = true;
        vm.scratch(with(&[0; 8192])).unwrap();
        vm.vsock(UnixListener::bind(socket.path().join("vsock")).unwrap().into()).unwrap();
    });
    vm.wait_for_output();
    let layer = tempfile::NamedTempFile::new().unwrap();
    layer.as_file().set_len(4096).unwrap();
    vm.control.append(&[File::open(layer.path()).unwrap()]).unwrap();
    let (files, pipes): (Vec<_>, Vec<_>) = open_files(&vm).into_iter().partition(|open| open.kind.is_file());
    let written = |open: &&Open| open.access != libc::O_RDONLY;
    assert_eq!(
        files.iter().filter(written).map(|open| open.bytes).collect::<Vec<_>>(),
        [8192],
        "{files:?}"
    );
    assert!(files.iter().any(|open| open.bytes == 4096), "the layer is not open: {files:?}");
    assert_eq!(
        pipes.iter().filter(written).map(|open| open.number.as_str()).collect::<Vec<_>>(),
        ["2"],
        "{pipes:?}"
    );
    assert_eq!(field(&vm, "limits", "Max file size"), "8192 8192 bytes");
    assert_stops(vm);
    let mut said = String::new();
    words.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn root_without_an_identity_keeps_only_its_ids() {
    if !has_kvm() || !is_root() {
        return;
    }
    let vm = halted(Command::new(super::VMM), None);
    assert_unprivileged(&vm);
    assert_eq!(field(&vm, "status", "CapBnd:"), "0000000000000000");
    assert_eq!(read_dir(format!("/proc/{}/root/", vm.child.id())).unwrap().count(), 0);
    assert_stops(vm);
}

/// Without privileges the VMM runs with its own ids, and refuses to change them.
#[test]
fn an_unprivileged_vmm_runs_and_cannot_change_its_ids() {
    if !has_kvm() || !is_root() {
        return;
    }
    let unprivileged = || {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--", super::VMM]);
        command
    };
    let vm = halted(unprivileged(), None);
    assert_unprivileged(&vm);
    assert!(
        read_dir(format!("/proc/{}/root/", vm.child.id())).unwrap().count() > 0,
        "the host's root"
    );
    assert_stops(vm);
    let other = USER.try_into().unwrap();
    let (status, _, stderr) = start_as(unprivileged(), elf(guests::hello()), |vm| {
        vm.spec.identity = Some(Identity { uid: other, gid: other })
    })
    .wait();
    assert_eq!(status, Some(2));
    assert!(stderr.contains("leave `identity` out"), "{stderr}");
}
