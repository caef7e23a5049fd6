//! The audit trail: what was asked or changed, by whom, and what came of it.

use registry_rules::{ProjectId, RuleId};
use std::str::FromStr;

/// Most entries of one answer.
pub(crate) const LIMIT_MAX: u32 = 200;
/// Longest name of an actor, an address or an action, in bytes.
const SHORT_MAX_BYTES: usize = 128;
/// Longest subject in bytes: a repository's name, and some.
const SUBJECT_MAX_BYTES: usize = 300;
/// Longest detail in bytes.
const DETAIL_MAX_BYTES: usize = 2000;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// A token was given.
    Granted,
    /// The credentials were right, and the request was refused.
    Refused,
    /// The credentials were wrong.
    Unauthorized,
    /// An edit was made.
    Changed,
}

/// What shall be recorded. Texts lose control characters and what exceeds their limit when they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Who: a user's name, a token's login, `command line`.
    pub actor: String,
    /// Where from; empty where unknown.
    pub address: String,
    /// What was done: `token`, `rule.create` and so on.
    pub action: String,
    /// What it was done to: a repository, a project's path.
    pub subject: String,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// The scopes, the rule that decided, the fields that changed.
    pub detail: String,
    /// The project.
    pub project: Option<ProjectId>,
    /// The rule that decided, or that was changed.
    pub rule: Option<RuleId>,
}

/// An entry as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its number, which grows with time.
    pub id: i64,
    /// The entry.
    pub entry: AuditEntry,
}

/// Which entries somebody wants to see. Each field that is there must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The whole name.
    pub actor: Option<String>,
    /// The whole action.
    pub action: Option<String>,
    /// How the subject begins.
    pub subject: Option<String>,
    /// What came of it.
    pub outcome: Option<AuditOutcome>,
    /// The project.
    pub project: Option<ProjectId>,
    /// Not before this time, in milliseconds since 1970.
    pub since: Option<i64>,
    /// Before this time, the same.
    pub until: Option<i64>,
    /// Older than the entry with this number.
    pub before: Option<i64>,
    /// Most entries; at most 200, and 0 is 200 too.
    pub limit: u32,
}

impl AuditOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Granted, Self::Refused, Self::Unauthorized, Self::Changed];

    /// `granted`, `refused`, `unauthorized` or `changed`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Unauthorized => "unauthorized",
            Self::Changed => "changed",
        }
    }
}

/// A word that is no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an outcome is one of granted, refused, unauthorized, changed")]
pub struct UnknownOutcome;

impl FromStr for AuditOutcome {
    type Err = UnknownOutcome;
    fn from_str(word: &str) -> Result<Self, UnknownOutcome> {
        Self::ALL.into_iter().find(|outcome| outcome.word() == word).ok_or(UnknownOutcome)
    }
}

impl AuditEntry {
    pub(crate) fn cleaned(self) -> Self {
        Self {
            actor: cleaned(self.actor, SHORT_MAX_BYTES),
            address: cleaned(self.address, SHORT_MAX_BYTES),
            action: cleaned(self.action, SHORT_MAX_BYTES),
            subject: cleaned(self.subject, SUBJECT_MAX_BYTES),
            detail: cleaned(self.detail, DETAIL_MAX_BYTES),
            ..self
        }
    }
}

/// The text without what a terminal or a page would act upon, up to the last whole character within the limit.
fn cleaned(mut text: String, max_bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(max_bytes));
    if text.contains(acts) {
        text = text.chars().map(|c| if acts(c) { '\u{fffd}' } else { c }).collect();
        text.truncate(text.floor_char_boundary(max_bytes));
    }
    text
}

/// Control characters, and those that change the direction of what follows or are not seen.
pub(crate) fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters_and_lose_what_acts() {
        assert_eq!(cleaned("aä".to_owned(), 2), "a");
        assert_eq!(
            cleaned("a\u{1b}[2J\n\0b\u{202e}c".to_owned(), 100),
            "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}c"
        );
        assert!(cleaned("\0".repeat(100), 100).len() <= 100);
        assert_eq!(cleaned("plain text".to_owned(), 100), "plain text");
    }

    #[test]
    fn outcomes_have_words() {
        for outcome in AuditOutcome::ALL {
            assert_eq!(outcome.word().parse(), Ok(outcome));
        }
        assert!("".parse::<AuditOutcome>().is_err());
    }
}
