//! Answers in JSON: the errors of the token endpoint, as distribution writes them, and those of the REST API.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

/// Value of `Www-Authenticate` with every 401.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"casemate registry\"");

/// Codes of distribution's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Unauthorized,
    Denied,
    Unsupported,
    Unavailable,
    Invalid,
}

impl Code {
    fn word(self) -> &'static str {
        match self {
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Invalid => "INVALID",
        }
    }
}

/// A body in JSON that no cache keeps.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => bytes_of_json(status, bytes),
        Err(_) => bytes_of_json(
            StatusCode::INTERNAL_SERVER_ERROR,
            br#"{"message":"500 Internal Server Error"}"#.to_vec(),
        ),
    }
}

pub(crate) fn bytes_of_json(status: StatusCode, bytes: Vec<u8>) -> Response {
    let mut answer = Response::new(Body::from(bytes));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    answer
}

/// `{"errors":[{"code":…,"message":…}]}`, which clients of registries show.
pub(crate) fn error(status: StatusCode, code: Code, message: &str) -> Response {
    json(
        status,
        &json!({ "errors": [{ "code": code.word(), "message": message, "detail": null }] }),
    )
}

/// `{"message":…}`, as the REST API says it.
pub(crate) fn message(status: StatusCode, message: &str) -> Response {
    json(status, &json!({ "message": message }))
}

/// The message of an error and of everything that caused it.
pub(crate) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Gives an error without a body in JSON or HTML (the framework's own) one.
pub(crate) async fn never_empty(answer: Response) -> Response {
    let status = answer.status();
    if !status.is_client_error() && !status.is_server_error() {
        return answer;
    }
    let known = answer.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/json") || kind.starts_with(b"text/html")
    });
    if known {
        return answer;
    }
    let allow = answer.headers().get(header::ALLOW).cloned();
    let mut replaced = of_status(status);
    if let Some(allow) = allow {
        replaced.headers_mut().insert(header::ALLOW, allow);
    }
    replaced
}

/// An error that has no more to say than its status.
pub(crate) fn of_status(status: StatusCode) -> Response {
    let code = match status {
        StatusCode::UNAUTHORIZED => Code::Unauthorized,
        StatusCode::FORBIDDEN => Code::Denied,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        status if status.is_client_error() => Code::Unsupported,
        _ => Code::Invalid,
    };
    let text = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let body = json!({ "errors": [{ "code": code.word(), "message": text, "detail": null }], "message": text });
    json(status, &body)
}

/// What a handler gives back instead of its answer.
pub(crate) struct Stop(pub(crate) Box<Response>);

impl From<Response> for Stop {
    fn from(answer: Response) -> Self {
        Self(Box::new(answer))
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        *self.0
    }
}
