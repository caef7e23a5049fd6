//! `/audit`: the audit trail, for administrators whole, for maintainers of one of their projects at a time.

use super::answer::{form_page, unavailable};
use super::day;
use super::fields::Fields;
use super::query::{PAGE, link};
use super::visitor::Visitor;
use crate::answer::Stop;
use crate::service::Shared;
use axum::Router;
use axum::extract::RawQuery;
use axum::response::Response;
use axum::routing::get;
use registry_pages::{Audit, AuditQuery, AuditRow, Field, Section};
use registry_rules::{Project, ProjectId};
use registry_store::{AuditFilter, AuditRecord};

const PATH: &str = "/audit";

pub(super) fn router() -> Router<Shared> {
    Router::new().route(PATH, get(show))
}

async fn show(visitor: Visitor, RawQuery(query): RawQuery) -> Result<Response, Stop> {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    let mut query = typed(&fields);
    let projects = own_projects(&visitor);
    if !visitor.administrator && projects.is_empty() {
        return Err(visitor.refused("Only administrators and maintainers read the audit trail.").await);
    }
    if !visitor.administrator && query.project.value.is_empty() {
        query.project = Field::new(projects.first().map_or("", |(path, _)| path));
    }
    let before = fields.get("before").parse().ok();
    let filter = filter(&visitor, &mut query, before);
    let wrong = filter.is_none();
    let mut records = match filter {
        Some(filter) => {
            let found = visitor.service.store.audit(&filter).await;
            found.map_err(|failure| unavailable(&visitor.service, &failure))?
        }
        None => Vec::new(),
    };
    let more = records.len() > PAGE;
    records.truncate(PAGE);
    let last = records.last().filter(|_| more).map(|record| record.id);
    let view = Audit {
        shell: visitor.shell(Section::Audit, None),
        rows: records.iter().map(row).collect(),
        newest: before.map(|_| address(&query, None)),
        older: last.map(|last| address(&query, Some(last))),
        own_projects: (!visitor.administrator).then(|| projects.into_iter().map(|(path, _)| path).collect()),
        query,
    };
    Ok(form_page(wrong, &view))
}

/// The paths of the projects that the visitor maintains; nobody needs them who may see all.
fn own_projects(visitor: &Visitor) -> Vec<(String, ProjectId)> {
    if visitor.administrator {
        return Vec::new();
    }
    let mut projects: Vec<_> = visitor
        .edited()
        .map(|project| (project.path.as_str().to_owned(), project.id))
        .collect();
    projects.sort_unstable();
    projects
}

fn typed(fields: &Fields) -> AuditQuery {
    let field = |name| Field::new(fields.trimmed(name));
    AuditQuery {
        actor: field("actor"),
        action: field("action"),
        subject: field("subject"),
        project: field("project"),
        outcome: field("outcome"),
        since: field("since"),
        until: field("until"),
    }
}

/// The filter; none, with faults in the query, where a field cannot be read.
fn filter(visitor: &Visitor, query: &mut AuditQuery, before: Option<i64>) -> Option<AuditFilter> {
    let text = |field: &Field| (!field.value.is_empty()).then(|| field.value.clone());
    let day = |field: &mut Field| {
        let begins = day::begins(&field.value);
        if begins.is_none() && !field.value.is_empty() {
            field.faults.push("This is no day; write it as 2026-12-31.".to_owned());
        }
        begins
    };
    let since = day(&mut query.since);
    let until = day(&mut query.until).map(|begins| begins + day::DAY);
    let project = visitor
        .snapshot
        .projects
        .by_path(&query.project.value)
        .filter(|project| visitor.authority(project).edits());
    if project.is_none() && !query.project.value.is_empty() {
        query.project.faults.push("There is no such project that you maintain.".to_owned());
    }
    let outcome = text(&query.outcome).map(|word| word.parse());
    if matches!(outcome, Some(Err(_))) {
        query.outcome.faults.push("Choose an outcome.".to_owned());
    }
    let fields = [&query.since, &query.until, &query.project, &query.outcome];
    if fields.iter().any(|field| !field.faults.is_empty()) {
        return None;
    }
    let project = project.map(|project: &Project| project.id);
    // Whoever is no administrator sees one project, and never all.
    if project.is_none() && !visitor.administrator {
        return None;
    }
    Some(AuditFilter {
        actor: text(&query.actor),
        action: text(&query.action),
        subject: text(&query.subject),
        outcome: outcome.and_then(Result::ok),
        project,
        since: since.map(|seconds| seconds * 1000),
        until: until.map(|seconds| seconds * 1000),
        before,
        limit: u32::try_from(PAGE + 1).ok()?,
    })
}

fn address(query: &AuditQuery, before: Option<i64>) -> String {
    let before = before.map(|id| id.to_string()).unwrap_or_default();
    link(
        PATH,
        &[
            ("actor", &query.actor.value),
            ("action", &query.action.value),
            ("subject", &query.subject.value),
            ("project", &query.project.value),
            ("outcome", &query.outcome.value),
            ("since", &query.since.value),
            ("until", &query.until.value),
            ("before", &before),
        ],
    )
}

fn row(record: &AuditRecord) -> AuditRow {
    let entry = &record.entry;
    let (time, machine_time) = day::time(entry.at);
    AuditRow {
        time,
        machine_time,
        actor: entry.actor.clone(),
        address: entry.address.clone(),
        action: entry.action.clone(),
        subject: entry.subject.clone(),
        outcome: entry.outcome.word(),
        detail: entry.detail.clone(),
    }
}
