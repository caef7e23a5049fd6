//! What has to be done so that the database is as a document says.

use super::{Document, DocumentError, Levels, MemberRoles, ProjectContent};
use crate::Snapshot;
use registry_rules::{MinimumLevel, ProjectPath, Role, TagLevels, Visibility};
use std::collections::BTreeMap;
use std::fmt;

/// One difference, made by [`crate::Store::apply`]. Things are known by their paths, names and patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the fields are those of a document")]
pub enum Change {
    /// Deletes a group.
    DeleteGroup { path: ProjectPath },
    /// Deletes a project with its rules and tokens.
    DeleteProject { path: ProjectPath },
    /// Adds a group.
    CreateGroup { path: ProjectPath },
    /// Adds a project.
    CreateProject { path: ProjectPath, visibility: Visibility },
    /// Changes who may pull without being a member.
    SetVisibility { path: ProjectPath, visibility: Visibility },
    /// Sets or, without a role, ends a membership of a group.
    GroupMember {
        path: ProjectPath,
        user: String,
        role: Option<Role>,
    },
    /// The same of a project.
    ProjectMember {
        path: ProjectPath,
        user: String,
        role: Option<Role>,
    },
    /// Deletes a protection rule.
    DeleteRule { path: ProjectPath, pattern: String },
    /// Adds one.
    CreateRule {
        path: ProjectPath,
        pattern: String,
        push: Option<MinimumLevel>,
        delete: Option<MinimumLevel>,
    },
    /// Changes the levels of one.
    UpdateRule {
        path: ProjectPath,
        pattern: String,
        push: Option<MinimumLevel>,
        delete: Option<MinimumLevel>,
    },
    /// Deletes a tag rule.
    DeleteTagRule { path: ProjectPath, pattern: String },
    /// Adds one.
    CreateTagRule {
        path: ProjectPath,
        pattern: String,
        levels: Option<TagLevels>,
    },
    /// Changes the levels of one.
    UpdateTagRule {
        path: ProjectPath,
        pattern: String,
        levels: Option<TagLevels>,
    },
}

/// What makes the database the document, in an order in which it can be done: what the document lacks is deleted first.
///
/// # Errors
/// A member that is no user.
pub fn difference(snapshot: &Snapshot, document: &Document) -> Result<Vec<Change>, DocumentError> {
    document.check_users(snapshot)?;
    let now = Document::of(snapshot);
    let mut changes = Vec::new();
    let gone = now.projects.keys().filter(|path| !document.projects.contains_key(path));
    changes.extend(gone.cloned().map(|path| Change::DeleteProject { path }));
    let gone = now.groups.keys().filter(|path| !document.groups.contains_key(path));
    changes.extend(gone.cloned().map(|path| Change::DeleteGroup { path }));
    for (path, members) in &document.groups {
        let before = now.groups.get(path);
        if before.is_none() {
            changes.push(Change::CreateGroup { path: path.clone() });
        }
        changes.extend(member_changes(before, members).map(|(user, role)| Change::GroupMember {
            path: path.clone(),
            user,
            role,
        }));
    }
    for (path, project) in &document.projects {
        project_changes(&mut changes, path, now.projects.get(path), project);
    }
    Ok(changes)
}

fn project_changes(changes: &mut Vec<Change>, path: &ProjectPath, before: Option<&ProjectContent>, after: &ProjectContent) {
    let path = || path.clone();
    let visibility = after.visibility;
    match before {
        None => changes.push(Change::CreateProject { path: path(), visibility }),
        Some(before) if before.visibility != visibility => changes.push(Change::SetVisibility { path: path(), visibility }),
        Some(_) => {}
    }
    let members = member_changes(before.map(|before| &before.members), &after.members);
    changes.extend(members.map(|(user, role)| Change::ProjectMember { path: path(), user, role }));
    for (pattern, pair) in compared(before.map(|before| &before.rules), &after.rules) {
        changes.push(match pair {
            Pair::Gone => Change::DeleteRule { path: path(), pattern },
            Pair::New(Levels { push, delete }) => Change::CreateRule {
                path: path(),
                pattern,
                push,
                delete,
            },
            Pair::Other(Levels { push, delete }) => Change::UpdateRule {
                path: path(),
                pattern,
                push,
                delete,
            },
        });
    }
    for (pattern, pair) in compared(before.map(|before| &before.tag_rules), &after.tag_rules) {
        changes.push(match pair {
            Pair::Gone => Change::DeleteTagRule { path: path(), pattern },
            Pair::New(levels) => Change::CreateTagRule {
                path: path(),
                pattern,
                levels,
            },
            Pair::Other(levels) => Change::UpdateTagRule {
                path: path(),
                pattern,
                levels,
            },
        });
    }
}

