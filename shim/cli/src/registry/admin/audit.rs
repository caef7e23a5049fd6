//! `casemate registry admin audit`.

use super::{Desk, named, table};
use crate::gc::duration;
use anyhow::{Context, Result};
use clap::Args;
use registry_store::{AuditFilter, AuditOutcome, AuditRecord};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// Most entries that the store gives at once.
const PAGE: u32 = 200;

pub const EXAMPLES: &str = "\
Examples:
  casemate registry admin audit --outcome refused --since 1d
  casemate registry admin audit --actor ann --subject flightjs/ --limit 1000 --json | jq -r '.[].detail'

The newest entry comes first.";

/// Which entries.
#[derive(Args)]
pub struct Audit {
    /// Only of this user or login
    #[arg(long)]
    actor: Option<String>,
    /// Only this action, such as `token` or `rule.create`
    #[arg(long)]
    action: Option<String>,
    /// Only of repositories and projects that begin with this
    #[arg(long)]
    subject: Option<String>,
    /// Only of this project
    #[arg(long)]
    project: Option<String>,
    /// Only with this outcome: granted, refused, unauthorized or changed
    #[arg(long)]
    outcome: Option<AuditOutcome>,
    /// Only of the time since so long ago, such as 1h or 30d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
    /// Only of the time until so long ago
    #[arg(long, value_name = "TIME", value_parser = duration)]
    until: Option<Duration>,
    /// Most entries
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

/// Prints the entries.
pub async fn run(desk: &Desk, audit: &Audit) -> Result<()> {
    let project = match &audit.project {
        Some(project) => Some(named::project(&*desk.now().await?, project)?.id),
        None => None,
    };
    let mut filter = AuditFilter {
        actor: audit.actor.clone(),
        action: audit.action.clone(),
        subject: audit.subject.clone(),
        outcome: audit.outcome,
        project,
        since: audit.since.map(ago).transpose()?,
        until: audit.until.map(ago).transpose()?,
        before: None,
        limit: PAGE,
    };
    let mut rows = Vec::new();
    let mut left = audit.limit;
    while left > 0 {
        filter.limit = left.min(PAGE);
        let page = desk.store.audit(&filter).await?;
        rows.extend(page.iter().map(shown));
        left -= u32::try_from(page.len()).unwrap_or(left).min(left);
        match page.last() {
            Some(last) if page.len() == filter.limit as usize => filter.before = Some(last.id),
            _ => break,
        }
    }
    table::rows(
        desk.json,
        &["time", "actor", "address", "action", "subject", "outcome", "rule", "detail"],
        &rows,
    )
}

/// Milliseconds since 1970, so long ago.
fn ago(before: Duration) -> Result<i64> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .context("the clock is before 1970")?;
    i64::try_from(now.saturating_sub(before).as_millis()).context("the clock is after the end of time")
}

fn shown(record: &AuditRecord) -> Value {
    let entry = &record.entry;
    json!({
        "id": record.id, "time": token_service::rfc3339(entry.at / 1000), "at": entry.at, "actor": entry.actor, "address": entry.address,
        "action": entry.action, "subject": entry.subject, "outcome": entry.outcome.word(), "project": entry.project, "rule": entry.rule,
        "detail": entry.detail,
    })
}
