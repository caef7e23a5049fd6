//! Who asks for a token, after the credentials were checked.

use crate::{ProjectId, Role};

/// What the judgement has to know of a user's memberships.
pub trait Roles {
    /// The user's highest role in a project, by the project itself or by a group above it.
    fn role_in(&self, project: ProjectId) -> Option<Role>;
}

/// What a deploy token may do with the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeployScopes {
    /// `read_registry`.
    pub read: bool,
    /// `write_registry`.
    pub write: bool,
}

/// The caller. Wrong credentials make none, and never the anonymous one.
#[derive(Clone, Copy)]
pub enum Principal<'a> {
    /// No credentials were given.
    Anonymous,
    /// A user, by password or by a personal token with a registry scope; `read`, `write`: what that token allows (both for passwords).
    User {
        /// The user's memberships.
        roles: &'a dyn Roles,
        /// An administrator of the service.
        administrator: bool,
        /// What the credentials themselves are limited to.
        limits: DeployScopes,
    },
    /// A CI job: its user's role, and writing in its own project only.
    Job {
        /// The memberships of the user behind it.
        roles: &'a dyn Roles,
        /// Whether that user is an administrator.
        administrator: bool,
        /// The project whose pipeline runs the job.
        project: ProjectId,
    },
    /// A deploy token of one project. It has no role.
    DeployToken {
        /// The project.
        project: ProjectId,
        /// What it may do there.
        scopes: DeployScopes,
    },
    /// Right credentials without any right to the registry: a blocked user, a token without a registry scope.
    Powerless,
}

impl<'a> Principal<'a> {
    /// A user with nothing taken away.
    pub fn user(roles: &'a dyn Roles, administrator: bool) -> Self {
        Self::User {
            roles,
            administrator,
            limits: DeployScopes { read: true, write: true },
        }
    }
}

impl Roles for std::collections::HashMap<ProjectId, Role> {
    fn role_in(&self, project: ProjectId) -> Option<Role> {
        self.get(&project).copied()
    }
}
