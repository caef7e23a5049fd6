//! Runs the `_test.rego` file of each Rego file: every rule whose name begins with `test_` must be true.

use crate::interpreter::Interpreter;
use regorus::Value;

macro_rules! test_modules {
    ($($name:literal),* $(,)?) => {
        const TESTS: &[(&str, &str)] = &[$(($name, include_str!(concat!($name, "_test.rego")))),*];
    };
}

test_modules![
    "attestation_report",
    "capabilities",
    "confine_container",
    "containers",
    "create_container",
    "environment",
    "exec_external",
    "exec_in_container",
    "flags",
    "fragments",
    "guest_network",
    "limits",
    "load_fragment",
    "load_transparency_trust_list",
    "metadata",
    "mount_blockdev",
    "mount_device",
    "mount_overlay",
    "mounts",
    "pause_container",
    "plan9",
    "pod_files",
    "port_forward",
    "pull_image",
    "reason",
    "rw_mount_device",
    "rw_unmount_device",
    "scratch",
    "shutdown_container",
    "signal_container_process",
    "unmount_device",
    "unmount_overlay",
    "update_container",
    "users",
    "versions",
    "windows",
];

#[test]
fn every_point_of_the_tables_has_a_rule() {
    let module = super::module();
    for point in crate::POINTS.iter().chain(crate::OWN_POINTS) {
        let default = format!("\ndefault {} := ", point.name);
        assert!(
            module.contains(&default),
            "no rule for {} among the files of framework.rs",
            point.name
        );
    }
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.starts_with("test_"))
        .filter_map(|line| line.split([' ', ':']).next())
}

#[test]
fn every_file_of_rules_has_its_tests() {
    for name in super::NAMES.iter().chain(&["metadata"]) {
        assert!(
            TESTS.iter().any(|(tested, _)| tested == name),
            "{name}.rego has no {name}_test.rego"
        );
    }
}

#[test]
fn every_test_rule_is_true() {
    let mut failed = Vec::new();
    let mut run = 0;
    for (file, text) in TESTS {
        let mut interpreter = Interpreter::new("package policy\n").unwrap();
        interpreter
            .add_module("fixtures_test.rego", include_str!("fixtures_test.rego"))
            .unwrap();
        interpreter.add_module(file, text).unwrap();
        for name in names(text) {
            run += 1;
            match interpreter.value(&format!("data.{file}_test.{name}"), Value::new_object()) {
                Ok(Value::Bool(true)) => {}
                other => failed.push(format!("{file}_test.rego {name}: {other:?}")),
            }
        }
    }
    assert!(failed.is_empty(), "{} of {run} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(run > 90, "only {run} tests were found");
}
