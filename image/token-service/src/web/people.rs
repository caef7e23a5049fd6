//! Who may push and delete now, by the same decision as every request for a token.

use crate::clock::Now;
use registry_pages::{People, Person};
use registry_rules::{
    Action, DeployScopes, MinimumLevel, PathPattern, Principal, Project, ProjectId, Projects, Role, Roles as _, Rule, Scopes, decide,
};
use registry_store::{Holder, Snapshot, TokenKind, UserId};
use std::collections::{BTreeSet, HashMap};

/// Most names of one list.
const NAMED_MAX: usize = 8;

/// Everybody who may have a right to write in a project, with the lists that were already asked for.
pub(super) struct Candidates<'a> {
    snapshot: &'a Snapshot,
    project: &'a Project,
    users: Vec<Candidate<'a>>,
    tokens: Vec<(&'a str, DeployScopes)>,
    known: HashMap<(Option<MinimumLevel>, Action), People>,
}

struct Candidate<'a> {
    id: UserId,
    name: &'a str,
    role: Option<Role>,
    administrator: bool,
}

impl<'a> Candidates<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, project: &'a Project, now: Now) -> Self {
        let groups = snapshot.groups_above(project).map(|group| Holder::Group(group.id));
        let holders = groups.chain([Holder::Project(project.id)]);
        let members = holders.flat_map(|holder| snapshot.members(holder)).map(|(user, _)| user);
        let administrators = snapshot.users().filter(|user| user.administrator).map(|user| user.id);
        let ids: BTreeSet<UserId> = members.chain(administrators).collect();
        let users = ids
            .into_iter()
            .filter_map(|id| snapshot.user_by_id(id))
            .filter(|user| !user.blocked);
        let mut users: Vec<Candidate<'a>> = users
            .map(|user| Candidate {
                id: user.id,
                name: &user.name,
                role: snapshot.roles(user.id).role_in(project.id),
                administrator: user.administrator,
            })
            .collect();
        users.sort_by_key(|user| (std::cmp::Reverse(user.role), user.name));
        Self {
            tokens: deploy_tokens(snapshot, project.id, now),
            known: HashMap::new(),
            snapshot,
            project,
            users,
        }
    }

    /// Those who may push to, or delete from, a repository that a rule with this level matches and no stricter one.
    pub(super) fn who(&mut self, level: Option<MinimumLevel>, action: Action) -> People {
        if let Some(known) = self.known.get(&(level, action)) {
            return known.clone();
        }
        let people = self.decided(level, action);
        self.known.insert((level, action), people.clone());
        people
    }

    fn decided(&self, level: Option<MinimumLevel>, action: Action) -> People {
        let path = self.project.path.as_str();
        let rule = Rule {
            id: 0,
            pattern: PathPattern::new("*"),
            push: level.filter(|_| action == Action::Push),
            delete: level.filter(|_| action == Action::Delete),
        };
        let project = Project::new(
            self.project.id,
            self.project.path.clone(),
            self.project.visibility,
            vec![rule],
            Vec::new(),
        );
        let projects = Projects::from_iter([project]);
        let scopes = Scopes::parse([format!("repository:{path}:{}", action.word()).as_str()]);
        let may = |principal: &Principal<'_>| {
            let granted = decide(&projects, principal, &scopes).result.unwrap_or_default();
            granted.iter().any(|access| access.actions.has(action))
        };
        let mut people = People::default();
        let mut add = |name: &str, role| {
            if people.named.len() < NAMED_MAX {
                people.named.push(Person {
                    name: name.to_owned(),
                    role,
                });
            } else {
                people.more += 1;
            }
        };
        for user in &self.users {
            let roles = self.snapshot.roles(user.id);
            if may(&Principal::user(&roles, user.administrator)) {
                add(
                    user.name,
                    if user.administrator {
                        "administrator"
                    } else {
                        user.role.map_or("", Role::word)
                    },
                );
            }
        }
        for (login, scopes) in &self.tokens {
            let token = Principal::DeployToken {
                project: self.project.id,
                scopes: *scopes,
            };
            if may(&token) {
                add(login, "deploy token");
            }
        }
        people
    }
}

fn deploy_tokens(snapshot: &Snapshot, of: ProjectId, now: Now) -> Vec<(&str, DeployScopes)> {
    let valid = snapshot.tokens().filter(|token| token.is_valid_at(now.seconds()));
    let mut tokens: Vec<_> = valid
        .filter_map(|token| match &token.kind {
            TokenKind::Deploy {
                project,
                login,
                read,
                write,
            } if *project == of => {
                let scopes = DeployScopes {
                    read: *read,
                    write: *write,
                };
                Some((login.as_str(), scopes))
            }
            _ => None,
        })
        .collect();
    tokens.sort_unstable_by_key(|(login, _)| *login);
    tokens
}
