//! The audit trail with its filters.

use crate::field::{Fault, faults};
use crate::{Choice, Field, Shell};
use askama::Template;

/// One page of the audit trail, the newest entry first.
#[derive(Debug, Template)]
#[template(path = "audit.html")]
pub struct Audit {
    /// The frame.
    pub shell: Shell,
    /// What is looked for.
    pub query: AuditQuery,
    /// The entries.
    pub rows: Vec<AuditRow>,
    /// The path of the newest entries with this filter, where this is not their page.
    pub newest: Option<String>,
    /// The path of older entries.
    pub older: Option<String>,
    /// The paths of the projects that the reader maintains, of one of which the entries are; none for who may see all.
    pub own_projects: Option<Vec<String>>,
}

/// The filter as it was typed.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Who did it.
    pub actor: Field,
    /// What was done.
    pub action: Field,
    /// The beginning of what it was done to.
    pub subject: Field,
    /// The path of the project that it was about.
    pub project: Field,
    /// `granted`, `refused`, `unauthorized` or `changed`.
    pub outcome: Field,
    /// The first day, `2026-11-30`, in UTC.
    pub since: Field,
    /// The last day.
    pub until: Field,
}

/// An entry.
#[derive(Debug)]
pub struct AuditRow {
    /// When, `2026-11-30 19:55:02` in UTC.
    pub time: String,
    /// The same as a machine reads it.
    pub machine_time: String,
    /// Who.
    pub actor: String,
    /// From where.
    pub address: String,
    /// What.
    pub action: String,
    /// To what.
    pub subject: String,
    /// `granted`, `refused`, `unauthorized` or `changed`.
    pub outcome: &'static str,
    /// Scopes, levels, and the rule that decided.
    pub detail: String,
}

impl Audit {
    fn outcomes(&self) -> [Choice; 5] {
        [
            Choice { value: "", label: "Any" },
            Choice {
                value: "granted",
                label: "Granted",
            },
            Choice {
                value: "refused",
                label: "Refused",
            },
            Choice {
                value: "unauthorized",
                label: "Unauthorized",
            },
            Choice {
                value: "changed",
                label: "Changed",
            },
        ]
    }

    fn faults(&self) -> Vec<Fault<'_>> {
        let query = &self.query;
        faults(&[
            ("project", &query.project),
            ("outcome", &query.outcome),
            ("since", &query.since),
            ("until", &query.until),
        ])
    }
}
