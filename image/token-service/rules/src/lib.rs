//! Which actions a registry token grants: scopes, roles and protection rules, without any input or output.
//!
//! One request, from top to bottom: [`Scopes::parse`] reads what a client asks for; [`decide`] takes away what the caller's
//! role does not give, then refuses the whole request if a protection rule forbids what is left. The order of these steps is
//! the peer's (GitLab's `ContainerRegistryAuthenticationService`), as is the text of a refusal.
#![forbid(unsafe_code)]

mod decision;
mod level;
mod name;
mod pattern;
mod principal;
mod project;
mod rule;
mod scope;
mod tag_rule;

pub use decision::{Access, Decision, Outcome, Refusal, TagDenials, decide};
pub use level::{MinimumLevel, Role, UnknownLevel};
pub use name::{NameError, ProjectPath, RepositoryName};
pub use pattern::PathPattern;
pub use principal::{DeployScopes, Principal, Roles};
pub use project::{Project, ProjectId, Projects, Visibility};
pub use rule::{Rule, RuleFault, RuleId};
pub use scope::{Action, Actions, Resource, Scope, Scopes};
pub use tag_rule::{TagLevels, TagPattern, TagRule, TagRuleFault};
