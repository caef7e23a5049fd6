//! What a request says about who sends it, before anything of it is believed.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use std::fmt;
use zeroize::Zeroizing;

/// Longest header in bytes: a name and a password, or a token, in base64.
const HEADER_MAX_BYTES: usize = 1024;

/// Credentials as they were given.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// None at all.
    None,
    /// A name with a password or a token.
    Login { name: String, secret: Zeroizing<String> },
    /// A token alone (REST).
    Token(Zeroizing<String>),
    /// Something that is none of these. It is wrong, and never nobody.
    Malformed,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "Credentials::None",
            Self::Login { .. } => "Credentials::Login(hidden)",
            Self::Token(_) => "Credentials::Token(hidden)",
            Self::Malformed => "Credentials::Malformed",
        })
    }
}

impl Credentials {
    /// `Authorization: Basic` (RFC 7617) and nothing else.
    pub(crate) fn basic(headers: &HeaderMap) -> Self {
        match authorization(headers) {
            Ok(None) => Self::None,
            Ok(Some((scheme, value))) if scheme.eq_ignore_ascii_case("basic") => Self::of_basic(value),
            _ => Self::Malformed,
        }
    }

    /// What the REST API takes: `PRIVATE-TOKEN`, `Authorization: Bearer` or `Authorization: Basic`, one of them.
    pub(crate) fn rest(headers: &HeaderMap) -> Self {
        let mut private = headers.get_all("private-token").iter();
        match (authorization(headers), private.next(), private.next()) {
            (Ok(None), None, _) => Self::None,
            (Ok(None), Some(token), None) => token.to_str().map_or(Self::Malformed, Self::of_token),
            (Ok(Some((scheme, value))), None, _) if scheme.eq_ignore_ascii_case("bearer") => Self::of_token(value),
            (Ok(Some((scheme, value))), None, _) if scheme.eq_ignore_ascii_case("basic") => Self::of_basic(value),
            _ => Self::Malformed,
        }
    }

    /// A name and a secret of a form.
    pub(crate) fn login(name: &str, secret: &str) -> Self {
        if name.is_empty() || name.len() + secret.len() > HEADER_MAX_BYTES {
            return Self::Malformed;
        }
        Self::Login {
            name: name.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
        }
    }

    fn of_token(token: &str) -> Self {
        if token.is_empty() || token.len() > HEADER_MAX_BYTES {
            return Self::Malformed;
        }
        Self::Token(Zeroizing::new(token.to_owned()))
    }

    fn of_basic(value: &str) -> Self {
        if value.len() > HEADER_MAX_BYTES {
            return Self::Malformed;
        }
        let decoded = STANDARD.decode(value).or_else(|_| STANDARD_NO_PAD.decode(value));
        let Ok(bytes) = decoded.map(Zeroizing::new) else {
            return Self::Malformed;
        };
        match std::str::from_utf8(&bytes).ok().and_then(|text| text.split_once(':')) {
            Some((name, secret)) => Self::login(name, secret),
            None => Self::Malformed,
        }
    }
}

/// The one `Authorization` header, as scheme and value.
fn authorization(headers: &HeaderMap) -> Result<Option<(&str, &str)>, ()> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(());
    }
    let (scheme, value) = value.to_str().map_err(|_| ())?.trim().split_once(' ').ok_or(())?;
    Ok(Some((scheme, value.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn basic_is_read_whole() {
        for (value, name, secret) in [
            ("Basic ZGV2OnB3", "dev", "pw"),
            ("bAsIc  ZGV2OnB3 ", "dev", "pw"),
            ("Basic ZGV2OnA6Yg==", "dev", "p:b"),
            ("Basic ZGV2OnA6Yg", "dev", "p:b"),
            ("Basic ZGV2Og==", "dev", ""),
        ] {
            let read = Credentials::basic(&headers(&[("authorization", value)]));
            assert_eq!(read, Credentials::login(name, secret), "{value}");
            assert!(!format!("{read:?}").contains("dev"));
        }
    }

    #[test]
    fn what_is_malformed_is_wrong_and_never_nobody() {
        let long = format!("Basic {}", "A".repeat(HEADER_MAX_BYTES + 4));
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basic !",
            "Basic ZGV2",
            "Basic Og==",
            "Basic //79Og==",
            "Bearer x",
            "Negotiate x",
            &long,
        ] {
            assert_eq!(
                Credentials::basic(&headers(&[("authorization", value)])),
                Credentials::Malformed,
                "{value}"
            );
        }
        let twice = headers(&[("authorization", "Basic ZGV2OnB3"), ("authorization", "Basic ZGV2OnB3")]);
        assert_eq!(Credentials::basic(&twice), Credentials::Malformed);
        assert_eq!(Credentials::basic(&HeaderMap::new()), Credentials::None);
    }

    #[test]
    fn rest_takes_one_of_three() {
        let token = Credentials::of_token("cmp_x");
        assert_eq!(Credentials::rest(&headers(&[("private-token", "cmp_x")])), token);
        assert_eq!(Credentials::rest(&headers(&[("authorization", "Bearer cmp_x")])), token);
        let basic = Credentials::rest(&headers(&[("authorization", "Basic ZGV2OnB3")]));
        assert_eq!(basic, Credentials::login("dev", "pw"));
        let both = headers(&[("private-token", "cmp_x"), ("authorization", "Bearer cmp_x")]);
        assert_eq!(Credentials::rest(&both), Credentials::Malformed);
        assert_eq!(Credentials::rest(&headers(&[("private-token", "")])), Credentials::Malformed);
        assert_eq!(Credentials::rest(&HeaderMap::new()), Credentials::None);
    }
}
