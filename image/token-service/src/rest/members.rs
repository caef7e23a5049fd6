//! `/projects/:id/members`: the direct members of a project (GitLab, "Project members API").

use super::failure::{edit, invalid, missing, not_found};
use super::fields::Fields;
use super::page::{Page, SHORT};
use super::visit::{Sent, Visit, number};
use crate::answer::{Stop, json, message};
use crate::authority::Authority;
use crate::service::Shared;
use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use registry_rules::{Project, Role};
use registry_store::{Holder, Snapshot, UserId};
use serde_json::{Value, json};

const WHAT: &str = "Member";
const LEVEL: &str = "access_level";

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/api/v4/projects/{id}/members", get(list).post(add))
        .route("/api/v4/projects/{id}/members/{user_id}", get(show).put(change).delete(remove))
}

/// The peer's numbers of roles.
fn access_level(role: Role) -> u32 {
    match role {
        Role::Guest => 10,
        Role::Reporter => 20,
        Role::Developer => 30,
        Role::Maintainer => 40,
        Role::Owner => 50,
    }
}

/// A role by the peer's number, or by its word.
fn role(fields: &Fields) -> Result<Role, Stop> {
    let text = fields.required(LEVEL)?;
    let by_number = Role::ALL.into_iter().find(|role| access_level(*role).to_string() == text);
    by_number
        .or_else(|| text.parse().ok())
        .ok_or_else(|| invalid("access_level does not have a valid value"))
}

fn shown(snapshot: &Snapshot, user: UserId, role: Role) -> Value {
    let name = snapshot.user_by_id(user).map(|user| user.name.as_str());
    json!({ "id": user, "username": name, LEVEL: access_level(role), "role": role.word() })
}

fn current(snapshot: &Snapshot, project: &Project, user: UserId) -> Option<Role> {
    let members = snapshot.members(Holder::Project(project.id));
    members.into_iter().find(|(id, _)| *id == user).map(|(_, role)| role)
}

async fn list(visit: Visit, Path(id): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Stop> {
    let (project, authority) = visit.project(&id)?;
    if !authority.belongs() {
        return Err(visit.refused("not a member").await);
    }
    let page = Page::read(query.as_deref(), &SHORT)?;
    let members = visit.snapshot.members(Holder::Project(project.id));
    Ok(page.answer(&members, |(user, role)| shown(&visit.snapshot, *user, *role)))
}

async fn show(visit: Visit, Path((id, user)): Path<(String, String)>) -> Result<Response, Stop> {
    let (project, authority) = visit.project(&id)?;
    if !authority.belongs() {
        return Err(visit.refused("not a member").await);
    }
    let user = number(&user, WHAT)?;
    let role = current(&visit.snapshot, project, user).ok_or_else(|| not_found(WHAT))?;
    Ok(json(StatusCode::OK, &shown(&visit.snapshot, user, role)))
}

async fn add(Path(id): Path<String>, Sent { visit, fields }: Sent) -> Result<Response, Stop> {
    let (project, authority) = visit.edited_project(&id).await?;
    let fields = fields?;
    let role = role(&fields)?;
    let user = match (fields.text("user_id")?, fields.text("username")?) {
        (Some(id), _) => id.parse().ok().and_then(|id| visit.snapshot.user_by_id(id)),
        (None, Some(name)) => visit.snapshot.user(&name),
        (None, None) => return Err(missing("user_id")),
    };
    let user = user.ok_or_else(|| not_found("User"))?.id;
    if current(&visit.snapshot, project, user).is_some() {
        return Err(message(StatusCode::CONFLICT, "Member already exists").into());
    }
    set(&visit, project, authority, user, role).await?;
    Ok(json(StatusCode::CREATED, &shown(&visit.snapshot, user, role)))
}

async fn change(Path((id, user)): Path<(String, String)>, Sent { visit, fields }: Sent) -> Result<Response, Stop> {
    let (project, authority) = visit.edited_project(&id).await?;
    let user = number(&user, WHAT)?;
    let fields = fields?;
    let role = role(&fields)?;
    let before = current(&visit.snapshot, project, user).ok_or_else(|| not_found(WHAT))?;
    if !authority.gives(before) {
        return Err(visit.refused("the member's role is above the caller's").await);
    }
    set(&visit, project, authority, user, role).await?;
    Ok(json(StatusCode::OK, &shown(&visit.snapshot, user, role)))
}

async fn set(visit: &Visit, project: &Project, authority: Authority, user: UserId, role: Role) -> Result<(), Stop> {
    if !authority.gives(role) {
        return Err(visit.refused("the role is above the caller's").await);
    }
    let holder = Holder::Project(project.id);
    let set = visit.service.store.set_member(&visit.caller.name, holder, user, Some(role)).await;
    set.map_err(|failure| edit(&visit.service, WHAT, &failure))
}

async fn remove(visit: Visit, Path((id, user)): Path<(String, String)>) -> Result<StatusCode, Stop> {
    let (project, authority) = visit.edited_project(&id).await?;
    let user = number(&user, WHAT)?;
    let before = current(&visit.snapshot, project, user).ok_or_else(|| not_found(WHAT))?;
    if !authority.gives(before) {
        return Err(visit.refused("the member's role is above the caller's").await);
    }
    let holder = Holder::Project(project.id);
    let removed = visit.service.store.set_member(&visit.caller.name, holder, user, None).await;
    removed.map_err(|failure| edit(&visit.service, WHAT, &failure))?;
    Ok(StatusCode::NO_CONTENT)
}
