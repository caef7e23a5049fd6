//! Static checks of a policy: rules that never match, or that allow more than intended.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::Document;
use crate::explain::texts;

mod container;
mod pattern;

/// Framework and API versions of this implementation.
const FRAMEWORK: (u64, u64, u64) = (0, 5, 0);
/// Points of Windows guests, which a policy for Linux does not need.
const WINDOWS_POINTS: [&str; 3] = ["mount_cims", "registry_changes", "log_provider"];
/// Points that no runtime asks of a Linux guest unless a user wants what they judge. Generators leave them out.
const SELDOM_ASKED: [&str; 5] = [
    "host_network",
    "load_transparency_trust_list",
    "mount_blockdev",
    "rw_unmount_device",
    "unmount_blockdev",
];

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A rule never matches.
    Error,
    /// The meaning may differ from the intention.
    Warning,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The place: `container 2`, `policy`.
    pub place: String,
    /// The field; empty for the whole object.
    pub field: String,
    /// The fault.
    pub problem: String,
    /// In how many places it was found; `place` is the first of them.
    pub count: usize,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let field = if self.field.is_empty() {
            String::new()
        } else {
            format!(" {}", self.field)
        };
        write!(f, "{severity}: {}{field}: {}", self.place, self.problem)?;
        match self.count.saturating_sub(1) {
            0 => Ok(()),
            1 => write!(f, " (and in 1 more place)"),
            more => write!(f, " (and in {more} more places)"),
        }
    }
}

/// Findings about one place.
pub(crate) struct Reporter<'a> {
    place: String,
    /// Whether the policy is strict, so that patterns are anchored as a whole.
    pub(crate) strict: bool,
    findings: &'a mut Vec<Finding>,
}

impl Reporter<'_> {
    fn note(&mut self, severity: Severity, field: &str, problem: String) {
        self.findings.push(Finding {
            severity,
            place: self.place.clone(),
            field: field.to_owned(),
            problem,
            count: 1,
        });
    }

    pub(crate) fn error(&mut self, field: &str, problem: impl Into<String>) {
        self.note(Severity::Error, field, problem.into());
    }

    pub(crate) fn warning(&mut self, field: &str, problem: impl Into<String>) {
        self.note(Severity::Warning, field, problem.into());
    }
}

/// Checks a policy or a fragment.
pub fn check(document: &Document) -> Vec<Finding> {
    let mut findings = Vec::new();
    let declared = framework_version(document);
    at(document, document.package(), &mut findings, |report| {
        if document.package() == "policy" {
            points(document, report);
        } else if document.get("svn").is_null() {
            report.warning("svn", "the fragment declares none; then its signed header must");
        }
        for problem in document.compile_problems() {
            report.error("", format!("line {}: hcsshim does not load it: {}", problem.line, problem.problem));
        }
        versions(document, declared, report);
    });
    let containers = document.list("containers");
    for (index, container) in containers.iter().enumerate() {
        at(document, &format!("container {}", index + 1), &mut findings, |report| {
            container::check(container, declared.unwrap_or(FRAMEWORK), report);
            conflicts(containers, index, report);
        });
    }
    for (index, process) in document.list("external_processes").iter().enumerate() {
        at(document, &format!("external process {}", index + 1), &mut findings, |report| {
            container::check_process(process, report)
        });
    }
    for (index, fragment) in document.list("fragments").iter().enumerate() {
        at(document, &format!("fragment {}", index + 1), &mut findings, |report| {
            check_fragment(fragment, report)
        });
    }
    findings.sort_by_key(|finding| finding.severity);
    counted(findings)
}

/// Each finding once, with the number of its places.
fn counted(findings: Vec<Finding>) -> Vec<Finding> {
    let mut counted: Vec<Finding> = Vec::with_capacity(findings.len());
    let mut known: HashMap<(Severity, String, String), usize> = HashMap::new();
    for finding in findings {
        let key = (finding.severity, finding.field.clone(), finding.problem.clone());
        match known.get(&key).and_then(|index| counted.get_mut(*index)) {
            Some(first) => first.count += 1,
            None => {
                known.insert(key, counted.len());
                counted.push(finding);
            }
        }
    }
    counted
}

