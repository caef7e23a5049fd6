//! `/projects/{id}/members`: roles are given, changed and taken.

use super::answer::{edit, not_found, see};
use super::confirm::{Question, ask};
use super::form::Submission;
use super::project::with_member_form;
use super::visitor::{Visitor, number};
use crate::answer::Stop;
use crate::authority::Authority;
use crate::service::Shared;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};
use registry_pages::{Field, MemberForm, Section};
use registry_rules::{Project, ProjectId, Role};
use registry_store::{EditError, Holder, UserId};

const REMOVE: Question = Question {
    question: "Remove this member?",
    consequence: "The user loses the role that this project gives. A role by a group above it stays.",
    button: "Remove the member",
};
const ABOVE: &str = "Nobody gives or takes a role above their own.";

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/projects/{id}/members", post(save))
        .route("/projects/{id}/members/{user}/remove", get(ask_remove).post(remove))
}

/// The role that the project itself gives.
fn direct(visitor: &Visitor, project: ProjectId, user: UserId) -> Option<Role> {
    let members = visitor.snapshot.members(Holder::Project(project));
    members.into_iter().find(|(id, _)| *id == user).map(|(_, role)| role)
}

async fn save(Path(id): Path<String>, Submission { visitor, fields }: Submission) -> Result<Response, Stop> {
    let (project, authority) = visitor.edited_project(&id).await?;
    let mut form = MemberForm {
        user: Field::new(fields.trimmed("user")),
        role: Field::new(fields.get("role")),
    };
    let user = visitor.snapshot.user(&form.user.value).map(|user| user.id);
    let role: Option<Role> = form.role.value.parse().ok();
    let (Some(user), Some(role)) = (user, role) else {
        if user.is_none() {
            form.user = form.user.wrong("There is no user with this name.");
        }
        if role.is_none() {
            form.role = form.role.wrong("Choose a role.");
        }
        return Ok(with_member_form(&visitor, project, authority, form));
    };
    let above = !authority.gives(role) || direct(&visitor, project.id, user).is_some_and(|before| !authority.gives(before));
    if above {
        form.role = form.role.wrong(ABOVE);
        return Ok(with_member_form(&visitor, project, authority, form));
    }
    let holder = Holder::Project(project.id);
    match visitor
        .service
        .store
        .set_member(&visitor.caller.name, holder, user, Some(role))
        .await
    {
        Ok(()) => Ok(see(&format!("/projects/{}?done=member-saved#members", project.id))),
        Err(failure @ (EditError::Limit(_) | EditError::Invalid(_))) => {
            form.user = form.user.wrong(failure.to_string());
            Ok(with_member_form(&visitor, project, authority, form))
        }
        Err(failure) => Err(edit(&visitor.service, &failure)),
    }
}

/// The member that a path names, whose role the visitor may take.
async fn member<'a>(visitor: &'a Visitor, id: &str, user: &str) -> Result<(&'a Project, UserId), Stop> {
    let (project, authority): (_, Authority) = visitor.edited_project(id).await?;
    let user = number(user)?;
    let role = direct(visitor, project.id, user).ok_or_else(not_found)?;
    if authority.gives(role) {
        Ok((project, user))
    } else {
        Err(visitor.refused(ABOVE).await)
    }
}

async fn ask_remove(visitor: Visitor, Path((id, user)): Path<(String, String)>) -> Result<Response, Stop> {
    let (project, user) = member(&visitor, &id, &user).await?;
    let name = visitor.snapshot.user_by_id(user).ok_or_else(not_found)?.name.clone();
    let page = format!("/projects/{}", project.id);
    let action = format!("{page}/members/{user}/remove");
    Ok(ask(&visitor, Section::Projects, &REMOVE, &name, action, format!("{page}#members")))
}

async fn remove(Path((id, user)): Path<(String, String)>, Submission { visitor, .. }: Submission) -> Result<Response, Stop> {
    let (project, user) = member(&visitor, &id, &user).await?;
    let holder = Holder::Project(project.id);
    let removed = visitor.service.store.set_member(&visitor.caller.name, holder, user, None).await;
    removed.map_err(|failure| edit(&visitor.service, &failure))?;
    Ok(see(&format!("/projects/{}?done=member-removed#members", project.id)))
}
