//! The token endpoint, `/jwt/auth`: a query or a form becomes a request, which is judged, recorded and only then answered.

mod claims;
mod form;
mod query;
mod trail;

use crate::answer::{Code, Stop, bytes_of_json, error, reason};
use crate::clock::Now;
use crate::credentials::Credentials;
use crate::journal;
use crate::login::{Caller, LoginError};
use crate::peer::Peer;
use crate::service::{Service, Shared};
use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use registry_rules::{Decision, Scopes, decide};
use registry_store::{AuditOutcome, Snapshot, StoreError};

/// The answer to credentials that are wrong, as GitLab gives it.
pub(crate) const ACCESS_DENIED: &str = "HTTP Basic: Access denied";
/// The answer to those who guess, as GitLab gives it.
pub(crate) const TOO_MANY_FAILURES: &str = "Access denied: too many failed authentication attempts from this network";
/// The answer while too many passwords wait to be checked.
pub(crate) const BUSY: &str = "too many logins at once, try again";

pub(crate) fn router() -> Router<Shared> {
    Router::new().route("/jwt/auth", get(query::handle).post(form::handle))
}

/// A request for a token.
struct TokenRequest {
    service: String,
    scopes: Scopes,
    credentials: Credentials,
    peer: Peer,
    /// The answer repeats what was granted (OAuth 2, RFC 6749 section 5.1).
    repeats_scope: bool,
}

async fn judge(service: &Service, request: TokenRequest) -> Response {
    match answer(service, request).await {
        Ok(answer) => answer,
        Err(Stop(answer)) => *answer,
    }
}

async fn answer(service: &Service, request: TokenRequest) -> Result<Response, Stop> {
    let now = Now::read();
    if !service.settings.services.contains(&request.service) {
        return Err(error(StatusCode::NOT_FOUND, Code::Unsupported, "the service is not known here").into());
    }
    let (caller, snapshot) = match service.login(&request.credentials, request.peer, now).await {
        Ok(login) => login,
        Err(refusal) => return Err(refused_login(service, &request, refusal, now).await.into()),
    };
    let decision = decide_for(&snapshot, &caller, &request.scopes);
    match &decision.result {
        Ok(granted) => {
            let claims = claims::Claims::new(service, &caller, &request.service, granted, now);
            let token = claims
                .and_then(|claims| claims.sign(service))
                .map_err(|failure| unavailable(service, &failure))?;
            let entries = trail::granted(&caller, &request, &decision, now);
            service
                .store
                .record_all(entries)
                .await
                .map_err(|failure| unrecorded(service, &failure))?;
            service.metrics.decided(AuditOutcome::Granted);
            let scope = request.repeats_scope.then_some(granted.as_slice());
            Ok(claims::answer(&token, service.settings.token_lifetime, now, scope))
        }
        Err(refusal) => {
            let entry = trail::refused(&caller, &request, &decision, refusal, now);
            service.store.record(entry).await.map_err(|failure| unrecorded(service, &failure))?;
            service.metrics.decided(AuditOutcome::Refused);
            Err(error(StatusCode::FORBIDDEN, Code::Denied, refusal.message()).into())
        }
    }
}

/// The decision on a caller's scopes, by the state of the database that the snapshot is.
pub(crate) fn decide_for(snapshot: &Snapshot, caller: &Caller, scopes: &Scopes) -> Decision {
    let roles = snapshot.roles(caller.user());
    decide(&snapshot.projects, &caller.principal(&roles), scopes)
}

async fn refused_login(service: &Service, request: &TokenRequest, refusal: LoginError, now: Now) -> Response {
    let (status, code, message, detail, name) = match refusal {
        LoginError::Store(failure) => return unrecorded(service, &failure),
        LoginError::Busy => return error(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, BUSY),
        LoginError::Throttled => (
            StatusCode::FORBIDDEN,
            Code::Denied,
            TOO_MANY_FAILURES,
            "too many failed logins",
            None,
        ),
        LoginError::Denied(name) => (
            StatusCode::UNAUTHORIZED,
            Code::Unauthorized,
            ACCESS_DENIED,
            "wrong credentials",
            name,
        ),
    };
    let entry = trail::unauthorized(name.unwrap_or_default(), request, detail, now);
    if let Err(failure) = service.store.record(entry).await {
        return unrecorded(service, &failure);
    }
    service.metrics.decided(AuditOutcome::Unauthorized);
    error(status, code, message)
}

/// The answer while the database does not work; nothing was granted.
fn unrecorded(service: &Service, failure: &StoreError) -> Response {
    service.metrics.unavailable();
    journal::warn(&reason(failure));
    error(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, &failure.to_string())
}

fn unavailable(service: &Service, failure: &claims::ClaimsError) -> Response {
    service.metrics.unavailable();
    journal::warn(&reason(failure));
    error(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "no token can be signed now")
}

/// The body of a granted answer.
fn granted(body: Vec<u8>) -> Response {
    bytes_of_json(StatusCode::OK, body)
}
