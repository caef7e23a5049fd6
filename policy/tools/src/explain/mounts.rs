//! Comparison of the mounts of a request with those that a container may have.

use policy::matches_pattern;
use serde_json::{Value, json};

use super::{Difference, texts};

/// Differences of the requested mounts to a container's. `refused` are the destinations that the policy itself named.
pub(crate) fn differences(input: &Value, container: &Value, refused: Option<&[&str]>) -> Vec<Difference> {
    let base = policy::data::base_document();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut constraints = list(&container["mounts"]);
    constraints.extend(list(&base["defaultMounts"]));
    if container["allow_elevated"] == true {
        constraints.extend(list(&base["privilegedMounts"]));
    }
    let mut found = Vec::new();
    for mount in input["mounts"].as_array().into_iter().flatten() {
        let destination = mount["destination"].as_str().unwrap_or_default();
        // The guest's own network files are not in the policy, so only mounts that the policy names are reported.
        let named = refused.is_some_and(|destinations| destinations.contains(&destination));
        let accepted = constraints
            .iter()
            .any(|constraint| wrong_parts(mount, constraint, input).is_empty());
        if (accepted || is_sandbox_sysfs(input, mount)) && !named {
            continue;
        }
        if refused.is_some() && !named {
            continue;
        }
        let same_place = constraints
            .iter()
            .filter(|constraint| constraint["destination"] == mount["destination"]);
        let nearest = same_place.min_by_key(|constraint| wrong_parts(mount, constraint, input).len());
        let asked = |parts: &[&str], of: &Value| {
            let parts: Vec<_> = parts.iter().map(|part| format!("{part} {}", of[*part])).collect();
            format!("mount at {destination}: {}", parts.join(", "))
        };
        found.push(match nearest {
            None => Difference::new(
                "mounts",
                format!("mount at {destination} from {}", mount["source"]),
                "no mount there",
            ),
            Some(constraint) => {
                let parts = wrong_parts(mount, constraint, input);
                Difference::new("mounts", asked(&parts, mount), asked(&parts, constraint))
            }
        });
    }
    found
}

/// The parts of a mount that a constraint does not accept.
fn wrong_parts(mount: &Value, constraint: &Value, input: &Value) -> Vec<&'static str> {
    let (asked, allowed) = (texts(&mount["options"]), texts(&constraint["options"]));
    let options = asked.len() == allowed.len()
        && asked.iter().all(|option| allowed.contains(option))
        && allowed.iter().all(|option| asked.contains(option));
    let parts = [
        ("destination", mount["destination"] == constraint["destination"]),
        ("source", source_fits(mount, constraint, input)),
        ("type", mount["type"] == constraint["type"]),
        ("options", options),
    ];
    parts.iter().filter(|(_, fits)| !fits).map(|(part, _)| *part).collect()
}

fn source_fits(mount: &Value, constraint: &Value, input: &Value) -> bool {
    let (asked, pattern) = (
        mount["source"].as_str().unwrap_or_default(),
        constraint["source"].as_str().unwrap_or_default(),
    );
    let expanded = |prefix: &str, key: &str| {
        let directory = input[key].as_str()?;
        pattern.starts_with(prefix).then(|| pattern.replace(prefix, directory))
    };
    let expanded = expanded("sandbox://", "sandboxDir").or_else(|| expanded("hugepages://", "hugePagesDir"));
    match expanded {
        Some(pattern) => matches_pattern(&pattern, asked).unwrap_or(false),
        // Only the guest knows the mounted host directories.
        None if pattern.starts_with("plan9://") => asked.contains("/mounts/m"),
        // A cut message may lack the directory of the prefix.
        None if pattern.starts_with("sandbox://") || pattern.starts_with("hugepages://") => true,
        None => asked == pattern,
    }
}

/// The one mount that the pause container may have in addition to the list.
fn is_sandbox_sysfs(input: &Value, mount: &Value) -> bool {
    let options = texts(&mount["options"]);
    input["isSandboxContainer"] == true
        && mount["type"] == json!("sysfs")
        && mount["source"] == json!("sysfs")
        && mount["destination"] == json!("/sys")
        && options.len() == 4
        && ["nosuid", "noexec", "nodev", "rw"]
            .iter()
            .all(|option| options.iter().any(|asked| asked == option))
}
