use super::*;
use crate::{Config, generate};

fn policy(config: &str) -> String {
    generate(&Config::from_toml(config).unwrap(), std::path::Path::new("")).unwrap()
}

fn base() -> String {
    let layer = "ab".repeat(32);
    policy(&format!(
        "[[container]]\nlayers = [\"{layer}\"]\ncommand = [\"sh\"]\nsignals = [15]\n[[container.env_rule]]\nstrategy = \"re2\"\nrule = \"A=[0-9]+\"\n\
         [[container.mount]]\nhost_path = \"sandbox:///x\"\ncontainer_path = \"/x\"\n"
    ))
}

fn findings(text: &str) -> Vec<String> {
    check(&Document::read(text).unwrap()).iter().map(ToString::to_string).collect()
}

#[test]
fn generated_policies_have_no_findings() {
    assert_eq!(findings(&base()), Vec::<String>::new());
    assert_eq!(findings(::policy::OPEN_DOOR), Vec::<String>::new());
}

#[test]
fn each_fault_is_found_in_its_place() {
    let base = base();
    for (from, to, finding) in [
        (
            "framework_version := \"0.5.0\"",
            "framework_version := \"0.6.0\"",
            "error: policy framework_version: newer than 0.5.0",
        ),
        ("framework_version := \"0.5.0\"\n", "", "error: policy framework_version: missing"),
        (
            "api_version := \"0.12.0\"",
            "api_version := \"12\"",
            "error: policy api_version: not a version",
        ),
        (
            "plan9_mount := data.framework.plan9_mount\n",
            "",
            "error: policy plan9_mount: no such rule",
        ),
        ("reason := data.framework.reason\n", "", "warning: policy reason: no such rule"),
        (
            "reason := data.framework.reason\n",
            "reason := data.framework.reason\nscratch_medium := \"ram\"\n",
            "error: policy scratch_medium: neither \"memory\" nor \"disk\"",
        ),
        (
            "rw_mount_device := data.framework.rw_mount_device\n",
            "rw_mount_device := {\"allowed\": true}\nscratch_medium := \"memory\"\n",
            "error: policy scratch_medium: not read",
        ),
        (
            "reason := data.framework.reason\n",
            "reason := data.framework.reason\nscratch_medium := null\n",
            "error: policy scratch_medium: neither \"memory\" nor \"disk\"",
        ),
        (
            "\"A=[0-9]+\"",
            "\"A=1|A=2\"",
            "warning: container 1 env_rules: pattern \"A=1|A=2\" is anchored as a whole",
        ),
        (
            "\"A=[0-9]+\"",
            "\"A=(1\"",
            "error: container 1 env_rules: pattern \"A=(1\" never matches",
        ),
        (
            "\"strategy\":\"re2\"",
            "\"strategy\":\"regex\"",
            "error: container 1 env_rules: strategy \"regex\"",
        ),
        ("\"abab", "\"ABab", "error: container 1 layers: \"ABab"),
        (
            "\"command\": [\"sh\"]",
            "\"command\": []",
            "error: container 1 command: an empty command",
        ),
        (
            "        \"no_new_privileges\": true,\n    },\n    {",
            "    },\n    {",
            "error: container 1 no_new_privileges: missing, and framework version 0.5.0 has it",
        ),
        (
            "\"working_dir\": \"/\"",
            "\"working_dir\": \"srv\"",
            "error: container 1 working_dir: \"srv\" is not absolute",
        ),
        (
            "sandbox:///x",
            "sandbox:///.+",
            "warning: container 1 mounts: source \"sandbox:///.+\": a dot",
        ),
        (
            "\"command\": [\"sh\"]",
            "\"command\": null",
            "error: container 1 command: null: nothing matches",
        ),
        (
            "mount_blockdev := data.framework.mount_blockdev\n",
            "",
            "warning: policy mount_blockdev: no such rule",
        ),
        (
            "containers := [",
            "x := count(1)\ncontainers := [",
            "error: policy: line 6: hcsshim does not load it: count: argument 1 is number",
        ),
        ("\"umask\": \"0022\"", "\"umask\": \"22\"", "error: container 1 user: umask \"22\""),
        ("\"strategy\":\"any\"", "\"strategy\":\"anyone\"", "error: container 1 user: rule"),
        (
            "\"signals\": [15]",
            "\"signals\": [99]",
            "error: container 1 signals: 99 is not a signal",
        ),
        (
            "\"capabilities\": null",
            "\"capabilities\": {\"bounding\": [\"CAP_KILL\", \"CAP_KILL\"], \"effective\": [], \"inheritable\": [], \"permitted\": [], \"ambient\": []}",
            "error: container 1 capabilities: bounding has CAP_KILL twice",
        ),
        (
            "containers := [",
            "fragments := [{\"issuer\":\"did:web:x\",\"feed\":\"f\",\"minimum_svn\":\"x\",\"includes\":[\"container\"]}]\ncontainers := [",
            "error: fragment 1 issuer: no fragment can have this issuer",
        ),
    ] {
        assert!(base.contains(from), "{from}");
        let found = findings(&base.replacen(from, to, 1));
        assert!(found.iter().any(|found| found.starts_with(finding)), "{to}: {found:#?}");
    }
}

