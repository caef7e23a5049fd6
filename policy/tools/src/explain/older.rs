//! The wording of older hcsshim: `POINT not allowed by policy. Errors: [REASON REASON]. Input: {…}`, of which the end may be missing.

use serde_json::{Value, json};

use super::json::repaired;

/// What follows the point's name.
pub(super) const MARK: &str = " not allowed by policy";
const ERRORS: &str = "Errors: [";
const INPUT: &str = "Input: ";
/// First words of the framework's reasons: the list separates them by blanks only.
const REASONS: [&str; 37] = [
    "deviceHash not found",
    "device already mounted at path",
    "no device at path to unmount",
    "mountpoint invalid",
    "overlay has already been mounted",
    "no overlay at path to unmount",
    "no overlay mounted",
    "no matching containers for overlay",
    "container already started",
    "container not started",
    "invalid command",
    "invalid env list",
    "missing required environment variable",
    "invalid working directory",
    "invalid mount list",
    "privileged escalation not allowed",
    "invalid noNewPrivileges",
    "invalid user",
    "invalid seccomp",
    "devices not supported",
    "capabilities don't match",
    "containers only distinguishable by",
    "processes only distinguishable by",
    "target isn't allowed to receive the signal",
    "unencrypted scratch not allowed",
    "scratch already mounted at path",
    "no scratch at path to unmount",
    "device mounted at path",
    "no device mounted",
    "invalid fragment issuer",
    "invalid fragment feed",
    "fragment svn is below the specified minimum",
    "fragment version is below the specified minimum",
    "fragment framework_version is",
    "framework_version is",
    "framework_svn is",
    "rule for ",
];

/// Where the first [`MARK`] after the name of a point is. Some reasons of policies have the same words after other words.
pub(super) fn find(text: &str) -> Option<usize> {
    let mut places = text.match_indices(MARK).map(|(at, _)| at);
    places.find(|at| point(&text[..*at]).is_some())
}

/// The name of a point at the end of `head`.
fn point(head: &str) -> Option<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    head.rsplit(|c| !is_name(c)).next().filter(|word| word.contains('_'))
}

/// A denial in the older wording.
pub(super) struct Older {
    /// The enforcement point.
    pub(super) rule: Option<String>,
    /// As a decision document.
    pub(super) decision: Value,
    /// Whether its end is missing.
    pub(super) cut: bool,
    /// Bytes of `rest` that it takes.
    pub(super) length: usize,
}

/// Reads the denial whose [`MARK`] is between `head` and `rest`.
pub(super) fn read(head: &str, rest: &str) -> Older {
    let rule = point(head);
    let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
    let (mut reasons, mut length, mut cut) = (Vec::new(), 0, false);
    if let Some(start) = line.find(ERRORS).map(|at| at + ERRORS.len()) {
        let list = &line[start..];
        let end = list.find(&format!("]. {INPUT}")).or_else(|| list.find(']'));
        cut = end.is_none();
        let list = &list[..end.unwrap_or(list.len())];
        reasons = split(list);
        length = start + list.len();
    }
    let mut decision = json!({"decision": "deny", "reason": {"errors": reasons}});
    if let Some(start) = line
        .get(length..)
        .and_then(|tail| tail.find(INPUT))
        .map(|at| length + at + INPUT.len())
    {
        let mut documents = serde_json::Deserializer::from_str(&line[start..]).into_iter::<Value>();
        let (input, read) = match documents.next() {
            Some(Ok(input)) => (input, documents.byte_offset()),
            _ => {
                cut = true;
                (repaired(&line[start..]), line.len() - start)
            }
        };
        length = start + read;
        decision["input"] = input;
    }
    Older {
        rule: rule.map(str::to_owned),
        decision,
        cut,
        length,
    }
}

/// The reasons of a list: JSON strings, or texts with blanks between them.
fn split(list: &str) -> Vec<String> {
    if let Ok(reasons) = serde_json::from_str(&format!("[{list}]")) {
        return reasons;
    }
    let begins = |at: usize| {
        let free = at == 0 || matches!(list.as_bytes()[at - 1], b' ' | b',');
        free && REASONS.iter().any(|reason| list[at..].starts_with(reason))
    };
    let mut starts: Vec<usize> = list.char_indices().map(|(at, _)| at).filter(|at| begins(*at)).collect();
    // What an older framework says otherwise stands for itself.
    if starts.first().is_none_or(|first| *first > 0) && !list.is_empty() {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([list.len()]);
    let parts = starts
        .iter()
        .zip(ends)
        .map(|(start, end)| list[*start..end].trim_matches([' ', ',']));
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_apart() {
        assert_eq!(split("invalid command"), ["invalid command"]);
        assert_eq!(
            split("invalid env list: A=1,B invalid command invalid user"),
            ["invalid env list: A=1,B", "invalid command", "invalid user"]
        );
        assert_eq!(split("something new invalid user"), ["something new", "invalid user"]);
        assert_eq!(split(r#""a","b c""#), ["a", "b c"]);
        assert!(split("").is_empty());
    }

    #[test]
    fn every_part_may_be_missing() {
        let whole = ". Errors: [invalid command]. Input: {\"argList\":[\"a\"]}: unknown";
        for end in 0..=whole.len() {
            let read = read("creating: create_container", &whole[..end]);
            assert_eq!(read.rule.as_deref(), Some("create_container"));
            assert!(read.length <= end);
        }
        let read = read("create_container", whole);
        assert_eq!(read.decision["input"]["argList"], json!(["a"]));
        assert_eq!(read.decision["reason"]["errors"], json!(["invalid command"]));
        assert!(!read.cut && whole[read.length..].starts_with(": unknown"));
    }
}
