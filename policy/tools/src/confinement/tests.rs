use std::path::Path;

use policy::action::{Action, ConfineContainer, IdName};
use policy::action::{
    CreateContainer, GuestNetwork, MountDevice, MountOverlay, Namespace, PodFiles, PortForward, PullImage, Rlimit as AskedRlimit, Route,
};
use policy::{ContainerId, Enforcer, RootHash, data};

use super::*;
use crate::generate;

const CONFIG: &str = r#"
casemate_version = "1.0.0"

[[network]]
interface = "eth0"
address = [{ strategy = "re2", rule = "10\\.88\\.[0-9.]+/16" }]
route = [{ strategy = "any" }]
nameserver = [{ rule = "10.88.0.1" }]

[[container]]
layers = ["LAYER"]
command = ["app"]
masked_paths = ["/proc/kcore"]
readonly_paths = []
pod_namespaces = ["network"]
rlimit = [{ type = "RLIMIT_NOFILE", soft = 1024, hard = "unlimited" }]
sysctls = { "net.core.somaxconn" = "1024" }
forwarded_ports = [8080]
readonly_root = true
allow_pause = true
allow_reports = true
oom_score_adj = { min = -5, max = 5 }
limits = { "memory.max" = { min = 4096, max = 1073741824 } }
"#;

fn config() -> String {
    CONFIG.replace("LAYER", RootHash::new(&[1; 32]).as_str())
}

fn text(config: &str) -> Result<String, GenerateError> {
    generate(&Config::from_toml(config)?, Path::new(""))
}

fn enforcer() -> Enforcer {
    Enforcer::new(&text(&config()).unwrap()).unwrap()
}

fn id() -> ContainerId {
    ContainerId::new("app")
}

/// An enforcer with the container's root file system mounted.
fn mounted() -> Enforcer {
    let mut enforcer = enforcer();
    let mount = MountDevice::new("/run/mounts/scsi/m0", RootHash::new(&[1; 32]));
    enforcer.enforce(mount).unwrap().commit();
    let overlay = MountOverlay {
        container_id: id(),
        layer_paths: vec!["/run/mounts/scsi/m0".to_owned()],
        target: format!("/run/gcs/c/{}/rootfs", id().as_hex()),
    };
    enforcer.enforce(overlay).unwrap().commit();
    enforcer
}

fn confinement() -> ConfineContainer {
    let namespace = |kind: &str| Namespace {
        kind: kind.to_owned(),
        path: if kind == "network" { "pod" } else { "" }.to_owned(),
    };
    ConfineContainer {
        container_id: id(),
        sandbox_id: id(),
        masked_paths: vec!["/proc/kcore".to_owned(), "/proc/keys".to_owned()],
        readonly_paths: Vec::new(),
        namespaces: ["pid", "mount", "cgroup", "network", "ipc", "uts"].map(namespace).to_vec(),
        rlimits: vec![AskedRlimit {
            kind: "RLIMIT_NOFILE".to_owned(),
            hard: u64::MAX,
            soft: 1024,
        }],
        sysctls: BTreeMap::from([("net.core.somaxconn".to_owned(), "1024".to_owned())]),
        readonly_root: true,
        sandbox_dir: "/sandbox".to_owned(),
        huge_pages_dir: "/huge".to_owned(),
        mounts: Vec::new(),
        oom_score_adj: 0,
        limits: BTreeMap::from([("memory.max".to_owned(), Some(1 << 30))]),
    }
}

fn is_allowed(enforcer: &mut Enforcer, action: impl Action) -> bool {
    enforcer.enforce(action).is_ok()
}

#[test]
fn a_container_is_confined_as_configured_and_not_otherwise() {
    let mut enforcer = mounted();
    assert!(is_allowed(&mut enforcer, confinement()));
    let mut denies = |what: &str, change: fn(&mut ConfineContainer)| {
        let mut changed = confinement();
        change(&mut changed);
        assert!(!is_allowed(&mut enforcer, changed), "{what}");
    };
    denies("nothing hidden", |asked| asked.masked_paths.clear());
    denies("another namespace of the pod", |asked| asked.namespaces[4].path = "pod".to_owned());
    denies("the guest's namespace", |asked| drop(asked.namespaces.pop()));
    denies("a higher limit", |asked| asked.rlimits[0].soft = 1025);
    denies("another limit", |asked| asked.rlimits[0].kind = "RLIMIT_CORE".to_owned());
    denies("another value", |asked| {
        asked.sysctls.insert("net.core.somaxconn".to_owned(), "1".to_owned());
    });
    denies("a root that can be written", |asked| asked.readonly_root = false);
    denies("a shield from the OOM killer", |asked| asked.oom_score_adj = -6);
    denies("no limit", |asked| asked.limits.clear());
    denies("another parameter", |asked| {
        asked.sysctls.insert("kernel.domainname".to_owned(), "x".to_owned());
    });
}

