//! Edits: each is one transaction in which everything that it depends on is checked, and which is in the audit trail.
//!
//! The first statement of every edit counts the version up. It locks the row that holds it until the end, so that edits of all
//! processes follow each other, and what one has checked is still true when it commits.

mod apply;
mod project;
mod rule;
mod tag_rule;
mod token;
mod user;

pub use rule::{RuleChange, RuleFields};

use crate::database::{Database, OPERATION_TIMEOUT, within_time};
use crate::recorder::write;
use crate::{AuditEntry, AuditOutcome, EditError, Store, StoreError};
use registry_rules::{ProjectId, RuleId};
use sqlx::{Any, AnyConnection, Row, Transaction};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much longer each further change of one edit may take it.
const MORE_TIME: Duration = Duration::from_millis(2);
/// How many changes get more time.
const EDITS_TIMED: u32 = 100_000;

/// A part of the snapshot that readers load anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Users,
    /// Users that were added or changed, and have this edit's version.
    NewUsers,
    Groups,
    Projects,
    Members,
    Tokens,
    /// Tokens that were added, and have this edit's version.
    NewTokens,
}

/// An edit that is being made. What is dropped without [`Edit::commit`] never was.
struct Edit {
    transaction: Transaction<'static, Any>,
    version: i64,
    now: Duration,
    by: String,
    changed: Vec<Part>,
    log: Vec<AuditEntry>,
}

/// What the audit trail says of an edit.
#[derive(Default)]
struct Note {
    subject: String,
    detail: String,
    project: Option<ProjectId>,
    rule: Option<RuleId>,
}

impl Part {
    fn statement(self) -> &'static str {
        match self {
            Self::Users => "UPDATE state SET users = version",
            Self::NewUsers => "UPDATE state SET new_users = version",
            Self::Groups => "UPDATE state SET groups = version",
            Self::Projects => "UPDATE state SET projects = version",
            Self::Members => "UPDATE state SET members = version",
            Self::Tokens => "UPDATE state SET tokens = version",
            Self::NewTokens => "UPDATE state SET new_tokens = version",
        }
    }
}

impl Edit {
    async fn begin(database: &Database, by: &str) -> Result<Self, StoreError> {
        let mut transaction = database.begin_edit().await?;
        let row = sqlx::query("UPDATE state SET version = version + 1 RETURNING version")
            .fetch_one(&mut *transaction)
            .await?;
        Ok(Self {
            version: row.try_get(0)?,
            transaction,
            now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            by: by.to_owned(),
            changed: Vec::new(),
            log: Vec::new(),
        })
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        for part in self.changed {
            sqlx::query(part.statement()).execute(&mut *self.transaction).await?;
        }
        let entries: Vec<AuditEntry> = self.log.into_iter().map(AuditEntry::cleaned).collect();
        write(&mut self.transaction, &entries).await?;
        Ok(self.transaction.commit().await?)
    }

    /// Says what was done, for the audit trail and for those who load it.
    fn note(&mut self, parts: &[Part], action: &str, note: Note) {
        for part in parts {
            if !self.changed.contains(part) {
                self.changed.push(*part);
            }
        }
        self.log.push(AuditEntry {
            at: i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX),
            actor: self.by.clone(),
            address: String::new(),
            action: action.to_owned(),
            subject: note.subject,
            outcome: AuditOutcome::Changed,
            detail: note.detail,
            project: note.project,
            rule: note.rule,
        });
    }

    /// Seconds since 1970.
    fn now_seconds(&self) -> i64 {
        i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX)
    }

    fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// The text in the row with this number, where there is one.
    async fn text(&mut self, query: &'static str, id: i64) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(query).bind(id).fetch_optional(self.connection()).await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// The number in the row with this text, where there is one.
    async fn number(&mut self, query: &'static str, text: &str) -> Result<Option<i64>, StoreError> {
        let row = sqlx::query(query).bind(text).fetch_optional(self.connection()).await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// A count of rows that belong to something.
    async fn count(&mut self, query: &'static str, of: i64) -> Result<i64, StoreError> {
        let row = sqlx::query(query).bind(of).fetch_one(self.connection()).await?;
        Ok(row.try_get(0)?)
    }

    async fn project_path(&mut self, project: ProjectId) -> Result<String, EditError> {
        let path = self.text("SELECT path FROM projects WHERE id = $1", project).await?;
        path.ok_or(EditError::NotFound("project"))
    }
}

impl Store {
    /// Makes one edit within the time of one operation.
    async fn edit<T>(&self, by: &str, edit: impl AsyncFnOnce(&mut Edit) -> Result<T, EditError>) -> Result<T, EditError> {
        self.edit_many(by, 1, edit).await
    }

    /// Makes many edits as one; the time grows with their number.
    async fn edit_many<T>(
        &self,
        by: &str,
        number: usize,
        edit: impl AsyncFnOnce(&mut Edit) -> Result<T, EditError>,
    ) -> Result<T, EditError> {
        let limit = OPERATION_TIMEOUT + MORE_TIME * u32::try_from(number).unwrap_or(u32::MAX).min(EDITS_TIMED);
        within_time(limit, async {
            let mut transaction = Edit::begin(self.database(), by).await?;
            let done = edit(&mut transaction).await?;
            transaction.commit().await?;
            Ok(done)
        })
        .await
    }
}
