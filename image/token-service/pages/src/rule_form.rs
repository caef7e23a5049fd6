//! The form for a protection rule or a tag rule, new or known.

use crate::field::{Fault, faults};
use crate::{Choice, Field, Shell, level_choices};
use askama::Template;

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// Repositories.
    Repository,
    /// Tags.
    Tag,
}

/// The form for a rule.
#[derive(Debug, Template)]
#[template(path = "rule_form.html")]
pub struct RuleForm {
    /// The frame.
    pub shell: Shell,
    /// Repositories or tags.
    pub kind: RuleKind,
    /// The project's number.
    pub project: i64,
    /// The project's path.
    pub path: String,
    /// The rule's number; none for a new one.
    pub rule: Option<i64>,
    /// The pattern.
    pub pattern: Field,
    /// The level for pushing.
    pub push: Field,
    /// The level for deleting.
    pub delete: Field,
}

impl RuleForm {
    fn title(&self) -> &'static str {
        match (self.kind, self.rule) {
            (RuleKind::Repository, None) => "New protection rule",
            (RuleKind::Repository, Some(_)) => "Change protection rule",
            (RuleKind::Tag, None) => "New tag rule",
            (RuleKind::Tag, Some(_)) => "Change tag rule",
        }
    }

    fn pattern_label(&self) -> &'static str {
        match self.kind {
            RuleKind::Repository => "Repository path pattern",
            RuleKind::Tag => "Tag name pattern",
        }
    }

    fn pattern_hint(&self) -> String {
        match self.kind {
            RuleKind::Repository => format!(
                "Begins with {0}, and * stands for any characters: {0}/release* protects {0}/release and {0}/release/tools.",
                self.path
            ),
            RuleKind::Tag => {
                "A regular expression (RE2), at most 100 characters: ^v\\d+ protects every tag that begins with v and a digit.".to_owned()
            }
        }
    }

    fn segment(&self) -> &'static str {
        match self.kind {
            RuleKind::Repository => "rules",
            RuleKind::Tag => "tag-rules",
        }
    }

    fn levels(&self) -> [Choice; 5] {
        level_choices()
    }

    fn faults(&self) -> Vec<Fault<'_>> {
        faults(&[("pattern", &self.pattern), ("push", &self.push), ("delete", &self.delete)])
    }
}
