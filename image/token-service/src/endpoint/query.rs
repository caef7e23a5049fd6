//! `GET /jwt/auth` with a query and HTTP Basic.

use super::{TokenRequest, judge};
use crate::credentials::Credentials;
use crate::peer::Peer;
use crate::service::Shared;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use registry_rules::Scopes;

/// Most parameters that are looked at.
pub(super) const PARAMETERS_MAX: usize = 200;

pub(super) async fn handle(
    State(service): State<Shared>,
    Extension(peer): Extension<Peer>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = query.unwrap_or_default();
    let mut name = None;
    let mut scopes = Vec::new();
    // `account`, `client_id` and `offline_token` say nothing that is relied on: identity comes from the credentials.
    for (key, value) in form_urlencoded::parse(query.as_bytes()).take(PARAMETERS_MAX) {
        match &*key {
            "service" if name.is_none() => name = Some(value.into_owned()),
            "scope" => scopes.push(value),
            _ => {}
        }
    }
    let request = TokenRequest {
        service: name.unwrap_or_default(),
        scopes: Scopes::parse(scopes.iter().map(|scope| &**scope)),
        credentials: Credentials::basic(&headers),
        peer,
        repeats_scope: false,
    };
    judge(&service, request).await
}
