//! `/projects/:id/registry/protection/repository/rules` (GitLab, "Container repository protection rules API").

use super::failure::{self, invalid};
use super::page::{LONG, Page};
use super::visit::{Sent, Visit, number};
use crate::answer::{Stop, json};
use crate::service::Shared;
use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, patch};
use registry_rules::{MinimumLevel, ProjectId, Rule};
use registry_store::{RuleChange, RuleFields};
use serde_json::{Value, json};

const WHAT: &str = "Protection Rule";
const PATTERN: &str = "repository_path_pattern";
const PUSH: &str = "minimum_access_level_for_push";
const DELETE: &str = "minimum_access_level_for_delete";

pub(super) fn router() -> Router<Shared> {
    let rules = "/api/v4/projects/{id}/registry/protection/repository/rules";
    let rule = "/api/v4/projects/{id}/registry/protection/repository/rules/{rule}";
    Router::new()
        .route(rules, get(list).post(create))
        .route(rule, patch(update).delete(remove))
}

fn shown(project: ProjectId, rule: &Rule) -> Value {
    json!({
        "id": rule.id,
        "project_id": project,
        PATTERN: rule.pattern.as_str(),
        PUSH: rule.push.map(MinimumLevel::word),
        DELETE: rule.delete.map(MinimumLevel::word),
    })
}

async fn list(visit: Visit, Path(id): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Stop> {
    let (project, _) = visit.edited_project(&id).await?;
    let page = Page::read(query.as_deref(), &LONG)?;
    Ok(page.answer(project.rules(), |rule| shown(project.id, rule)))
}

async fn create(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Result<Response, Stop> {
    let (project, _) = visit.edited_project(&id).await?;
    let fields = fields?;
    let wanted = RuleFields {
        pattern: fields.required(PATTERN)?,
        push: fields.level(PUSH)?,
        delete: fields.level(DELETE)?,
    };
    if wanted.push.is_none() && wanted.delete.is_none() {
        return Err(invalid(&format!(
            "{PUSH}, {DELETE} are missing, at least one parameter must be provided"
        )));
    }
    let created = visit.service.store.create_rule(&visit.caller.name, project.id, &wanted).await;
    let rule = created.map_err(|failure| failure::rule(&visit.service, &failure))?;
    Ok(json(StatusCode::CREATED, &shown(project.id, &rule)))
}

async fn update(Path((id, rule)): Path<(String, String)>, Sent { visit, fields }: Sent) -> Result<Response, Stop> {
    let (project, _) = visit.edited_project(&id).await?;
    let rule = number(&rule, WHAT)?;
    let fields = fields?;
    let change = RuleChange {
        pattern: fields.text(PATTERN)?,
        push: fields.level(PUSH)?,
        delete: fields.level(DELETE)?,
    };
    let updated = visit.service.store.update_rule(&visit.caller.name, project.id, rule, &change).await;
    let rule = updated.map_err(|failure| failure::rule(&visit.service, &failure))?;
    Ok(json(StatusCode::OK, &shown(project.id, &rule)))
}

async fn remove(visit: Visit, Path((id, rule)): Path<(String, String)>) -> Result<StatusCode, Stop> {
    let (project, _) = visit.edited_project(&id).await?;
    let rule = number(&rule, WHAT)?;
    let removed = visit.service.store.delete_rule(&visit.caller.name, project.id, rule).await;
    removed.map_err(|failure| failure::rule(&visit.service, &failure))?;
    Ok(StatusCode::NO_CONTENT)
}
