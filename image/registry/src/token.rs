//! Access tokens: what a token service gives for credentials, once for all requests of a repository.

use crate::answer;
use crate::challenge::Bearer;
use crate::credentials::{Credentials, Login, header};
use crate::error::Cause;
use crate::realm::RealmRules;
use crate::secret::Secret;
use crate::transport::{Answer, Ask, Transport};
use reqwest::StatusCode;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

/// Largest answer of a token service.
pub(crate) const TOKEN_MAX_BYTES: usize = 64 << 10;
/// How long a token is good if its service does not say it, and the least (distribution, "Token Authentication Specification").
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Longest life that is believed.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A token that ends soon is not used any more.
const MARGIN: Duration = Duration::from_secs(10);
/// What the client calls itself.
const CLIENT: &str = "casemate";

/// An access token.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) secret: Secret,
    until: Instant,
}

/// A successful exchange.
pub(crate) struct Granted {
    pub(crate) token: Token,
    /// Takes the place of the identity token, in memory.
    pub(crate) refresh: Option<Secret>,
}

/// What is exchanged, with whom, for what.
pub(crate) struct Exchange<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) rules: &'a RealmRules,
    pub(crate) bearer: &'a Bearer,
    pub(crate) scopes: &'a [String],
    pub(crate) credentials: &'a Credentials,
    /// A newer identity token than that of the credentials.
    pub(crate) refresh: Option<&'a Secret>,
    /// Where the credentials are from.
    pub(crate) source: &'a str,
    /// What no message of the service may show.
    pub(crate) secrets: &'a [Zeroizing<String>],
}

#[derive(Deserialize)]
struct Document {
    access_token: Option<Zeroizing<String>>,
    token: Option<Zeroizing<String>>,
    expires_in: Option<f64>,
    refresh_token: Option<Zeroizing<String>>,
}

impl Token {
    /// Whether it is good for another request.
    pub(crate) fn is_fresh(&self) -> bool {
        Instant::now() + MARGIN < self.until
    }
}

impl Exchange<'_> {
    /// Gets a token.
    pub(crate) async fn run(&self) -> Result<Granted, Cause> {
        let realm = self.rules.parse(&self.bearer.realm)?;
        if let Login::IdentityToken(own) = self.credentials.for_bearer() {
            let answer = self.post(&realm, self.refresh.unwrap_or(own)).await?;
            // A service without refresh tokens; the other credentials are for it.
            if answer.response.status() != StatusCode::NOT_FOUND {
                return self.read(answer, "identity-token").await;
            }
        }
        let login = self.credentials.basic();
        let answer = self.get(realm, &login).await?;
        self.read(answer, login.kind()).await
    }

    async fn post(&self, realm: &Url, refresh: &Secret) -> Result<Answer, Cause> {
        self.send(realm.clone(), None, Some(self.form(refresh))).await
    }

    fn form(&self, refresh: &Secret) -> Zeroizing<String> {
        let mut form = Serializer::new(String::new());
        form.append_pair("client_id", CLIENT).append_pair("grant_type", "refresh_token");
        if let Some(service) = &self.bearer.service {
            form.append_pair("service", service);
        }
        if !self.scopes.is_empty() {
            form.append_pair("scope", &self.scopes.join(" "));
        }
        form.append_pair("refresh_token", refresh.expose());
        Zeroizing::new(form.finish())
    }

    async fn get(&self, mut realm: Url, login: &Login<'_>) -> Result<Answer, Cause> {
        {
            let mut query = realm.query_pairs_mut();
            if let Some(service) = &self.bearer.service {
                query.append_pair("service", service);
            }
            for scope in self.scopes {
                query.append_pair("scope", scope);
            }
        }
        self.send(realm, login.authorization()?, None).await
    }

    async fn send(
        &self,
        url: Url,
        authorization: Option<reqwest::header::HeaderValue>,
        form: Option<Zeroizing<String>>,
    ) -> Result<Answer, Cause> {
        let ask = Ask {
            url,
            accept: "application/json",
            from: 0,
            authorization,
            form,
        };
        Ok(self.transport.send(&ask, |url| self.rules.check(url)).await?)
    }

    async fn read(&self, mut answer: Answer, kind: &str) -> Result<Granted, Cause> {
        let status = answer.response.status();
        if !status.is_success() {
            let (status, message) = (status.as_u16(), answer::message(&mut answer.response, self.secrets).await);
            let used = format!("{kind} credentials, {}", self.source);
            return Err(match status {
                400..500 => Cause::Refused { status, message, used },
                _ => Cause::Status { status, message },
            });
        }
        let body = answer::body(&mut answer.response, TOKEN_MAX_BYTES).await?;
        let body = Zeroizing::new(body.ok_or(Cause::TooLong(TOKEN_MAX_BYTES as u64))?);
        parse(&body).ok_or(Cause::NoToken)
    }
}

fn parse(body: &[u8]) -> Option<Granted> {
    let document: Document = serde_json::from_slice(body).ok()?;
    let filled = |text: Option<Zeroizing<String>>| text.filter(|text| !text.is_empty()).map(|text| Secret::new(text.to_string()));
    let secret = filled(document.access_token).or(filled(document.token))?;
    header("Bearer", secret.expose()).ok()?;
    let life = document.expires_in.filter(|seconds| *seconds > 0.0 && seconds.is_finite());
    let life = life.map_or(DEFAULT_LIFE, |seconds| Duration::from_secs_f64(seconds.min(MAX_LIFE.as_secs_f64())));
    Some(Granted {
        token: Token {
            secret,
            until: Instant::now() + life.max(DEFAULT_LIFE),
        },
        refresh: filled(document.refresh_token),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_both_names_is_the_token() {
        for (body, token) in [
            (r#"{"token":"a","access_token":"b"}"#, Some("b")),
            (r#"{"token":"a","access_token":""}"#, Some("a")),
            (r#"{"token":"a","access_token":null,"expires_in":1e300}"#, Some("a")),
            (r#"{"token":"a","expires_in":-1}"#, Some("a")),
            (r#"{"token":"a\nb"}"#, None),
            (r#"{"token":""}"#, None),
            (r#"{"refresh_token":"a"}"#, None),
            ("[]", None),
        ] {
            let granted = parse(body.as_bytes());
            assert_eq!(granted.as_ref().map(|granted| granted.token.secret.expose()), token, "{body}");
            assert!(granted.is_none_or(|granted| granted.token.is_fresh()), "{body}");
        }
    }
}
