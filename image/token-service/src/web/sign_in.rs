//! `/sign-in` and `/sign-out`.

use super::answer::{busy, form_page, see, unavailable};
use super::cookie::{Cookie, removal};
use super::fields::Fields;
use super::form::{Submission, read};
use crate::answer::Stop;
use crate::clock::Now;
use crate::credentials::Credentials;
use crate::login::{LoginError, TOKEN_PREFIXES};
use crate::peer::Peer;
use crate::service::{Service, Shared};
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use registry_pages::{Field, Shell, SignIn};
use registry_store::{AuditEntry, AuditOutcome};

const ACTION: &str = "sign-in";
const WRONG: &str = "The user name or the password is wrong.";
const TOKEN: &str = "Tokens do not sign in here. Use the password.";
const BLOCKED: &str = "This user is blocked.";
const THROTTLED: &str = "Too many sign-ins have failed. Try again in a few minutes.";

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/sign-in", get(show).post(sign_in))
        .route("/sign-out", post(sign_out))
}

/// A path of this site, or the list of projects. Browsers drop tabs and line ends, so that `/` and a tab could become `//`.
fn next(text: &str) -> &str {
    let local =
        text.starts_with('/') && !text.starts_with("//") && !text.contains('\\') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if local { text } else { "/projects" }
}

fn form(name: &str, next: &str, refused: Option<&'static str>) -> Response {
    let view = SignIn {
        shell: Shell::default(),
        name: Field::new(name),
        next: next.to_owned(),
        refused,
    };
    form_page(refused.is_some(), &view)
}

async fn show(RawQuery(query): RawQuery) -> Response {
    let fields = Fields::parse(query.unwrap_or_default().as_bytes());
    form("", next(fields.get("next")), None)
}

async fn sign_in(
    State(service): State<Shared>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Stop> {
    let now = Now::read();
    let fields = read(&headers, body).await?;
    let (name, password, next) = (fields.trimmed("name"), fields.get("password"), next(fields.get("next")));
    if TOKEN_PREFIXES.iter().any(|prefix| password.starts_with(prefix)) {
        return Ok(form(name, next, Some(TOKEN)));
    }
    let login = service.login(&Credentials::login(name, password), peer, now).await;
    let (caller, snapshot) = match login {
        Ok(login) => login,
        Err(LoginError::Store(failure)) => return Err(unavailable(&service, &failure)),
        Err(LoginError::Busy) => return Err(busy()),
        Err(LoginError::Throttled) => {
            record(
                &service,
                String::new(),
                peer,
                now,
                AuditOutcome::Unauthorized,
                "too many failed logins",
            )
            .await?;
            return Ok(form(name, next, Some(THROTTLED)));
        }
        Err(LoginError::Denied(known)) => {
            record(
                &service,
                known.unwrap_or_default(),
                peer,
                now,
                AuditOutcome::Unauthorized,
                "wrong credentials",
            )
            .await?;
            return Ok(form(name, next, Some(WRONG)));
        }
    };
    let Some(user) = snapshot.user_by_id(caller.user()).filter(|user| !user.blocked) else {
        record(&service, caller.name, peer, now, AuditOutcome::Refused, "blocked").await?;
        return Ok(form(name, next, Some(BLOCKED)));
    };
    record(&service, user.name.clone(), peer, now, AuditOutcome::Granted, "").await?;
    let cookie = Cookie::new(&service.keys, user, now).and_then(|cookie| cookie.header(service.settings.secure()));
    Ok(with_cookie(see(next), cookie))
}

async fn sign_out(submission: Submission) -> Response {
    let secure = submission.visitor.service.settings.secure();
    with_cookie(see("/sign-in"), removal(secure))
}

fn with_cookie(mut answer: Response, cookie: Option<HeaderValue>) -> Response {
    if let Some(cookie) = cookie {
        answer.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    answer
}

async fn record(service: &Service, actor: String, peer: Peer, now: Now, outcome: AuditOutcome, detail: &str) -> Result<(), Stop> {
    let entry = AuditEntry {
        at: now.milliseconds(),
        actor,
        address: peer.to_string(),
        action: ACTION.to_owned(),
        subject: String::new(),
        outcome,
        detail: detail.to_owned(),
        project: None,
        rule: None,
    };
    service.store.record(entry).await.map_err(|failure| unavailable(service, &failure))
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn the_way_leads_to_no_other_site() {
        assert_eq!(next("/projects/5?rules=50"), "/projects/5?rules=50");
        for bad in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "projects",
            "/a\r\nb",
            "/\t/evil.example",
            "/\u{1}",
            "/ä",
        ] {
            assert_eq!(next(bad), "/projects", "{bad}");
        }
    }
}
