//! `POST /jwt/auth` with an OAuth 2 form (distribution, "Token Authentication Specification: OAuth2").

use super::query::PARAMETERS_MAX;
use super::{TokenRequest, judge};
use crate::answer::{Code, error};
use crate::body;
use crate::credentials::Credentials;
use crate::peer::Peer;
use crate::service::Shared;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use registry_rules::Scopes;
use zeroize::Zeroizing;

/// Largest form in bytes.
const FORM_MAX_BYTES: usize = 1 << 16;

pub(super) async fn handle(State(service): State<Shared>, Extension(peer): Extension<Peer>, headers: HeaderMap, body: Body) -> Response {
    if body::kind(&headers) != Some(body::Kind::Form) {
        let text = "the body must be application/x-www-form-urlencoded";
        return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unsupported, text);
    }
    let text = match body::read(body, FORM_MAX_BYTES).await {
        Ok(text) => text,
        Err(stop) => return stop.into_response(),
    };
    match Form::read(&text) {
        Ok(form) => judge(&service, form.request(&headers, peer)).await,
        Err(message) => error(StatusCode::BAD_REQUEST, Code::Unsupported, message),
    }
}

/// The fields that count; the first of each, except for scopes.
#[derive(Default)]
struct Form {
    service: String,
    scopes: Vec<String>,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
}

impl Form {
    fn read(text: &[u8]) -> Result<Self, &'static str> {
        let mut form = Self::default();
        let mut grant = None;
        let mut service = None;
        for (key, value) in form_urlencoded::parse(text).take(PARAMETERS_MAX) {
            match &*key {
                "grant_type" => _ = grant.get_or_insert(value.into_owned()),
                "service" => _ = service.get_or_insert(value.into_owned()),
                "username" => _ = form.username.get_or_insert(value.into_owned()),
                "password" => _ = form.password.get_or_insert(Zeroizing::new(value.into_owned())),
                "scope" => form.scopes.push(value.into_owned()),
                _ => {}
            }
        }
        form.service = service.unwrap_or_default();
        match grant.as_deref() {
            Some("password") => Ok(form),
            // None is given out: clients that store one instead of the password can no longer log in by HTTP Basic.
            Some("refresh_token") => Err("refresh tokens are not issued here; use grant_type=password"),
            Some(_) => Err("the grant_type is not supported; use password"),
            None => Err("the grant_type is missing"),
        }
    }

    /// The credentials of the form, or those of the header where the form has none. Both or neither are wrong.
    fn request(self, headers: &HeaderMap, peer: Peer) -> TokenRequest {
        let credentials = match (Credentials::basic(headers), &self.username, &self.password) {
            (Credentials::None, Some(username), Some(password)) => Credentials::login(username, password),
            (header @ Credentials::Login { .. }, None, None) => header,
            _ => Credentials::Malformed,
        };
        TokenRequest {
            service: self.service,
            scopes: Scopes::parse(self.scopes.iter().map(String::as_str)),
            credentials,
            peer,
            repeats_scope: true,
        }
    }
}
