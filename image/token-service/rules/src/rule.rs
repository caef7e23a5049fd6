//! A protection rule, and what makes one invalid.

use crate::{MinimumLevel, PathPattern, ProjectPath};
use std::fmt;
use std::sync::LazyLock;

/// Longest pattern in characters.
const PATTERN_MAX_CHARS: usize = 255;

/// The number of a rule in its database.
pub type RuleId = i64;

/// A protection rule of one project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub id: RuleId,
    /// The repositories that it protects.
    pub pattern: PathPattern,
    /// Who may push; anybody whose role allows it where absent.
    pub push: Option<MinimumLevel>,
    /// Who may delete; the same.
    pub delete: Option<MinimumLevel>,
}

/// Why a rule is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleFault {
    /// There is no pattern.
    PatternBlank,
    /// More than 255 characters.
    PatternTooLong,
    /// Characters or an order of them that no repository path has.
    PatternFormat,
    /// The pattern does not begin with its project's path.
    PatternOutsideProject,
    /// Another rule of the project has the pattern.
    PatternTaken,
    /// Neither push nor delete is protected.
    LevelsMissing,
    /// A level that does not exist.
    LevelUnknown,
}

impl RuleFault {
    /// The fault's name in vectors and in exports.
    pub fn code(self) -> &'static str {
        match self {
            Self::PatternBlank => "pattern-blank",
            Self::PatternTooLong => "pattern-too-long",
            Self::PatternFormat => "pattern-format",
            Self::PatternOutsideProject => "pattern-outside-project",
            Self::PatternTaken => "pattern-taken",
            Self::LevelsMissing => "levels-missing",
            Self::LevelUnknown => "level-unknown",
        }
    }
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PatternBlank => "Repository path pattern can't be blank",
            Self::PatternTooLong => "Repository path pattern is too long (maximum is 255 characters)",
            Self::PatternFormat => "Repository path pattern should be a valid container repository path with optional wildcard characters.",
            Self::PatternOutsideProject => "Repository path pattern should start with the project's full path",
            Self::PatternTaken => "Repository path pattern has already been taken",
            Self::LevelsMissing => "A rule must have at least a minimum access role for push or delete.",
            Self::LevelUnknown => "A minimum access level is one of maintainer, owner, admin, no_one.",
        })
    }
}

impl Rule {
    /// Every fault of a rule that somebody wants in `project`, in the order of [`RuleFault`]; `taken` says whether another rule of
    /// the project has this pattern. The levels are words as they were given; an empty one is an absent one.
    pub fn check(project: &ProjectPath, pattern: &str, push: Option<&str>, delete: Option<&str>, taken: bool) -> Vec<RuleFault> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, fault| {
            if wrong {
                faults.push(fault)
            }
        };
        let blank = pattern.trim().is_empty();
        fault(blank, RuleFault::PatternBlank);
        fault(pattern.chars().nth(PATTERN_MAX_CHARS).is_some(), RuleFault::PatternTooLong);
        fault(!blank && !FORMAT.is_match(pattern), RuleFault::PatternFormat);
        fault(!blank && !begins_with(pattern, project), RuleFault::PatternOutsideProject);
        fault(!blank && taken, RuleFault::PatternTaken);
        let levels: Vec<&str> = [push, delete].into_iter().flatten().filter(|level| !level.is_empty()).collect();
        fault(levels.is_empty(), RuleFault::LevelsMissing);
        fault(
            levels.iter().any(|level| level.parse::<MinimumLevel>().is_err()),
            RuleFault::LevelUnknown,
        );
        faults
    }
}

fn begins_with(pattern: &str, project: &ProjectPath) -> bool {
    let path = project.as_str();
    pattern.get(..path.len()).is_some_and(|start| start.eq_ignore_ascii_case(path))
}

/// The peer's own expression, as a whole (`Gitlab::Regex::Packages::Protection`).
static FORMAT: LazyLock<regex::Regex> =
    LazyLock::new(|| regex::Regex::new(r"\A[a-z0-9]+(([._/]|__|-*)[a-z0-9*])*\z").expect("the expression is a constant"));

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(pattern: &str, push: Option<&str>) -> Vec<&'static str> {
        let project = "my/awesome".parse().unwrap();
        Rule::check(&project, pattern, push, None, false)
            .into_iter()
            .map(RuleFault::code)
            .collect()
    }

    #[test]
    fn each_fault_is_found() {
        assert!(faults("my/awesome/a.*", Some("maintainer")).is_empty());
        assert_eq!(faults("*my/awesome", Some("owner")), ["pattern-format", "pattern-outside-project"]);
        assert_eq!(faults(" ", Some("owner")), ["pattern-blank"]);
        assert_eq!(faults("my/awesome/\u{e4}", Some("owner")), ["pattern-format"]);
        assert_eq!(faults("my/awesome/a", Some("")), ["levels-missing"]);
        assert_eq!(faults("my/awesome/a", Some("developer")), ["level-unknown"]);
        assert_eq!(
            faults(&format!("my/awesome/{}", "a".repeat(245)), Some("owner")),
            ["pattern-too-long"]
        );
        assert_eq!(faults("my/awesome/a\n", Some("owner")), ["pattern-format"]);
        let taken = Rule::check(&"g".parse().unwrap(), "g/a", None, Some("admin"), true);
        assert_eq!(taken, [RuleFault::PatternTaken]);
    }
}
