//! Explanation of a denial: the rule, the fields, the nearest container of the policy, and the differences.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::Document;
use compare::Request;
use message::Message;

mod compare;
mod json;
mod message;
mod mounts;
mod older;
mod sentence;
mod unescape;

/// Maximum number of differences that are listed.
const MAX_DIFFERENCES: usize = 16;
/// Longest text of one side of a difference, in characters.
const MAX_SIDE: usize = 400;

/// The text has no denial, or too little of one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no denial found: the text has neither \"denied by policy: …\" nor a policyDecision nor \"… not allowed by policy\"")]
pub struct NoDenial;

/// A field in which a request and the nearest object of the policy differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Name of the field in the policy.
    pub field: String,
    /// The request.
    pub asked: String,
    /// The policy's rule.
    pub allowed: String,
}

impl Difference {
    pub(crate) fn new(field: &str, asked: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            asked: short(asked.into()),
            allowed: short(allowed.into()),
        }
    }
}

fn short(text: String) -> String {
    match text.char_indices().nth(MAX_SIDE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The object of the policy that is nearest to the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// `container`, `external process` or `fragment`.
    pub kind: &'static str,
    /// Its position in the policy's list, from 1; none if only the message has it.
    pub number: Option<usize>,
    /// Its command or issuer.
    pub name: String,
}

/// The explanation of a denial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The sentence of the denial.
    pub sentence: String,
    /// The enforcement point.
    pub rule: Option<String>,
    /// The policy's reasons in its own words.
    pub reasons: Vec<String>,
    /// Fields of the policy that cause the denial, without duplicates.
    pub fields: Vec<String>,
    /// The object nearest to the request.
    pub nearest: Option<Nearest>,
    /// Differences between the request and the nearest object.
    pub differences: Vec<Difference>,
    /// Further notes.
    pub notes: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sentence)?;
        if let Some(rule) = &self.rule {
            write!(f, "\n  rule     {rule}")?;
        }
        self.reasons.iter().try_for_each(|reason| write!(f, "\n  reason   {reason}"))?;
        if !self.fields.is_empty() {
            write!(f, "\n  field    {}", self.fields.join(", "))?;
        }
        if let Some(Nearest { kind, number, name }) = &self.nearest {
            let number = number.map(|number| format!(" {number}")).unwrap_or_default();
            write!(f, "\n  nearest  {kind}{number}: {name}")?;
        }
        for Difference { field, asked, allowed } in &self.differences {
            write!(f, "\n  {field}\n    asked    {asked}\n    allowed  {allowed}")?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n  note     {note}"))
    }
}

/// Explains the first denial in `text`, as [`explain_all`] does.
///
/// # Errors
/// The text has no denial.
pub fn explain(text: &str, policy: Option<&Document>) -> Result<Explanation, NoDenial> {
    explain_all(text, policy).map(|mut explanations| explanations.remove(0))
}

/// Explains every denial in `text`, of which there is at least one; a denial that is repeated is explained once. The text may have other
/// text around it, may be within JSON or HTML, and may be cut short. With the policy, an explanation has the allowed values as well.
///
/// # Errors
/// The text has no denial.
pub fn explain_all(text: &str, policy: Option<&Document>) -> Result<Vec<Explanation>, NoDenial> {
    let mut explanations: Vec<(Explanation, usize)> = Vec::new();
    for message in Message::all(&unescape::unescape(text)) {
        let explanation = explained(&message, policy);
        match explanations.iter_mut().find(|(earlier, _)| *earlier == explanation) {
            Some((_, times)) => *times += 1,
            None => explanations.push((explanation, 1)),
        }
    }
    if explanations.is_empty() {
        return Err(NoDenial);
    }
    let counted = |(mut explanation, times): (Explanation, usize)| {
        if times > 1 {
            explanation.notes.push(format!("{times} times in the text"));
        }
        explanation
    };
    Ok(explanations.into_iter().map(counted).collect())
}

