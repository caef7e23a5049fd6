//! Edits of tag rules.

use super::{Edit, RuleChange, RuleFields};
use crate::audit::acts;
use crate::{EditError, Store};
use registry_rules::{ProjectId, RuleId, TagLevels, TagPattern, TagRule, TagRuleFault};
use sqlx::Row;

impl Store {
    /// Adds a tag rule to a project.
    ///
    /// # Errors
    /// No such project, every fault of the rule, a pattern that another one has, too many rules.
    pub async fn create_tag_rule(&self, by: &str, project: ProjectId, fields: &RuleFields) -> Result<TagRule, EditError> {
        self.edit(by, async |edit| edit.create_tag_rule(project, fields).await).await
    }

    /// Changes a tag rule.
    ///
    /// # Errors
    /// No such project or rule, every fault of what the rule would be, a pattern that another one has.
    pub async fn update_tag_rule(&self, by: &str, project: ProjectId, rule: RuleId, change: &RuleChange) -> Result<TagRule, EditError> {
        self.edit(by, async |edit| edit.update_tag_rule(project, rule, change).await).await
    }

    /// Deletes a tag rule.
    ///
    /// # Errors
    /// No such project or rule.
    pub async fn delete_tag_rule(&self, by: &str, project: ProjectId, rule: RuleId) -> Result<(), EditError> {
        self.edit(by, async |edit| edit.delete_tag_rule(project, rule).await).await
    }
}

impl Edit {
    pub(super) async fn create_tag_rule(&mut self, project: ProjectId, fields: &RuleFields) -> Result<TagRule, EditError> {
        let path = self.project_path(project).await?;
        let (pattern, levels) = self.checked_tag_rule(project, fields, None).await?;
        let most = i64::try_from(TagRule::MOST).unwrap_or(i64::MAX);
        if self.count("SELECT COUNT(*) FROM tag_rules WHERE project_id = $1", project).await? >= most {
            return Err(EditError::Limit("Maximum number of protection rules have been reached."));
        }
        let query = "INSERT INTO tag_rules (project_id, pattern, push, remove) VALUES ($1, $2, $3, $4) RETURNING id";
        let row = sqlx::query(query)
            .bind(project)
            .bind(pattern.as_str())
            .bind(levels.map(|levels| levels.push.word()))
            .bind(levels.map(|levels| levels.delete.word()))
            .fetch_one(self.connection())
            .await?;
        let id = row.try_get(0)?;
        self.note_rule("tag_rule.create", path, project, id, fields.shown());
        Ok(TagRule { id, pattern, levels })
    }

    pub(super) async fn update_tag_rule(&mut self, project: ProjectId, id: RuleId, change: &RuleChange) -> Result<TagRule, EditError> {
        let path = self.project_path(project).await?;
        let before = self.tag_rule_fields(project, id).await?;
        let fields = before.clone().changed(change);
        let (pattern, levels) = self.checked_tag_rule(project, &fields, Some(id)).await?;
        sqlx::query("UPDATE tag_rules SET pattern = $1, push = $2, remove = $3 WHERE id = $4")
            .bind(pattern.as_str())
            .bind(levels.map(|levels| levels.push.word()))
            .bind(levels.map(|levels| levels.delete.word()))
            .bind(id)
            .execute(self.connection())
            .await?;
        let detail = format!("{}, before {}", fields.shown(), before.shown());
        self.note_rule("tag_rule.update", path, project, id, detail);
        Ok(TagRule { id, pattern, levels })
    }

    pub(super) async fn delete_tag_rule(&mut self, project: ProjectId, id: RuleId) -> Result<(), EditError> {
        let path = self.project_path(project).await?;
        let fields = self.tag_rule_fields(project, id).await?;
        sqlx::query("DELETE FROM tag_rules WHERE id = $1")
            .bind(id)
            .execute(self.connection())
            .await?;
        self.note_rule("tag_rule.delete", path, project, id, fields.shown());
        Ok(())
    }

    async fn tag_rule_fields(&mut self, project: ProjectId, id: RuleId) -> Result<RuleFields, EditError> {
        let row = sqlx::query("SELECT pattern, push, remove FROM tag_rules WHERE id = $1 AND project_id = $2")
            .bind(id)
            .bind(project)
            .fetch_optional(self.connection())
            .await?
            .ok_or(EditError::NotFound("tag rule"))?;
        Ok(RuleFields {
            pattern: row.try_get(0)?,
            push: row.try_get(1)?,
            delete: row.try_get(2)?,
        })
    }

    async fn checked_tag_rule(
        &mut self,
        project: ProjectId,
        fields: &RuleFields,
        but: Option<RuleId>,
    ) -> Result<(TagPattern, Option<TagLevels>), EditError> {
        if fields.pattern.contains(acts) {
            return Err(EditError::TagRule(vec![TagRuleFault::PatternSyntax]));
        }
        let parts = TagRule::parts(&fields.pattern, fields.push.as_deref(), fields.delete.as_deref()).map_err(EditError::TagRule)?;
        let row = sqlx::query("SELECT id FROM tag_rules WHERE project_id = $1 AND pattern = $2 AND id <> $3")
            .bind(project)
            .bind(&*fields.pattern)
            .bind(but.unwrap_or(-1))
            .fetch_optional(self.connection())
            .await?;
        match row {
            Some(_) => Err(EditError::Taken("Tag name pattern".to_owned())),
            None => Ok(parts),
        }
    }
}
