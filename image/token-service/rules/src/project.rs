//! Projects with their rules, and which of them a repository belongs to.

use crate::{Action, MinimumLevel, PathPattern, ProjectPath, RepositoryName, Rule, TagRule};
use std::collections::HashMap;

/// The number of a project in its database.
pub type ProjectId = i64;

/// Who may pull without being a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Anybody, without a login too.
    Public,
    /// Members from reporter on.
    Private,
}

/// A project: a path that its repositories share, and the rules for them.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its number.
    pub id: ProjectId,
    /// Its full path.
    pub path: ProjectPath,
    /// Who may pull.
    pub visibility: Visibility,
    rules: Vec<Rule>,
    tag_rules: Vec<TagRule>,
    index: RuleIndex,
}

/// Rules by what is before their first `*`, so that a project's other rules cost a request nothing.
#[derive(Clone, Debug, Default)]
struct RuleIndex {
    /// Rules without `*`, by their path.
    literals: HashMap<String, Vec<usize>>,
    /// Rules with one, by what is before it.
    prefixes: HashMap<String, Vec<usize>>,
    /// The lengths of these prefixes, each once, ascending.
    lengths: Vec<usize>,
}

impl RuleIndex {
    fn new(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (n, rule) in rules.iter().enumerate() {
            match rule.pattern.prefix() {
                (path, false) => index.literals.entry(path.to_owned()).or_default().push(n),
                (prefix, true) => index.prefixes.entry(prefix.to_owned()).or_default().push(n),
            }
        }
        index.lengths = index.prefixes.keys().map(String::len).collect();
        index.lengths.sort_unstable();
        index.lengths.dedup();
        index
    }

    /// Rules that can match a path: its literal ones, and those whose prefix it has. A name of the grammar is ASCII.
    fn candidates<'i, 'p>(&'i self, path: &'p str) -> impl Iterator<Item = usize> + use<'i, 'p> {
        let literals = self.literals.get(path).into_iter().flatten();
        let prefixes = self.lengths.iter().map_while(move |length| path.get(..*length));
        let prefixes = prefixes.filter_map(move |prefix| self.prefixes.get(prefix)).flatten();
        literals.chain(prefixes).copied()
    }
}

impl Project {
    /// A project with its rules.
    pub fn new(id: ProjectId, path: ProjectPath, visibility: Visibility, rules: Vec<Rule>, tag_rules: Vec<TagRule>) -> Self {
        let index = RuleIndex::new(&rules);
        Self {
            id,
            path,
            visibility,
            rules,
            tag_rules,
            index,
        }
    }

    /// The rules, in the order of their numbers.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The tag rules.
    pub fn tag_rules(&self) -> &[TagRule] {
        &self.tag_rules
    }

    /// The rules whose pattern matches the repository.
    pub fn matching<'a, 'r>(&'a self, repository: &'r RepositoryName) -> impl Iterator<Item = &'a Rule> + use<'a, 'r> {
        let candidates = self.index.candidates(repository.as_str()).map(|n| &self.rules[n]);
        candidates.filter(|rule| rule.pattern.matches(repository.as_str()))
    }

    /// The strictest level that the matching rules ask for, with its rule; `action` is push or delete.
    pub fn strictest(&self, repository: &RepositoryName, action: Action) -> Option<(MinimumLevel, &Rule)> {
        let level = |rule: &Rule| match action {
            Action::Push => rule.push,
            Action::Delete => rule.delete,
            Action::Pull | Action::All => None,
        };
        let mut strictest: Option<(MinimumLevel, &Rule)> = None;
        for rule in self.matching(repository) {
            if let Some(level) = level(rule)
                && strictest.is_none_or(|(most, first)| level > most || (level == most && rule.id < first.id))
            {
                strictest = Some((level, rule));
            }
        }
        strictest
    }

    /// Whether another rule than `but` has the pattern, however it is written.
    pub fn has_pattern(&self, pattern: &str, but: Option<crate::RuleId>) -> bool {
        let wanted = PathPattern::new(pattern);
        self.rules
            .iter()
            .any(|rule| Some(rule.id) != but && rule.pattern.as_str().eq_ignore_ascii_case(wanted.as_str()))
    }
}

