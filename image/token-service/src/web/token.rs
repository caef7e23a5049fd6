//! `/tokens` and `/projects/{id}/tokens`: personal tokens and deploy tokens are made, shown once and revoked.

use super::answer::{edit, form_page, not_found, page, see};
use super::confirm::{Question, ask};
use super::day;
use super::fields::Fields;
use super::form::Submission;
use super::project::with_token_form;
use super::token_rows::own_rows;
use super::visitor::{Visitor, number};
use crate::answer::Stop;
use crate::service::Shared;
use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use registry_pages::{Field, NewToken as NewTokenPage, Section, TokenForm, TokensPage};
use registry_rules::ProjectId;
use registry_store::{EditError, NewToken, TokenKind, TokenRecord};

/// Longest name of a token in characters.
const NAME_MAX: usize = 100;
const REVOKE: Question = Question {
    question: "Revoke this token?",
    consequence: "Whoever uses it gets no more access, from the next request on.",
    button: "Revoke the token",
};

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/tokens", get(own).post(create_own))
        .route("/tokens/{token}/revoke", get(ask_own).post(revoke_own))
        .route("/projects/{id}/tokens", post(create_deploy))
        .route("/projects/{id}/tokens/{token}/revoke", get(ask_deploy).post(revoke_deploy))
}

fn own_page(visitor: &Visitor, form: TokenForm, wrong: bool, notice: Option<&'static str>) -> Response {
    let view = TokensPage {
        shell: visitor.shell(Section::Tokens, notice),
        tokens: own_rows(visitor),
        token_form: form,
    };
    form_page(wrong, &view)
}

async fn own(visitor: Visitor, RawQuery(query): RawQuery) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    let notice = (fields.get("done") == "token-revoked").then_some("The token was revoked.");
    let form = TokenForm {
        read: true,
        ..TokenForm::default()
    };
    own_page(&visitor, form, false, notice)
}

/// What was typed, and the end of the new token. None, with faults in the form, where something is wrong.
fn read(visitor: &Visitor, fields: &Fields, personal: bool) -> (TokenForm, Option<Option<i64>>) {
    let mut form = TokenForm {
        name: Field::new(fields.trimmed("name")),
        login: Field::new(fields.trimmed("login")),
        read: fields.ticked("read"),
        write: fields.ticked("write"),
        api: personal && fields.ticked("api"),
        scopes: Field::default(),
        expires: Field::new(fields.trimmed("expires")),
    };
    let mut sound = true;
    let mut wrong = |field: &mut Field, fault: &str| {
        field.faults.push(fault.to_owned());
        sound = false;
    };
    if form.name.value.is_empty() || form.name.value.chars().nth(NAME_MAX).is_some() {
        wrong(&mut form.name, "A name has 1 to 100 characters.");
    }
    if !(form.read || form.write || form.api) {
        wrong(&mut form.scopes, "Choose what the token may do.");
    }
    let last_day = day::begins(&form.expires.value);
    let ends = last_day.map(|begins| begins + day::DAY);
    if last_day.is_none() && !form.expires.value.is_empty() {
        wrong(&mut form.expires, "This is no day; write it as 2026-12-31.");
    } else if ends.is_some_and(|end| end <= visitor.now.seconds()) {
        wrong(&mut form.expires, "This day is over.");
    }
    (form, sound.then_some(ends))
}

fn shown_once(visitor: &Visitor, section: Section, form: TokenForm, login: &str, secret: &str, back: String) -> Response {
    let view = NewTokenPage {
        shell: visitor.shell(section, None),
        name: form.name.value,
        login: login.to_owned(),
        secret: secret.to_owned(),
        back,
    };
    page(StatusCode::CREATED, &view)
}

async fn create_own(Submission { visitor, fields }: Submission) -> Result<Response, Stop> {
    let (mut form, sound) = read(&visitor, &fields, true);
    let Some(expires) = sound else {
        return Ok(own_page(&visitor, form, true, None));
    };
    let new = NewToken::Personal {
        user: visitor.user(),
        name: form.name.value.clone(),
        read: form.read,
        write: form.write,
        api: form.api,
        expires,
    };
    match visitor.service.store.create_token(&visitor.caller.name, &new).await {
        Ok((_, secret)) => {
            let login = visitor.caller.name.clone();
            Ok(shown_once(
                &visitor,
                Section::Tokens,
                form,
                &login,
                secret.expose(),
                "/tokens".to_owned(),
            ))
        }
        Err(failure @ (EditError::Taken(_) | EditError::Limit(_) | EditError::Invalid(_))) => {
            form.name = form.name.wrong(failure.to_string());
            Ok(own_page(&visitor, form, true, None))
        }
        Err(failure) => Err(edit(&visitor.service, &failure)),
    }
}

