//! The token and the answer that carries it (distribution, "Token Authentication Implementation").

use super::granted;
use crate::clock::Now;
use crate::keys::KeyError;
use crate::login::Caller;
use crate::service::Service;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use registry_rules::{Access, Actions};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Serialize, Serializer};

/// Seconds that a token is valid before its own making, for registries whose clock is behind.
const SKEW: i64 = 5;
/// Random bytes of a token's number.
const NUMBER_BYTES: usize = 16;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClaimsError {
    #[error("the system gives no random numbers")]
    Random,
    #[error("the claims cannot be written")]
    Write(#[from] serde_json::Error),
    #[error("there is no key")]
    NoKey,
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a token says.
#[derive(Serialize)]
pub(super) struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
    nbf: i64,
    iat: i64,
    jti: String,
    access: Vec<Granted<'a>>,
}

#[derive(Serialize)]
struct Granted<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    #[serde(serialize_with = "words")]
    actions: &'a Actions,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta<'a>>,
}

#[derive(Serialize)]
struct Meta<'a> {
    #[serde(skip_serializing_if = "Option::is_none", rename = "tag_deny_access_patterns")]
    deny: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "tag_immutable_patterns")]
    immutable: Option<&'a [String]>,
}

fn words<S: Serializer>(actions: &&Actions, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(actions.iter().map(|action| action.word()))
}

impl<'a> Granted<'a> {
    fn new(access: &'a Access) -> Self {
        let deny = access.tags.deny.as_ref().map(|deny| {
            let keyed = |(action, patterns): &(registry_rules::Action, Vec<String>)| (action.word().to_owned(), patterns.clone().into());
            deny.iter().map(keyed).collect()
        });
        let immutable = access.tags.immutable.as_deref();
        Self {
            kind: access.resource.kind(),
            name: access.resource.name(),
            actions: &access.actions,
            meta: (deny.is_some() || immutable.is_some()).then_some(Meta { deny, immutable }),
        }
    }
}

impl<'a> Claims<'a> {
    pub(super) fn new(
        service: &'a Service,
        caller: &'a Caller,
        audience: &'a str,
        access: &'a [Access],
        now: Now,
    ) -> Result<Self, ClaimsError> {
        let mut number = [0; NUMBER_BYTES];
        SystemRandom::new().fill(&mut number).map_err(|_| ClaimsError::Random)?;
        Ok(Self {
            iss: &service.settings.issuer,
            sub: &caller.name,
            aud: audience,
            exp: now.seconds().saturating_add(service.settings.token_lifetime.into()),
            nbf: now.seconds() - SKEW,
            iat: now.seconds(),
            jti: URL_SAFE_NO_PAD.encode(number),
            access: access.iter().map(Granted::new).collect(),
        })
    }

    pub(super) fn sign(&self, service: &Service) -> Result<String, ClaimsError> {
        let claims = serde_json::to_vec(self)?;
        let keys = service.keys.now();
        Ok(keys.first().ok_or(ClaimsError::NoKey)?.token(&claims)?)
    }
}

/// The answer with a token, which both names of it carry: old clients look at one, OAuth clients at the other.
pub(super) fn answer(token: &str, lifetime: u32, now: Now, scope: Option<&[Access]>) -> Response {
    let mut body = String::with_capacity(2 * token.len() + 160);
    // Only texts that need no escape: base64url, digits, names of the grammar.
    body.push_str(r#"{"token":""#);
    body.push_str(token);
    body.push_str(r#"","access_token":""#);
    body.push_str(token);
    body.push_str(r#"","expires_in":"#);
    body.push_str(&lifetime.to_string());
    body.push_str(r#","issued_at":""#);
    body.push_str(&now.rfc3339());
    body.push('"');
    if let Some(access) = scope {
        body.push_str(r#","scope":""#);
        for (n, access) in access.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            body.push_str(&format!(
                "{space}{}:{}:{}",
                access.resource.kind(),
                access.resource.name(),
                access.actions
            ));
        }
        body.push('"');
    }
    body.push('}');
    granted(body.into_bytes())
}
