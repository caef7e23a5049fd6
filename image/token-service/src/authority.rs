//! What a caller may do with a project itself: see it, edit its rules, give roles in it.

use crate::login::{Caller, CallerKind};
use registry_rules::{Project, Role, Roles as _, Visibility};
use registry_store::Snapshot;

/// The caller's authority in one project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    role: Option<Role>,
    administrator: bool,
    public: bool,
}

impl Authority {
    /// A blocked user and every caller that is no user has none.
    pub(crate) fn of(snapshot: &Snapshot, caller: &Caller, project: &Project) -> Self {
        let (role, administrator) = match caller.kind {
            CallerKind::User {
                id,
                administrator,
                blocked: false,
                ..
            } => (snapshot.roles(id).role_in(project.id), administrator),
            _ => (None, false),
        };
        Self {
            role,
            administrator,
            public: project.visibility == Visibility::Public,
        }
    }

    /// Whether the project exists for the caller.
    pub(crate) fn sees(self) -> bool {
        self.administrator || self.public || self.role.is_some()
    }

    /// Whether the caller has a role in the project.
    pub(crate) fn belongs(self) -> bool {
        self.administrator || self.role.is_some()
    }

    /// Whether the caller edits rules, members and tokens: from maintainer on.
    pub(crate) fn edits(self) -> bool {
        self.administrator || self.role >= Some(Role::Maintainer)
    }

    /// Whether the caller owns the project: its visibility, its end.
    pub(crate) fn owns(self) -> bool {
        self.administrator || self.role >= Some(Role::Owner)
    }

    /// Whether the caller gives, changes or takes this role: nobody handles one above their own.
    pub(crate) fn gives(self, role: Role) -> bool {
        self.administrator || (self.edits() && self.role >= Some(role))
    }
}
