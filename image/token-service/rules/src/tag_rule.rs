//! Rules for tags, which the token service can only pass on: it does not see tags, so the token tells the registry.

use crate::{MinimumLevel, RuleId};
use std::fmt;

/// Longest pattern in characters.
const PATTERN_MAX_CHARS: usize = 100;
/// Largest compiled pattern in bytes, so that a hundred characters cannot take the service's memory.
const PATTERN_MAX_COMPILED: usize = 1 << 20;

/// A regular expression on a tag's name, by RE2's grammar, at most 100 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPattern(String);

/// Who may write a protected tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagLevels {
    /// The least level that may push it.
    pub push: MinimumLevel,
    /// The least level that may delete it.
    pub delete: MinimumLevel,
}

/// A tag rule of one project; at most [`TagRule::MOST`] each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRule {
    /// Its number.
    pub id: RuleId,
    /// The tags that it is about.
    pub pattern: TagPattern,
    /// Who may write them; nobody may overwrite or delete an existing one where absent (an immutable tag).
    pub levels: Option<TagLevels>,
}

/// Why a tag rule is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagRuleFault {
    /// There is no pattern.
    PatternBlank,
    /// More than 100 characters.
    PatternTooLong,
    /// Not a regular expression of RE2.
    PatternSyntax,
    /// One level without the other.
    OneLevel,
    /// A level that does not exist.
    LevelUnknown,
}

impl fmt::Display for TagRuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PatternBlank => "Tag name pattern can't be blank",
            Self::PatternTooLong => "Tag name pattern is too long (maximum is 100 characters)",
            Self::PatternSyntax => "Tag name pattern not valid RE2 syntax",
            Self::OneLevel => "Access levels should either both be present or both be nil",
            Self::LevelUnknown => "A minimum access level is one of maintainer, owner, admin, no_one.",
        })
    }
}

impl TagPattern {
    /// A pattern that compiles, within both limits.
    ///
    /// # Errors
    /// The first of the pattern's faults.
    pub fn new(text: &str) -> Result<Self, TagRuleFault> {
        if text.trim().is_empty() {
            return Err(TagRuleFault::PatternBlank);
        }
        if text.chars().nth(PATTERN_MAX_CHARS).is_some() {
            return Err(TagRuleFault::PatternTooLong);
        }
        // What the crate has and RE2 has not: character classes inside of classes, and the `x` and `R` flags.
        let foreign = text.contains("&&") || text.contains("--") || text.contains("~~") || FOREIGN_FLAGS.is_match(text);
        let compiled = regex::RegexBuilder::new(text).size_limit(PATTERN_MAX_COMPILED).build();
        if foreign || compiled.is_err() {
            return Err(TagRuleFault::PatternSyntax);
        }
        Ok(Self(text.to_owned()))
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

static FOREIGN_FLAGS: std::sync::LazyLock<regex::Regex> =
    std::sync::LazyLock::new(|| regex::Regex::new(r"\(\?[a-zA-Z-]*[xRu]").expect("the expression is a constant"));

impl TagRule {
    /// Most rules of one project.
    pub const MOST: usize = 5;

    /// The parts of a rule that somebody wants, or every fault of it. An empty level is an absent one.
    ///
    /// # Errors
    /// Every fault, in the order of [`TagRuleFault`].
    pub fn parts(pattern: &str, push: Option<&str>, delete: Option<&str>) -> Result<(TagPattern, Option<TagLevels>), Vec<TagRuleFault>> {
        let mut faults = Vec::new();
        let pattern = TagPattern::new(pattern).map_err(|fault| faults.push(fault)).ok();
        let present = |level: Option<&str>| level.filter(|word| !word.is_empty()).map(str::parse::<MinimumLevel>);
        let levels = match (present(push), present(delete)) {
            (None, None) => None,
            (Some(Ok(push)), Some(Ok(delete))) => Some(TagLevels { push, delete }),
            (push, delete) => {
                if push.is_none() || delete.is_none() {
                    faults.push(TagRuleFault::OneLevel);
                }
                if [push, delete].into_iter().flatten().any(|level| level.is_err()) {
                    faults.push(TagRuleFault::LevelUnknown);
                }
                None
            }
        };
        match pattern {
            Some(pattern) if faults.is_empty() => Ok((pattern, levels)),
            _ => Err(faults),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_re2_within_limits() {
        for good in ["v\\d+", "^release-.*$", "[[:alpha:]]+", "(?i)latest", "a|b"] {
            assert!(TagPattern::new(good).is_ok(), "{good}");
        }
        for (bad, fault) in [
            ("", TagRuleFault::PatternBlank),
            ("(", TagRuleFault::PatternSyntax),
            ("(?=a)", TagRuleFault::PatternSyntax),
            ("\\1", TagRuleFault::PatternSyntax),
            ("[a&&b]", TagRuleFault::PatternSyntax),
            ("(?x) a", TagRuleFault::PatternSyntax),
            ("((a{99}){99}){99}", TagRuleFault::PatternSyntax),
        ] {
            assert_eq!(TagPattern::new(bad), Err(fault), "{bad}");
        }
        assert_eq!(TagPattern::new(&"a".repeat(101)), Err(TagRuleFault::PatternTooLong));
    }

    #[test]
    fn levels_come_in_pairs() {
        assert_eq!(TagRule::parts("a", None, None).unwrap().1, None);
        assert_eq!(TagRule::parts("a", Some("owner"), Some("")), Err(vec![TagRuleFault::OneLevel]));
        assert_eq!(TagRule::parts("a", Some("x"), Some("owner")), Err(vec![TagRuleFault::LevelUnknown]));
        let both = TagRule::parts("a", Some("owner"), Some("no_one")).unwrap().1.unwrap();
        assert_eq!((both.push, both.delete), (MinimumLevel::Owner, MinimumLevel::NoOne));
    }
}