fn explained(message: &Message, policy: Option<&Document>) -> Explanation {
    let reasons = message.reasons();
    let from_decision = || sentence::sentence(&message.decision, message.rule.as_deref());
    let mut explanation = Explanation {
        sentence: message.sentence.clone().unwrap_or_else(from_decision),
        rule: message.rule.clone(),
        reasons: reasons.iter().map(|reason| short((*reason).to_owned())).collect(),
        ..Explanation::default()
    };
    notes(message, &mut explanation);
    let empty = Document::default();
    let request = Request {
        input: &message.decision["input"],
        reasons: &reasons,
        document: policy.unwrap_or(&empty),
    };
    // A message that is cut before its rule still has a part of its sentence.
    let rule = message.rule.as_deref().unwrap_or_default();
    nearest(rule, &request, &message.decision["reason"]["error_objects"], &mut explanation);
    let mut fields: Vec<String> = explanation.differences.iter().map(|difference| difference.field.clone()).collect();
    let compared = !message.cut && !fields.is_empty();
    let blamed = blamed(rule, &reasons, &explanation.sentence, compared);
    fields.extend(blamed.into_iter().map(str::to_owned));
    for field in fields {
        if !explanation.fields.contains(&field) {
            explanation.fields.push(field);
        }
    }
    let count = explanation.differences.len();
    if count > MAX_DIFFERENCES {
        explanation.differences.truncate(MAX_DIFFERENCES);
        explanation.notes.push(format!("{} more differences", count - MAX_DIFFERENCES));
    }
    explanation
}

fn notes(message: &Message, explanation: &mut Explanation) {
    if let Some(error) = message.decision["policyError"].as_str() {
        explanation.notes.push(format!("the policy itself is at fault: {error}"));
    }
    let left_out = texts(&message.decision["truncated"]);
    if !left_out.is_empty() {
        explanation.notes.push(format!("left out of the message: {}", left_out.join(", ")));
    }
    if message.cut || message.decision.is_null() {
        explanation
            .notes
            .push("the message is cut short; missing parts are taken from the policy where possible".to_owned());
    }
}

/// Finds the object nearest to the request, and the differences.
fn nearest(rule: &str, request: &Request<'_>, considered: &Value, explanation: &mut Explanation) {
    let (kind, list) = match rule {
        "create_container" | "exec_in_container" | "signal_container_process" => ("container", "containers"),
        "exec_external" => ("external process", "external_processes"),
        "load_fragment" => ("fragment", "fragments"),
        _ => return layers(rule, request, explanation),
    };
    let compare = |object: &Value| match rule {
        "create_container" => request.create(object),
        "exec_in_container" => request.exec(object),
        "signal_container_process" => request.signal(object),
        "exec_external" => request.external(object),
        _ => fragment_differences(request.input, object),
    };
    let listed = request.document.list(list);
    let considered = considered.as_array().map(Vec::as_slice).unwrap_or_default();
    // The message has the candidates. For an exec they are processes, so their containers are compared.
    let possible = |object: &Value| match rule {
        _ if considered.is_empty() => true,
        "exec_in_container" => object["exec_processes"]
            .as_array()
            .is_some_and(|processes| processes.iter().any(|process| considered.contains(process))),
        "create_container" => considered
            .iter()
            .any(|other| ["command", "layers", "mounts"].iter().all(|key| other[*key] == object[*key])),
        _ => true,
    };
    let mut candidates: Vec<(Option<usize>, &Value)> = listed
        .iter()
        .enumerate()
        .filter(|(_, object)| possible(object))
        .map(|(index, object)| (Some(index + 1), object))
        .collect();
    if candidates.is_empty() && matches!(rule, "create_container" | "exec_external" | "load_fragment") {
        candidates.extend(considered.iter().map(|object| (None, object)));
    }
    if candidates.is_empty() {
        candidates.extend(listed.iter().enumerate().map(|(index, object)| (Some(index + 1), object)));
    }
    let weighed = candidates.into_iter().map(|(number, object)| (compare(object), number, object));
    // A difference of the command or the process weighs most.
    let weight = |differences: &[Difference]| -> usize {
        let weigh = |difference: &Difference| match difference.field.as_str() {
            "command" | "exec_processes" | "issuer" => 5,
            "mounts" | "env_rules" => 2,
            _ => 1,
        };
        differences.iter().map(weigh).sum()
    };
    let Some((differences, number, object)) = weighed.min_by_key(|(differences, ..)| weight(differences)) else {
        return;
    };
    let name = object["command"].as_array().map_or_else(
        || {
            format!(
                "{} {}",
                object["issuer"].as_str().unwrap_or_default(),
                object["feed"].as_str().unwrap_or_default()
            )
        },
        |_| object["command"].to_string(),
    );
    explanation.nearest = Some(Nearest {
        kind,
        number,
        name: short(name),
    });
    explanation.differences = differences;
}

