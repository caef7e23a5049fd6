//! Names of repositories and projects, by the grammar of distribution's references.

use std::fmt;
use std::str::FromStr;

/// Longest name in bytes, as in distribution.
const NAME_MAX_BYTES: usize = 255;

/// A repository's name: lower-case components of letters and digits, with one `.`, one or two `_` or any `-` between them,
/// joined by `/`; at most 255 bytes (distribution, reference grammar).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

/// A project's full path, `group/project`: the prefix that its repositories share. The same grammar.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectPath(String);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// More than 255 bytes.
    #[error("a name has at most {NAME_MAX_BYTES} bytes")]
    TooLong,
    /// Not of the grammar.
    #[error("a name is made of lower-case letters and digits, with . _ __ or - inside its parts, and / between them")]
    Grammar,
}

fn check(name: &str) -> Result<(), NameError> {
    if name.len() > NAME_MAX_BYTES {
        return Err(NameError::TooLong);
    }
    if name.split('/').all(is_component) {
        Ok(())
    } else {
        Err(NameError::Grammar)
    }
}

fn is_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(alphanumeric)
        && part.ends_with(alphanumeric)
        && part
            .split(alphanumeric)
            .filter(|separator| !separator.is_empty())
            .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

impl RepositoryName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name and every prefix of it that ends with a whole component, the longest first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let name = self.0.as_str();
        std::iter::successors(Some(name), |longer| longer.rfind('/').map(|slash| &longer[..slash]))
    }
}

impl ProjectPath {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        check(name).map(|()| Self(name.to_owned()))
    }
}

impl FromStr for ProjectPath {
    type Err = NameError;
    fn from_str(path: &str) -> Result<Self, NameError> {
        check(path).map(|()| Self(path.to_owned()))
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ProjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_distributions() {
        for good in ["a", "a/b", "library/redis", "a.b/c_d/e__f/g---h", "0/1"] {
            assert_eq!(good.parse::<RepositoryName>().unwrap().as_str(), good);
        }
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a-", "../x", "a b", "ä", "a:1",
        ] {
            assert_eq!(bad.parse::<RepositoryName>(), Err(NameError::Grammar), "{bad}");
        }
        assert!("a".repeat(255).parse::<ProjectPath>().is_ok());
        assert_eq!("a".repeat(256).parse::<ProjectPath>(), Err(NameError::TooLong));
    }

    #[test]
    fn ancestors_end_with_whole_components() {
        let name: RepositoryName = "g/a/b".parse().unwrap();
        assert_eq!(name.ancestors().collect::<Vec<_>>(), ["g/a/b", "g/a", "g"]);
    }
}
