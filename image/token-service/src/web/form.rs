//! A form that this service wrote, and a browser sent back.

use super::answer::{bad_request, forbidden};
use super::fields::Fields;
use super::visitor::Visitor;
use crate::answer::Stop;
use crate::body;
use crate::service::Shared;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::{HeaderMap, header};

/// Largest form in bytes.
const MAX_BYTES: usize = 1 << 16;

/// What a visitor sent.
pub(super) struct Submission {
    pub(super) visitor: Visitor,
    pub(super) fields: Fields,
}

impl FromRequest<Shared> for Submission {
    type Rejection = Stop;

    async fn from_request(request: Request, service: &Shared) -> Result<Self, Stop> {
        let (mut parts, body) = request.into_parts();
        // The body first, however long it takes: who sends it is asked when it can be acted on.
        let fields = read(&parts.headers, body).await;
        let visitor = Visitor::from_request_parts(&mut parts, service).await?;
        let fields = fields?;
        if visitor.wrote_form(fields.get("form_key")) {
            Ok(Self { visitor, fields })
        } else {
            Err(forbidden(
                "The form is out of date. Go back, load its page again, and send it once more.",
            ))
        }
    }
}

/// The fields of a form that a page of this site sent, whoever is in front of it.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Fields, Stop> {
    if !from_here(headers) {
        return Err(forbidden("The form was sent by a page of another site."));
    }
    if body::kind(headers) != Some(body::Kind::Form) {
        return Err(bad_request("It is not a form."));
    }
    let text = body::read(body, MAX_BYTES).await?;
    Ok(Fields::parse(&text))
}

/// Whether the browser says that the form comes from this site: by `Sec-Fetch-Site` where it sends that (over TLS and on
/// loopback), else by `Origin`. Programs that send neither carry no cookie that they did not ask for.
fn from_here(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = text(header::ORIGIN.as_str()) else { return true };
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    host.is_some() && host == text(header::HOST.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_other_sites_are_known() {
        for (pairs, here) in [
            (vec![("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "none")], true),
            (vec![("sec-fetch-site", "same-site")], false),
            (vec![("sec-fetch-site", "cross-site"), ("origin", "http://a"), ("host", "a")], false),
            (vec![("origin", "https://a:5001"), ("host", "a:5001")], true),
            (vec![("origin", "https://b"), ("host", "a")], false),
            (vec![("origin", "null"), ("host", "null")], false),
            (vec![("origin", "https://a")], false),
            (vec![("host", "a")], true),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in &pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            assert_eq!(from_here(&headers), here, "{pairs:?}");
        }
    }
}
