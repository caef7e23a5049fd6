//! The decision on one token request: what the role gives, then what the protection rules forbid.

use crate::{
    Action, Actions, MinimumLevel, Principal, Project, ProjectId, Projects, RepositoryName, Resource, Role, RuleId, Scope, Scopes,
    Visibility,
};

/// What a token grants on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The resource.
    pub resource: Resource,
    /// The actions, in the order in which they were asked for; never empty.
    pub actions: Actions,
    /// What the project's tag rules forbid, where it has any and something is written.
    pub tags: TagDenials,
}

/// Patterns of tags for the registry to enforce (`access[].meta`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagDenials {
    /// For each granted action that writes, the patterns whose level the caller lacks (`tag_deny_access_patterns`); absent where
    /// the project has no tag rule with levels.
    pub deny: Option<Vec<(Action, Vec<String>)>>,
    /// Patterns of tags that nobody changes (`tag_immutable_patterns`); absent where there is none.
    pub immutable: Option<Vec<String>>,
}

/// Why a whole request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No right to the registry at all.
    Forbidden,
    /// A rule protects the repository.
    Protected {
        /// Push or delete.
        action: Action,
        /// The repository.
        repository: RepositoryName,
        /// Its project.
        project: ProjectId,
        /// The rule that decided.
        rule: RuleId,
        /// What it asks for.
        level: MinimumLevel,
    },
}

/// What became of one scope, for the audit trail and for those who ask why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was asked.
    pub asked: Scope,
    /// What the role leaves of it.
    pub allowed: Actions,
    /// The project, where one is known.
    pub project: Option<ProjectId>,
    /// The caller's role in it.
    pub role: Option<Role>,
}

/// The answer to a request, with what became of each scope until it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is granted, or why nothing is.
    pub result: Result<Vec<Access>, Refusal>,
    /// Each scope that was looked at.
    pub outcomes: Vec<Outcome>,
}

impl Refusal {
    /// The text that a client shows: GitLab's first design for push, our own for delete.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Forbidden => "access forbidden",
            Self::Protected {
                action: Action::Delete, ..
            } => "container protected; you are not allowed to delete this package",
            Self::Protected { .. } => "container protected; you are not allowed to push new package",
        }
    }
}

/// Decides on a request whose credentials were right, or that had none.
///
/// Each scope loses what the caller's role does not give. Of what remains, push and then delete are held against every rule
/// that matches; the strictest one that the caller does not pass refuses the whole request. `*` is both.
pub fn decide(projects: &Projects, principal: &Principal<'_>, scopes: &Scopes) -> Decision {
    let mut outcomes = Vec::new();
    let powerless = match principal {
        Principal::Powerless => true,
        Principal::User { limits, .. } => !limits.read && !limits.write,
        Principal::DeployToken { scopes, .. } => !scopes.read && !scopes.write,
        Principal::Anonymous => !scopes.asked(),
        Principal::Job { .. } => false,
    };
    if powerless {
        return Decision {
            result: Err(Refusal::Forbidden),
            outcomes,
        };
    }
    let mut granted = Vec::new();
    for scope in scopes.iter() {
        let (outcome, access) = match &scope.resource {
            Resource::Catalog => catalog(principal, scope),
            Resource::Repository(name) => match repository(projects, principal, scope, name) {
                (outcome, Ok(access)) => (outcome, access),
                (outcome, Err(refusal)) => {
                    outcomes.push(outcome);
                    return Decision {
                        result: Err(refusal),
                        outcomes,
                    };
                }
            },
        };
        outcomes.push(outcome);
        granted.extend(access);
    }
    Decision {
        result: Ok(granted),
        outcomes,
    }
}

/// Administrators alone, and exactly `*`.
fn catalog(principal: &Principal<'_>, scope: &Scope) -> (Outcome, Option<Access>) {
    let full = matches!(principal, Principal::User { administrator: true, limits, .. } if limits.read && limits.write);
    let exactly = scope.actions.iter().eq([Action::All]);
    let allowed = if full && exactly {
        scope.actions.clone()
    } else {
        Actions::default()
    };
    let access = (!allowed.is_empty()).then(|| Access {
        resource: scope.resource.clone(),
        actions: allowed.clone(),
        tags: TagDenials::default(),
    });
    (
        Outcome {
            asked: scope.clone(),
            allowed,
            project: None,
            role: None,
        },
        access,
    )
}

