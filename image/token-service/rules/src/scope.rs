//! What a client asks a token for: `repository:NAME:ACTION[,ACTION]` (distribution, "Token Scope Documentation"), read as the
//! peer reads it: what is unknown grants nothing, and fails nothing.

use crate::RepositoryName;
use std::fmt;

/// Most scopes of one request that count. Clients ask for two or three, and each costs a look at its project's rules.
const SCOPES_MAX: usize = 16;

/// An action on a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Reads manifests and blobs.
    Pull,
    /// Writes them.
    Push,
    /// Removes them.
    Delete,
    /// All of these, `*`.
    All,
}

/// Actions without duplicates, in the order of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions(Vec<Action>);

/// What a scope is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// One repository.
    Repository(RepositoryName),
    /// The list of all repositories, `registry:catalog`.
    Catalog,
}

/// One resource with the actions that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// What it is about.
    pub resource: Resource,
    /// What is asked; never empty.
    pub actions: Actions,
}

/// The scopes of a request: one for each resource, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    scopes: Vec<Scope>,
    asked: bool,
}

impl Action {
    /// `pull`, `push`, `delete` or `*`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::All => "*",
        }
    }

    /// The action that a word names.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Pull, Self::Push, Self::Delete, Self::All]
            .into_iter()
            .find(|action| action.word() == word)
    }
}

impl Actions {
    /// Each action once, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Action> + '_ {
        self.0.iter().copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `action` itself is among them.
    pub fn has(&self, action: Action) -> bool {
        self.0.contains(&action)
    }

    /// Whether something is written by these: push, delete or `*`.
    pub fn write(&self) -> bool {
        self.iter().any(|action| action != Action::Pull)
    }

    pub(crate) fn kept(&self, keep: impl Fn(Action) -> bool) -> Self {
        self.iter().filter(|action| keep(*action)).collect()
    }

    fn add(&mut self, action: Action) {
        if !self.has(action) {
            self.0.push(action);
        }
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        let mut all = Self::default();
        actions.into_iter().for_each(|action| all.add(action));
        all
    }
}

impl Scopes {
    /// Reads the values of every `scope` parameter, each of which may hold several scopes separated by spaces. A scope that is not
    /// understood is dropped, as are scopes past the first sixteen; the same resource twice is one scope.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        let texts = values
            .into_iter()
            .flat_map(|value| value.split(' '))
            .filter(|text| !text.is_empty());
        for text in texts.take(SCOPES_MAX) {
            all.asked = true;
            let Some(scope) = scope(text) else { continue };
            match all.scopes.iter_mut().find(|known| known.resource == scope.resource) {
                Some(known) => scope.actions.iter().for_each(|action| known.actions.add(action)),
                None => all.scopes.push(scope),
            }
        }
        all
    }

    /// The scopes that were understood.
    pub fn iter(&self) -> std::slice::Iter<'_, Scope> {
        self.scopes.iter()
    }

    /// Whether the client asked for anything at all, understood or not: without it a request is a login.
    pub fn asked(&self) -> bool {
        self.asked
    }
}

fn scope(text: &str) -> Option<Scope> {
    // The type ends at the first colon; the actions start after the last, since a name may hold a host with a port.
    let (kind, rest) = text.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let resource = match kind {
        "repository" => Resource::Repository(name.parse().ok()?),
        "registry" if name == "catalog" => Resource::Catalog,
        _ => return None,
    };
    let actions: Actions = actions.split(',').filter_map(Action::from_word).collect();
    (!actions.is_empty()).then_some(Scope { resource, actions })
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, action) in self.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}", action.word())?;
        }
        Ok(())
    }
}

impl Resource {
    /// `repository` or `registry`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Repository(_) => "repository",
            Self::Catalog => "registry",
        }
    }

    /// The repository's name, or `catalog`.
    pub fn name(&self) -> &str {
        match self {
            Self::Repository(name) => name.as_str(),
            Self::Catalog => "catalog",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.resource.kind(), self.resource.name(), self.actions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(values: &[&str]) -> Vec<String> {
        Scopes::parse(values.iter().copied()).iter().map(Scope::to_string).collect()
    }

    #[test]
    fn every_form_that_clients_send_is_read() {
        assert_eq!(read(&["repository:a/b:push,pull,pull"]), ["repository:a/b:push,pull"]);
        assert_eq!(
            read(&["repository:a:pull repository:b:push,foo"]),
            ["repository:a:pull", "repository:b:push"]
        );
        assert_eq!(
            read(&["repository:a:*", "repository:a:pull", "repository:b:pull"]),
            ["repository:a:*,pull", "repository:b:pull"]
        );
        assert_eq!(read(&["registry:catalog:*"]), ["registry:catalog:*"]);
    }

    #[test]
    fn everything_else_grants_nothing_and_was_asked() {
        for bad in [
            "repository",
            "repository:a",
            "repository:a:",
            "repository:A:pull",
            "repository:../x:pull",
            "repository:a//b:pull",
            "repository(plugin):a:pull",
            "registry:other:*",
            "repository:a:foo",
            "repository:host:5000/a:pull",
            ":::",
            "x",
        ] {
            let scopes = Scopes::parse([bad]);
            assert!(scopes.iter().next().is_none() && scopes.asked(), "{bad}");
        }
        assert!(!Scopes::parse(["", "  "]).asked());
        let many = "repository:a:pull ".repeat(SCOPES_MAX) + "repository:b:pull";
        assert_eq!(read(&[&many]), ["repository:a:pull"]);
    }

    proptest! {
        #[test]
        fn what_is_read_reads_itself(text in "[a-z:,*/ .]{0,60}|repository:[a-z/]{1,9}:(pull|push|,|\\*){1,4}") {
            let once = read(&[&text]);
            let again = read(&once.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(once, again);
        }

        #[test]
        fn never_panics(text: String) {
            let _ = Scopes::parse([text.as_str()]);
        }
    }
}