fn member_changes(before: Option<&MemberRoles>, after: &MemberRoles) -> impl Iterator<Item = (String, Option<Role>)> {
    compared(before, after).into_iter().map(|(user, pair)| match pair {
        Pair::Gone => (user, None),
        Pair::New(role) | Pair::Other(role) => (user, Some(role)),
    })
}

enum Pair<T> {
    Gone,
    New(T),
    Other(T),
}

/// The entries that differ, those that are gone first.
fn compared<T: Copy + PartialEq>(before: Option<&BTreeMap<String, T>>, after: &BTreeMap<String, T>) -> Vec<(String, Pair<T>)> {
    let gone = before.into_iter().flatten().filter(|(key, _)| !after.contains_key(*key));
    let mut pairs: Vec<_> = gone.map(|(key, _)| (key.clone(), Pair::Gone)).collect();
    for (key, value) in after {
        match before.and_then(|before| before.get(key)) {
            None => pairs.push((key.clone(), Pair::New(*value))),
            Some(old) if old != value => pairs.push((key.clone(), Pair::Other(*value))),
            Some(_) => {}
        }
    }
    pairs
}

impl Document {
    fn check_users(&self, snapshot: &Snapshot) -> Result<(), DocumentError> {
        let groups = self.groups.iter();
        let projects = self.projects.iter().map(|(path, project)| (path, &project.members));
        for (path, members) in groups.chain(projects) {
            if let Some(user) = members.keys().find(|user| snapshot.user(user).is_none()) {
                let (path, user) = (path.clone(), user.clone());
                return Err(DocumentError::UnknownUser { path, user });
            }
        }
        Ok(())
    }
}

impl Change {
    /// Whether a whole group or project is deleted by it, with the tokens of the project.
    pub fn deletes_a_whole(&self) -> bool {
        matches!(self, Self::DeleteGroup { .. } | Self::DeleteProject { .. })
    }
}

impl fmt::Display for Change {
    /// One line: `+` adds, `-` takes away, `~` changes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |level: &Option<MinimumLevel>| level.map_or("-", MinimumLevel::word);
        let visible = |visibility: &Visibility| match visibility {
            Visibility::Public => "public",
            Visibility::Private => "private",
        };
        let pair = |levels: &Option<TagLevels>| match levels {
            Some(levels) => format!("push {} delete {}", levels.push, levels.delete),
            None => "immutable".to_owned(),
        };
        match self {
            Self::DeleteGroup { path } => write!(f, "- group {path}"),
            Self::DeleteProject { path } => write!(f, "- project {path}"),
            Self::CreateGroup { path } => write!(f, "+ group {path}"),
            Self::CreateProject { path, visibility } => write!(f, "+ project {path} {}", visible(visibility)),
            Self::SetVisibility { path, visibility } => write!(f, "~ project {path} {}", visible(visibility)),
            Self::GroupMember { path, user, role: None } => write!(f, "- group {path} member {user}"),
            Self::GroupMember {
                path,
                user,
                role: Some(role),
            } => write!(f, "~ group {path} member {user} {role}"),
            Self::ProjectMember { path, user, role: None } => write!(f, "- project {path} member {user}"),
            Self::ProjectMember {
                path,
                user,
                role: Some(role),
            } => write!(f, "~ project {path} member {user} {role}"),
            Self::DeleteRule { path, pattern } => write!(f, "- project {path} rule {pattern}"),
            Self::CreateRule {
                path,
                pattern,
                push,
                delete,
            } => {
                write!(f, "+ project {path} rule {pattern} push {} delete {}", word(push), word(delete))
            }
            Self::UpdateRule {
                path,
                pattern,
                push,
                delete,
            } => {
                write!(f, "~ project {path} rule {pattern} push {} delete {}", word(push), word(delete))
            }
            // Expressions may hold anything, a terminal's commands too.
            Self::DeleteTagRule { path, pattern } => write!(f, "- project {path} tag rule {pattern:?}"),
            Self::CreateTagRule { path, pattern, levels } => write!(f, "+ project {path} tag rule {pattern:?} {}", pair(levels)),
            Self::UpdateTagRule { path, pattern, levels } => write!(f, "~ project {path} tag rule {pattern:?} {}", pair(levels)),
        }
    }
}