#[test]
fn a_running_container_s_ports_are_those_configured() {
    let mut enforcer = mounted();
    enforcer.enforce(confinement()).unwrap().commit();
    let create = CreateContainer {
        container_id: id(),
        arg_list: vec!["app".to_owned()],
        env_list: Vec::new(),
        working_dir: "/".to_owned(),
        sandbox_dir: String::new(),
        huge_pages_dir: String::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        privileged: false,
        no_new_privileges: true,
        user: IdName::new(0, "root"),
        groups: vec![IdName::new(0, "root")],
        umask: "0022".to_owned(),
        capabilities: Some(data::unprivileged_capabilities()),
        seccomp_profile_sha256: String::new(),
        is_sandbox_container: false,
    };
    enforcer.enforce(create).unwrap().commit();
    let forward = |port| PortForward { container_id: id(), port };
    assert!(is_allowed(&mut enforcer, forward(8080)));
    assert!(!is_allowed(&mut enforcer, forward(8081)));
}

#[test]
fn the_guest_gets_the_network_that_is_configured() {
    let network = |interface: &str, address: &str, server: &str| GuestNetwork {
        interface: interface.to_owned(),
        addresses: vec![address.to_owned()],
        routes: vec![Route {
            destination: "0.0.0.0/0".to_owned(),
            gateway: "10.88.0.1".to_owned(),
            source: String::new(),
            on_link: false,
            metric: 0,
        }],
        nameservers: vec![server.to_owned()],
        hardware_address: String::new(),
        mtu: 0,
        neighbours: Vec::new(),
    };
    let mut enforcer = enforcer();
    assert!(is_allowed(&mut enforcer, network("eth0", "10.88.0.2/16", "10.88.0.1")));
    assert!(!is_allowed(&mut enforcer, network("eth1", "10.88.0.2/16", "10.88.0.1")));
    assert!(!is_allowed(&mut enforcer, network("eth0", "10.89.0.2/16", "10.88.0.1")));
    assert!(!is_allowed(&mut enforcer, network("eth0", "10.88.0.2/16", "8.8.8.8")));
}

#[test]
fn the_guest_pulls_what_is_listed_with_and_without_the_version() {
    let pull = "[[pull]]\nstrategy = 're2'\nrule = 'r[.]corp/app@sha256:[0-9a-f]{64}'\n";
    let image = |registry: &str| PullImage {
        image: format!("{registry}/app@sha256:{}", "a".repeat(64)),
    };
    for version in ["", "casemate_version = '1.0.0'\n"] {
        let mut enforcer = Enforcer::new(&text(&format!("{version}{pull}")).unwrap()).unwrap();
        assert!(is_allowed(&mut enforcer, image("r.corp")));
        assert!(!is_allowed(&mut enforcer, image("rxcorp")));
    }
    assert!(!text("").unwrap().contains("pull"));
    let bad = text("[[pull]]\nstrategy = 'id'\nrule = '1'\n").unwrap_err().to_string();
    assert!(bad.contains("pull 1"), "{bad}");
}

const POD: &str = r#"
casemate_version = "1.0.0"

[pod]
share_process_namespace = true
hosts = [{ strategy = "re2", rule = "[0-9a-f.:]+[\\t ]+[a-z]+" }]

[[container]]
layers = ["LAYER"]
command = ["app"]
"#;

fn pod(change: (&str, &str)) -> Result<Enforcer, GenerateError> {
    let config = POD.replace("LAYER", RootHash::new(&[1; 32]).as_str()).replace(change.0, change.1);
    Ok(Enforcer::new(&text(&config)?)?)
}

