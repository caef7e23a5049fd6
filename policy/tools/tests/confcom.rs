//! Container definitions of `az confcom`: what `acipolicygen` makes of them (its container.py, config.py and template_util.py), compared field
//! by field. The definitions are written by hand after the forms that its documentation and tests show.

use policy_tools::{Config, Document, Sources, generate_warning};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layout with an image of one empty layer.
fn layout(at: &Path) {
    let blob = |bytes: &[u8]| {
        let path = at.join("blobs/sha256").join(&digest(bytes)[7..]);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        json!({"digest": digest(bytes), "size": bytes.len()})
    };
    let layer = vec![0; 1024];
    let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "config": {"Env": ["PATH=/bin", "LANG=C"], "Entrypoint": ["/entry"], "Cmd": ["serve"], "WorkingDir": "/app", "User": "app:50",
            "StopSignal": "SIGQUIT"}});
    let manifest = json!({"config": blob(config.to_string().as_bytes()), "layers": [blob(&layer)]});
    let index = json!({"manifests": [blob(manifest.to_string().as_bytes())]});
    std::fs::write(at.join("index.json"), index.to_string()).unwrap();
}

/// The policy's objects, and the warnings. Every image is the one of [`layout`].
fn made(definitions: &Value) -> (Document, Vec<String>) {
    let at = tempfile::tempdir().unwrap();
    layout(at.path());
    let mut config = Config::from_json(&definitions.to_string()).unwrap();
    for container in &mut config.container {
        container.image = container.layers.is_empty().then(|| at.path().to_owned());
    }
    let mut warnings = Vec::new();
    let text = generate_warning(&config, &Sources::of(at.path()), &mut |warning| warnings.push(warning)).unwrap();
    (Document::read(&text).unwrap(), warnings)
}

fn refusal(definitions: &Value) -> String {
    Config::from_json(&definitions.to_string()).unwrap_err().to_string()
}

fn string(pattern: &str) -> Value {
    json!({"pattern": pattern, "strategy": "string", "required": false})
}

fn re2(pattern: &str) -> Value {
    json!({"pattern": pattern, "strategy": "re2", "required": false})
}

/// What the peer lets every container of a container group have, without `taken`.
fn platform_rules(taken: &str) -> Vec<Value> {
    let all = [
        string("TERM=xterm"),
        re2("(?i)(FABRIC)_.+=.+"),
        re2("HOSTNAME=.+"),
        re2("T(E)?MP=.+"),
        re2("FabricPackageFileName=.+"),
        re2("HostedServiceName=.+"),
        re2("IDENTITY_API_VERSION=.+"),
        re2("IDENTITY_HEADER=.+"),
        re2("IDENTITY_SERVER_THUMBPRINT=.+"),
        re2("azurecontainerinstance_restarted_by=.+"),
    ];
    let name = format!("{taken}=");
    all.into_iter()
        .filter(|rule| !rule["pattern"].as_str().unwrap().starts_with(&name))
        .collect()
}

fn bind(destination: &str, volume: &str, mode: &str) -> Value {
    json!({"destination": destination, "options": ["rbind", "rshared", mode], "source": format!("sandbox:///tmp/atlas/{volume}/.+"), "type": "bind"})
}

const UNPRIVILEGED: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

