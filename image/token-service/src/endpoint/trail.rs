//! What the audit trail keeps of a request for a token.

use super::TokenRequest;
use crate::clock::Now;
use crate::login::Caller;
use registry_rules::{Decision, Refusal};
use registry_store::{AuditEntry, AuditOutcome};
use std::fmt::Write as _;

/// The action of every entry.
const ACTION: &str = "token";

/// The entry of a decision.
pub(super) fn decided(caller: &Caller, request: &TokenRequest, decision: &Decision, now: Now) -> AuditEntry {
    let mut detail = String::new();
    for outcome in &decision.outcomes {
        let role = outcome.role.map_or("no role", |role| role.word());
        // Writing to a String cannot fail.
        let _ = write!(detail, "asked {}, allowed {} ({role}); ", outcome.asked, Shown(&outcome.allowed));
    }
    let (project, rule) = match &decision.result {
        Ok(_) => (decision.outcomes.first().and_then(|outcome| outcome.project), None),
        Err(Refusal::Forbidden) => {
            detail.push_str("no right to the registry; ");
            (None, None)
        }
        Err(Refusal::Protected {
            action,
            repository,
            project,
            rule,
            level,
        }) => {
            let _ = write!(detail, "rule {rule} asks for {level} to {} {repository}; ", action.word());
            (Some(*project), Some(*rule))
        }
    };
    detail.truncate(detail.trim_end_matches("; ").len());
    let outcome = match &decision.result {
        Ok(_) => AuditOutcome::Granted,
        Err(_) => AuditOutcome::Refused,
    };
    AuditEntry {
        at: now.milliseconds(),
        actor: caller.name.clone(),
        address: request.peer.to_string(),
        action: ACTION.to_owned(),
        subject: subject(request, decision),
        outcome,
        detail,
        project,
        rule,
    }
}

/// The entry of credentials that were wrong.
pub(super) fn unauthorized(name: String, request: &TokenRequest, detail: &str, now: Now) -> AuditEntry {
    AuditEntry {
        at: now.milliseconds(),
        actor: name,
        address: request.peer.to_string(),
        action: ACTION.to_owned(),
        subject: request
            .scopes
            .iter()
            .next()
            .map(|scope| scope.resource.name().to_owned())
            .unwrap_or_default(),
        outcome: AuditOutcome::Unauthorized,
        detail: detail.to_owned(),
        project: None,
        rule: None,
    }
}

/// The repository that decided, or the first one; empty for a login.
fn subject(request: &TokenRequest, decision: &Decision) -> String {
    if let Err(Refusal::Protected { repository, .. }) = &decision.result {
        return repository.to_string();
    }
    let first = request.scopes.iter().next();
    first.map(|scope| scope.resource.name().to_owned()).unwrap_or_default()
}

/// Actions, or the word for none.
struct Shown<'a>(&'a registry_rules::Actions);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { f.write_str("nothing") } else { self.0.fmt(f) }
    }
}
