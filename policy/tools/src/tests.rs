use std::path::Path;

use super::*;

const LAYER_A: &str = "aa00000000000000000000000000000000000000000000000000000000000000";
const LAYER_B: &str = "bb00000000000000000000000000000000000000000000000000000000000000";

fn text(config: &str) -> Result<String, GenerateError> {
    generate(&Config::from_toml(config)?, Path::new(""))
}

#[test]
fn every_default_is_filled_in() {
    let text = text(&format!(
        "[[container]]\nlayers = [\"{LAYER_A}\", \"{LAYER_B}\"]\ncommand = [\"sh\", \"-c\", \"a<b\"]\n"
    ))
    .unwrap();
    let expected = format!(
        r#"containers := [
    {{
        "command": ["sh","-c","a\u003cb"],
        "env_rules": [{{"pattern":"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","strategy":"string","required":false}},{{"pattern":"TERM=xterm","strategy":"string","required":false}}],
        "layers": ["{LAYER_A}","{LAYER_B}"],
        "mounts": [],
        "exec_processes": [],
        "signals": [],
        "user": {{
            "user_idname": {{"pattern":"","strategy":"any"}},
            "group_idnames": [{{"pattern":"","strategy":"any"}}],
            "umask": "0022"
        }},
        "capabilities": null,
        "seccomp_profile_sha256": "",
        "allow_elevated": false,
        "working_dir": "/",
        "allow_stdio_access": false,
        "no_new_privileges": true,
    }},
    {{
        "command": ["/pause"],
"#
    );
    assert!(
        text.starts_with("package policy\n\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\ncontainers"),
        "{text}"
    );
    assert!(text.contains(&expected), "{text}");
    assert!(text.ends_with("reason := data.framework.reason\n"));
}

#[test]
fn every_point_of_the_table_has_its_line() {
    let text = text(&format!("[[container]]\nlayers = [\"{LAYER_A}\"]\ncommand = [\"sh\"]\n")).unwrap();
    for point in policy::POINTS {
        assert!(
            text.contains(&format!("\n{0} := data.framework.{0}\n", point.name)) || point.name == "mount_cims",
            "{}",
            point.name
        );
    }
}

#[test]
fn the_host_network_flag_has_another_name_in_the_policy() {
    let text = text("allow_hostnetwork = true\n").unwrap();
    assert!(text.contains("\nallow_host_network := true\n"));
}

#[test]
fn a_required_medium_of_the_scratch_is_written() {
    let text_of = |medium| text(&format!("scratch_medium = {medium:?}\n"));
    for medium in ["memory", "disk"] {
        let text = text_of(medium).unwrap();
        assert!(text.contains(&format!("\nscratch_medium := {medium:?}\n")), "{text}");
        assert!(check(&Document::read(&text).unwrap()).is_empty(), "{text}");
    }
    assert!(text_of("ram").is_err());
    assert!(text("allow_all = true\nscratch_medium = \"memory\"\n").is_err());
    assert!(!text("").unwrap().contains("scratch_medium"));
}

#[test]
fn mounts_become_constraints() {
    let text = text(&format!(
        "[[container]]\nlayers = [\"{LAYER_A}\"]\ncommand = [\"sh\"]\n\
         [[container.mount]]\nhost_path = \"sandbox:///tmp/x\"\ncontainer_path = \"/x\"\nreadonly = true\n\
         [[container.mount]]\nhost_path = \"/srv\"\ncontainer_path = \"/srv\"\n"
    ))
    .unwrap();
    assert!(
        text.contains(r#"{"destination":"/x","options":["rbind","rshared","ro"],"source":"sandbox:///tmp/x","type":"bind"}"#),
        "{text}"
    );
    assert!(
        text.contains(r#"{"destination":"/srv","options":["rbind","rprivate","rw"],"source":"/srv","type":"none"}"#),
        "{text}"
    );
}

#[test]
fn contradictory_fields_are_refused() {
    let container = format!("[[container]]\nlayers = [\"{LAYER_A}\"]\n");
    for (config, message) in [
        ("comand = 1".to_owned(), "unknown field"),
        (container.clone(), "give a command"),
        ("[[container]]\ncommand = [\"sh\"]\n".to_owned(), "give its layers"),
        (format!("{container}image = \"x\"\n"), "only one of"),
        (
            "[[container]]\nlayers = [\"AA\"]\ncommand = [\"sh\"]\n".to_owned(),
            "not a root hash",
        ),
        (
            format!("{container}command = [\"sh\"]\n[[container.env_rule]]\nstrategy = \"re2\"\nrule = \"a**\"\n"),
            "nested repetition",
        ),
        (
            format!("{container}command = [\"sh\"]\n[[container.env_rule]]\nstrategy = \"any\"\n"),
            "for users and groups",
        ),
        (format!("allow_all = true\n{container}"), "Invalid policy for open-door enforcer"),
    ] {
        let error = text(&config).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(format!("{error}: {cause}").contains(message), "{config}: {error}");
    }
}

#[test]
fn allow_all_alone_is_the_open_door() {
    assert_eq!(text("allow_all = true").unwrap(), policy::OPEN_DOOR);
}

#[test]
fn an_image_gives_layers_and_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let layout = directory.path().join("app");
    let diff_id = layout_with_one_layer(&layout);
    let config = "[[container]]\nimage = \"app\"\nimage_name = \"app:1\"\n";
    let text = generate(&Config::from_toml(config).unwrap(), directory.path()).unwrap();
    assert!(text.contains(r#""command": ["/bin/app","--serve"]"#), "{text}");
    assert!(
        text.contains(r#"[{"pattern":"A=1","strategy":"string","required":true},{"pattern":"TERM=xterm""#),
        "{text}"
    );
    assert!(text.contains(r#""user_idname": {"pattern":"1000","strategy":"id"}"#), "{text}");
    assert!(
        text.contains(r#""group_idnames": [{"pattern":"staff","strategy":"name"}]"#),
        "{text}"
    );
    assert!(text.contains(r#""working_dir": "/srv""#), "{text}");

    // A layer that differs from the image's digest is refused.
    let blob = layout.join("blobs/sha256").join(diff_id);
    std::fs::write(&blob, tar_with("other")).unwrap();
    let error = generate(&Config::from_toml(config).unwrap(), directory.path()).unwrap_err();
    assert!(matches!(error, GenerateError::DiffId { .. }), "{error}");
}

fn tar_with(name: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, &b"hi"[..]).unwrap();
    tar.into_inner().unwrap()
}

/// Writes an OCI layout; returns the hex digest of its only layer.
fn layout_with_one_layer(layout: &Path) -> String {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8]| {
        let digest = layer_digest(bytes);
        std::fs::write(blobs.join(&digest), bytes).unwrap();
        digest
    };
    let layer = blob(&tar_with("app"));
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}},
            "config":{{"Entrypoint":["/bin/app"],"Cmd":["--serve"],"Env":["A=1"],"User":"1000:staff","WorkingDir":"/srv"}}}}"#
    );
    let config = blob(config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{config}","size":1}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{layer}","size":1}}]}}"#
    );
    let manifest = blob(manifest.as_bytes());
    std::fs::write(
        layout.join("index.json"),
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{manifest}","size":1}}]}}"#
        ),
    )
    .unwrap();
    layer
}