fn fragment_differences(input: &Value, fragment: &Value) -> Vec<Difference> {
    let pairs = ["issuer", "feed"]
        .into_iter()
        .filter(|key| !input[*key].is_null() && input[*key] != fragment[*key]);
    let mut found: Vec<_> = pairs
        .map(|key| Difference::new(key, input[key].to_string(), fragment[key].to_string()))
        .collect();
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    if let (Some(asked), Some(least)) = (number(&input["header_svn"]), number(&fragment["minimum_svn"]))
        && asked < least
    {
        found.push(Difference::new("minimum_svn", asked.to_string(), format!("{least} or more")));
    }
    found
}

/// Differences of layers, for the points that mount them.
fn layers(rule: &str, request: &Request<'_>, explanation: &mut Explanation) {
    let containers = request.document.list("containers");
    match rule {
        "mount_device" => {
            let hash = request.input["deviceHash"].as_str().unwrap_or_default();
            let known = containers
                .iter()
                .any(|container| texts(&container["layers"]).iter().any(|layer| layer == hash));
            if !hash.is_empty() && !known && !containers.is_empty() {
                let count: usize = containers.iter().map(|container| texts(&container["layers"]).len()).sum();
                let allowed = format!("one of the {count} layers of {} containers", containers.len());
                explanation.differences.push(Difference::new("layers", hash, allowed));
            }
        }
        "mount_overlay" => {
            if request.reasons.contains(&"overlay has already been mounted") {
                return;
            }
            if let Some(count) = request.input["layerPaths"].as_array().map(Vec::len) {
                let same = containers
                    .iter()
                    .filter(|container| texts(&container["layers"]).len() == count)
                    .count();
                let allowed = format!(
                    "the layers of a container in their order; {same} of {} containers have {count}",
                    containers.len()
                );
                explanation
                    .differences
                    .push(Difference::new("layers", format!("{count} layers"), allowed));
            }
        }
        _ => {}
    }
}

