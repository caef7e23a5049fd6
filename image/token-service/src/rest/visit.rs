//! One request of the REST API: who sends it, and to which project.

use super::failure::{forbidden, not_found, unauthorized, unavailable};
use super::fields::Fields;
use crate::answer::{Stop, message};
use crate::authority::Authority;
use crate::clock::Now;
use crate::credentials::Credentials;
use crate::endpoint::{BUSY, TOO_MANY_FAILURES};
use crate::login::{Caller, CallerKind, LoginError};
use crate::peer::Peer;
use crate::service::{Service, Shared};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use registry_rules::Project;
use registry_store::{AuditEntry, AuditOutcome, Snapshot};
use std::sync::Arc;

/// The action of entries about requests that the API refused. What it changes, the store records.
const ACTION: &str = "api";

/// A request by a user who may use the API.
pub(super) struct Visit {
    pub(super) service: Shared,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) caller: Caller,
    peer: Peer,
    target: String,
}

impl FromRequestParts<Shared> for Visit {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut Parts, service: &Shared) -> Result<Self, Stop> {
        let now = Now::read();
        let peer = *parts.extensions.get::<Peer>().ok_or_else(unauthorized)?;
        let target = format!("{} {}", parts.method, parts.uri.path());
        let credentials = Credentials::rest(&parts.headers);
        let login = service.login(&credentials, peer, now).await;
        let (caller, snapshot) = match login {
            Ok(login) => login,
            Err(LoginError::Store(failure)) => return Err(unavailable(service, &failure)),
            Err(LoginError::Busy) => return Err(message(StatusCode::SERVICE_UNAVAILABLE, BUSY).into()),
            Err(LoginError::Throttled) => return Err(message(StatusCode::FORBIDDEN, TOO_MANY_FAILURES).into()),
            Err(LoginError::Denied(name)) => {
                let name = name.unwrap_or_default();
                record(service, name, peer, target, AuditOutcome::Unauthorized, "wrong credentials").await?;
                return Err(unauthorized());
            }
        };
        let visit = Self {
            service: service.clone(),
            snapshot,
            caller,
            peer,
            target,
        };
        match visit.caller.kind {
            CallerKind::Anonymous => Err(unauthorized()),
            CallerKind::User {
                blocked: false, api: true, ..
            } => Ok(visit),
            _ => Err(visit.refused("these credentials do not use the API").await),
        }
    }
}

/// A request with a body.
pub(super) struct Sent {
    pub(super) visit: Visit,
    /// The fields, or what is wrong with the body, which is told after what is wrong with the request.
    pub(super) fields: Result<Fields, Stop>,
}

impl FromRequest<Shared> for Sent {
    type Rejection = Stop;

    async fn from_request(request: Request, service: &Shared) -> Result<Self, Stop> {
        let (mut parts, body) = request.into_parts();
        // The body first, however long it takes: who sends it is asked when it can be acted on.
        let fields = Fields::read(&parts.headers, body).await;
        let visit = Visit::from_request_parts(&mut parts, service).await?;
        Ok(Self { visit, fields })
    }
}

impl Visit {
    /// The project that a path names by its number or its encoded full path, if the caller may see it.
    pub(super) fn project(&self, name: &str) -> Result<(&Project, Authority), Stop> {
        let projects = &self.snapshot.projects;
        let project = match name.parse() {
            Ok(id) => projects.by_id(id),
            Err(_) => projects.by_path(name),
        };
        let project = project.ok_or_else(|| not_found("Project"))?;
        let authority = Authority::of(&self.snapshot, &self.caller, project);
        if authority.sees() {
            Ok((project, authority))
        } else {
            Err(not_found("Project"))
        }
    }

    /// The same, for those who edit.
    pub(super) async fn edited_project(&self, name: &str) -> Result<(&Project, Authority), Stop> {
        let (project, authority) = self.project(name)?;
        if authority.edits() {
            Ok((project, authority))
        } else {
            Err(self.refused("below maintainer").await)
        }
    }

    pub(super) fn administrator(&self) -> bool {
        matches!(self.caller.kind, CallerKind::User { administrator: true, .. })
    }

    /// 403, recorded.
    pub(super) async fn refused(&self, why: &str) -> Stop {
        let (name, target) = (self.caller.name.clone(), self.target.clone());
        match record(&self.service, name, self.peer, target, AuditOutcome::Refused, why).await {
            Ok(()) => forbidden(),
            Err(stop) => stop,
        }
    }
}

async fn record(service: &Service, actor: String, peer: Peer, target: String, outcome: AuditOutcome, why: &str) -> Result<(), Stop> {
    let entry = AuditEntry {
        at: Now::read().milliseconds(),
        actor,
        address: peer.to_string(),
        action: ACTION.to_owned(),
        subject: target,
        outcome,
        detail: why.to_owned(),
        project: None,
        rule: None,
    };
    service.store.record(entry).await.map_err(|failure| unavailable(service, &failure))
}

/// The number that the last part of a path is.
pub(super) fn number(text: &str, what: &str) -> Result<i64, Stop> {
    text.parse().map_err(|_| not_found(what))
}
