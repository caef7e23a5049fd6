//! `/projects/:id/registry/protection/tag/rules` (GitLab, "Container registry protection tag rules API").

use super::failure::{self, missing};
use super::page::{LONG, Page};
use super::visit::{Sent, Visit, number};
use crate::answer::{Stop, json};
use crate::service::Shared;
use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, patch};
use registry_rules::{ProjectId, TagRule};
use registry_store::{RuleChange, RuleFields};
use serde_json::{Value, json};

const WHAT: &str = "Protection Rule";
const PATTERN: &str = "tag_name_pattern";
const PUSH: &str = "minimum_access_level_for_push";
const DELETE: &str = "minimum_access_level_for_delete";

pub(super) fn router() -> Router<Shared> {
    let rules = "/api/v4/projects/{id}/registry/protection/tag/rules";
    let rule = "/api/v4/projects/{id}/registry/protection/tag/rules/{rule}";
    Router::new()
        .route(rules, get(list).post(create))
        .route(rule, patch(update).delete(remove))
}

fn shown(project: ProjectId, rule: &TagRule) -> Value {
    json!({
        "id": rule.id,
        "project_id": project,
        PATTERN: rule.pattern.as_str(),
        PUSH: rule.levels.map(|levels| levels.push.word()),
        DELETE: rule.levels.map(|levels| levels.delete.word()),
    })
}

async fn list(visit: Visit, Path(id): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Stop> {
    let (project, _) = visit.edited_project(&id).await?;
    let page = Page::read(query.as_deref(), &LONG)?;
    Ok(page.answer(project.tag_rules(), |rule| shown(project.id, rule)))
}

async fn create(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Result<Response, Stop> {
    let (project, _) = visit.edited_project(&id).await?;
    let fields = fields?;
    // Both levels have to be said, if only to be empty: an immutable rule is never made by leaving something out.
    let level = |name| fields.level(name)?.ok_or_else(|| missing(name));
    let wanted = RuleFields {
        pattern: fields.required(PATTERN)?,
        push: Some(level(PUSH)?),
        delete: Some(level(DELETE)?),
    };
    let created = visit.service.store.create_tag_rule(&visit.caller.name, project.id, &wanted).await;
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
    let updated = visit
        .service
        .store
        .update_tag_rule(&visit.caller.name, project.id, rule, &change)
        .await;
    let rule = updated.map_err(|failure| failure::rule(&visit.service, &failure))?;
    Ok(json(StatusCode::OK, &shown(project.id, &rule)))
}

async fn remove(visit: Visit, Path((id, rule)): Path<(String, String)>) -> Result<StatusCode, Stop> {
    let (project, _) = visit.edited_project(&id).await?;
    let rule = number(&rule, WHAT)?;
    let removed = visit.service.store.delete_tag_rule(&visit.caller.name, project.id, rule).await;
    removed.map_err(|failure| failure::rule(&visit.service, &failure))?;
    Ok(StatusCode::NO_CONTENT)
}