/// All projects, by path.
#[derive(Clone, Debug, Default)]
pub struct Projects {
    by_path: HashMap<String, Project>,
    paths: HashMap<ProjectId, String>,
}

impl Projects {
    /// The project that a repository belongs to: the longest path that is its name or a prefix of whole components.
    pub fn of(&self, repository: &RepositoryName) -> Option<&Project> {
        repository.ancestors().find_map(|path| self.by_path.get(path))
    }

    /// The project with this path.
    pub fn by_path(&self, path: &str) -> Option<&Project> {
        self.by_path.get(path)
    }

    /// The project with this number.
    pub fn by_id(&self, id: ProjectId) -> Option<&Project> {
        self.by_path.get(self.paths.get(&id)?)
    }

    /// Every project, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Project> {
        self.by_path.values()
    }
}

impl FromIterator<Project> for Projects {
    fn from_iter<I: IntoIterator<Item = Project>>(projects: I) -> Self {
        let by_path: HashMap<String, Project> = projects
            .into_iter()
            .map(|project| (project.path.as_str().to_owned(), project))
            .collect();
        let paths = by_path
            .values()
            .map(|project| (project.id, project.path.as_str().to_owned()))
            .collect();
        Self { by_path, paths }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn project(id: i64, path: &str, patterns: &[(&str, Option<MinimumLevel>)]) -> Project {
        let rules = patterns.iter().enumerate().map(|(n, (pattern, push))| Rule {
            id: n as i64,
            pattern: PathPattern::new(pattern),
            push: *push,
            delete: None,
        });
        Project::new(id, path.parse().unwrap(), Visibility::Private, rules.collect(), Vec::new())
    }

    #[test]
    fn the_longest_path_of_whole_components_owns_a_repository() {
        let projects: Projects = [project(1, "g", &[]), project(2, "g/a", &[]), project(3, "g/ab", &[])]
            .into_iter()
            .collect();
        for (name, id) in [("g/a", 2), ("g/a/x", 2), ("g/ab/x", 3), ("g/abc", 1), ("g", 1)] {
            assert_eq!(projects.of(&name.parse().unwrap()).unwrap().id, id, "{name}");
        }
        assert!(projects.of(&"h/a".parse().unwrap()).is_none());
        assert_eq!(projects.by_id(3).unwrap().path.as_str(), "g/ab");
    }

    #[test]
    fn the_strictest_rule_decides_whatever_the_order() {
        use MinimumLevel::*;
        let rules = [
            ("g/*", Some(Maintainer)),
            ("g/prod*", Some(Owner)),
            ("G/PROD", Some(Admin)),
            ("g/*", None),
        ];
        for forward in [true, false] {
            let mut rules = rules.to_vec();
            if !forward {
                rules.reverse();
            }
            let project = project(1, "g", &rules);
            let level = |name: &str| project.strictest(&name.parse().unwrap(), Action::Push).map(|(level, _)| level);
            assert_eq!(level("g/prod"), Some(Admin));
            assert_eq!(level("g/prod-1"), Some(Owner));
            assert_eq!(level("g/stage"), Some(Maintainer));
            assert_eq!(level("g"), None);
        }
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_search_finds(
            patterns in proptest::collection::vec("g/[ab*]{0,4}", 0..12), name in "g/[ab]{1,4}"
        ) {
            let rules: Vec<(&str, _)> = patterns.iter().map(|p| (p.as_str(), Some(MinimumLevel::Owner))).collect();
            let project = project(1, "g", &rules);
            let name: RepositoryName = name.parse().unwrap();
            let mut found: Vec<i64> = project.matching(&name).map(|rule| rule.id).collect();
            found.sort_unstable();
            let all: Vec<i64> = project.rules().iter().filter(|r| r.pattern.matches(name.as_str())).map(|r| r.id).collect();
            prop_assert_eq!(found, all);
        }
    }
}
