//! Comparison of a request with a container of the policy.

use policy::matches_pattern;
use serde_json::{Value, json};

use super::mounts;
use super::{Difference, texts};
use crate::Document;

/// Replaces environment values in a denial.
const REDACTED: &str = "<<redacted>>";
/// The five capability sets.
const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];

/// A denied request and the policy's reasons.
pub(crate) struct Request<'a> {
    pub(crate) input: &'a Value,
    pub(crate) reasons: &'a [&'a str],
    pub(crate) document: &'a Document,
}

impl Request<'_> {
    /// The names that the reason beginning with `head` lists, if there is one.
    fn listed(&self, head: &str) -> Option<Vec<&str>> {
        let list = self.reasons.iter().find_map(|reason| reason.strip_prefix(head)?.strip_prefix(": "));
        list.map(|list| list.split(',').collect())
    }

    fn has(&self, reason: &str) -> bool {
        self.reasons.contains(&reason)
    }

    /// Differences to a container as `create_container` sees them.
    pub(crate) fn create(&self, container: &Value) -> Vec<Difference> {
        let mut found = Vec::new();
        found.extend(self.command(&container["command"]));
        found.extend(self.env(&container["env_rules"]));
        found.extend(self.equal("working_dir", "workingDir", container));
        // If the policy gives reasons, mounts that it does not name are allowed: some are the guest's own.
        let refused = self.listed("invalid mount list").or((!self.reasons.is_empty()).then(Vec::new));
        found.extend(mounts::differences(self.input, container, refused.as_deref()));
        if self.input["privileged"] == true && container["allow_elevated"] != true {
            found.push(Difference::new("allow_elevated", "a privileged container", "none"));
        }
        found.extend(self.no_new_privileges(container));
        found.extend(self.user(container));
        found.extend(self.capabilities(container, self.input["privileged"] == true));
        found.extend(self.equal("seccomp_profile_sha256", "seccompProfileSHA256", container));
        if let Some(devices) = self.input["devices"].as_array().filter(|devices| !devices.is_empty()) {
            let paths: Vec<_> = devices.iter().map(|device| device["path"].as_str().unwrap_or("?")).collect();
            found.push(Difference::new("devices", paths.join(", "), "none: no policy can list devices"));
        }
        found
    }

    /// Differences to a container as `exec_in_container` sees them.
    pub(crate) fn exec(&self, container: &Value) -> Vec<Difference> {
        let mut found = Vec::new();
        if !self.input["argList"].is_null() {
            let commands: Vec<_> = container["exec_processes"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|process| &process["command"])
                .collect();
            if !commands.iter().any(|command| same_command(&self.input["argList"], command)) {
                let commands: Vec<_> = commands.iter().map(ToString::to_string).collect();
                let allowed = if commands.is_empty() {
                    "none".to_owned()
                } else {
                    commands.join(" or ")
                };
                found.push(Difference::new("exec_processes", self.input["argList"].to_string(), allowed));
            }
        }
        found.extend(self.env(&container["env_rules"]));
        found.extend(self.equal("working_dir", "workingDir", container));
        found.extend(self.no_new_privileges(container));
        found.extend(self.user(container));
        // The request does not say whether the container is privileged; both defaults are accepted.
        let sets = [false, true].map(|privileged| self.capabilities(container, privileged));
        found.extend(sets.into_iter().min_by_key(Vec::len).unwrap_or_default());
        found
    }

    /// Differences to a container as `signal_container_process` sees them.
    pub(crate) fn signal(&self, container: &Value) -> Vec<Difference> {
        let (asked, arguments) = (&self.input["signal"], &self.input["argList"]);
        let allowed: Vec<&Value> = if self.input["isInitProcess"] == true {
            vec![&container["signals"]]
        } else {
            let processes = container["exec_processes"].as_array().into_iter().flatten();
            processes
                .filter(|process| process["command"] == *arguments)
                .map(|process| &process["signals"])
                .collect()
        };
        let contains = |signals: &&&Value| signals.as_array().is_some_and(|signals| signals.contains(asked));
        if allowed.iter().any(|signals| contains(&signals)) {
            return Vec::new();
        }
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        vec![Difference::new(
            "signals",
            asked.to_string(),
            if allowed.is_empty() {
                "none".to_owned()
            } else {
                allowed.join(" or ")
            },
        )]
    }

    /// Differences to an external process.
    pub(crate) fn external(&self, process: &Value) -> Vec<Difference> {
        let mut found = Vec::new();
        found.extend(self.command(&process["command"]));
        found.extend(self.env(&process["env_rules"]));
        found.extend(self.equal("working_dir", "workingDir", process));
        found
    }

    fn command(&self, allowed: &Value) -> Option<Difference> {
        let asked = &self.input["argList"];
        (!asked.is_null() && !same_command(asked, allowed)).then(|| Difference::new("command", asked.to_string(), allowed.to_string()))
    }

    fn equal(&self, field: &str, key: &str, container: &Value) -> Option<Difference> {
        let (asked, allowed) = (&self.input[key], &container[field]);
        (!asked.is_null() && asked != allowed).then(|| Difference::new(field, asked.to_string(), allowed.to_string()))
    }

    fn no_new_privileges(&self, container: &Value) -> Option<Difference> {
        let denied = self.input["noNewPrivileges"] == false && container["no_new_privileges"] == true;
        denied.then(|| Difference::new("no_new_privileges", "false", "true"))
    }

    fn user(&self, container: &Value) -> Vec<Difference> {
        let user = &container["user"];
        let mut found = Vec::new();
        let (asked, allowed) = (&self.input["user"], &user["user_idname"]);
        if asked.is_object() && !is_somebody(allowed, asked) {
            found.push(Difference::new("user", somebody(asked), rule(allowed)));
        }
        let groups: Vec<_> = user["group_idnames"].as_array().into_iter().flatten().collect();
        for group in self.input["groups"].as_array().into_iter().flatten() {
            if !groups.iter().any(|allowed| is_somebody(allowed, group)) {
                let allowed: Vec<_> = groups.iter().map(|allowed| rule(allowed)).collect();
                let allowed = if allowed.is_empty() {
                    "none".to_owned()
                } else {
                    allowed.join(" or ")
                };
                found.push(Difference::new(
                    "user",
                    format!("group {}", somebody(group)),
                    format!("group {allowed}"),
                ));
            }
        }
        let (asked, allowed) = (&self.input["umask"], &user["umask"]);
        if !asked.is_null() && asked != allowed {
            found.push(Difference::new("user", format!("umask {asked}"), format!("umask {allowed}")));
        }
        found
    }

    fn capabilities(&self, container: &Value, privileged: bool) -> Vec<Difference> {
        let sets = |value: &Value| match value.as_str() {
            Some("[privileged]") => json!(policy::data::privileged_capabilities()),
            Some("[unprivileged]") => json!(policy::data::unprivileged_capabilities()),
            _ => value.clone(),
        };
        let asked = sets(&self.input["capabilities"]);
        if !asked.is_object() {
            return Vec::new();
        }
        let allowed = match sets(&container["capabilities"]) {
            sets if sets.is_object() => sets,
            _ if privileged && container["allow_elevated"] == true => json!(policy::data::privileged_capabilities()),
            _ => json!(policy::data::unprivileged_capabilities()),
        };
        let dropping = self.document.flag("allow_capability_dropping");
        let mut found = Vec::new();
        for set in SETS {
            let (mut asked, mut allowed) = (texts(&asked[set]), texts(&allowed[set]));
            asked.sort();
            allowed.sort();
            let beyond: Vec<_> = asked.iter().filter(|name| !allowed.contains(name)).cloned().collect();
            let missing: Vec<_> = allowed.iter().filter(|name| !asked.contains(name)).cloned().collect();
            if !beyond.is_empty() && !dropping {
                found.push(Difference::new(
                    "capabilities",
                    format!("{set} with {}", beyond.join(", ")),
                    format!("{set} without"),
                ));
            }
            if !missing.is_empty() {
                found.push(Difference::new(
                    "capabilities",
                    format!("{set} without {}", missing.join(", ")),
                    format!("{set} with"),
                ));
            }
            if beyond.is_empty() && missing.is_empty() && asked != allowed && !dropping {
                found.push(Difference::new(
                    "capabilities",
                    format!("{set} with a name twice"),
                    format!("{set} with each name once"),
                ));
            }
        }
        found
    }

    /// Variables that no rule accepts, and rules that no variable satisfies. A denial has only the names of variables.
    fn env(&self, rules: &Value) -> Vec<Difference> {
        let rules: Vec<&Value> = rules.as_array().into_iter().flatten().collect();
        let entries = texts(&self.input["envList"]);
        if self.input["envList"].is_null() {
            return Vec::new();
        }
        let dropping = self.document.flag("allow_environment_variable_dropping");
        let named = self.listed("invalid env list");
        let refused = |entry: &String| {
            let name = name_of(entry);
            named.as_ref().is_some_and(|names| names.contains(&name)) || !rules.iter().any(|rule| fits(rule, entry))
        };
        let mut found = Vec::new();
        for entry in entries.iter().filter(|entry| !dropping && refused(entry)) {
            let name = name_of(entry);
            let near: Vec<_> = rules
                .iter()
                .filter(|rule| fits(rule, &format!("{name}={REDACTED}")))
                .map(|rule| shown(rule))
                .collect();
            let allowed = match near.is_empty() {
                true => "no such variable".to_owned(),
                false => near.join(" or "),
            };
            found.push(Difference::new("env_rules", entry.clone(), allowed));
        }
        let required: Vec<_> = rules.iter().filter(|rule| rule["required"] == true).collect();
        let absent: Vec<_> = required
            .iter()
            .filter(|rule| !entries.iter().any(|entry| fits(rule, entry)))
            .collect();
        for rule in &absent {
            found.push(Difference::new("env_rules", "it is missing", format!("required: {}", shown(rule))));
        }
        if absent.is_empty() && self.has("missing required environment variable") {
            let all: Vec<_> = required.iter().map(|rule| shown(rule)).collect();
            found.push(Difference::new(
                "env_rules",
                "one is there with another value",
                format!("required: {}", all.join(", ")),
            ));
        }
        found
    }
}

