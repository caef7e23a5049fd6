//! One scope of a token request, `repository:NAME:ACTION[,ACTION]` (distribution specification, "Token Scope
//! Documentation"), parsed strictly: anything else grants nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Longest scope in bytes.
const SCOPE_MAX_BYTES: usize = 512;
/// Longest repository name (distribution reference grammar).
const NAME_MAX_BYTES: usize = 255;

/// An action on a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Reads manifests and blobs.
    Pull,
    /// Writes them.
    Push,
    /// Removes them.
    Delete,
}

/// A repository and the requested actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    repository: String,
    actions: BTreeSet<Action>,
}

/// Why a text is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Longer than 512 bytes.
    #[error("the scope has more than {SCOPE_MAX_BYTES} bytes")]
    TooLong,
    /// Not `TYPE:NAME:ACTIONS`.
    #[error("a scope has the form repository:NAME:ACTION[,ACTION]")]
    Form,
    /// A resource type other than `repository`.
    #[error("scope type {0:?} is not supported")]
    Type(String),
    /// Not a repository name.
    #[error("{0:?} is not a repository name")]
    Name(String),
    /// An action that does not exist.
    #[error("{0:?} is not an action (pull, push, delete)")]
    Action(String),
}

impl Scope {
    /// The repository's name, `library/redis`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The actions, sorted and without duplicates.
    pub fn actions(&self) -> impl Iterator<Item = Action> + '_ {
        self.actions.iter().copied()
    }
}

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        if text.len() > SCOPE_MAX_BYTES {
            return Err(ScopeError::TooLong);
        }
        // The type ends at the first colon; the actions start after the last.
        let (kind, rest) = text.split_once(':').ok_or(ScopeError::Form)?;
        let (name, actions) = rest.rsplit_once(':').ok_or(ScopeError::Form)?;
        if kind != "repository" {
            return Err(ScopeError::Type(kind.to_owned()));
        }
        if !is_name(name) {
            return Err(ScopeError::Name(name.to_owned()));
        }
        let actions = actions.split(',').map(action).collect::<Result<_, _>>()?;
        Ok(Self {
            repository: name.to_owned(),
            actions,
        })
    }
}

fn action(text: &str) -> Result<Action, ScopeError> {
    match text {
        "pull" => Ok(Action::Pull),
        "push" => Ok(Action::Push),
        "delete" => Ok(Action::Delete),
        other => Err(ScopeError::Action(other.to_owned())),
    }
}

/// Path components of lower-case letters and digits, separated by one `.`, one or two `_`, or dashes.
fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX_BYTES && name.split('/').all(is_component)
}

fn is_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = part.split(alphanumeric).filter(|s| !s.is_empty());
    part.starts_with(alphanumeric)
        && part.ends_with(alphanumeric)
        && separators
            .into_iter()
            .all(|s| matches!(s, "." | "_" | "__") || s.chars().all(|c| c == '-'))
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repository:{}:", self.repository)?;
        for (n, action) in self.actions.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            let word = match action {
                Action::Pull => "pull",
                Action::Push => "push",
                Action::Delete => "delete",
            };
            write!(f, "{comma}{word}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_strict_form_is_parsed() {
        let scope: Scope = "repository:team/app_x:push,pull,pull".parse().unwrap();
        assert_eq!(scope.repository(), "team/app_x");
        assert_eq!(scope.actions().collect::<Vec<_>>(), [Action::Pull, Action::Push]);
        assert_eq!(scope.to_string(), "repository:team/app_x:pull,push");
    }

    #[test]
    fn everything_else_grants_nothing() {
        for bad in [
            "",
            "repository",
            "repository:a",
            "registry:catalog:*",
            "repository:a:*",
            "repository:a:",
            "repository:A:pull",
            "repository:../x:pull",
            "repository:a//b:pull",
            "repository:a:pull,,push",
            "repository:a :pull",
            "repository:-a:pull",
            "repository:a..b:pull",
            "repository:a___b:pull",
        ] {
            assert!(bad.parse::<Scope>().is_err(), "{bad}");
        }
        assert_eq!(
            format!("repository:{}:pull", "a".repeat(600)).parse::<Scope>(),
            Err(ScopeError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn scopes_round_trip(name in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,3}", push: bool) {
            let text = format!("repository:{name}:pull{}", if push { ",push" } else { "" });
            prop_assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }

        #[test]
        fn never_panics(text: String) {
            let _ = text.parse::<Scope>();
        }
    }
}
