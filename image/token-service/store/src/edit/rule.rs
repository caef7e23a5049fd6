//! Edits of protection rules.

use super::{Edit, Note, Part};
use crate::audit::acts;
use crate::{EditError, Store, StoreError};
use registry_rules::{MinimumLevel, PathPattern, ProjectId, ProjectPath, Rule, RuleFault, RuleId};
use sqlx::Row;

/// Most rules of one project.
const RULES_MAX: i64 = 10_000;

/// Who may push, and who may delete.
type Levels = (Option<MinimumLevel>, Option<MinimumLevel>);

/// A protection rule or a tag rule that somebody wants, as words. An empty level is an absent one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFields {
    /// The pattern.
    pub pattern: String,
    /// The least level that may push.
    pub push: Option<String>,
    /// The least level that may delete.
    pub delete: Option<String>,
}

/// What shall change in a rule. What is absent stays; an empty level is taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleChange {
    /// The pattern.
    pub pattern: Option<String>,
    /// The least level that may push.
    pub push: Option<String>,
    /// The least level that may delete.
    pub delete: Option<String>,
}

impl RuleFields {
    /// These fields with a change made to them.
    pub(super) fn changed(self, change: &RuleChange) -> Self {
        Self {
            pattern: change.pattern.clone().unwrap_or(self.pattern),
            push: change.push.clone().or(self.push),
            delete: change.delete.clone().or(self.delete),
        }
    }

    /// As the audit trail shows them.
    pub(super) fn shown(&self) -> String {
        let word = |level: &Option<String>| level.clone().filter(|word| !word.is_empty()).unwrap_or_else(|| "-".to_owned());
        format!("{} push {} delete {}", self.pattern, word(&self.push), word(&self.delete))
    }
}

impl Store {
    /// Adds a protection rule to a project.
    ///
    /// # Errors
    /// No such project, every fault of the rule, too many rules.
    pub async fn create_rule(&self, by: &str, project: ProjectId, fields: &RuleFields) -> Result<Rule, EditError> {
        self.edit(by, async |edit| edit.create_rule(project, fields).await).await
    }

    /// Adds a protection rule that another system made, whose pattern may have capitals or lie outside of the project: it counts as
    /// it is matched.
    ///
    /// # Errors
    /// No such project, no level, a pattern that is blank, too long or taken, too many rules.
    pub async fn import_rule(
        &self,
        by: &str,
        project: ProjectId,
        pattern: &PathPattern,
        push: Option<MinimumLevel>,
        delete: Option<MinimumLevel>,
    ) -> Result<Rule, EditError> {
        self.edit(by, async |edit| edit.import_rule(project, pattern, push, delete).await)
            .await
    }

    /// Changes a protection rule.
    ///
    /// # Errors
    /// No such project or rule, every fault of what the rule would be.
    pub async fn update_rule(&self, by: &str, project: ProjectId, rule: RuleId, change: &RuleChange) -> Result<Rule, EditError> {
        self.edit(by, async |edit| edit.update_rule(project, rule, change).await).await
    }

    /// Deletes a protection rule.
    ///
    /// # Errors
    /// No such project or rule.
    pub async fn delete_rule(&self, by: &str, project: ProjectId, rule: RuleId) -> Result<(), EditError> {
        self.edit(by, async |edit| edit.delete_rule(project, rule).await).await
    }
}

impl Edit {
    pub(super) async fn create_rule(&mut self, project: ProjectId, fields: &RuleFields) -> Result<Rule, EditError> {
        let path = self.project_path(project).await?;
        let (push, delete) = self.checked(project, &path, fields, None).await?;
        self.insert_rule("rule.create", path, project, fields, (push, delete)).await
    }

    async fn import_rule(
        &mut self,
        project: ProjectId,
        pattern: &PathPattern,
        push: Option<MinimumLevel>,
        delete: Option<MinimumLevel>,
    ) -> Result<Rule, EditError> {
        let path = self.project_path(project).await?;
        let word = |level: Option<MinimumLevel>| level.map(|level| level.word().to_owned());
        let fields = RuleFields {
            pattern: pattern.as_str().to_owned(),
            push: word(push),
            delete: word(delete),
        };
        let mut faults = faults(&path, &fields, false)?;
        faults.retain(|fault| !matches!(fault, RuleFault::PatternFormat | RuleFault::PatternOutsideProject));
        if fields.pattern.contains(acts) {
            faults.push(RuleFault::PatternFormat);
        }
        if faults.is_empty() && self.is_taken(project, &fields.pattern, None).await? {
            faults.push(RuleFault::PatternTaken);
        }
        if !faults.is_empty() {
            return Err(EditError::Rule(faults));
        }
        self.insert_rule("rule.import", path, project, &fields, (push, delete)).await
    }