/// Whether two commands are equal, except for redacted arguments.
fn same_command(asked: &Value, allowed: &Value) -> bool {
    let (Some(asked), Some(allowed)) = (asked.as_array(), allowed.as_array()) else {
        return false;
    };
    asked.len() == allowed.len()
        && asked
            .iter()
            .zip(allowed)
            .all(|(asked, allowed)| asked == allowed || asked == REDACTED)
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// Whether a rule accepts an entry, or may accept it if its value is redacted.
fn fits(rule: &Value, entry: &str) -> bool {
    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
    let hidden = value == REDACTED;
    if let (Some(pattern), Some(strategy)) = (rule["pattern"].as_str(), rule["strategy"].as_str()) {
        return match (hidden, pattern.split_once('=')) {
            (false, _) => matches(strategy, pattern, entry),
            (true, Some((pattern, _))) => matches(strategy, pattern.trim_start_matches('^'), name),
            // A pattern without a recognisable end of the name may match any name.
            (true, None) => strategy == "re2",
        };
    }
    let part = |key: &str, strategy: &str, text: &str| {
        let (pattern, strategy) = (rule[key].as_str(), rule[strategy].as_str());
        pattern
            .zip(strategy)
            .is_some_and(|(pattern, strategy)| matches(strategy, pattern, text))
    };
    part("name", "name_strategy", name) && (hidden || part("value", "value_strategy", value))
}

fn matches(strategy: &str, pattern: &str, text: &str) -> bool {
    match strategy {
        "string" => pattern == text,
        "re2" => matches_pattern(pattern, text).unwrap_or(false),
        _ => false,
    }
}

fn shown(rule: &Value) -> String {
    match rule["pattern"].as_str() {
        Some(pattern) => pattern.to_owned(),
        None => format!("{}={}", rule["name"].as_str().unwrap_or("?"), rule["value"].as_str().unwrap_or("?")),
    }
}

/// Whether a rule for users and groups accepts one.
fn is_somebody(rule: &Value, somebody: &Value) -> bool {
    let pattern = rule["pattern"].as_str().unwrap_or_default();
    let (id, name) = (
        somebody["id"].as_str().unwrap_or_default(),
        somebody["name"].as_str().unwrap_or_default(),
    );
    match rule["strategy"].as_str() {
        Some("any") => true,
        Some("id") => pattern == id,
        Some("name") => pattern == name,
        Some("re2") => matches_pattern(pattern, name).unwrap_or(false),
        _ => false,
    }
}

fn somebody(value: &Value) -> String {
    let (id, name) = (value["id"].as_str().unwrap_or("?"), value["name"].as_str().unwrap_or_default());
    if name.is_empty() { id.to_owned() } else { format!("{id} ({name})") }
}

fn rule(value: &Value) -> String {
    let pattern = value["pattern"].as_str().unwrap_or_default();
    match value["strategy"].as_str() {
        Some("any") => "any".to_owned(),
        Some(strategy) => format!("{strategy} {pattern}"),
        None => "nobody".to_owned(),
    }
}
