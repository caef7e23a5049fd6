//! What a registry asks for when it answers 401: the first challenge of its lists that there is an answer to.

use http_auth::parse_challenges;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// Most bytes of the lists.
const MAX_BYTES: usize = 16 << 10;
/// Most characters of a scheme that a message shows.
const SHOWN_MAX: usize = 40;

/// A challenge that there is an answer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with each request (RFC 7617).
    Basic,
    /// A token from a token service (distribution, "Token Authentication Specification").
    Bearer(Bearer),
}

/// Where the token comes from, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) realm: String,
    pub(crate) service: Option<String>,
    pub(crate) scope: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// A 401 without a challenge.
    #[error("it refuses without saying what it wants (no WWW-Authenticate)")]
    None,
    /// Not what RFC 9110 allows, or too long.
    #[error("it asks for a login in a form that cannot be read")]
    Malformed,
    /// Only schemes without an answer.
    #[error("it asks for a login of the kind {0}; Basic and Bearer are known")]
    Unknown(String),
    /// A Bearer challenge without a realm.
    #[error("it asks for a token and does not say from where")]
    NoRealm,
}

impl Challenge {
    /// From every `WWW-Authenticate` header of an answer.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, ChallengeError> {
        let lists: Vec<&[u8]> = headers.get_all(WWW_AUTHENTICATE).iter().map(|value| value.as_bytes()).collect();
        Self::parse(&lists)
    }

    /// From such headers' values.
    pub(crate) fn parse(lists: &[&[u8]]) -> Result<Self, ChallengeError> {
        if lists.is_empty() {
            return Err(ChallengeError::None);
        }
        if lists.iter().map(|list| list.len()).sum::<usize>() > MAX_BYTES {
            return Err(ChallengeError::Malformed);
        }
        let mut unknown = Vec::new();
        let mut malformed = false;
        for list in lists {
            let Some(challenges) = std::str::from_utf8(list).ok().and_then(|list| parse_challenges(list).ok()) else {
                malformed = true;
                continue;
            };
            for challenge in challenges {
                let parameter = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped()).filter(|value| !value.is_empty())
                };
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    return Ok(Self::Basic);
                }
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    return Ok(Self::Bearer(Bearer {
                        realm: parameter("realm").ok_or(ChallengeError::NoRealm)?,
                        service: parameter("service"),
                        scope: parameter("scope"),
                    }));
                }
                unknown.push(challenge.scheme.chars().take(SHOWN_MAX).collect::<String>());
            }
        }
        match unknown.is_empty() || malformed {
            true => Err(ChallengeError::Malformed),
            false => Err(ChallengeError::Unknown(unknown.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(lists: &[&str]) -> Result<Challenge, ChallengeError> {
        Challenge::parse(&lists.iter().map(|list| list.as_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn the_first_known_challenge_is_taken() {
        let bearer = |scope: Option<&str>| {
            Ok(Challenge::Bearer(Bearer {
                realm: "https://t/auth".to_owned(),
                service: Some("r, \"x\"".to_owned()),
                scope: scope.map(str::to_owned),
            }))
        };
        let token = r#"bearer realm="https://t/auth",service="r, \"x\"""#;
        assert_eq!(parse(&[token]), bearer(None));
        assert_eq!(
            parse(&["Negotiate", &format!("{token}, scope=\"repository:a/b:pull\"")]),
            bearer(Some("repository:a/b:pull"))
        );
        assert_eq!(parse(&["Negotiate, BASIC realm=\"x\", Bearer realm=\"y\""]), Ok(Challenge::Basic));
        assert_eq!(parse(&["\"", "Basic realm=x"]), Ok(Challenge::Basic));
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        assert_eq!(parse(&[]), Err(ChallengeError::None));
        assert_eq!(parse(&["Bearer service=\"x\""]), Err(ChallengeError::NoRealm));
        assert_eq!(parse(&["Bearer realm=\"\""]), Err(ChallengeError::NoRealm));
        assert_eq!(
            parse(&["Negotiate, NTLM"]),
            Err(ChallengeError::Unknown("Negotiate, NTLM".to_owned()))
        );
        assert_eq!(parse(&["Bearer realm=\"x"]), Err(ChallengeError::Malformed));
        let long = format!("Bearer realm=\"{}\"", "x".repeat(MAX_BYTES));
        assert_eq!(parse(&[&long]), Err(ChallengeError::Malformed));
    }

    proptest! {
        #[test]
        fn never_panics(list: Vec<u8>, text in r#"[A-Za-z]{0,8}[ =",\\a-z]{0,60}"#) {
            let _ = Challenge::parse(&[&list, text.as_bytes()]);
        }
    }
}
