//! The spec that `ctr run` makes of an image, under the policy generated for that image.

use std::path::Path;

use policy::action::{
    Action, Capabilities, CreateContainer, Device, ExecInContainer, IdName, Mount, MountDevice, MountOverlay, SignalContainerProcess,
};
use policy::{ContainerId, Denied, Enforcer, RootHash};
use policy_tools::{Config, generate};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LAYERS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];

fn enforcer() -> Enforcer {
    let layers: Vec<String> = LAYERS.iter().map(|layer| format!("\"{}\"", RootHash::new(layer))).collect();
    let config = format!(
        r#"
        [[container]]
        image_name = "redis"
        layers = [{}]
        command = ["redis-server", "--save", ""]
        allow_stdio_access = true
        signals = [2, 9, 15]

        [[container.env_rule]]
        strategy = "re2"
        rule = "NONCE=[0-9a-f]{{1,64}}"
        required = false

        [[container.exec_process]]
        command = ["redis-cli", "ping"]
        signals = [9, 15]
        "#,
        layers.join(", ")
    );
    let text = generate(&Config::from_toml(&config).unwrap(), Path::new("")).unwrap();
    Enforcer::new(&text).unwrap()
}

fn id() -> ContainerId {
    ContainerId::new("redis1")
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// Mounts of containerd's `oci.WithDefaultSpec`.
fn default_mounts() -> Vec<Mount> {
    [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"][..]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        (
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ]
    .into_iter()
    .map(|(destination, kind, source, options)| Mount {
        destination: destination.to_owned(),
        options: Some(texts(options)),
        source: source.to_owned(),
        kind: kind.to_owned(),
    })
    .collect()
}

/// Capabilities of containerd's `defaultUnixCaps`.
fn default_capabilities() -> Capabilities {
    let names = texts(&[
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    ]);
    Capabilities {
        bounding: names.clone(),
        effective: names.clone(),
        permitted: names,
        ..Capabilities::default()
    }
}

fn create() -> CreateContainer {
    let directory = format!("/run/gcs/c/{}", id().as_hex());
    CreateContainer {
        container_id: id(),
        arg_list: texts(&["redis-server", "--save", ""]),
        env_list: texts(&[PATH, "TERM=xterm", "NONCE=c0ffee"]),
        working_dir: "/".to_owned(),
        sandbox_dir: format!("{directory}/sandboxMounts"),
        huge_pages_dir: format!("{directory}/hugepages"),
        mounts: default_mounts(),
        devices: Vec::new(),
        privileged: false,
        no_new_privileges: true,
        user: IdName::new(0, "root"),
        groups: vec![IdName::new(0, "root"), IdName::new(10, "wheel")],
        umask: "0022".to_owned(),
        capabilities: Some(default_capabilities()),
        seccomp_profile_sha256: String::new(),
        is_sandbox_container: false,
    }
}

fn exec(command: &[&str]) -> ExecInContainer {
    let create = create();
    ExecInContainer {
        container_id: id(),
        arg_list: texts(command),
        env_list: create.env_list,
        working_dir: create.working_dir,
        no_new_privileges: true,
        user: create.user,
        groups: create.groups,
        umask: create.umask,
        capabilities: create.capabilities,
    }
}

fn layer(index: usize) -> String {
    format!("/run/mounts/scsi/m{index}")
}

fn mount_layers(enforcer: &mut Enforcer) {
    for (index, hash) in LAYERS.iter().enumerate() {
        enforcer
            .enforce(MountDevice::new(layer(index), RootHash::new(hash)))
            .unwrap()
            .commit();
    }
}

fn overlay(order: &[usize]) -> MountOverlay {
    MountOverlay {
        container_id: id(),
        layer_paths: order.iter().map(|index| layer(*index)).collect(),
        target: format!("/run/gcs/c/{}/rootfs", id().as_hex()),
    }
}

/// An enforcer with layers and overlay mounted.
fn prepared() -> Enforcer {
    let mut enforcer = enforcer();
    mount_layers(&mut enforcer);
    enforcer.enforce(overlay(&[2, 1, 0])).unwrap().commit();
    enforcer
}

fn denied<A: Action>(enforcer: &mut Enforcer, action: A) -> Denied {
    match enforcer.enforce(action) {
        Ok(_) => panic!("allowed"),
        Err(denied) => denied,
    }
}

#[test]
fn the_container_runs_and_answers_to_exec_and_signals() {
    let mut enforcer = prepared();
    let permit = enforcer.enforce(create()).unwrap();
    assert_eq!(permit.verdict().env, create().env_list);
    assert_eq!(permit.verdict().capabilities, default_capabilities());
    assert!(permit.verdict().stdio);
    permit.commit();
    enforcer.enforce(exec(&["redis-cli", "ping"])).unwrap().commit();
    let signal = SignalContainerProcess {
        container_id: id(),
        signal: 15,
        is_init_process: true,
        arg_list: Some(create().arg_list),
    };
    enforcer.enforce(signal).unwrap().commit();
}

#[test]
fn another_layer_or_another_order_is_denied() {
    let mut enforcer = enforcer();
    let changed = denied(&mut enforcer, MountDevice::new(layer(0), RootHash::new(&[9; 32])));
    assert_eq!(changed.reasons(), ["deviceHash not found"]);
    mount_layers(&mut enforcer);
    assert_eq!(
        denied(&mut enforcer, overlay(&[0, 1, 2])).reasons(),
        ["no matching containers for overlay"]
    );
    assert_eq!(
        denied(&mut enforcer, overlay(&[2, 1])).reasons(),
        ["no matching containers for overlay"]
    );
}

#[test]
fn an_exec_that_is_not_listed_is_denied() {
    let mut enforcer = prepared();
    enforcer.enforce(create()).unwrap().commit();
    for command in [&["sh"][..], &["redis-cli"], &["redis-cli", "ping", "x"]] {
        let denied = denied(&mut enforcer, exec(command));
        assert!(denied.summary().contains("command is not in the policy"), "{denied}");
    }
}

#[test]
fn every_other_change_is_denied_and_named() {
    type Change = fn(&mut CreateContainer);
    let changes: &[(&str, Change)] = &[
        ("command is not in the policy", |c| c.arg_list = texts(&["sh"])),
        ("environment variable LD_PRELOAD is not in the policy", |c| {
            c.env_list.push("LD_PRELOAD=/x".to_owned())
        }),
        ("environment variable NONCE is not in the policy", |c| {
            c.env_list[2] = "NONCE=zz".to_owned()
        }),
        ("working directory /tmp is not in the policy", |c| c.working_dir = "/tmp".to_owned()),
        ("mount at /etc is not in the policy", |c| {
            c.mounts[0].destination = "/etc".to_owned()
        }),
        ("mount at /sys is not in the policy", |c| {
            c.mounts[5].options = Some(texts(&["nosuid", "noexec", "nodev", "rw"]))
        }),
        ("the policy does not let it run privileged", |c| c.privileged = true),
        ("the policy demands no_new_privs", |c| c.no_new_privileges = false),
        ("user, group or umask is not in the policy", |c| c.umask = "0000".to_owned()),
        ("capabilities are not the policy's", |c| {
            c.capabilities.get_or_insert_default().ambient.push("CAP_SYS_ADMIN".to_owned());
        }),
        ("seccomp profile is not the policy's", |c| {
            c.seccomp_profile_sha256 = "00".repeat(32)
        }),
        ("the policy cannot allow device nodes", |c| {
            c.devices.push(Device {
                path: "/dev/kvm".to_owned(),
                kind: "c".to_owned(),
                major: 10,
                minor: 232,
                file_mode: None,
                uid: None,
                gid: None,
            });
        }),
    ];
    let mut enforcer = prepared();
    for (words, change) in changes {
        let mut action = create();
        change(&mut action);
        let denied = denied(&mut enforcer, action);
        assert!(denied.summary().starts_with("container \"redis1\" may not start: "), "{denied}");
        assert!(denied.summary().contains(words), "want {words:?}: {denied}");
    }
    enforcer.enforce(create()).unwrap().commit();
}
