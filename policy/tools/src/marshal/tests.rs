//! Policies of hcsshim's tool, parsed and written again, are identical.

use super::*;
use serde_json::Value;

use crate::Document;
use crate::confinement::Confinement;
use crate::container::{PolicyEnvRule, PolicyExecProcess, PolicyMount};
use crate::rule::PolicyIdName;

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

fn numbers(value: &Value) -> Vec<i32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_i64().unwrap() as i32)
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The policy's words are static strings in the writer.
fn word(value: &Value) -> &'static str {
    Box::leak(text(value).into_boxed_str())
}

fn env_rules(value: &Value) -> Vec<PolicyEnvRule> {
    let rules = value.as_array().unwrap().iter().map(|rule| match rule.get("pattern") {
        Some(pattern) => PolicyEnvRule::Whole {
            pattern: text(pattern),
            strategy: word(&rule["strategy"]),
            required: rule["required"] == true,
        },
        None => PolicyEnvRule::Parts {
            name: text(&rule["name"]),
            name_strategy: word(&rule["name_strategy"]),
            value: text(&rule["value"]),
            value_strategy: word(&rule["value_strategy"]),
            required: rule["required"] == true,
        },
    });
    rules.collect()
}

fn id_name(value: &Value) -> PolicyIdName {
    PolicyIdName {
        pattern: text(&value["pattern"]),
        strategy: word(&value["strategy"]),
    }
}

fn container(value: &Value) -> PolicyContainer {
    let list = |value: &Value| value.as_array().unwrap().clone();
    let mount = |mount: &Value| PolicyMount {
        destination: text(&mount["destination"]),
        options: texts(&mount["options"]),
        source: text(&mount["source"]),
        required: false,
        kind: text(&mount["type"]),
    };
    let process = |process: &Value| PolicyExecProcess {
        command: texts(&process["command"]),
        signals: numbers(&process["signals"]),
    };
    PolicyContainer {
        command: texts(&value["command"]),
        env_rules: env_rules(&value["env_rules"]),
        layers: texts(&value["layers"]),
        mounts: list(&value["mounts"]).iter().map(mount).collect(),
        exec_processes: list(&value["exec_processes"]).iter().map(process).collect(),
        signals: numbers(&value["signals"]),
        user: PolicyUser {
            user_idname: id_name(&value["user"]["user_idname"]),
            group_idnames: list(&value["user"]["group_idnames"]).iter().map(id_name).collect(),
            umask: text(&value["user"]["umask"]),
        },
        capabilities: value["capabilities"].as_object().map(|sets| Capabilities {
            bounding: texts(&sets["bounding"]),
            effective: texts(&sets["effective"]),
            inheritable: texts(&sets["inheritable"]),
            permitted: texts(&sets["permitted"]),
            ambient: texts(&sets["ambient"]),
        }),
        seccomp_profile_sha256: text(&value["seccomp_profile_sha256"]),
        allow_elevated: value["allow_elevated"] == true,
        working_dir: text(&value["working_dir"]),
        allow_stdio_access: value["allow_stdio_access"] == true,
        no_new_privileges: value["no_new_privileges"] == true,
        confinement: Confinement::default(),
    }
}

fn written_again(document: &Document) -> String {
    let containers: Vec<_> = document.list("containers").iter().map(container).collect();
    let processes: Vec<_> = document
        .list("external_processes")
        .iter()
        .map(|process| PolicyProcess {
            command: texts(&process["command"]),
            env_rules: env_rules(&process["env_rules"]),
            working_dir: text(&process["working_dir"]),
            allow_stdio_access: process["allow_stdio_access"] == true,
        })
        .collect();
    let fragments: Vec<_> = document
        .list("fragments")
        .iter()
        .map(|fragment| Fragment {
            issuer: text(&fragment["issuer"]),
            feed: text(&fragment["feed"]),
            minimum_svn: text(&fragment["minimum_svn"]),
            include: texts(&fragment["includes"]),
            parameters: fragment["parameters"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        })
        .collect();
    let config = Config {
        allow_properties_access: document.flag("allow_properties_access"),
        allow_dump_stacks: document.flag("allow_dump_stacks"),
        allow_runtime_logging: document.flag("allow_runtime_logging"),
        allow_hostnetwork: document.flag("allow_host_network"),
        allow_environment_variable_dropping: document.flag("allow_environment_variable_dropping"),
        allow_unencrypted_scratch: document.flag("allow_unencrypted_scratch"),
        allow_capability_dropping: document.flag("allow_capability_dropping"),
        allow_log_provider_dropping: document.flag("allow_log_provider_dropping"),
        ..Config::default()
    };
    policy(
        &config,
        &Objects {
            fragments: &fragments,
            containers: &containers,
            windows_containers: &[],
            processes: &processes,
        },
        &[],
        &[],
        None,
    )
}

#[test]
fn recorded_policies_are_written_byte_for_byte() {
    let begin = format!("package policy\n\napi_version := \"{API_VERSION}\"\nframework_version := \"{FRAMEWORK_VERSION}\"\n\n");
    let recorded = policy_conformance::read(policy_conformance::VECTORS.as_ref()).unwrap();
    let mut compared = 0;
    for line in recorded.lines() {
        let scenario: Value = serde_json::from_str(line).unwrap();
        let recorded = scenario["policy"].as_str().unwrap();
        let name = scenario["name"].as_str().unwrap();
        // Policies that hcsshim's tool generated begin and end like this.
        let whole = recorded.starts_with(&begin) && recorded.ends_with("\nreason := data.framework.reason\n");
        // Policies of these families were edited after the tool generated them.
        let altered = ["api-rule-missing", "custom", "fragment", "malformed", "platform"]
            .iter()
            .any(|family| name.starts_with(family));
        if altered || !whole {
            continue;
        }
        assert_eq!(written_again(&Document::read(recorded).unwrap()), recorded, "{name}");
        compared += 1;
    }
    assert!(compared > 10, "{compared}");
}
