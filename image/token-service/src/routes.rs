//! Every path of the service, and the limits that hold for all of them.

use crate::answer::Code;
use crate::answer::{bytes_of_json, error, message, never_empty, of_status};
use crate::clock::Now;
use crate::service::Shared;
use crate::{endpoint, openapi, rest, web};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;

/// Longest path and query in bytes; a hundred scopes with the longest names are longer than anybody's.
const TARGET_MAX_BYTES: usize = 16 << 10;
/// Most bytes of all headers.
const HEADERS_MAX_BYTES: usize = 16 << 10;

/// The whole service.
pub(crate) fn router(service: Shared) -> Router {
    Router::new()
        .merge(endpoint::router())
        .merge(rest::router())
        .merge(web::router())
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route(
            "/openapi.json",
            get(|| async { bytes_of_json(StatusCode::OK, openapi::TEXT.as_bytes().to_vec()) }),
        )
        .fallback(|| async { of_status(StatusCode::NOT_FOUND) })
        .method_not_allowed_fallback(|| async { of_status(StatusCode::METHOD_NOT_ALLOWED) })
        .layer(middleware::map_response(never_empty))
        .layer(middleware::from_fn(limits))
        .with_state(service)
}

async fn limits(request: Request, next: Next) -> Response {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_MAX_BYTES {
        return of_status(StatusCode::URI_TOO_LONG);
    }
    let headers: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers > HEADERS_MAX_BYTES {
        return of_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    next.run(request).await
}

async fn health(State(service): State<Shared>) -> Response {
    match service.store.health().await {
        Ok(()) => message(StatusCode::OK, "ok"),
        Err(failure) => error(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, &failure.to_string()),
    }
}

async fn metrics(State(service): State<Shared>) -> Response {
    let mut answer = Response::new(service.metrics.text(&service.keys, Now::read()).into());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
