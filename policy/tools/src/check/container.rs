//! Checks of containers: fields that never match a request.

use std::collections::BTreeSet;

use policy::RootHash;
use serde_json::Value;

use super::{Reporter, pattern};
use crate::explain::texts;

/// Highest signal number of Linux.
const MAX_SIGNAL: i64 = 64;
/// Required fields of a container, each with the framework version that introduced it.
const FIELDS: [(&str, (u64, u64, u64)); 13] = [
    ("command", (0, 0, 0)),
    ("env_rules", (0, 0, 0)),
    ("layers", (0, 0, 0)),
    ("mounts", (0, 0, 0)),
    ("allow_elevated", (0, 0, 0)),
    ("working_dir", (0, 0, 0)),
    ("exec_processes", (0, 0, 0)),
    ("allow_stdio_access", (0, 0, 0)),
    ("signals", (0, 0, 0)),
    ("no_new_privileges", (0, 2, 0)),
    ("user", (0, 2, 1)),
    ("capabilities", (0, 2, 2)),
    ("seccomp_profile_sha256", (0, 2, 3)),
];
/// Fields that a container of a Windows guest does not have.
const LINUX_ONLY: [&str; 5] = [
    "mounts",
    "allow_elevated",
    "no_new_privileges",
    "capabilities",
    "seccomp_profile_sha256",
];

/// Checks a container. `declared` is the framework version of the policy.
pub(super) fn check(container: &Value, declared: (u64, u64, u64), report: &mut Reporter<'_>) {
    let windows = !container["mounted_cim"].is_null();
    for (field, since) in FIELDS {
        let needed = since <= declared && !(windows && LINUX_ONLY.contains(&field));
        if needed && container.get(field).is_none() {
            let (major, minor, patch) = declared;
            report.error(
                field,
                format!("missing, and framework version {major}.{minor}.{patch} has it: the container never matches"),
            );
        }
    }
    no_null(container, report);
    command("command", &container["command"], report);
    env_rules(&container["env_rules"], report);
    if windows {
        return;
    }
    layers(container, report);
    mounts(&container["mounts"], report);
    user(&container["user"], report);
    capabilities(&container["capabilities"], report);
    signals("signals", &container["signals"], report);
    for process in container["exec_processes"].as_array().into_iter().flatten() {
        command("exec_processes", &process["command"], report);
        signals("exec_processes", &process["signals"], report);
    }
    match container["working_dir"].as_str() {
        Some(directory) if !directory.starts_with('/') => {
            report.error("working_dir", format!("{directory:?} is not absolute: the container never matches"))
        }
        _ => {}
    }
    match container["seccomp_profile_sha256"].as_str() {
        Some(digest) if !digest.is_empty() && !is_digest(digest) => {
            report.error(
                "seccomp_profile_sha256",
                format!("{digest:?} is not a SHA-256 in lower-case hex: the container never matches"),
            );
        }
        _ => {}
    }
}

/// Checks an external process.
pub(super) fn check_process(process: &Value, report: &mut Reporter<'_>) {
    for field in ["command", "env_rules", "working_dir", "allow_stdio_access"] {
        if process.get(field).is_none() {
            report.error(field, "missing: the process never matches");
        }
    }
    no_null(process, report);
    command("command", &process["command"], report);
    env_rules(&process["env_rules"], report);
}

