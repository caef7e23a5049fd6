//! Answers to browsers: pages, redirects after an edit, and pages that say why there is nothing else.

use crate::answer::{Stop, reason};
use crate::journal;
use crate::service::Service;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use registry_pages::{Problem, Shell, Template};
use registry_store::{EditError, StoreError};

/// A page with its status.
pub(super) fn page(status: StatusCode, page: &impl Template) -> Response {
    let Ok(html) = page.render() else {
        // Writing to memory fails for no other reason than its end.
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut answer = Response::new(Body::from(html));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// A page that was filled in wrongly, or is shown for the first time.
pub(super) fn form_page(wrong: bool, form: &impl Template) -> Response {
    let status = if wrong { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    page(status, form)
}

/// The next page after an edit, fetched by GET so that reloading it repeats nothing.
pub(super) fn see(path: &str) -> Response {
    Redirect::to(path).into_response()
}

fn problem(status: StatusCode, title: &'static str, advice: &str) -> Stop {
    let view = Problem {
        shell: Shell::default(),
        status: status.as_u16(),
        title,
        advice: advice.to_owned(),
    };
    page(status, &view).into()
}

pub(super) fn not_found() -> Stop {
    let advice = "It was removed, it never existed, or you are no member of its project.";
    problem(StatusCode::NOT_FOUND, "There is nothing here", advice)
}

pub(super) fn forbidden(advice: &str) -> Stop {
    problem(StatusCode::FORBIDDEN, "You may not do this", advice)
}

pub(super) fn bad_request(advice: &str) -> Stop {
    problem(StatusCode::BAD_REQUEST, "The request is not valid", advice)
}

pub(super) fn busy() -> Stop {
    let advice = "Too many sign in at the moment. Try again in a few seconds.";
    problem(StatusCode::SERVICE_UNAVAILABLE, "The service is busy", advice)
}

/// The database does not answer. The reason goes to the journal, its summary to the reader.
pub(super) fn unavailable(service: &Service, failure: &StoreError) -> Stop {
    service.metrics.unavailable();
    journal::warn(&reason(failure));
    let advice = format!("Nothing was changed: {failure}. Try again later.");
    problem(StatusCode::SERVICE_UNAVAILABLE, "The service is not available", &advice)
}

/// Of an edit that no field of a form is to blame for.
pub(super) fn edit(service: &Service, failure: &EditError) -> Stop {
    match failure {
        EditError::Store(failure) => unavailable(service, failure),
        EditError::NotFound(_) => not_found(),
        _ => bad_request(&failure.to_string()),
    }
}

/// The style sheet, which belongs to a version of the program.
pub(super) async fn style() -> Response {
    let mut answer = Response::new(Body::from(registry_pages::STYLE));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
