//! Hostile requests: every field in and out of its range, and random bytes everywhere.

use super::*;
use proptest::prelude::*;

const SPEC: &str = r#"{"ociVersion":"1.0.2-dev","process":{"user":{"uid":0,"gid":0,"additionalGids":[0,1]},
  "args":["sh"],"env":["PATH=/bin"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN"]},
  "rlimits":[{"type":"RLIMIT_NOFILE","hard":1024,"soft":1024}],"noNewPrivileges":true},
  "root":{"path":"rootfs"},"mounts":[{"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}],
  "linux":{"cgroupsPath":"/default/x","resources":{"devices":[{"allow":false,"access":"rwm"}]},
  "namespaces":[{"type":"pid"},{"type":"network"}],"maskedPaths":["/proc/acpi"]}}"#;

fn create(spec: &str) -> Result<CreateOrder, DecodeError> {
    let mut request = CreateContainerRequest::new();
    request.container_id = "redis".to_owned();
    request.sandbox_id = "redis".to_owned();
    request.spec = spec.as_bytes().to_vec();
    CreateOrder::try_from(request)
}

/// The spec with `path` (keys separated by dots) set to `value`.
fn with(path: &str, value: serde_json::Value) -> Result<CreateOrder, DecodeError> {
    let mut spec: serde_json::Value = serde_json::from_str(SPEC).unwrap();
    let mut at = &mut spec;
    for key in path.split('.') {
        at = &mut at[key];
    }
    *at = value;
    create(&spec.to_string())
}

#[test]
fn scratch_is_on_a_disk_or_in_memory() {
    let asked = |encrypted, in_memory| {
        scratch(&MountScratchRequest {
            sandbox_id: "redis".to_owned(),
            encrypted,
            in_memory,
            ..Default::default()
        })
        .map(|(_, asked)| (asked.filesystem, asked.encrypted))
        .ok()
    };
    assert_eq!(asked(true, false), Some(("ext4".to_owned(), true)));
    assert_eq!(asked(false, false), Some(("ext4".to_owned(), false)));
    // Nothing of it leaves the guest, as with an encrypted disk.
    assert_eq!(asked(false, true), Some(("tmpfs".to_owned(), true)));
    assert_eq!(asked(true, true), None);
}

#[test]
fn the_default_spec_of_ctr_is_accepted() {
    let order = create(SPEC).unwrap();
    assert_eq!(order.container.to_string(), "redis");
    assert_eq!(order.spec.process.user.additional_gids, [0, 1]);
    let resources = order.spec.linux.resources.unwrap();
    assert!(!resources.allow_every_device());
    let limits = container_document::Resources {
        devices: None,
        ..resources
    };
    assert_eq!(limits, container_document::Resources::default());
    assert_eq!(order.stdio, StdioPlan::default());
}

#[test]
fn what_the_guest_does_not_support_is_refused() {
    use serde_json::json;
    let refused = |path: &str, value| match with(path, value) {
        Err(DecodeError::Spec { field, .. }) => field,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(refused("hooks", json!({"prestart": [{"path": "/bin/sh"}]})), "hooks");
    assert_eq!(refused("process.args", json!([])), "process.args");
    assert_eq!(refused("process.args", json!(["a\0b"])), "process.args");
    assert_eq!(refused("process.cwd", json!("../etc")), "process.cwd");
    assert_eq!(refused("process.cwd", json!("/a/../etc")), "process.cwd");
    assert_eq!(refused("process.user.umask", json!(0o1777)), "process.user.umask");
    assert_eq!(refused("hostname", json!("a/b")), "hostname");
    assert_eq!(
        refused("mounts", json!([{"destination": "/x", "type": "ext4", "source": "/dev/vda"}])),
        "mounts.type"
    );
    assert_eq!(
        refused(
            "mounts",
            json!([{"destination": "/x", "type": "tmpfs", "source": "/", "options": ["rbind"]}])
        ),
        "mounts.options"
    );
    assert_eq!(
        refused("mounts", json!([{"destination": "/a/../x", "type": "proc"}])),
        "mounts.destination"
    );
    assert_eq!(refused("linux.sysctl", json!({"kernel.core_pattern": "|/bin/sh"})), "linux.sysctl");
    assert_eq!(refused("linux.sysctl", json!({"net.x/../../kernel": "1"})), "linux.sysctl");
    assert_eq!(
        refused("linux.devices", json!([{"path": "/etc/passwd", "type": "c"}])),
        "linux.devices"
    );
    assert_eq!(refused("linux.maskedPaths", json!(["etc"])), "linux");
    assert_eq!(refused("linux.namespaces", json!([{"type": "user"}])), "linux.namespaces");
    assert!(with("linux.sysctl", json!({"net.ipv4.ip_forward": "1"})).is_ok());
    assert!(with("hooks", json!({"prestart": null})).is_ok());
    assert!(matches!(
        with("process.args", json!(7)),
        Err(DecodeError::Json { field: "spec", .. })
    ));
}

#[test]
fn every_list_and_text_is_bounded() {
    use agent_protocol::limits::*;
    use serde_json::json;
    let most = |path: &str, entry: serde_json::Value, count: usize| {
        assert!(with(path, json!(vec![entry.clone(); count])).is_ok(), "{path}: {count} are allowed");
        assert!(
            matches!(with(path, json!(vec![entry; count + 1])), Err(DecodeError::Spec { .. })),
            "{path}: more than {count}"
        );
    };
    most("process.args", json!("a"), ARGS);
    most("process.env", json!("A=1"), ENV_ENTRIES);
    most("process.user.additionalGids", json!(7), GROUPS);
    most("process.rlimits", json!({"type": "RLIMIT_CORE", "hard": 1, "soft": 1}), RLIMITS);
    most("process.capabilities.bounding", json!("CAP_CHOWN"), CAPABILITIES);
    most("mounts", json!({"destination": "/p", "type": "proc"}), MOUNTS);
    most("linux.namespaces", json!({"type": "pid"}), NAMESPACES);
    most(
        "linux.devices",
        json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 3}),
        DEVICES,
    );
    most("linux.maskedPaths", json!("/x"), GUARDED_PATHS);
    most("linux.readonlyPaths", json!("/x"), GUARDED_PATHS);
    let options = |count: usize| {
        with(
            "mounts",
            json!([{"destination": "/p", "type": "proc", "options": vec!["ro"; count]}]),
        )
    };
    assert!(options(MOUNT_OPTIONS).is_ok() && options(MOUNT_OPTIONS + 1).is_err());

    let longest = |path: &str, bytes: usize, value: &dyn Fn(String) -> serde_json::Value| {
        assert!(with(path, value("/".repeat(bytes))).is_ok(), "{path}: {bytes} bytes are allowed");
        assert!(with(path, value("/".repeat(bytes + 1))).is_err(), "{path}: more than {bytes} bytes");
    };
    longest("process.cwd", PATH_BYTES, &|text| json!(text));
    longest("process.args", ARG_BYTES, &|text| json!([text]));
    longest("process.env", ARG_BYTES, &|text| json!([text]));
    longest("process.user.username", TEXT_BYTES, &|text| json!(text));
    longest("linux.sysctl", TEXT_BYTES, &|text| json!({"kernel.sem": text}));
    longest(
        "mounts",
        PATH_BYTES,
        &|text| json!([{"destination": "/p", "type": "proc", "source": text}]),
    );
}

