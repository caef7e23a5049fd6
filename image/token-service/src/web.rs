//! The web pages: requests of browsers become views, and forms become edits.
//!
//! A page is for a [`visitor::Visitor`], whom a sealed cookie names; an edit is for a [`form::Submission`], which is a visitor
//! with a form that this service wrote for it. Without one of these a handler cannot be called. What they may do is decided by
//! [`crate::authority`] and by the rules, as for every other client.

mod answer;
mod audit;
mod confirm;
mod cookie;
mod day;
mod fields;
mod form;
mod member;
mod people;
mod project;
mod projects;
mod query;
mod rule;
mod sign_in;
mod token;
mod token_rows;
mod visitor;
mod what_if;

use crate::service::Shared;
use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::{Redirect, Response};
use axum::routing::get;

/// No script, nothing from elsewhere, forms to this service alone, and no frame around it.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The pages' paths.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(|| async { Redirect::to("/projects") }))
        .merge(sign_in::router())
        .merge(projects::router())
        .merge(project::router())
        .merge(rule::router())
        .merge(member::router())
        .merge(token::router())
        .merge(what_if::router())
        .merge(audit::router())
        .layer(middleware::map_response(guarded))
        // A style sheet may be kept by caches, so it stays outside.
        .route("/style.css", get(answer::style))
}

/// The headers that every page has.
async fn guarded(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Not `no-referrer`: with it browsers hide the origin of a form from its own site too.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    answer
}
