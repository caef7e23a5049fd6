//! Everything that a judgement needs, as it was at one version of the database.

use crate::{TokenDigest, TokenRecord, User, UserId};
use registry_rules::{Project, ProjectId, ProjectPath, Projects, Role, Roles};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The number of a group in the database; never given to a second one.
pub type GroupId = i64;

/// What a user may be a member of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A project.
    Project(ProjectId),
    /// A group: its members have their role in every project below its path.
    Group(GroupId),
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// Its full path.
    pub path: ProjectPath,
}

/// One consistent state of the database, without its audit trail. Parts that did not change are shared with the one before.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// All projects with their rules.
    pub projects: Arc<Projects>,
    pub(crate) version: i64,
    pub(crate) users: Arc<Users>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) members: Arc<Members>,
    pub(crate) tokens: Arc<Tokens>,
}

#[derive(Debug, Default)]
pub(crate) struct Users {
    by_name: Vec<Arc<User>>,
    by_id: HashMap<UserId, Arc<User>>,
}

#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_path: BTreeMap<String, Group>,
}

/// Roles by holder and user, so that both a holder's members and one user's role are found without a search.
pub(crate) type Members = BTreeMap<(Holder, UserId), Role>;

pub(crate) type Tokens = HashMap<TokenDigest, Arc<TokenRecord>>;

/// The roles of one user, by the project itself and by every group above it.
#[derive(Clone, Copy, Debug)]
pub struct UserRoles<'a> {
    snapshot: &'a Snapshot,
    user: UserId,
}

impl Users {
    /// These users with others that came or changed. Names do not change.
    pub(crate) fn with(&self, others: Vec<User>) -> Self {
        let (mut by_name, mut by_id) = (self.by_name.clone(), self.by_id.clone());
        for user in others.into_iter().map(Arc::new) {
            by_id.insert(user.id, Arc::clone(&user));
            match by_name.binary_search_by(|other| other.name.cmp(&user.name)) {
                Ok(place) => by_name[place] = user,
                Err(place) => by_name.insert(place, user),
            }
        }
        Self { by_name, by_id }
    }
}

impl FromIterator<User> for Users {
    fn from_iter<I: IntoIterator<Item = User>>(users: I) -> Self {
        let mut by_name: Vec<Arc<User>> = users.into_iter().map(Arc::new).collect();
        by_name.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        by_name.shrink_to_fit();
        let by_id = by_name.iter().map(|user| (user.id, Arc::clone(user))).collect();
        Self { by_name, by_id }
    }
}

impl FromIterator<Group> for Groups {
    fn from_iter<I: IntoIterator<Item = Group>>(groups: I) -> Self {
        let by_path = groups.into_iter().map(|group| (group.path.as_str().to_owned(), group)).collect();
        Self { by_path }
    }
}

impl Snapshot {
    /// The number of edits so far; it only grows.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The user with this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        let users = &self.users.by_name;
        let place = users.binary_search_by(|user| user.name.as_str().cmp(name)).ok()?;
        users.get(place).map(|user| &**user)
    }

    /// The user with this number.
    pub fn user_by_id(&self, id: UserId) -> Option<&User> {
        self.users.by_id.get(&id).map(|user| &**user)
    }

    /// Every user, by name.
    pub fn users(&self) -> impl ExactSizeIterator<Item = &User> {
        self.users.by_name.iter().map(|user| &**user)
    }

    /// Every group, by path.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Group> {
        self.groups.by_path.values()
    }

    /// The group with this path.
    pub fn group(&self, path: &str) -> Option<&Group> {
        self.groups.by_path.get(path)
    }

    /// The direct members of a project or group, by number.
    pub fn members(&self, of: Holder) -> Vec<(UserId, Role)> {
        let all = (of, UserId::MIN)..=(of, UserId::MAX);
        self.members.range(all).map(|((_, user), role)| (*user, *role)).collect()
    }

    /// What a user is in every project. Nothing, for a number that no user has.
    pub fn roles(&self, user: UserId) -> UserRoles<'_> {
        UserRoles { snapshot: self, user }
    }

    /// The token with this digest, ended or not.
    pub fn token(&self, digest: &TokenDigest) -> Option<&TokenRecord> {
        self.tokens.get(digest).map(|token| &**token)
    }

    /// Every token, in no order.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &TokenRecord> {
        self.tokens.values().map(|token| &**token)
    }

    /// The groups above a project, the nearest first.
    pub fn groups_above<'a>(&'a self, project: &'a Project) -> impl Iterator<Item = &'a Group> {
        let path = project.path.as_str();
        std::iter::successors(Some(path), |longer| longer.rfind('/').map(|slash| &longer[..slash])).filter_map(|path| self.group(path))
    }
}

impl Roles for UserRoles<'_> {
    fn role_in(&self, project: ProjectId) -> Option<Role> {
        let role = |holder| self.snapshot.members.get(&(holder, self.user)).copied();
        let inherited = self.snapshot.projects.by_id(project).and_then(|project| {
            self.snapshot
                .groups_above(project)
                .filter_map(|group| role(Holder::Group(group.id)))
                .max()
        });
        inherited.max(role(Holder::Project(project)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry_rules::Visibility;

    #[test]
    fn the_highest_role_of_the_project_and_the_groups_above_it_counts() {
        let project = |id, path: &str| Project::new(id, path.parse().unwrap(), Visibility::Private, Vec::new(), Vec::new());
        let group = |id, path: &str| Group {
            id,
            path: path.parse().unwrap(),
        };
        let members = [
            (Holder::Group(1), 7, Role::Developer),
            (Holder::Group(2), 7, Role::Reporter),
            (Holder::Project(1), 7, Role::Owner),
            (Holder::Project(1), 8, Role::Guest),
        ];
        let snapshot = Snapshot {
            projects: Arc::new([project(1, "g/a"), project(2, "g/s/b"), project(3, "gs/c")].into_iter().collect()),
            version: 1,
            users: Arc::default(),
            groups: Arc::new([group(1, "g"), group(2, "g/s"), group(3, "gs")].into_iter().collect()),
            members: Arc::new(members.into_iter().map(|(holder, user, role)| ((holder, user), role)).collect()),
            tokens: Arc::default(),
        };
        let role = |user, project| snapshot.roles(user).role_in(project);
        assert_eq!(role(7, 1), Some(Role::Owner));
        assert_eq!(role(7, 2), Some(Role::Developer));
        assert_eq!(role(7, 3), None);
        assert_eq!(role(8, 1), Some(Role::Guest));
        assert_eq!(role(8, 2), None);
        assert_eq!(snapshot.members(Holder::Project(1)), [(7, Role::Owner), (8, Role::Guest)]);
    }
}
