//! `/projects/{id}`: the page of a project, its visibility, and its end.

use super::answer::{bad_request, edit, form_page, see};
use super::confirm::{Question, ask};
use super::fields::Fields;
use super::form::Submission;
use super::people::Candidates;
use super::projects::visibility;
use super::query::{PAGE, Slice};
use super::token_rows::deploy_rows;
use super::visitor::Visitor;
use crate::answer::Stop;
use crate::authority::Authority;
use crate::service::Shared;
use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::response::Response;
use axum::routing::{get, post};
use registry_pages::{Field, MemberForm, MemberRow, ProjectPage, RuleRow, Section, TagRuleRow, TokenForm};
use registry_rules::{Action, Project, Roles as _, Rule, TagRule};
use registry_store::Holder;

const DELETE: Question = Question {
    question: "Delete this project?",
    consequence: "Its rules, members and deploy tokens go with it. Its repositories stay in the registry, and nobody gets tokens for \
                  them any more, unless a project above this one has them then.",
    button: "Delete the project",
};

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/projects/{id}", get(show))
        .route("/projects/{id}/visibility", post(set_visibility))
        .route("/projects/{id}/delete", get(ask_delete).post(delete))
}

/// What was done before this page, by the word in its address.
fn notice(word: &str) -> Option<&'static str> {
    Some(match word {
        "project-created" => "The project was created.",
        "visibility-saved" => "The visibility was saved.",
        "rule-saved" => "The rule was saved.",
        "rule-deleted" => "The rule was deleted.",
        "member-saved" => "The member was saved.",
        "member-removed" => "The member was removed.",
        "token-revoked" => "The token was revoked.",
        _ => return None,
    })
}

async fn show(visitor: Visitor, Path(id): Path<String>, RawQuery(query): RawQuery) -> Result<Response, Stop> {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    let (project, authority) = visitor.project(&id)?;
    let mut view = view(&visitor, project, authority, fields.get("rules"));
    view.shell.notice = notice(fields.get("done"));
    Ok(form_page(false, &view))
}

/// The page with a form for a member that has faults.
pub(super) fn with_member_form(visitor: &Visitor, project: &Project, authority: Authority, form: MemberForm) -> Response {
    let mut view = view(visitor, project, authority, "");
    view.member_form = form;
    form_page(true, &view)
}

/// The page with a form for a token that has faults.
pub(super) fn with_token_form(visitor: &Visitor, project: &Project, authority: Authority, form: TokenForm) -> Response {
    let mut view = view(visitor, project, authority, "");
    view.token_form = form;
    form_page(true, &view)
}

fn view(visitor: &Visitor, project: &Project, authority: Authority, rules_from: &str) -> ProjectPage {
    let snapshot = &visitor.snapshot;
    let mut candidates = Candidates::of(snapshot, project, visitor.now);
    let slice = Slice::new(rules_from, project.rules().len());
    let to = |start: usize| format!("/projects/{}?rules={start}#rules", project.id);
    let belongs = authority.belongs();
    let rules = project.rules().iter().skip(slice.start).take(PAGE).filter(|_| belongs);
    let mut row = |rule: &Rule| RuleRow {
        id: rule.id,
        pattern: rule.pattern.as_str().to_owned(),
        push: rule.push,
        delete: rule.delete,
        may_push: candidates.who(rule.push, Action::Push),
        may_delete: candidates.who(rule.delete, Action::Delete),
    };
    let tag_row = |rule: &TagRule| TagRuleRow {
        id: rule.id,
        pattern: rule.pattern.as_str().to_owned(),
        levels: rule.levels.map(|levels| (levels.push, levels.delete)),
    };
    ProjectPage {
        shell: visitor.shell(Section::Projects, None),
        id: project.id,
        path: project.path.as_str().to_owned(),
        visibility: project.visibility,
        role: snapshot.roles(visitor.user()).role_in(project.id),
        belongs,
        may_edit: authority.edits(),
        owns: authority.owns(),
        rules: rules.map(&mut row).collect(),
        rules_found: project.rules().len(),
        earlier: slice.earlier.map(to),
        later: slice.later.map(to),
        others_push: candidates.who(None, Action::Push),
        others_delete: candidates.who(None, Action::Delete),
        tag_rules: project.tag_rules().iter().filter(|_| belongs).map(tag_row).collect(),
        tag_rules_full: project.tag_rules().len() >= TagRule::MOST,
        members: if belongs { members(visitor, project) } else { Vec::new() },
        member_form: MemberForm {
            user: Field::default(),
            role: Field::new("developer"),
        },
        tokens: if authority.edits() {
            deploy_rows(visitor, project.id)
        } else {
            Vec::new()
        },
        token_form: TokenForm {
            read: true,
            ..TokenForm::default()
        },
    }
}

/// Members of the project, then those of the groups above it.
fn members(visitor: &Visitor, project: &Project) -> Vec<MemberRow> {
    let snapshot = &visitor.snapshot;
    let groups = snapshot
        .groups_above(project)
        .map(|group| (Holder::Group(group.id), Some(group.path.as_str())));
    let mut rows = Vec::new();
    for (holder, group) in [(Holder::Project(project.id), None)].into_iter().chain(groups) {
        let mut of_holder: Vec<MemberRow> = snapshot
            .members(holder)
            .into_iter()
            .filter_map(|(id, role)| {
                let user = snapshot.user_by_id(id)?;
                Some(MemberRow {
                    user: id,
                    name: user.name.clone(),
                    role,
                    group: group.map(str::to_owned),
                    blocked: user.blocked,
                })
            })
            .collect();
        of_holder.sort_by(|a, b| b.role.cmp(&a.role).then_with(|| a.name.cmp(&b.name)));
        rows.extend(of_holder);
    }
    rows
}

async fn set_visibility(Path(id): Path<String>, Submission { visitor, fields }: Submission) -> Result<Response, Stop> {
    let (project, _) = visitor.owned_project(&id).await?;
    let visibility = visibility(fields.get("visibility")).ok_or_else(|| bad_request("Choose private or public."))?;
    let set = visitor
        .service
        .store
        .set_visibility(&visitor.caller.name, project.id, visibility)
        .await;
    set.map_err(|failure| edit(&visitor.service, &failure))?;
    Ok(see(&format!("/projects/{}?done=visibility-saved", project.id)))
}

async fn ask_delete(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Stop> {
    let (project, _) = visitor.owned_project(&id).await?;
    let page = format!("/projects/{}", project.id);
    Ok(ask(
        &visitor,
        Section::Projects,
        &DELETE,
        project.path.as_str(),
        format!("{page}/delete"),
        page,
    ))
}

async fn delete(Path(id): Path<String>, Submission { visitor, .. }: Submission) -> Result<Response, Stop> {
    let (project, _) = visitor.owned_project(&id).await?;
    let deleted = visitor.service.store.delete_project(&visitor.caller.name, project.id).await;
    deleted.map_err(|failure| edit(&visitor.service, &failure))?;
    Ok(see("/projects?done=project-deleted"))
}