/// Mounts the root file systems of the pause container and of the other one, and asks to confine that one in the pod's namespaces.
fn shares_processes(enforcer: &mut Enforcer) -> bool {
    let sandbox = ContainerId::new("pod");
    let mount = MountDevice::new("/run/mounts/scsi/m0", RootHash::new(&[1; 32]));
    enforcer.enforce(mount).unwrap().commit();
    for (container, layers) in [(sandbox.clone(), vec![]), (id(), vec!["/run/mounts/scsi/m0".to_owned()])] {
        let overlay = MountOverlay {
            target: format!("/run/gcs/c/{}/rootfs", container.as_hex()),
            container_id: container,
            layer_paths: layers,
        };
        enforcer.enforce(overlay).unwrap().commit();
    }
    let mut asked = confinement();
    asked.sandbox_id = sandbox;
    asked.masked_paths = text_of(&[
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
    ]);
    asked.readonly_paths = text_of(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    asked.rlimits.clear();
    asked.sysctls.clear();
    let shared = asked.namespaces.iter_mut().filter(|namespace| namespace.kind == "pid");
    shared.for_each(|namespace| namespace.path = "pod".to_owned());
    is_allowed(enforcer, asked)
}

fn text_of(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|&path| path.to_owned()).collect()
}

#[test]
fn a_pod_has_the_guests_pause_container_its_files_and_a_network() {
    let files = |hosts: &str| PodFiles {
        sandbox_id: ContainerId::new("pod"),
        hosts: vec![hosts.to_owned()],
        hostname: vec!["web-0".to_owned()],
        resolv_conf: vec!["nameserver 10.88.0.1".to_owned()],
        shm_bytes: 1 << 26,
    };
    let network = GuestNetwork {
        interface: "eth0".to_owned(),
        addresses: vec!["10.88.0.2/16".to_owned()],
        routes: Vec::new(),
        nameservers: Vec::new(),
        hardware_address: String::new(),
        mtu: 1500,
        neighbours: Vec::new(),
    };
    let mut enforcer = pod(("", "")).unwrap();
    assert!(is_allowed(&mut enforcer, files("127.0.0.1\tlocalhost")) && is_allowed(&mut enforcer, network));
    assert!(!is_allowed(&mut enforcer, files("127.0.0.1 a b")));
    assert!(shares_processes(&mut enforcer));
    assert!(!shares_processes(&mut pod(("share_process_namespace = true", "")).unwrap()));
    let refused = pod(("casemate_version = \"1.0.0\"", "")).map(drop).unwrap_err().to_string();
    assert!(refused.contains("casemate_version"), "{refused}");
    let bare = text("[pod]\n").unwrap();
    assert!(bare.contains("\"layers\": [],") && !bare.contains("pod_lines"), "{bare}");
}

#[test]
fn json_says_the_same() {
    let same: serde_json::Value = toml::from_str(&config()).unwrap();
    assert_eq!(Config::from_json(&same.to_string()).unwrap(), Config::from_toml(&config()).unwrap());
}

#[test]
fn without_casemate_version_the_policy_is_unchanged_and_the_keys_are_refused() {
    let plain = |keys: &str| {
        format!(
            "[[container]]\nlayers = [\"{}\"]\ncommand = [\"app\"]\n{keys}",
            RootHash::new(&[1; 32]).as_str()
        )
    };
    let without = text(&plain("")).unwrap();
    assert!(
        !without.contains("casemate_version") && !without.contains("confine_container"),
        "{without}"
    );
    for keys in [
        "masked_paths = []",
        "readonly_paths = []",
        "pod_namespaces = []",
        "rlimit = [{ type = \"RLIMIT_CORE\", soft = 0, hard = 0 }]",
        "sysctls = { a = \"b\" }",
        "forwarded_ports = [1]",
        "\n[[network]]\n",
    ] {
        let refused = text(&plain(keys)).unwrap_err().to_string();
        assert!(refused.contains("casemate_version"), "{keys}: {refused}");
    }
}

#[test]
fn invalid_values_are_named() {
    for (from, to, expected) in [
        ("\"1.0.0\"", "\"2.0.0\"", "casemate_version: \"2.0.0\" is not supported"),
        ("[\"/proc/kcore\"]", "[\"proc\"]", "masked_paths: \"proc\" is not absolute"),
        ("[\"network\"]", "[\"mount\"]", "pod_namespaces: \"mount\""),
        ("RLIMIT_NOFILE", "NOFILE", "rlimit: \"NOFILE\" is not a resource"),
        ("\"unlimited\"", "1", "rlimit RLIMIT_NOFILE: soft is above hard"),
        ("8080", "0", "forwarded_ports: 0 is not a port"),
        ("memory.max", "memory.min", "limits: \"memory.min\" is not one of"),
        ("\"re2\"", "\"id\"", "network 1: rule"),
        ("[0-9.]+", "[0-9.+", "network 1: pattern"),
    ] {
        let refused = text(&config().replace(from, to)).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}
