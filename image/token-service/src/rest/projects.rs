//! `/projects`: those that the caller sees; administrators make them, owners change and remove them.

use super::failure::{edit, invalid};
use super::fields::Fields;
use super::page::{Page, SHORT};
use super::visit::{Sent, Visit};
use crate::answer::{Stop, json};
use crate::authority::Authority;
use crate::service::Shared;
use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use registry_rules::{Project, ProjectId, ProjectPath, Visibility};
use serde_json::{Value, json};

const WHAT: &str = "Project";
const PATH: &str = "path";
const VISIBILITY: &str = "visibility";

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v4/projects", get(list).post(create))
        .route("/api/v4/projects/{id}", get(show).put(update).patch(update).delete(remove))
}

fn shown(id: ProjectId, path: &str, visibility: Visibility) -> Value {
    let name = path.rsplit('/').next().unwrap_or(path);
    let visibility = match visibility {
        Visibility::Public => "public",
        Visibility::Private => "private",
    };
    json!({ "id": id, "name": name, "path": name, "path_with_namespace": path, VISIBILITY: visibility })
}

fn shown_project(project: &Project) -> Value {
    shown(project.id, project.path.as_str(), project.visibility)
}

fn visibility(fields: &Fields) -> Result<Option<Visibility>, Stop> {
    match fields.text(VISIBILITY)?.as_deref() {
        None => Ok(None),
        Some("public") => Ok(Some(Visibility::Public)),
        Some("private") => Ok(Some(Visibility::Private)),
        Some(_) => Err(invalid("visibility does not have a valid value")),
    }
}

async fn list(visit: Visit, RawQuery(query): RawQuery) -> Result<Response, Stop> {
    let page = Page::read(query.as_deref(), &SHORT)?;
    let seen = |project: &&Project| Authority::of(&visit.snapshot, &visit.caller, project).sees();
    let found = |project: &&Project| {
        page.search
            .as_ref()
            .is_none_or(|part| project.path.as_str().contains(part.as_str()))
    };
    let mut projects: Vec<&Project> = visit.snapshot.projects.iter().filter(found).filter(seen).collect();
    projects.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(page.answer(&projects, |project| shown_project(project)))
}

async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Stop> {
    let (project, _) = visit.project(&id)?;
    Ok(json(StatusCode::OK, &shown_project(project)))
}

async fn create(Sent { visit, fields }: Sent) -> Result<Response, Stop> {
    if !visit.administrator() {
        return Err(visit.refused("not an administrator").await);
    }
    let fields = fields?;
    let text = fields.required(PATH)?;
    let path: ProjectPath = text.parse().map_err(|fault| invalid(&format!("path is invalid: {fault}")))?;
    let visibility = visibility(&fields)?.unwrap_or(Visibility::Private);
    let created = visit.service.store.create_project(&visit.caller.name, &path, visibility).await;
    let id = created.map_err(|failure| edit(&visit.service, WHAT, &failure))?;
    Ok(json(StatusCode::CREATED, &shown(id, path.as_str(), visibility)))
}

async fn update(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Result<Response, Stop> {
    let (project, authority) = visit.project(&id)?;
    if !authority.owns() {
        return Err(visit.refused("not an owner").await);
    }
    let fields = fields?;
    let Some(visibility) = visibility(&fields)? else {
        return Err(invalid("visibility is missing"));
    };
    let set = visit.service.store.set_visibility(&visit.caller.name, project.id, visibility).await;
    set.map_err(|failure| edit(&visit.service, WHAT, &failure))?;
    Ok(json(StatusCode::OK, &shown(project.id, project.path.as_str(), visibility)))
}

async fn remove(visit: Visit, Path(id): Path<String>) -> Result<StatusCode, Stop> {
    let (project, authority) = visit.project(&id)?;
    if !authority.owns() {
        return Err(visit.refused("not an owner").await);
    }
    let removed = visit.service.store.delete_project(&visit.caller.name, project.id).await;
    removed.map_err(|failure| edit(&visit.service, WHAT, &failure))?;
    Ok(StatusCode::NO_CONTENT)
}
