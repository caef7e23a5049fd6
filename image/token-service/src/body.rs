//! Bodies of requests, read whole within a limit of bytes and of time.

use crate::answer::{Stop, of_status};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a body may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a body says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Form,
    Json,
}

/// The kind by the one `Content-Type`.
pub(crate) fn kind(headers: &HeaderMap) -> Option<Kind> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = text.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Some(Kind::Form)
    } else if kind.eq_ignore_ascii_case("application/json") {
        Some(Kind::Json)
    } else {
        None
    }
}

/// The whole body. It may hold a password.
///
/// # Errors
/// 413 past `limit`, 408 past the deadline, 400 for one that breaks off.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Zeroizing<Vec<u8>>, Stop> {
    match tokio::time::timeout(DEADLINE, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(Zeroizing::new(bytes.into())),
        Ok(Err(error)) => {
            let too_large = std::error::Error::source(&error).is_some_and(|cause| cause.to_string() == "length limit exceeded");
            let status = if too_large {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            };
            Err(of_status(status).into())
        }
        Err(_) => Err(of_status(StatusCode::REQUEST_TIMEOUT).into()),
    }
}