/// The fields that the policy's reasons, or else the sentence, refer to.
fn blamed(rule: &str, reasons: &[&str], sentence: &str, compared: bool) -> Vec<&'static str> {
    let flag = match rule {
        "get_properties" => Some("allow_properties_access"),
        "dump_stacks" => Some("allow_dump_stacks"),
        "runtime_logging" => Some("allow_runtime_logging"),
        "host_network" => Some("allow_host_network"),
        _ => None,
    };
    let words: [(&str, &str, &'static str); 19] = [
        ("deviceHash not found", "layer hash", "layers"),
        ("no matching containers for overlay", "has exactly these layers", "layers"),
        (
            "invalid command",
            "command is not in the policy",
            if rule == "exec_in_container" { "exec_processes" } else { "command" },
        ),
        ("invalid env list", "environment", "env_rules"),
        ("missing required environment variable", "environment variable", "env_rules"),
        ("invalid working directory", "working directory", "working_dir"),
        ("invalid mount list", "mount at", "mounts"),
        ("privileged escalation not allowed", "run privileged", "allow_elevated"),
        ("invalid noNewPrivileges", "no_new_privs", "no_new_privileges"),
        ("invalid user", "user, group or umask", "user"),
        ("invalid seccomp", "seccomp profile", "seccomp_profile_sha256"),
        ("devices not supported", "device nodes", "devices"),
        ("capabilities don't match", "capabilities are not", "capabilities"),
        ("target isn't allowed to receive the signal", "is not in the policy", "signals"),
        ("unencrypted scratch not allowed", "encrypted scratch", "allow_unencrypted_scratch"),
        ("scratch_medium is", "scratch in the guest's memory", "scratch_medium"),
        ("invalid fragment issuer", "fragment issuer", "issuer"),
        ("invalid fragment feed", "fragment feed", "feed"),
        ("fragment svn is below the specified minimum", "fragment svn", "minimum_svn"),
    ];
    // Every denied exec has these two reasons, whatever the cause: an exec process has no user of its own.
    let noise = |reason: &str| rule == "exec_in_container" && matches!(reason, "invalid user" | "invalid noNewPrivileges");
    let blames = |(reason, plain, field): &(&str, &str, &'static str)| {
        let by_reason = reasons.iter().any(|given| given.starts_with(reason) && !noise(given));
        let by_words = reasons.is_empty() && sentence.contains(plain) && (*field != "signals" || rule == "signal_container_process");
        by_reason || by_words
    };
    // The remaining causes when all others are ruled out.
    let unsaid: &[&'static str] = match rule == "exec_in_container" && sentence.contains("user, privileges or another detail") && !compared
    {
        true => &["user", "no_new_privileges"],
        false => &[],
    };
    let named = words.iter().filter(|word| blames(word)).map(|(.., field)| *field);
    flag.into_iter().chain(named).chain(unsaid.iter().copied()).collect()
}

/// The strings of a list.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_text_is_no_denial() {
        assert_eq!(explain("everything is fine", None), Err(NoDenial));
    }

    #[test]
    fn the_peers_messages_are_explained_in_json_and_several_at_once() {
        let decision = |reason: &str| {
            use base64::Engine as _;
            let document = format!(r#"{{"decision":"deny","reason":{{"errors":["{reason}"]}},"truncated":["input"]}}"#);
            base64::engine::general_purpose::STANDARD.encode(document)
        };
        let one = format!(
            r"container creation denied due to policy: policyDecision\u003c {} \u003epolicyDecision: unknown",
            decision("invalid command")
        );
        let other = format!(
            "mounting scsi device controller 3 lun 2 onto /m4 denied by policy: policyDecision< {} >policyDecision",
            decision("deviceHash not found")
        );
        let explained = explain_all(&format!("{one}\n{other}\n{one}"), None).unwrap();
        assert_eq!(explained.len(), 2);
        assert_eq!(explained[0].reasons, ["invalid command"]);
        assert_eq!(explained[0].fields, ["command"]);
        assert_eq!(explained[0].rule.as_deref(), Some("create_container"));
        assert!(explained[0].notes.contains(&"2 times in the text".to_owned()));
        assert!(
            explained[1].to_string().contains("\n  reason   deviceHash not found\n"),
            "{}",
            explained[1]
        );
        assert_eq!(explained[1].fields, ["layers"]);
    }

    #[test]
    fn the_older_wording_is_explained() {
        let text = "failed: exec in container denied due to policy: exec_in_container not allowed by policy. \
            Errors: [invalid command]. Input: {\"argList\":[\"ls\"],\"containerID\":\"x\"}: unknown";
        let policy =
            "package policy\ncontainers := [{\"command\": [\"sh\"], \"exec_processes\": [{\"command\": [\"ps\"], \"signals\": []}]}]\n";
        let explained = explain(text, Some(&Document::read(policy).unwrap())).unwrap();
        assert_eq!(explained.rule.as_deref(), Some("exec_in_container"));
        assert_eq!(explained.reasons, ["invalid command"]);
        let difference = &explained.differences[0];
        assert_eq!((difference.asked.as_str(), difference.allowed.as_str()), ("[\"ls\"]", "[\"ps\"]"));
        assert!(
            explained.sentence.starts_with("process may not start in container"),
            "{}",
            explained.sentence
        );
    }

    #[test]
    fn the_sentence_alone_names_rule_and_field() {
        let text = "ctr: denied by policy: container \"x\" may not start: working directory /tmp is not in the policy (rule create_container). poli";
        let explained = explain(text, None).unwrap();
        assert_eq!(explained.rule.as_deref(), Some("create_container"));
        assert_eq!(explained.fields, ["working_dir"]);
        assert!(explained.notes[0].contains("cut short"));
    }
}
