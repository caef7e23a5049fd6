//! The table of crates in docs/ARCHITECTURE.md and the workspace agree: no crate depends on one that its row does not list.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const TABLE: &str = "docs/ARCHITECTURE.md";
const HEADING: &str = "| directory | crate |";

/// A crate's directory, and names of crates of the workspace.
type Crates = BTreeMap<String, (String, BTreeSet<String>)>;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The table's rows by crate: `| directory | crate | what it is | may use |`, `-` for no crate.
fn allowed(text: &str) -> Crates {
    let table = text.lines().skip_while(|line| !line.starts_with(HEADING)).skip(2);
    table
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [directory, name, _, may_use] = cells[..] else {
                panic!("{TABLE}: not four columns: {line}");
            };
            let names = may_use.split(',').map(str::trim).filter(|name| *name != "-");
            (name.to_owned(), (directory.to_owned(), names.map(str::to_owned).collect()))
        })
        .collect()
}

/// Every crate of the workspace with its normal dependencies in the workspace, as cargo reports them.
fn actual(metadata: &Value) -> Crates {
    let root = metadata["workspace_root"].as_str().unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let all: BTreeSet<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let manifest = Path::new(package["manifest_path"].as_str().unwrap());
            let directory = manifest.parent().unwrap().strip_prefix(root).unwrap();
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let normal = dependencies.filter(|dependency| dependency["kind"].is_null()).map(name);
            let used = normal.filter(|name| all.contains(name)).collect();
            (name(package), (directory.display().to_string(), used))
        })
        .collect()
}

/// Differences between the table and the workspace, one per line.
fn differences(allowed: &Crates, actual: &Crates) -> Vec<String> {
    let mut found = Vec::new();
    for (name, (directory, used)) in actual {
        let Some((row_directory, may_use)) = allowed.get(name) else {
            found.push(format!("{name} has no row"));
            continue;
        };
        if row_directory != directory {
            found.push(format!("{name} is in {directory}, not in {row_directory}"));
        }
        found.extend(used.difference(may_use).map(|other| format!("{name} may not use {other}")));
    }
    let rows = allowed.keys().filter(|name| !actual.contains_key(*name));
    found.extend(rows.map(|name| format!("{name} is not a crate of the workspace")));
    let listed = allowed
        .iter()
        .flat_map(|(name, (_, may_use))| may_use.iter().map(move |other| (name, other)));
    found.extend(
        listed
            .filter(|(_, other)| !actual.contains_key(*other))
            .map(|(name, other)| format!("{name} may use {other}, which is not a crate of the workspace")),
    );
    found
}

#[test]
fn every_crate_uses_only_what_its_row_lists() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let table = std::fs::read_to_string(workspace().join(TABLE)).unwrap();
    let found = differences(&allowed(&table), &actual(&metadata));
    assert!(found.is_empty(), "{TABLE} and the workspace disagree:\n{}", found.join("\n"));
}

#[test]
fn a_wrong_dependency_a_missing_row_and_a_stale_row_are_found() {
    let table =
        "| directory | crate | what | may use |\n|---|---|---|---|\n| a | a | x | - |\n| b | b | x | a, gone |\n| c | old | x | - |\n";
    let metadata = serde_json::json!({
        "workspace_root": "/w",
        "packages": [
            {"name": "a", "manifest_path": "/w/a/Cargo.toml", "dependencies": [{"name": "b", "kind": null}, {"name": "serde", "kind": null}]},
            {"name": "b", "manifest_path": "/w/elsewhere/Cargo.toml", "dependencies": [{"name": "a", "kind": null}]},
            {"name": "new", "manifest_path": "/w/new/Cargo.toml", "dependencies": [{"name": "a", "kind": "dev"}]},
        ],
    });
    let found = differences(&allowed(table), &actual(&metadata));
    assert_eq!(
        found,
        [
            "a may not use b",
            "b is in elsewhere, not in b",
            "new has no row",
            "old is not a crate of the workspace",
            "b may use gone, which is not a crate of the workspace",
        ]
    );
}