async fn create_deploy(Path(id): Path<String>, Submission { visitor, fields }: Submission) -> Result<Response, Stop> {
    let (project, authority) = visitor.edited_project(&id).await?;
    let (mut form, sound) = read(&visitor, &fields, false);
    let Some(expires) = sound else {
        return Ok(with_token_form(&visitor, project, authority, form));
    };
    let new = NewToken::Deploy {
        project: project.id,
        name: form.name.value.clone(),
        login: form.login.value.clone(),
        read: form.read,
        write: form.write,
        expires,
    };
    match visitor.service.store.create_token(&visitor.caller.name, &new).await {
        Ok((_, secret)) => {
            let back = format!("/projects/{}#deploy-tokens", project.id);
            let login = form.login.value.clone();
            Ok(shown_once(&visitor, Section::Projects, form, &login, secret.expose(), back))
        }
        Err(failure @ (EditError::Taken(_) | EditError::Limit(_) | EditError::Invalid(_))) => {
            form.login = form.login.wrong(failure.to_string());
            Ok(with_token_form(&visitor, project, authority, form))
        }
        Err(failure) => Err(edit(&visitor.service, &failure)),
    }
}

/// The visitor's own token with this number.
fn own_token<'a>(visitor: &'a Visitor, id: &str) -> Result<&'a TokenRecord, Stop> {
    let id = number(id)?;
    let own = |token: &&TokenRecord| token.id == id && matches!(token.kind, TokenKind::Personal { user, .. } if user == visitor.user());
    visitor.snapshot.tokens().find(own).ok_or_else(not_found)
}

fn deploy_token<'a>(visitor: &'a Visitor, of: ProjectId, id: &str) -> Result<&'a TokenRecord, Stop> {
    let id = number(id)?;
    let own = |token: &&TokenRecord| token.id == id && matches!(token.kind, TokenKind::Deploy { project, .. } if project == of);
    visitor.snapshot.tokens().find(own).ok_or_else(not_found)
}

async fn ask_own(visitor: Visitor, Path(token): Path<String>) -> Result<Response, Stop> {
    let token = own_token(&visitor, &token)?;
    let action = format!("/tokens/{}/revoke", token.id);
    Ok(ask(&visitor, Section::Tokens, &REVOKE, &token.name, action, "/tokens".to_owned()))
}

async fn revoke_own(Path(token): Path<String>, Submission { visitor, .. }: Submission) -> Result<Response, Stop> {
    let token = own_token(&visitor, &token)?.id;
    revoke(&visitor, token).await?;
    Ok(see("/tokens?done=token-revoked"))
}

async fn ask_deploy(visitor: Visitor, Path((id, token)): Path<(String, String)>) -> Result<Response, Stop> {
    let (project, _) = visitor.edited_project(&id).await?;
    let token = deploy_token(&visitor, project.id, &token)?;
    let page = format!("/projects/{}", project.id);
    let action = format!("{page}/tokens/{}/revoke", token.id);
    Ok(ask(
        &visitor,
        Section::Projects,
        &REVOKE,
        &token.name,
        action,
        format!("{page}#deploy-tokens"),
    ))
}

async fn revoke_deploy(Path((id, token)): Path<(String, String)>, Submission { visitor, .. }: Submission) -> Result<Response, Stop> {
    let (project, _) = visitor.edited_project(&id).await?;
    let token = deploy_token(&visitor, project.id, &token)?.id;
    revoke(&visitor, token).await?;
    Ok(see(&format!("/projects/{}?done=token-revoked#deploy-tokens", project.id)))
}

async fn revoke(visitor: &Visitor, token: i64) -> Result<(), Stop> {
    let revoked = visitor.service.store.revoke_token(&visitor.caller.name, token).await;
    revoked.map_err(|failure| edit(&visitor.service, &failure))
}
