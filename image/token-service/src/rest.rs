//! The REST API under `/api/v4`, in the peer's paths, shapes and texts: projects, members, protection rules and tag rules.

mod failure;
mod fields;
mod members;
mod page;
mod projects;
mod rules;
mod tag_rules;
mod visit;

use crate::service::Shared;
use axum::Router;

pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .merge(projects::router())
        .merge(members::router())
        .merge(rules::router())
        .merge(tag_rules::router())
}