#[test]
fn the_nesting_of_a_document_is_bounded() {
    let deep = format!(r#"{{"hooks":{{"a":{}"#, "[".repeat(100_000));
    assert!(matches!(create(&deep), Err(DecodeError::Json { .. })));
    let unknown = format!(r#"{{"unknown":{}"#, "[".repeat(100_000));
    assert!(matches!(create(&unknown), Err(DecodeError::Json { .. })));
}

#[test]
fn a_parse_error_does_not_quote_the_document() {
    let error = create(r#"{"process":{"cwd":"/","args":["secret"],"env":"secret"}}"#).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

fn layer(first_sector: u64, data_blocks: u64, total_blocks: u64) -> Result<LayerOrder, DecodeError> {
    let mut request = MountLayerRequest::new();
    request.first_sector = first_sector;
    request.data_blocks = data_blocks;
    request.total_blocks = total_blocks;
    request.root_hash = vec![7; 32];
    request.try_into()
}

#[test]
fn layers_must_have_room_for_their_tree() {
    // 523 data blocks: 5 + 1 blocks of tree and the superblock.
    assert!(layer(8, 523, 530).is_ok());
    assert!(layer(8, 1, 2).is_ok());
    let reason = |order: Result<_, DecodeError>| match order {
        Err(DecodeError::Geometry(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(layer(8, 523, 529)).contains("no room"));
    assert!(reason(layer(7, 523, 530)).contains("start of a block"));
    assert!(reason(layer(8, 0, 530)).contains("no data"));
    assert!(reason(layer(8, 1, u64::MAX)).contains("beyond"));
    assert!(reason(layer(u64::MAX - 7, 1, 2)).contains("beyond"));
    assert!(reason(layer(0, u64::MAX, 2)).contains("no room"));
}

#[test]
fn signals_have_numbers_from_1_to_64() {
    let mut request = SignalProcessRequest::new();
    request.container_id = "a".to_owned();
    for (number, good) in [(0, false), (1, true), (64, true), (65, false), (u32::MAX, false)] {
        request.signal = number;
        assert_eq!(SignalOrder::try_from(&request).is_ok(), good, "{number}");
    }
}

#[test]
fn tokens_and_sizes_are_checked() {
    let mut request = Stdio::new();
    request.stdin_token = vec![1; 15];
    assert!(matches!(
        stdio(Some(&request)),
        Err(DecodeError::Token { field: "stdin_token", .. })
    ));
    request.stdin_token = vec![1; 16];
    request.stderr_token = vec![2; 16];
    let plain = stdio(Some(&request)).unwrap();
    assert_eq!(
        (plain.stdin, plain.stderr),
        (Some(StreamToken([1; 16])), Some(StreamToken([2; 16])))
    );
    request.terminal = true;
    request.width = 80;
    let terminal = stdio(Some(&request)).unwrap();
    assert_eq!(terminal.terminal, Some(TerminalSize { columns: 80, rows: 0 }));
    assert_eq!(terminal.stderr, None, "a terminal has no separate stderr");
    request.height = 0x1_0000;
    assert!(matches!(stdio(Some(&request)), Err(DecodeError::Range { field: "height", .. })));
}

#[test]
fn a_policy_has_at_most_3_mib() {
    let mut request = SetPolicyRequest::new();
    request.policy = vec![b'#'; POLICY_BYTES];
    assert_eq!(policy(request.clone()).unwrap().text.len(), POLICY_BYTES);
    let mut referring = request.clone();
    referring.reference_info = "A".repeat(REFERENCE_BYTES + 1);
    assert!(matches!(
        policy(referring),
        Err(DecodeError::ReferenceTooLong {
            field: "reference_info",
            ..
        })
    ));
    request.policy.push(b'#');
    assert!(matches!(policy(request), Err(DecodeError::PolicyTooLong(_))));
}

proptest! {
    #[test]
    fn no_bytes_make_a_panic(bytes: Vec<u8>, id: String) {
        let mut request = CreateContainerRequest::new();
        request.container_id = id.clone();
        request.spec = bytes.clone();
        prop_assert!(CreateOrder::try_from(request).is_err());
        let mut request = ExecProcessRequest::new();
        request.exec_id = id;
        request.process = bytes;
        prop_assert!(ExecOrder::try_from(request).is_err());
    }

    #[test]
    fn a_layer_that_is_taken_lies_on_some_disk(first: u64, data: u64, total: u64) {
        if let Ok(order) = layer(first, data, total) {
            let LayerSource::Disk(geometry) = order.source else {
                return Err(TestCaseError::fail("a layer of the disk was taken for a pulled one"));
            };
            prop_assert!(geometry.data_blocks() > 0 && geometry.data_sectors() < geometry.sectors());
            prop_assert!(geometry.end_sector() > geometry.first_sector());
        }
    }

    #[test]
    fn mutated_specs_are_taken_or_refused(at in 0..SPEC.len(), byte: u8) {
        let mut bytes = SPEC.as_bytes().to_vec();
        bytes[at] = byte;
        if let Ok(text) = String::from_utf8(bytes) && let Ok(order) = create(&text) {
            prop_assert!(is_plain(&order.spec.process.cwd));
            prop_assert!(order.spec.mounts.iter().all(|mount| is_plain(&mount.destination)));
        }
    }
}

fn is_plain(path: &str) -> bool {
    container_document::is_plain_path(path)
}