    async fn insert_rule(
        &mut self,
        action: &str,
        path: String,
        project: ProjectId,
        fields: &RuleFields,
        (push, delete): Levels,
    ) -> Result<Rule, EditError> {
        if self.count("SELECT COUNT(*) FROM rules WHERE project_id = $1", project).await? >= RULES_MAX {
            return Err(EditError::Limit("Maximum number of protection rules have been reached."));
        }
        let query = "INSERT INTO rules (project_id, pattern, folded, push, remove) VALUES ($1, $2, $3, $4, $5) RETURNING id";
        let row = sqlx::query(query)
            .bind(project)
            .bind(&*fields.pattern)
            .bind(fields.pattern.to_ascii_lowercase())
            .bind(push.map(MinimumLevel::word))
            .bind(delete.map(MinimumLevel::word))
            .fetch_one(self.connection())
            .await?;
        let id = row.try_get(0)?;
        self.note_rule(action, path, project, id, fields.shown());
        Ok(rule(id, fields, push, delete))
    }

    pub(super) async fn update_rule(&mut self, project: ProjectId, id: RuleId, change: &RuleChange) -> Result<Rule, EditError> {
        let path = self.project_path(project).await?;
        let before = self.rule_fields(project, id).await?;
        let fields = before.clone().changed(change);
        let (push, delete) = self.checked(project, &path, &fields, Some(id)).await?;
        sqlx::query("UPDATE rules SET pattern = $1, folded = $2, push = $3, remove = $4 WHERE id = $5")
            .bind(&*fields.pattern)
            .bind(fields.pattern.to_ascii_lowercase())
            .bind(push.map(MinimumLevel::word))
            .bind(delete.map(MinimumLevel::word))
            .bind(id)
            .execute(self.connection())
            .await?;
        let detail = format!("{}, before {}", fields.shown(), before.shown());
        self.note_rule("rule.update", path, project, id, detail);
        Ok(rule(id, &fields, push, delete))
    }

    pub(super) async fn delete_rule(&mut self, project: ProjectId, id: RuleId) -> Result<(), EditError> {
        let path = self.project_path(project).await?;
        let fields = self.rule_fields(project, id).await?;
        sqlx::query("DELETE FROM rules WHERE id = $1")
            .bind(id)
            .execute(self.connection())
            .await?;
        self.note_rule("rule.delete", path, project, id, fields.shown());
        Ok(())
    }

    async fn rule_fields(&mut self, project: ProjectId, id: RuleId) -> Result<RuleFields, EditError> {
        let row = sqlx::query("SELECT pattern, push, remove FROM rules WHERE id = $1 AND project_id = $2")
            .bind(id)
            .bind(project)
            .fetch_optional(self.connection())
            .await?
            .ok_or(EditError::NotFound("rule"))?;
        Ok(RuleFields {
            pattern: row.try_get(0)?,
            push: row.try_get(1)?,
            delete: row.try_get(2)?,
        })
    }

    /// The levels of a rule without a fault; `but` is the rule itself, where it exists.
    async fn checked(&mut self, project: ProjectId, path: &str, fields: &RuleFields, but: Option<RuleId>) -> Result<Levels, EditError> {
        // A text that is no pattern is nobody's, and may hold what a database does not take.
        let pattern = |fault: &RuleFault| {
            matches!(
                fault,
                RuleFault::PatternBlank | RuleFault::PatternTooLong | RuleFault::PatternFormat
            )
        };
        let mut found = faults(path, fields, false)?;
        if !found.iter().any(pattern) {
            let taken = self.is_taken(project, &fields.pattern, but).await?;
            found = faults(path, fields, taken)?;
        }
        if !found.is_empty() {
            return Err(EditError::Rule(found));
        }
        let level = |word: &Option<String>| word.as_deref().and_then(|word| word.parse().ok());
        Ok((level(&fields.push), level(&fields.delete)))
    }

    /// Whether another rule of the project than `but` has the pattern, however it is written.
    async fn is_taken(&mut self, project: ProjectId, pattern: &str, but: Option<RuleId>) -> Result<bool, EditError> {
        let row = sqlx::query("SELECT id FROM rules WHERE project_id = $1 AND folded = $2 AND id <> $3")
            .bind(project)
            .bind(pattern.to_ascii_lowercase())
            .bind(but.unwrap_or(-1))
            .fetch_optional(self.connection())
            .await?;
        Ok(row.is_some())
    }

    pub(super) fn note_rule(&mut self, action: &str, subject: String, project: ProjectId, rule: RuleId, detail: String) {
        let note = Note {
            subject,
            detail,
            project: Some(project),
            rule: Some(rule),
        };
        self.note(&[Part::Projects], action, note);
    }
}

fn faults(project: &str, fields: &RuleFields, taken: bool) -> Result<Vec<RuleFault>, EditError> {
    let project: ProjectPath = project.parse().map_err(|_| StoreError::corrupt("a project's path"))?;
    let (push, delete) = (fields.push.as_deref(), fields.delete.as_deref());
    Ok(Rule::check(&project, &fields.pattern, push, delete, taken))
}

fn rule(id: RuleId, fields: &RuleFields, push: Option<MinimumLevel>, delete: Option<MinimumLevel>) -> Rule {
    Rule {
        id,
        pattern: PathPattern::new(&fields.pattern),
        push,
        delete,
    }
}