type Judged = (Outcome, Result<Option<Access>, Refusal>);

fn repository(projects: &Projects, principal: &Principal<'_>, scope: &Scope, name: &RepositoryName) -> Judged {
    let Some(project) = projects.of(name) else {
        let outcome = Outcome {
            asked: scope.clone(),
            allowed: Actions::default(),
            project: None,
            role: None,
        };
        return (outcome, Ok(None));
    };
    let caller = Caller::new(principal, project);
    let allowed = scope.actions.kept(|action| caller.may(action, project));
    let outcome = Outcome {
        asked: scope.clone(),
        allowed: allowed.clone(),
        project: Some(project.id),
        role: caller.role,
    };
    for action in [Action::Push, Action::Delete] {
        if !(allowed.has(action) || allowed.has(Action::All)) {
            continue;
        }
        if let Some((level, rule)) = project.strictest(name, action)
            && !level.admits(caller.role, caller.administrator)
        {
            let refusal = Refusal::Protected {
                action,
                repository: name.clone(),
                project: project.id,
                rule: rule.id,
                level,
            };
            return (outcome, Err(refusal));
        }
    }
    let access = (!allowed.is_empty()).then(|| Access {
        resource: scope.resource.clone(),
        tags: tag_denials(project, &caller, &allowed),
        actions: allowed,
    });
    (outcome, Ok(access))
}

/// The caller as one project sees it.
struct Caller<'a> {
    principal: &'a Principal<'a>,
    role: Option<Role>,
    administrator: bool,
}

impl<'a> Caller<'a> {
    fn new(principal: &'a Principal<'a>, project: &Project) -> Self {
        let (role, administrator) = match principal {
            Principal::User { roles, administrator, .. } => (roles.role_in(project.id), *administrator),
            Principal::Job { roles, administrator, .. } => (roles.role_in(project.id), *administrator),
            Principal::Anonymous | Principal::DeployToken { .. } | Principal::Powerless => (None, false),
        };
        Self {
            principal,
            role,
            administrator,
        }
    }

    /// What the role gives, before any rule.
    fn may(&self, action: Action, project: &Project) -> bool {
        let pulls = project.visibility == Visibility::Public || self.role >= Some(Role::Reporter);
        match self.principal {
            Principal::Powerless => false,
            Principal::Anonymous => action == Action::Pull && project.visibility == Visibility::Public,
            Principal::User { limits, .. } => {
                let by_role = match action {
                    Action::Pull => pulls,
                    Action::Push => self.role >= Some(Role::Developer),
                    Action::Delete | Action::All => self.role >= Some(Role::Maintainer),
                };
                let by_token = match action {
                    Action::Pull => limits.read,
                    Action::Push | Action::Delete => limits.write,
                    Action::All => limits.read && limits.write,
                };
                by_token && (by_role || self.administrator)
            }
            Principal::Job { project: own, .. } if *own == project.id => action != Action::All,
            Principal::Job { .. } => action == Action::Pull && (pulls || self.administrator),
            Principal::DeployToken { project: own, scopes } => {
                *own == project.id
                    && match action {
                        Action::Pull => scopes.read,
                        Action::Push => scopes.write,
                        Action::Delete | Action::All => false,
                    }
            }
        }
    }
}

fn tag_denials(project: &Project, caller: &Caller<'_>, allowed: &Actions) -> TagDenials {
    if !allowed.write() {
        return TagDenials::default();
    }
    let (levelled, fixed): (Vec<_>, Vec<_>) = project.tag_rules().iter().partition(|rule| rule.levels.is_some());
    let denied = |action: Action| {
        let refused = levelled.iter().filter(|rule| {
            let level = rule
                .levels
                .map(|levels| if action == Action::Push { levels.push } else { levels.delete });
            // Administrators get empty arrays, whatever the level.
            !caller.administrator && !level.is_some_and(|level| level.admits(caller.role, false))
        });
        (action, refused.map(|rule| rule.pattern.as_str().to_owned()).collect())
    };
    let writes = [Action::Push, Action::Delete]
        .into_iter()
        .filter(|action| allowed.has(*action) || allowed.has(Action::All));
    TagDenials {
        deny: (!levelled.is_empty()).then(|| writes.map(denied).collect()),
        immutable: (!fixed.is_empty()).then(|| fixed.iter().map(|rule| rule.pattern.as_str().to_owned()).collect()),
    }
}

#[cfg(test)]
mod tests;
