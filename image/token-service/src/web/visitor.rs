//! The user behind a page, by the cookie of the session.

use super::answer::{forbidden, not_found, see, unavailable};
use super::cookie::Cookie;
use super::query::link;
use crate::answer::Stop;
use crate::authority::Authority;
use crate::clock::Now;
use crate::login::Caller;
use crate::peer::Peer;
use crate::service::Shared;
use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use registry_pages::{Section, Shell, SignedIn};
use registry_rules::{DeployScopes, Project};
use registry_store::{AuditEntry, AuditOutcome, Snapshot, UserId};
use std::sync::Arc;

/// The action of entries about edits that pages refused.
const ACTION: &str = "page";

/// Somebody who has signed in.
pub(super) struct Visitor {
    pub(super) service: Shared,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) caller: Caller,
    pub(super) now: Now,
    pub(super) administrator: bool,
    cookie: Cookie,
    peer: Peer,
    target: String,
}

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut Parts, service: &Shared) -> Result<Self, Stop> {
        let now = Now::read();
        let peer = *parts.extensions.get::<Peer>().ok_or_else(not_found)?;
        let cookie = Cookie::of(&parts.headers, service.settings.secure());
        let snapshot = service.store.current().await.map_err(|failure| unavailable(service, &failure))?;
        let user = cookie.as_ref().and_then(|cookie| cookie.user(&service.keys, &snapshot, now));
        let (Some(cookie), Some(user)) = (&cookie, user) else {
            // After a form the visitor starts again at the beginning: its path may have no page.
            let next = if parts.method == Method::GET {
                parts.uri.path_and_query().map_or("", |target| target.as_str())
            } else {
                ""
            };
            return Err(see(&link("/sign-in", &[("next", next)])).into());
        };
        Ok(Self {
            service: service.clone(),
            caller: Caller::of_user(user, DeployScopes { read: true, write: true }, true),
            administrator: user.administrator,
            now,
            cookie: cookie.clone(),
            peer,
            target: format!("{} {}", parts.method, parts.uri.path()),
            snapshot,
        })
    }
}

impl Visitor {
    /// The frame of a page for this visitor.
    pub(super) fn shell(&self, section: Section, notice: Option<&'static str>) -> Shell {
        Shell {
            user: Some(SignedIn {
                name: self.caller.name.clone(),
                administrator: self.administrator,
                audits: self.administrator || self.edited().next().is_some(),
                form_key: self.cookie.form_key(&self.service.keys),
            }),
            section,
            notice,
        }
    }

    /// Whether this visitor's page wrote the form with `key`.
    pub(super) fn wrote_form(&self, key: &str) -> bool {
        self.cookie.wrote_form(&self.service.keys, key)
    }

    pub(super) fn user(&self) -> UserId {
        self.caller.user()
    }

    pub(super) fn authority(&self, project: &Project) -> Authority {
        Authority::of(&self.snapshot, &self.caller, project)
    }

    /// The projects that the visitor maintains, in no order.
    pub(super) fn edited(&self) -> impl Iterator<Item = &Project> {
        self.snapshot.projects.iter().filter(|project| self.authority(project).edits())
    }

    /// The project with this number, if the visitor may see it.
    pub(super) fn project(&self, id: &str) -> Result<(&Project, Authority), Stop> {
        let project = number(id).and_then(|id| self.snapshot.projects.by_id(id).ok_or_else(not_found))?;
        let authority = self.authority(project);
        if authority.sees() {
            Ok((project, authority))
        } else {
            Err(not_found())
        }
    }

    /// The same, for those who edit.
    pub(super) async fn edited_project(&self, id: &str) -> Result<(&Project, Authority), Stop> {
        let (project, authority) = self.project(id)?;
        if authority.edits() {
            Ok((project, authority))
        } else {
            Err(self.refused("Only maintainers, owners and administrators do.").await)
        }
    }

    /// The same, for those who own.
    pub(super) async fn owned_project(&self, id: &str) -> Result<(&Project, Authority), Stop> {
        let (project, authority) = self.project(id)?;
        if authority.owns() {
            Ok((project, authority))
        } else {
            Err(self.refused("Only owners and administrators do.").await)
        }
    }

    /// 403, recorded.
    pub(super) async fn refused(&self, why: &str) -> Stop {
        let entry = AuditEntry {
            at: self.now.milliseconds(),
            actor: self.caller.name.clone(),
            address: self.peer.to_string(),
            action: ACTION.to_owned(),
            subject: self.target.clone(),
            outcome: AuditOutcome::Refused,
            detail: why.to_owned(),
            project: None,
            rule: None,
        };
        match self.service.store.record(entry).await {
            Ok(()) => forbidden(why),
            Err(failure) => unavailable(&self.service, &failure),
        }
    }
}

/// The number that a part of a path is.
pub(super) fn number(text: &str) -> Result<i64, Stop> {
    text.parse().map_err(|_| not_found())
}
