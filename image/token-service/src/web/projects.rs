//! `/projects`: the list, and new ones by administrators.

use super::answer::{edit, form_page, page, see};
use super::fields::Fields;
use super::form::Submission;
use super::query::{PAGE, Slice, link};
use super::visitor::Visitor;
use crate::answer::Stop;
use crate::service::Shared;
use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use registry_pages::{Field, NewProject, ProjectRow, ProjectsPage, Section};
use registry_rules::{Project, ProjectPath, Roles as _, Visibility};
use registry_store::EditError;

const PATH: &str = "/projects";
const ADMINISTRATORS: &str = "Only administrators create projects.";

pub(super) fn router() -> Router<Shared> {
    Router::new().route(PATH, get(list).post(create)).route("/projects/new", get(blank))
}

async fn list(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    let search = fields.trimmed("search");
    let found = |project: &&Project| project.path.as_str().contains(search) && visitor.authority(project).sees();
    let mut projects: Vec<&Project> = visitor.snapshot.projects.iter().filter(found).collect();
    projects.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let slice = Slice::new(fields.get("from"), projects.len());
    let roles = visitor.snapshot.roles(visitor.user());
    let rows = projects.iter().skip(slice.start).take(PAGE).map(|project| ProjectRow {
        id: project.id,
        path: project.path.as_str().to_owned(),
        visibility: project.visibility,
        rules: project.rules().len(),
        role: roles.role_in(project.id),
    });
    let to = |start: usize| link(PATH, &[("search", search), ("from", &start.to_string())]);
    let notice = (fields.get("done") == "project-deleted").then_some("The project was deleted.");
    let view = ProjectsPage {
        shell: visitor.shell(Section::Projects, notice),
        search: search.to_owned(),
        rows: rows.collect(),
        found: projects.len(),
        earlier: slice.earlier.map(to),
        later: slice.later.map(to),
        may_create: visitor.administrator,
    };
    page(StatusCode::OK, &view)
}

async fn blank(visitor: Visitor) -> Result<Response, Stop> {
    if !visitor.administrator {
        return Err(visitor.refused(ADMINISTRATORS).await);
    }
    Ok(form(&visitor, Field::default(), Field::new("private")))
}

fn form(visitor: &Visitor, path: Field, visibility: Field) -> Response {
    let wrong = !(path.faults.is_empty() && visibility.faults.is_empty());
    let shell = visitor.shell(Section::Projects, None);
    form_page(wrong, &NewProject { shell, path, visibility })
}

/// Who may pull, by the word of a form.
pub(super) fn visibility(word: &str) -> Option<Visibility> {
    match word {
        "public" => Some(Visibility::Public),
        "private" => Some(Visibility::Private),
        _ => None,
    }
}

async fn create(Submission { visitor, fields }: Submission) -> Result<Response, Stop> {
    if !visitor.administrator {
        return Err(visitor.refused(ADMINISTRATORS).await);
    }
    let (path, chosen) = (Field::new(fields.trimmed("path")), Field::new(fields.get("visibility")));
    let Some(visibility) = visibility(&chosen.value) else {
        return Ok(form(&visitor, path, chosen.wrong("Choose private or public.")));
    };
    let parsed: ProjectPath = match path.value.parse() {
        Ok(parsed) => parsed,
        Err(fault) => return Ok(form(&visitor, path.wrong(format!("This is no path: {fault}.")), chosen)),
    };
    match visitor
        .service
        .store
        .create_project(&visitor.caller.name, &parsed, visibility)
        .await
    {
        Ok(id) => Ok(see(&format!("/projects/{id}?done=project-created"))),
        Err(failure @ (EditError::Taken(_) | EditError::Limit(_) | EditError::Invalid(_))) => {
            Ok(form(&visitor, path.wrong(failure.to_string()), chosen))
        }
        Err(failure) => Err(edit(&visitor.service, &failure)),
    }
}
