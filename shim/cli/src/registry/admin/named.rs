//! What the words of a command line name in the database.

use super::Desk;
use anyhow::{Context, Result};
use registry_rules::{Project, RuleId};
use registry_store::{Holder, Snapshot, User};
use std::sync::Arc;

impl Desk {
    /// The database as it is now.
    pub async fn now(&self) -> Result<Arc<Snapshot>> {
        Ok(self.store.current().await?)
    }
}

/// The user of this name.
pub fn user<'a>(now: &'a Snapshot, name: &str) -> Result<&'a User> {
    now.user(name).with_context(|| format!("there is no user {name:?}"))
}

/// The project with this path or number.
pub fn project<'a>(now: &'a Snapshot, text: &str) -> Result<&'a Project> {
    let numbered = || now.projects.by_id(text.parse().ok()?);
    let found = now.projects.by_path(text).or_else(numbered);
    found.with_context(|| format!("there is no project {text:?}"))
}

/// The project or group with this path.
pub fn holder(now: &Snapshot, text: &str) -> Result<Holder> {
    if let Ok(project) = project(now, text) {
        return Ok(Holder::Project(project.id));
    }
    let group = now.group(text);
    let group = group.with_context(|| format!("there is neither a project nor a group {text:?}"))?;
    Ok(Holder::Group(group.id))
}

/// The rule of a project with this number or pattern.
pub fn rule(project: &Project, text: &str) -> Result<RuleId> {
    let number = text.parse::<RuleId>().ok();
    let found = project
        .rules()
        .iter()
        .find(|rule| Some(rule.id) == number || rule.pattern.as_str() == text);
    found
        .map(|rule| rule.id)
        .with_context(|| format!("{} has no rule {text:?}", project.path))
}

/// The tag rule of a project with this number or pattern.
pub fn tag_rule(project: &Project, text: &str) -> Result<RuleId> {
    let number = text.parse::<RuleId>().ok();
    let found = project
        .tag_rules()
        .iter()
        .find(|rule| Some(rule.id) == number || rule.pattern.as_str() == text);
    found
        .map(|rule| rule.id)
        .with_context(|| format!("{} has no tag rule {text:?}", project.path))
}
