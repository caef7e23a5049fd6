//! What the REST API answers when it does not do what was asked.

use crate::answer::{Stop, json, message, reason};
use crate::journal;
use crate::service::Service;
use axum::http::StatusCode;
use registry_rules::RuleFault;
use registry_store::{EditError, StoreError};
use serde_json::json;

/// `400`, as the peer's parameter checks say it.
pub(super) fn invalid(text: &str) -> Stop {
    json(StatusCode::BAD_REQUEST, &json!({ "error": text })).into()
}

pub(super) fn missing(parameter: &str) -> Stop {
    invalid(&format!("{parameter} is missing"))
}

pub(super) fn unauthorized() -> Stop {
    message(StatusCode::UNAUTHORIZED, "401 Unauthorized").into()
}

pub(super) fn forbidden() -> Stop {
    message(StatusCode::FORBIDDEN, "403 Forbidden").into()
}

/// `what` as a heading: `Project`, `Protection Rule`.
pub(super) fn not_found(what: &str) -> Stop {
    message(StatusCode::NOT_FOUND, &format!("404 {what} Not Found")).into()
}

fn unprocessable(text: &str) -> Stop {
    json(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "message": { "error": text } })).into()
}

pub(super) fn unavailable(service: &Service, failure: &StoreError) -> Stop {
    service.metrics.unavailable();
    journal::warn(&reason(failure));
    message(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()).into()
}

/// Of an edit of a rule, where the peer counts a pattern that is taken among the invalid ones.
pub(super) fn rule(service: &Service, failure: &EditError) -> Stop {
    match failure {
        EditError::Taken(_) => unprocessable(&failure.to_string()),
        _ => edit(service, "Protection Rule", failure),
    }
}

/// Of an edit. `what` was to be edited.
pub(super) fn edit(service: &Service, what: &str, failure: &EditError) -> Stop {
    match failure {
        EditError::Store(failure) => unavailable(service, failure),
        EditError::NotFound(_) => not_found(what),
        EditError::Taken(_) => message(StatusCode::CONFLICT, &failure.to_string()).into(),
        EditError::Rule(faults) if faults.contains(&RuleFault::LevelUnknown) => invalid(&failure.to_string()),
        EditError::Rule(_) | EditError::TagRule(_) | EditError::Limit(_) | EditError::Invalid(_) => unprocessable(&failure.to_string()),
    }
}