/// SHA-256 in hex.
fn layer_digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn json_and_toml_are_equivalent() {
    let toml = format!("[[container]]\nlayers = [\"{LAYER_A}\"]\ncommand = [\"sh\"]\n");
    let json = format!(r#"{{"container": [{{"layers": ["{LAYER_A}"], "command": ["sh"]}}]}}"#);
    assert_eq!(Config::from_json(&json).unwrap(), Config::from_toml(&toml).unwrap());
    assert!(matches!(Config::from_json(r#"{"comand": 1}"#), Err(GenerateError::Json(_))));
}

#[test]
fn rules_on_name_and_value_and_parameters_are_written() {
    let text = text(&format!(
        "[[container]]\nlayers = [\"{LAYER_A}\"]\ncommand = [\"sh\"]\n\
         [[container.env_rule]]\nname = \"A\"\nvalue = \"[0-9]+\"\nvalue_strategy = \"re2\"\nrequired = true\n\
         [[fragment]]\nissuer = \"did:x509:x\"\nfeed = \"f\"\nminimum_svn = \"1\"\ninclude = [\"containers\"]\nparameters = {{ b = 1, a = \"<\" }}\n"
    ))
    .unwrap();
    assert!(
        text.contains(r#"{"name":"A","name_strategy":"string","value":"[0-9]+","value_strategy":"re2","required":true}"#),
        "{text}"
    );
    assert!(
        text.contains(
            r#"    {"issuer":"did:x509:x","feed":"f","minimum_svn":"1","includes":["containers"],"parameters":{"a":"\u003c","b":1}},"#
        ),
        "{text}"
    );
}

#[test]
fn a_fragment_has_its_namespace_and_version_and_no_flags() {
    let config = Config::from_toml(&format!("[[container]]\nlayers = [\"{LAYER_A}\"]\ncommand = [\"sh\"]\n")).unwrap();
    let text = generate_fragment(&config, "app", "1", Path::new("")).unwrap();
    assert!(
        text.starts_with("package app\n\nsvn := \"1\"\nframework_version := \"0.5.0\"\n\ncontainers := [\n    {\n"),
        "{text}"
    );
    assert!(text.ends_with("    },\n]\n") && text.contains("\"/pause\""), "{text}");
    for (namespace, svn) in [
        ("policy", "1"),
        ("defaultMounts", "1"),
        ("a.b", "1"),
        ("1a", "1"),
        ("", "1"),
        ("app", "one"),
    ] {
        assert!(
            generate_fragment(&config, namespace, svn, Path::new("")).is_err(),
            "{namespace} {svn}"
        );
    }
    let flags = Config::from_toml("allow_dump_stacks = true\n").unwrap();
    assert!(generate_fragment(&flags, "app", "1", Path::new("")).is_err());
}

#[test]
fn a_windows_guest_gets_its_own_form_of_container() {
    let windows = "[[windows_container]]\nlayers = [\"aa\"]\nmounted_cim = [\"bb\"]\ncommand = [\"cmd\", \"/c\", \"x\"]\nworking_dir = 'C:\\'\n\
        user = \"ContainerUser\"\nsignals = [\"CtrlC\"]\n[[windows_container.exec_process]]\ncommand = \"cmd /c dir\"\nsignals = [\"CtrlC\"]\n";
    let text = text(windows).unwrap();
    let expected = r#"containers := [
    {
        "command": ["cmd","/c","x"],
        "env_rules": [],
        "layers": ["aa"],
        "mounted_cim": ["bb"],
        "exec_processes": [{"command":["cmd /c dir"],"signals":["CtrlC"]}],
        "signals": ["CtrlC"],
        "user": "ContainerUser",
        "working_dir": "C:\\",
        "allow_stdio_access": false,
    },
]
"#;
    assert!(text.contains(expected), "{text}");
    let both = format!("{windows}[[container]]\nlayers = [\"{LAYER_A}\"]\ncommand = [\"sh\"]\n");
    assert!(generate(&Config::from_toml(&both).unwrap(), Path::new("")).is_err());
}