#[test]
fn version_1_gives_the_peers_container() {
    let (document, warnings) = made(&json!({
        "version": "1.0",
        "fragments": [{"feed": "contoso.example/x", "includes": ["containers", "fragments"], "issuer": "did:x509:0:sha256:x::subject:CN:C",
            "minimum_svn": "1"}],
        "containers": [{"name": "my-image", "properties": {
            "image": "mcr.example/hello:2.9",
            "environmentVariables": [
                {"name": "PATH", "value": "/customized/path/value"},
                {"name": "NONCE", "value": "n(.*)", "regex": true},
                {"name": "HOSTNAME", "secureValue": "h", "required": true},
            ],
            "execProcesses": [{"command": ["ls"]}, {"command": ["sh"], "signals": [2]}],
            "livenessProbe": {"exec": {"command": ["live"]}, "periodSeconds": 5},
            "readinessProbe": {"exec": {"command": ["ready"]}},
            "volumeMounts": [
                {"name": "m", "mountPath": "/mount/m", "mountType": "emptyDir", "readOnly": false},
                {"name": "a", "mountPath": "/logs", "mountType": "azureFile", "readOnly": true},
            ],
            "command": ["python3", "main.py"],
        }}],
    }));
    let container = &document.list("containers")[0];
    let mut rules = vec![string("PATH=/customized/path/value"), re2("NONCE=n(.*)")];
    rules.push(json!({"pattern": "HOSTNAME=h", "strategy": "string", "required": true}));
    rules.push(string("LANG=C"));
    rules.extend(platform_rules("HOSTNAME"));
    assert_eq!(container["env_rules"], json!(rules));
    assert_eq!(
        container["mounts"],
        json!([
            bind("/mount/m", "emptydir", "rw"),
            bind("/logs", "azureFileVolume", "ro"),
            bind("/etc/resolv.conf", "resolvconf", "rw")
        ])
    );
    let process = |command: &str, signals: Value| json!({"command": [command], "signals": signals});
    assert_eq!(
        container["exec_processes"],
        json!([
            process("ls", json!([])),
            process("sh", json!([2])),
            process("ready", json!([])),
            process("live", json!([]))
        ])
    );
    assert_eq!(container["command"], json!(["python3", "main.py"]));
    assert_eq!(
        (&container["working_dir"], &container["signals"]),
        (&json!("/app"), &json!([9, 15, 3]))
    );
    assert_eq!(
        container["user"],
        json!({"user_idname": {"pattern": "app", "strategy": "name"},
        "group_idnames": [{"pattern": "50", "strategy": "id"}], "umask": "0022"})
    );
    let set = json!(UNPRIVILEGED);
    assert_eq!(
        container["capabilities"],
        json!({"bounding": set, "effective": set, "inheritable": [], "permitted": set, "ambient": []})
    );
    for (field, expected) in [
        ("allow_stdio_access", true),
        ("allow_elevated", false),
        ("no_new_privileges", false),
    ] {
        assert_eq!(container[field], json!(expected), "{field}");
    }
    for flag in [
        "allow_properties_access",
        "allow_environment_variable_dropping",
        "allow_capability_dropping",
    ] {
        assert!(document.flag(flag), "{flag}");
    }
    assert_eq!(document.list("fragments").len(), 1, "only what the file names");
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn a_security_context_decides_on_privileges() {
    let context = |context: Value| {
        let properties = json!({"image": "a", "securityContext": context});
        let (document, warnings) = made(&json!({"version": "1.0", "containers": [{"name": "web", "properties": properties}]}));
        (document.list("containers")[0].clone(), warnings)
    };
    let (container, _) = context(json!({"privileged": "true", "allowPrivilegeEscalation": false, "runAsUser": 1001, "runAsGroup": 3001}));
    assert_eq!(
        (&container["allow_elevated"], &container["no_new_privileges"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(container["capabilities"]["inheritable"].as_array().unwrap().len(), 41);
    assert_eq!(container["user"]["user_idname"], json!({"pattern": "1001", "strategy": "id"}));
    assert_eq!(container["user"]["group_idnames"], json!([{"pattern": "3001", "strategy": "id"}]));

    let (container, _) = context(json!({"capabilities": {"add": ["CAP_NET_ADMIN", "CAP_KILL"], "drop": ["CAP_CHOWN", "CAP_MKNOD"]}}));
    let mut expected: Vec<_> = UNPRIVILEGED
        .into_iter()
        .filter(|name| !["CAP_CHOWN", "CAP_MKNOD"].contains(name))
        .collect();
    expected.push("CAP_NET_ADMIN");
    expected.sort_unstable();
    assert_eq!(container["capabilities"]["bounding"], json!(expected));
    assert_eq!(container["capabilities"]["inheritable"], json!([]));

    use base64::Engine as _;
    let profile = base64::engine::general_purpose::STANDARD.encode(r#"{"defaultAction": "SCMP_ACT_ERRNO", "comment": "x"}"#);
    let (container, _) = context(json!({"seccompProfile": profile}));
    let canonical = digest(br#"{"defaultAction":"SCMP_ACT_ERRNO"}"#);
    assert_eq!(container["seccomp_profile_sha256"], json!(canonical[7..]));
    assert_eq!(
        context(json!({"seccompProfile": {"type": "RuntimeDefault"}})).0["seccomp_profile_sha256"],
        ""
    );

    let (_, warnings) = context(json!({"runAsNonRoot": true, "readOnlyRootFilesystem": true}));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].starts_with("container 1 (web): runAsNonRoot is of no effect"),
        "{warnings:?}"
    );
}

#[test]
fn the_flat_form_gives_the_same_in_other_words() {
    let (document, warnings) = made(&json!({"version": "1.0", "containers": [
        {"containerImage": "alpine:3.16", "environmentVariables": [
                {"name": "PATH", "value": "/customized", "strategy": "string"},
                {"name": "RE", "value": "t_[[:alpha:]]*", "strategy": "re2"}],
            "command": ["rustc", "--help"], "mounts": [{"mountType": "azureFile", "mountPath": "/custom"},
                {"mountType": "emptyDir", "mountPath": "/rw", "readonly": false}],
            "execProcesses": ["echo", "hi"], "allow_elevated": true},
        {"containerImage": "nginx:1.24", "environmentVariables": [], "command": ["echo", "hello"],
            "workingDir": "/customized/absolute/path", "wait_mount_points": ["/path/to/container/mount-1"], "mounts": null},
    ]}));
    let [first, second] = [0, 1].map(|number| &document.list("containers")[number]);
    assert_eq!(first["env_rules"][0], string("PATH=/customized"));
    assert_eq!(first["env_rules"][1], re2("RE=t_[[:alpha:]]*"));
    assert_eq!(first["mounts"][0], bind("/custom", "azureFileVolume", "ro"));
    assert_eq!(first["mounts"][1], bind("/rw", "emptydir", "rw"));
    assert_eq!(first["exec_processes"], json!([{"command": ["echo", "hi"], "signals": []}]));
    assert_eq!(first["allow_elevated"], json!(true));
    assert_eq!(second["working_dir"], "/customized/absolute/path");
    assert_eq!(second["mounts"], json!([bind("/etc/resolv.conf", "resolvconf", "rw")]));
    assert!(warnings.iter().any(|warning| warning.contains("wait_mount_points")), "{warnings:?}");
}

#[test]
fn finished_containers_are_taken_as_they_are() {
    let one = json!({"id": "app:1", "layers": ["ab".repeat(32)], "command": ["/app"], "env_rules": [string("A=1")],
        "mounts": [{"destination": "/d", "source": "sandbox:///x", "type": "bind", "options": ["rbind", "ro"]}],
        "user": {"user_idname": {"pattern": "7", "strategy": "id"}}});
    let expected_set = json!(UNPRIVILEGED);
    for definitions in [one.clone(), json!([one])] {
        let container = made(&definitions).0.list("containers")[0].clone();
        assert_eq!(container["layers"], one["layers"]);
        assert_eq!(container["env_rules"], one["env_rules"]);
        assert_eq!(container["mounts"], one["mounts"]);
        assert_eq!(container["user"]["group_idnames"], json!([{"pattern": "", "strategy": "any"}]));
        assert_eq!(container["capabilities"]["permitted"], expected_set);
        assert_eq!((&container["signals"], &container["working_dir"]), (&json!([]), &json!("/")));
        assert_eq!(
            (&container["allow_stdio_access"], &container["no_new_privileges"]),
            (&json!(true), &json!(false))
        );
    }
    assert!(refusal(&json!([{"layers": [], "windows": 1}])).contains("container 1: unknown field `windows`"));
    assert!(refusal(&json!([])).contains("there is no container"));
}

#[test]
fn what_is_unknown_is_named() {
    let with = |properties: Value| refusal(&json!({"containers": [{"name": "web", "properties": properties}]}));
    let error = with(json!({"image": "a", "Lifecycle": {}}));
    assert!(
        error.starts_with("container 1 (web): unknown field `lifecycle`, expected one of `image`"),
        "{error}"
    );
    for (properties, words) in [
        (json!({}), "give its image"),
        (json!({"image": "a", "workingDir": "x"}), "workingDir \"x\" is not absolute"),
        (
            json!({"image": "a", "volumeMounts": [{"mountType": "nfs", "mountPath": "/x"}]}),
            "mountType \"nfs\" is unknown: there are azurefile, ",
        ),
        (
            json!({"image": "a", "securityContext": {"seccompProfile": {"type": "Localhost"}}}),
            "in base64",
        ),
        (json!({"image": "a", "securityContext": {"seccompProfile": "{"}}), "not base64"),
        (
            json!({"image": "a", "environmentVariables": [{"value": "x"}]}),
            "missing field `name`",
        ),
        (json!({"image": "a", "command": "sh"}), "invalid type: string"),
    ] {
        let error = with(properties);
        assert!(error.starts_with("container 1 (web): ") && error.contains(words), "{error}");
    }
    let whole = |document: Value| refusal(&document);
    assert!(whole(json!({"containers": [], "version": "1.0"})).contains("neither a container nor a fragment"));
    assert!(whole(json!({"containers": [], "mappedDirectories": []})).contains("unknown field `mappeddirectories`"));
    assert!(whole(json!({"containers": [], "scenario": "vn2"})).contains("leave it out"));
    assert!(whole(json!({"containers": [], "version": "2.0"})).contains("there is \"1.0\""));
    let twice = Config::from_json(r#"{"containers": [], "Containers": []}"#)
        .unwrap_err()
        .to_string();
    assert!(twice.contains("is given twice"), "{twice}");
    // Other JSON is a configuration of our own keys.
    assert!(Config::from_json(r#"{"container": [{"layers": ["x"]}]}"#).is_ok());
    assert!(Config::from_json(r#"{"Container": []}"#).is_err());
}