/// A field that is null matches no request; only `capabilities` has a meaning then.
fn no_null(object: &Value, report: &mut Reporter<'_>) {
    for (field, _) in FIELDS.iter().filter(|(field, _)| *field != "capabilities") {
        if object.get(*field) == Some(&Value::Null) {
            report.error(field, "null: nothing matches");
        }
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn command(field: &str, command: &Value, report: &mut Reporter<'_>) {
    if command.as_array().is_some_and(Vec::is_empty) {
        report.error(field, "an empty command, which no process has");
    }
}

fn layers(container: &Value, report: &mut Reporter<'_>) {
    let Some(layers) = container["layers"].as_array() else { return };
    if layers.is_empty() {
        report.warning("layers", "none: the container matches a root file system without layers");
    }
    for layer in layers {
        let hash = layer.as_str().unwrap_or_default();
        if !is_digest(hash) {
            report.error(
                "layers",
                format!("{layer} is not a root hash of 64 lower-case hex digits: the container never matches"),
            );
        } else if RootHash::new(&[0; 32]).as_str() == hash {
            report.warning("layers", "no layer has a hash of zeros");
        }
    }
}

fn env_rules(rules: &Value, report: &mut Reporter<'_>) {
    let mut required: Vec<&str> = Vec::new();
    for rule in rules.as_array().into_iter().flatten() {
        let whole = [("pattern", "strategy")];
        let parts = [("name", "name_strategy"), ("value", "value_strategy")];
        let has = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .all(|(text, strategy)| rule[*text].is_string() && rule[*strategy].is_string())
        };
        let pairs: &[(&str, &str)] = match (has(&whole), has(&parts)) {
            (true, _) => &whole,
            (false, true) => &parts,
            (false, false) => {
                let ends = if rule["required"] == true {
                    ", and the container neither"
                } else {
                    ""
                };
                report.error(
                    "env_rules",
                    format!("rule {rule} has neither pattern nor name and value: it never matches{ends}"),
                );
                continue;
            }
        };
        for (text, strategy) in pairs {
            let text = rule[*text].as_str().unwrap_or_default();
            match rule[*strategy].as_str() {
                Some("re2") => pattern::check("env_rules", text, report),
                Some("string") => {}
                Some(other) => report.error("env_rules", format!("strategy {other:?} never matches; it is string or re2")),
                None => {}
            }
        }
        let exact = rule["strategy"] == "string" && rule["required"] == true;
        if let Some((name, _)) = rule["pattern"]
            .as_str()
            .filter(|_| exact)
            .and_then(|pattern| pattern.split_once('='))
        {
            if required.contains(&name) {
                report.warning("env_rules", format!("{name} is required with two values"));
            }
            required.push(name);
        }
    }
}

fn mounts(mounts: &Value, report: &mut Reporter<'_>) {
    for mount in mounts.as_array().into_iter().flatten() {
        let (source, destination) = (
            mount["source"].as_str().unwrap_or_default(),
            mount["destination"].as_str().unwrap_or_default(),
        );
        if destination.is_empty() {
            report.error("mounts", format!("a mount of {source:?} without destination never matches"));
        }
        let is_pattern = ["sandbox://", "hugepages://"].iter().any(|prefix| source.starts_with(prefix));
        if is_pattern {
            pattern::check("mounts", source, report);
            if source.contains(".+") || source.contains(".*") {
                report.warning(
                    "mounts",
                    format!("source {source:?}: a dot matches a slash too, and so any path below"),
                );
            }
        }
    }
}

fn user(user: &Value, report: &mut Reporter<'_>) {
    if user.is_null() {
        return;
    }
    let groups = user["group_idnames"].as_array().into_iter().flatten();
    for rule in groups.chain([&user["user_idname"]]) {
        let text = rule["pattern"].as_str().unwrap_or_default();
        match rule["strategy"].as_str() {
            Some("any" | "name") => {}
            Some("id") if text.parse::<u32>().is_ok() => {}
            Some("id") => report.error("user", format!("id {text:?} is not a number: no user matches")),
            Some("re2") => pattern::check("user", text, report),
            _ => report.error("user", format!("rule {rule} matches no user; its strategy is any, id, name or re2")),
        }
    }
    match user["umask"].as_str() {
        Some(umask) if umask.len() == 4 && umask.bytes().all(|b| matches!(b, b'0'..=b'7')) => {}
        _ => report.error(
            "user",
            format!("umask {} is not four octal digits: the container never matches", user["umask"]),
        ),
    }
}

fn capabilities(sets: &Value, report: &mut Reporter<'_>) {
    let Some(sets) = sets.as_object() else { return };
    let known = policy::data::privileged_capabilities().bounding;
    for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        let Some(names) = sets.get(set) else {
            report.error("capabilities", format!("set {set} is missing: the container never matches"));
            continue;
        };
        let mut seen = BTreeSet::new();
        for name in texts(names) {
            if !known.contains(&name) {
                report.error(
                    "capabilities",
                    format!("{set} has {name}, which is not a capability: the container never matches"),
                );
            } else if !seen.insert(name.clone()) {
                report.error("capabilities", format!("{set} has {name} twice: the container never matches"));
            }
        }
    }
}

fn signals(field: &str, signals: &Value, report: &mut Reporter<'_>) {
    for signal in signals.as_array().into_iter().flatten() {
        if !signal.as_i64().is_some_and(|number| (1..=MAX_SIGNAL).contains(&number)) {
            report.error(field, format!("{signal} is not a signal"));
        }
    }
}
