//! Groups, projects, members and rules as TOML, so that they can live in version control; no passwords, no tokens.
//!
//! ```toml
//! [[group]]
//! path = "flightjs"
//! members = { ann = "owner" }
//!
//! [[project]]
//! path = "flightjs/flight"
//! visibility = "private"
//! members = { bob = "developer" }
//! rules = [{ pattern = "flightjs/flight*", push = "maintainer", delete = "no_one" }]
//! tag_rules = [{ pattern = "^v", push = "owner", delete = "owner" }, { pattern = "^release-" }]
//! ```

mod difference;
mod file;

pub use difference::{Change, difference};

use crate::{Holder, Snapshot, UserId, is_user_name};
use registry_rules::{MinimumLevel, Project, ProjectPath, Role, Rule, RuleFault, TagLevels, TagRule, TagRuleFault, Visibility};
use std::collections::BTreeMap;

/// Longest document in bytes: all rules that a service may have, and more.
const DOCUMENT_MAX_BYTES: usize = 16 << 20;

/// A whole set of groups and projects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    groups: BTreeMap<ProjectPath, MemberRoles>,
    projects: BTreeMap<ProjectPath, ProjectContent>,
}

/// Roles by user name.
type MemberRoles = BTreeMap<String, Role>;

/// What a document says of one project. Patterns are what rules are known by, so they are keys.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ProjectContent {
    visibility: Visibility,
    members: MemberRoles,
    rules: BTreeMap<String, Levels>,
    tag_rules: BTreeMap<String, Option<TagLevels>>,
}

/// Who may push and delete what a rule protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Levels {
    push: Option<MinimumLevel>,
    delete: Option<MinimumLevel>,
}

/// Why a text is no document, or one that cannot be applied.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DocumentError {
    /// More than 16 MiB.
    #[error("the document has more than {DOCUMENT_MAX_BYTES} bytes")]
    TooLong,
    /// Not TOML, or not of this form.
    #[error("the document does not have the form of one")]
    Syntax(#[source] Box<toml::de::Error>),
    /// Not a path.
    #[error("{0:?} is not the path of a group or project")]
    Path(String),
    /// A path or pattern that is there twice.
    #[error("{0:?} is there twice")]
    Twice(String),
    /// Not a visibility.
    #[error("{path}: visibility is one of public, private")]
    Visibility {
        /// The project.
        path: ProjectPath,
    },
    /// A member whose name or role is none.
    #[error("{path}: {user:?} = {role:?} is not a user and one of guest, reporter, developer, maintainer, owner")]
    Member {
        /// The group or project.
        path: ProjectPath,
        /// The name.
        user: String,
        /// The role.
        role: String,
    },
    /// A member that the database does not have.
    #[error("{path}: there is no user {user:?}")]
    UnknownUser {
        /// The group or project.
        path: ProjectPath,
        /// The name.
        user: String,
    },
    /// An invalid protection rule.
    #[error("{path}: rule {pattern:?}: {fault}")]
    Rule {
        /// The project.
        path: ProjectPath,
        /// The rule's pattern.
        pattern: String,
        /// Its first fault.
        fault: RuleFault,
    },
    /// An invalid tag rule.
    #[error("{path}: tag rule {pattern:?}: {fault}")]
    TagRule {
        /// The project.
        path: ProjectPath,
        /// The rule's pattern.
        pattern: String,
        /// Its first fault.
        fault: TagRuleFault,
    },
    /// More tag rules than a project may have.
    #[error("{path}: there are more than {} tag rules", TagRule::MOST)]
    TagRules {
        /// The project.
        path: ProjectPath,
    },
}

impl Document {
    /// What the database has.
    pub fn of(snapshot: &Snapshot) -> Self {
        let members = |holder| {
            let named = |(user, role): (UserId, Role)| Some((snapshot.user_by_id(user)?.name.clone(), role));
            snapshot.members(holder).into_iter().filter_map(named).collect()
        };
        let groups = snapshot
            .groups()
            .map(|group| (group.path.clone(), members(Holder::Group(group.id))));
        let project = |project: &Project| {
            let content = ProjectContent {
                visibility: project.visibility,
                members: members(Holder::Project(project.id)),
                rules: project.rules().iter().map(rule).collect(),
                tag_rules: project.tag_rules().iter().map(tag_rule).collect(),
            };
            (project.path.clone(), content)
        };
        Self {
            groups: groups.collect(),
            projects: snapshot.projects.iter().map(project).collect(),
        }
    }
}

fn rule(rule: &Rule) -> (String, Levels) {
    let (push, delete) = (rule.push, rule.delete);
    (rule.pattern.as_str().to_owned(), Levels { push, delete })
}

fn tag_rule(rule: &TagRule) -> (String, Option<TagLevels>) {
    (rule.pattern.as_str().to_owned(), rule.levels)
}

fn is_member(user: &str, role: &str) -> Option<Role> {
    role.parse().ok().filter(|_| is_user_name(user))
}