fn at(document: &Document, place: &str, findings: &mut Vec<Finding>, check: impl FnOnce(&mut Reporter<'_>)) {
    check(&mut Reporter {
        place: place.to_owned(),
        strict: document.flag("strict"),
        findings,
    });
}

/// Checks for the rules that the API version requires.
fn points(document: &Document, report: &mut Reporter<'_>) {
    let declared = document.version("api_version", "api_svn");
    let version = declared.and_then(Value::as_str).and_then(numbers);
    match (declared, version) {
        (None, _) => report.error("api_version", "missing: everything is denied"),
        (Some(_), None) => report.error("api_version", "not a version of three numbers: everything is denied"),
        (Some(_), Some(version)) => {
            for point in policy::POINTS {
                if point.since > version || document.has_rule(point.name) || WINDOWS_POINTS.contains(&point.name) {
                    continue;
                }
                if SELDOM_ASKED.contains(&point.name) {
                    report.warning(
                        point.name,
                        "no such rule: what it would judge is denied, though runtimes seldom ask",
                    );
                } else {
                    report.error(point.name, "no such rule: what it would judge is denied");
                }
            }
        }
    }
    // With casemate_version, own points without a rule are denied.
    if !document.get("casemate_version").is_null() {
        for point in policy::OWN_POINTS.iter().filter(|point| !document.has_rule(point.name)) {
            report.error(
                point.name,
                "no such rule, and casemate_version is declared: what it would judge is denied",
            );
        }
    }
    let selective = ["containers", "external_processes", "fragments"]
        .iter()
        .any(|name| !document.list(name).is_empty());
    if selective && !document.has_rule("reason") {
        report.warning("reason", "no such rule: denials will not say why");
    }
    for flag in [
        "allow_environment_variable_dropping",
        "allow_capability_dropping",
        "allow_unencrypted_scratch",
        "allow_properties_access",
    ] {
        let value = document.get(flag);
        if !value.is_null() && !value.is_boolean() {
            report.error(flag, "neither true nor false, and so false");
        }
    }
    medium(document, report);
}

/// Checks the medium that the policy requires.
fn medium(document: &Document, report: &mut Reporter<'_>) {
    const NAME: &str = "scratch_medium";
    if !document.has_rule(NAME) {
        return;
    }
    if !matches!(document.get(NAME).as_str(), Some("memory" | "disk")) {
        report.error(NAME, "neither \"memory\" nor \"disk\": no scratch can be mounted");
    }
    if !document.asks_framework_for_scratch() {
        report.error(
            NAME,
            "not read: only the framework's rw_mount_device reads it, and this policy does not refer to that",
        );
    }
}

fn framework_version(document: &Document) -> Option<(u64, u64, u64)> {
    document
        .version("framework_version", "framework_svn")
        .and_then(Value::as_str)
        .and_then(numbers)
}

fn versions(document: &Document, declared: Option<(u64, u64, u64)>, report: &mut Reporter<'_>) {
    let objects = ["containers", "external_processes", "fragments"]
        .iter()
        .any(|name| !document.list(name).is_empty());
    match (document.version("framework_version", "framework_svn"), declared) {
        _ if !objects => {}
        (None, _) => report.error("framework_version", "missing: no container, process or fragment can match"),
        (Some(_), None) => report.error(
            "framework_version",
            "not a version of three numbers: no container, process or fragment can match",
        ),
        (Some(_), Some(version)) if version > FRAMEWORK => {
            report.error(
                "framework_version",
                "newer than 0.5.0, the framework's own: no container, process or fragment can match",
            );
        }
        (Some(_), Some(version)) if version < (0, 2, 2) && document.flag("allow_capability_dropping") => {
            report.warning("allow_capability_dropping", "not read below framework version 0.2.2");
        }
        _ => {}
    }
}

/// A version as numbers.
fn numbers(text: &str) -> Option<(u64, u64, u64)> {
    let numbers: Vec<u64> = text.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    match numbers.as_slice() {
        [major, minor, patch] => Some((*major, *minor, *patch)),
        _ => None,
    }
}

/// Checks for containers that match the same requests and disagree on the answer.
fn conflicts(containers: &[Value], index: usize, report: &mut Reporter<'_>) {
    let Some(container) = containers.get(index) else { return };
    for (other, earlier) in containers.iter().enumerate().take(index) {
        let same = |field: &str| container[field] == earlier[field];
        if container == earlier {
            report.warning("", format!("the same as container {}", other + 1));
        } else if ["layers", "command", "working_dir", "user", "env_rules", "mounts"]
            .into_iter()
            .all(same)
            && !same("allow_stdio_access")
        {
            report.error(
                "allow_stdio_access",
                format!(
                    "differs from container {}, which a request may match as well: then both are denied",
                    other + 1
                ),
            );
        }
    }
}

fn check_fragment(fragment: &Value, report: &mut Reporter<'_>) {
    for field in ["issuer", "feed"] {
        if fragment[field].as_str().is_none_or(str::is_empty) {
            report.error(field, "missing: no fragment can match");
        }
    }
    if let Some(Err(error)) = fragment["issuer"].as_str().map(str::parse::<policy_fragment::DidX509>) {
        report.error("issuer", format!("no fragment can have this issuer: {error}"));
    }
    let svn = &fragment["minimum_svn"];
    let valid = svn.is_number()
        || svn
            .as_str()
            .is_some_and(|text| text.parse::<i64>().is_ok() || numbers(text).is_some());
    if !valid {
        report.error("minimum_svn", "neither a number nor a version: no fragment can match");
    }
    let known = [
        "containers",
        "fragments",
        "external_processes",
        "transparency_trust_lists",
        "platform_rules",
        "namespace",
    ];
    let includes = texts(&fragment["includes"]);
    for unknown in includes.iter().filter(|include| !known.contains(&include.as_str())) {
        report.warning("includes", format!("{unknown:?} is unknown"));
    }
    if includes.is_empty() {
        report.warning("includes", "empty: nothing of the fragment counts");
    }
}

#[cfg(test)]
mod tests;
