//! The changes of a document, all in one edit.

use super::{Edit, RuleChange, RuleFields};
use crate::document::Change;
use crate::{EditError, GroupId, Holder, Store, UserId};
use registry_rules::{MinimumLevel, ProjectId, ProjectPath, RuleId, TagLevels};
use sqlx::Row;

impl Store {
    /// Makes all changes of a document, in their order, or none.
    ///
    /// # Errors
    /// That of the first change which cannot be made: somebody else may have edited since the difference was taken.
    pub async fn apply(&self, by: &str, changes: &[Change]) -> Result<(), EditError> {
        self.edit_many(by, changes.len(), async |edit| {
            for change in changes {
                edit.apply(change).await?;
            }
            Ok(())
        })
        .await
    }
}

impl Edit {
    async fn apply(&mut self, change: &Change) -> Result<(), EditError> {
        match change {
            Change::DeleteGroup { path } => {
                let group = self.group_at(path).await?;
                self.delete_group(group).await
            }
            Change::DeleteProject { path } => {
                let project = self.project_at(path).await?;
                self.delete_project(project).await
            }
            Change::CreateGroup { path } => self.create_group(path).await.map(drop),
            Change::CreateProject { path, visibility } => self.create_project(path, *visibility).await.map(drop),
            Change::SetVisibility { path, visibility } => {
                let project = self.project_at(path).await?;
                self.set_visibility(project, *visibility).await
            }
            Change::GroupMember { path, user, role } => {
                let (group, user) = (self.group_at(path).await?, self.user_named(user).await?);
                self.set_member(Holder::Group(group), user, *role).await
            }
            Change::ProjectMember { path, user, role } => {
                let (project, user) = (self.project_at(path).await?, self.user_named(user).await?);
                self.set_member(Holder::Project(project), user, *role).await
            }
            Change::DeleteRule { .. } | Change::CreateRule { .. } | Change::UpdateRule { .. } => self.apply_rule(change).await,
            Change::DeleteTagRule { .. } | Change::CreateTagRule { .. } | Change::UpdateTagRule { .. } => self.apply_tag_rule(change).await,
        }
    }

    async fn apply_rule(&mut self, change: &Change) -> Result<(), EditError> {
        const FIND: &str = "SELECT id FROM rules WHERE project_id = $1 AND pattern = $2";
        match change {
            Change::DeleteRule { path, pattern } => {
                let (project, rule) = self.rule_at(FIND, path, pattern).await?;
                self.delete_rule(project, rule).await
            }
            Change::CreateRule {
                path,
                pattern,
                push,
                delete,
            } => {
                let project = self.project_at(path).await?;
                self.create_rule(project, &fields(pattern, *push, *delete)).await.map(drop)
            }
            Change::UpdateRule {
                path,
                pattern,
                push,
                delete,
            } => {
                let (project, rule) = self.rule_at(FIND, path, pattern).await?;
                self.update_rule(project, rule, &levels(*push, *delete)).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    async fn apply_tag_rule(&mut self, change: &Change) -> Result<(), EditError> {
        const FIND: &str = "SELECT id FROM tag_rules WHERE project_id = $1 AND pattern = $2";
        let parts = |levels: &Option<TagLevels>| (levels.map(|levels| levels.push), levels.map(|levels| levels.delete));
        match change {
            Change::DeleteTagRule { path, pattern } => {
                let (project, rule) = self.rule_at(FIND, path, pattern).await?;
                self.delete_tag_rule(project, rule).await
            }
            Change::CreateTagRule {
                path,
                pattern,
                levels: wanted,
            } => {
                let project = self.project_at(path).await?;
                let (push, delete) = parts(wanted);
                self.create_tag_rule(project, &fields(pattern, push, delete)).await.map(drop)
            }
            Change::UpdateTagRule {
                path,
                pattern,
                levels: wanted,
            } => {
                let (project, rule) = self.rule_at(FIND, path, pattern).await?;
                let (push, delete) = parts(wanted);
                self.update_tag_rule(project, rule, &levels(push, delete)).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    async fn group_at(&mut self, path: &ProjectPath) -> Result<GroupId, EditError> {
        let id = self.number("SELECT id FROM groups WHERE path = $1", path.as_str()).await?;
        id.ok_or(EditError::NotFound("group"))
    }

    async fn project_at(&mut self, path: &ProjectPath) -> Result<ProjectId, EditError> {
        let id = self.number("SELECT id FROM projects WHERE path = $1", path.as_str()).await?;
        id.ok_or(EditError::NotFound("project"))
    }

    async fn user_named(&mut self, name: &str) -> Result<UserId, EditError> {
        let id = self.number("SELECT id FROM users WHERE name = $1", name).await?;
        id.ok_or(EditError::NotFound("user"))
    }

    async fn rule_at(&mut self, query: &'static str, path: &ProjectPath, pattern: &str) -> Result<(ProjectId, RuleId), EditError> {
        let project = self.project_at(path).await?;
        let row = sqlx::query(query)
            .bind(project)
            .bind(pattern)
            .fetch_optional(self.connection())
            .await?
            .ok_or(EditError::NotFound("rule"))?;
        Ok((project, row.try_get(0)?))
    }
}

fn fields(pattern: &str, push: Option<MinimumLevel>, delete: Option<MinimumLevel>) -> RuleFields {
    RuleFields {
        pattern: pattern.to_owned(),
        push: push.map(|level| level.word().to_owned()),
        delete: delete.map(|level| level.word().to_owned()),
    }
}

/// Both levels, an absent one as the empty word that takes it away.
fn levels(push: Option<MinimumLevel>, delete: Option<MinimumLevel>) -> RuleChange {
    let word = |level: Option<MinimumLevel>| Some(level.map_or("", MinimumLevel::word).to_owned());
    RuleChange {
        pattern: None,
        push: word(push),
        delete: word(delete),
    }
}