#[test]
fn a_repeated_finding_is_shown_once_with_its_number() {
    let layer = "ab".repeat(32);
    let container = |command: &str| format!("[[container]]\nlayers = [\"{layer}\"]\ncommand = [\"{command}\"]\nworking_dir = \"srv\"\n");
    let found = findings(&policy(&["a", "b", "c"].map(container).concat()));
    let of_directory: Vec<&String> = found.iter().filter(|found| found.contains("working_dir")).collect();
    assert_eq!(
        of_directory,
        [&"error: container 1 working_dir: \"srv\" is not absolute: the container never matches (and in 2 more places)".to_owned()]
    );
}

/// What generators of policies write today: no rule for what no runtime asks.
#[test]
fn policies_of_other_generators_have_no_errors() {
    let base = base();
    let absent = [
        "rw_unmount_device",
        "mount_blockdev",
        "unmount_blockdev",
        "host_network",
        "load_transparency_trust_list",
    ];
    let text: String = base
        .lines()
        .filter(|line| !absent.iter().any(|point| line.starts_with(&format!("{point} := "))))
        .map(|line| format!("{line}\n"))
        .collect();
    let text = text.replace(
        "api_version",
        "import future.keywords.every\nimport future.keywords.in\n\napi_version",
    );
    let late = text.replace("framework_version", "import future.keywords.if\nframework_version");
    for text in [text, late] {
        let found = findings(&text);
        assert!(found.iter().all(|found| found.starts_with("warning: ")), "{found:?}");
        assert_eq!(found.len(), absent.len(), "{found:?}");
    }
}

#[test]
fn a_fragment_may_be_called_as_a_keyword() {
    let document = Document::read("package in\nframework_version := \"0.5.0\"\ncontainers := []\n").unwrap();
    assert_eq!(document.package(), "in");
    let found = check(&document);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "warning: in svn: the fragment declares none; then its signed header must"
    );
}

#[test]
fn containers_that_differ_only_in_stdio_are_reported() {
    let layer = "ab".repeat(32);
    let container = format!("[[container]]\nlayers = [\"{layer}\"]\ncommand = [\"sh\"]\n");
    let found = findings(&policy(&format!("{container}{container}allow_stdio_access = true\n")));
    assert!(
        found[0].starts_with("error: container 2 allow_stdio_access: differs from container 1"),
        "{found:?}"
    );
    let found = findings(&policy(&format!("{container}{container}")));
    assert_eq!(found, ["warning: container 2: the same as container 1"]);
}
