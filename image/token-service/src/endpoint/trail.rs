//! What the audit trail keeps of a request for a token.

use super::TokenRequest;
use crate::clock::Now;
use crate::login::Caller;
use registry_rules::{Decision, Outcome, Refusal};
use registry_store::{AuditEntry, AuditOutcome};

/// The action of every entry.
const ACTION: &str = "token";

/// The entries of a token: one for each repository on which it grants something, so that a project's trail has each of its own. A
/// token that grants nothing has one entry.
pub(super) fn granted(caller: &Caller, request: &TokenRequest, decision: &Decision, now: Now) -> Vec<AuditEntry> {
    let entry = |outcome: &Outcome| AuditEntry {
        subject: outcome.asked.resource.name().to_owned(),
        detail: detail(outcome),
        project: outcome.project,
        ..blank(caller.name.clone(), request, AuditOutcome::Granted, now)
    };
    let allowed: Vec<AuditEntry> = decision
        .outcomes
        .iter()
        .filter(|outcome| !outcome.allowed.is_empty())
        .map(entry)
        .collect();
    if !allowed.is_empty() {
        return allowed;
    }
    let first = decision.outcomes.first().map(entry);
    vec![first.unwrap_or_else(|| blank(caller.name.clone(), request, AuditOutcome::Granted, now))]
}

/// The entry of a request that was refused.
pub(super) fn refused(caller: &Caller, request: &TokenRequest, decision: &Decision, refusal: &Refusal, now: Now) -> AuditEntry {
    let blank = blank(caller.name.clone(), request, AuditOutcome::Refused, now);
    match refusal {
        Refusal::Forbidden => AuditEntry {
            subject: first_name(request),
            detail: "no right to the registry".to_owned(),
            ..blank
        },
        Refusal::Protected {
            action,
            repository,
            project,
            rule,
            level,
        } => {
            let asked = decision.outcomes.last().map(detail).unwrap_or_default();
            AuditEntry {
                subject: repository.to_string(),
                detail: format!("{asked}; rule {rule} asks for {level} to {}", action.word()),
                project: Some(*project),
                rule: Some(*rule),
                ..blank
            }
        }
    }
}

fn detail(outcome: &Outcome) -> String {
    let role = outcome.role.map_or("no role", |role| role.word());
    format!("asked {}, allowed {} ({role})", outcome.asked, Shown(&outcome.allowed))
}

fn blank(actor: String, request: &TokenRequest, outcome: AuditOutcome, now: Now) -> AuditEntry {
    AuditEntry {
        at: now.milliseconds(),
        actor,
        address: request.peer.to_string(),
        action: ACTION.to_owned(),
        subject: String::new(),
        outcome,
        detail: String::new(),
        project: None,
        rule: None,
    }
}

/// The entry of credentials that were wrong.
pub(super) fn unauthorized(name: String, request: &TokenRequest, detail: &str, now: Now) -> AuditEntry {
    AuditEntry {
        subject: first_name(request),
        detail: detail.to_owned(),
        ..blank(name, request, AuditOutcome::Unauthorized, now)
    }
}

/// The first repository of the request; empty for a login.
fn first_name(request: &TokenRequest) -> String {
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
