//! Credentials for one registry, and which of them answer which challenge.
//!
//! | | Basic challenge, or none | Bearer challenge |
//! |---|---|---|
//! | 1 | registry token, as the access token | registry token, as the access token |
//! | 2 | user name and password | identity token, by POST; where that is 404, the next rows |
//! | 3 | `auth`, as it is | user name and password, by GET |
//! | 4 | nothing | `auth`, by GET; then nothing |

use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use std::fmt;
use zeroize::Zeroizing;

/// What is known for a registry. Half a pair is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pair: Option<(String, Secret)>,
    auth: Option<Secret>,
    identity_token: Option<Secret>,
    registry_token: Option<Secret>,
}

/// Credentials that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// A character that base64 has not.
    #[error("auth must be the base64 of user:password, and holds another character")]
    Auth,
}

/// What to answer a challenge with.
#[derive(Clone, PartialEq, Eq)]
pub enum Login<'a> {
    /// Nothing.
    Anonymous,
    /// User name and password.
    Basic {
        /// User name.
        user: &'a str,
        /// Password.
        password: &'a Secret,
    },
    /// The base64 of both, as it was given.
    BasicRaw(&'a Secret),
    /// A refresh token for the token service.
    IdentityToken(&'a Secret),
    /// An access token.
    RegistryToken(&'a Secret),
}

impl Credentials {
    /// Takes what a configuration has; empty texts are none.
    ///
    /// # Errors
    /// `auth` is not base64.
    pub fn new(
        username: Option<String>,
        password: Option<Secret>,
        auth: Option<Secret>,
        identity_token: Option<Secret>,
        registry_token: Option<Secret>,
    ) -> Result<Self, CredentialsError> {
        let some = |text: Option<Secret>| text.filter(|text| !text.expose().is_empty());
        let auth = some(auth.map(|text| Secret::new(text.expose().trim().to_owned())));
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        if auth.as_ref().is_some_and(|auth| !auth.expose().bytes().all(base64)) {
            return Err(CredentialsError::Auth);
        }
        Ok(Self {
            pair: username.filter(|user| !user.is_empty()).zip(some(password)),
            auth,
            identity_token: some(identity_token),
            registry_token: some(registry_token),
        })
    }

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// What answers a Basic challenge, and is sent where there is no challenge.
    pub fn for_basic(&self) -> Login<'_> {
        match &self.registry_token {
            Some(token) => Login::RegistryToken(token),
            None => self.basic(),
        }
    }

    /// What answers a Bearer challenge.
    pub fn for_bearer(&self) -> Login<'_> {
        match (&self.registry_token, &self.identity_token) {
            (Some(token), _) => Login::RegistryToken(token),
            (None, Some(token)) => Login::IdentityToken(token),
            (None, None) => self.basic(),
        }
    }

    /// What a token service gets that has no refresh tokens.
    pub(crate) fn basic(&self) -> Login<'_> {
        match (&self.pair, &self.auth) {
            (Some((user, password)), _) => Login::Basic { user, password },
            (None, Some(auth)) => Login::BasicRaw(auth),
            (None, None) => Login::Anonymous,
        }
    }

    /// Names of the fields that are there, as the configuration calls them.
    pub fn fields(&self) -> Vec<&'static str> {
        let fields = [
            (self.registry_token.is_some(), "registrytoken"),
            (self.identity_token.is_some(), "identitytoken"),
            (self.pair.is_some(), "username and password"),
            (self.auth.is_some(), "auth"),
        ];
        fields.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect()
    }

    /// Fields that are there and answer nothing, with the reason.
    pub fn unused(&self) -> Vec<(&'static str, &'static str)> {
        let fields = self.fields();
        let rank = |name| fields.iter().position(|field| *field == name);
        match (rank("registrytoken"), rank("username and password"), rank("auth")) {
            (Some(_), ..) => fields[1..].iter().map(|field| (*field, "registrytoken goes before it")).collect(),
            (None, Some(_), Some(_)) => vec![("auth", "username and password go before it")],
            (None, ..) => Vec::new(),
        }
    }

    /// Every text that no message may show.
    pub(crate) fn secrets(&self) -> Vec<Zeroizing<String>> {
        let texts = [&self.auth, &self.identity_token, &self.registry_token];
        let mut secrets: Vec<_> = texts
            .into_iter()
            .flatten()
            .map(|text| Zeroizing::new(text.expose().to_owned()))
            .collect();
        if let Some((user, password)) = &self.pair {
            secrets.push(Zeroizing::new(password.expose().to_owned()));
            secrets.push(pair_in_base64(user, password));
        }
        // Whoever knows the scheme sends the password inside of it.
        if let Some(decoded) = self.auth.as_ref().and_then(|auth| STANDARD.decode(auth.expose()).ok()) {
            let decoded = Zeroizing::new(decoded);
            if let Some((_, password)) = std::str::from_utf8(&decoded).ok().and_then(|text| text.split_once(':')) {
                secrets.push(Zeroizing::new(password.to_owned()));
            }
        }
        secrets
    }
}

impl Login<'_> {
    /// Its name in output.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Basic { .. } => "basic",
            Self::BasicRaw(_) => "basic-raw",
            Self::IdentityToken(_) => "identity-token",
            Self::RegistryToken(_) => "registry-token",
        }
    }

    /// The `Authorization` header; `None` for what is no header.
    ///
    /// # Errors
    /// A header cannot carry it: it holds a line break or the like.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, Uncarried> {
        match self {
            Self::Anonymous | Self::IdentityToken(_) => Ok(None),
            Self::Basic { user, password } => header("Basic", &pair_in_base64(user, password)).map(Some),
            Self::BasicRaw(auth) => header("Basic", auth.expose()).map(Some),
            Self::RegistryToken(token) => header("Bearer", token.expose()).map(Some),
        }
    }
}

impl fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// A token or the like that no header can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the credentials hold a line break or another character that a request cannot carry")]
pub struct Uncarried;

/// An `Authorization` header, which the HTTP library does not show.
pub(crate) fn header(scheme: &str, value: &str) -> Result<HeaderValue, Uncarried> {
    let text = Zeroizing::new(format!("{scheme} {value}"));
    let mut header = HeaderValue::from_str(&text).map_err(|_| Uncarried)?;
    header.set_sensitive(true);
    Ok(header)
}

fn pair_in_base64(user: &str, password: &Secret) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
    Zeroizing::new(STANDARD.encode(pair.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(fields: [&str; 5]) -> Credentials {
        let [user, password, auth, identity, registry] = fields;
        let secret = |text: &str| Some(Secret::new(text.to_owned()));
        Credentials::new(
            Some(user.to_owned()),
            secret(password),
            secret(auth),
            secret(identity),
            secret(registry),
        )
        .unwrap()
    }

    #[test]
    fn each_challenge_has_its_order() {
        for (fields, bearer, basic) in [
            (["", "", "", "", ""], "anonymous", "anonymous"),
            (["u", "", "", "", ""], "anonymous", "anonymous"),
            (["", "p", "eDp5", "", ""], "basic-raw", "basic-raw"),
            (["u", "p", "eDp5", "", ""], "basic", "basic"),
            (["", "", "", "i", ""], "identity-token", "anonymous"),
            (["u", "p", "", "i", ""], "identity-token", "basic"),
            (["u", "p", "eDp5", "i", "r"], "registry-token", "registry-token"),
        ] {
            let credentials = credentials(fields);
            assert_eq!(credentials.for_bearer().kind(), bearer, "{fields:?}");
            assert_eq!(credentials.for_basic().kind(), basic, "{fields:?}");
        }
    }

    #[test]
    fn auth_is_sent_as_it_is_and_must_be_base64() {
        let trimmed = credentials(["", "", "\n dTpw\n", "", ""]);
        assert_eq!(trimmed.for_basic().authorization().unwrap().unwrap(), "Basic dTpw");
        let pair = credentials(["u", "p:q", "", "", ""]);
        assert_eq!(pair.for_basic().authorization().unwrap().unwrap(), "Basic dTpwOnE=");
        for bad in ["u:p", "dT\npw", "dT pw", "dTpw\u{e9}"] {
            let auth = Some(Secret::new(bad.to_owned()));
            assert_eq!(Credentials::new(None, None, auth, None, None), Err(CredentialsError::Auth), "{bad}");
        }
    }

    #[test]
    fn nothing_shows_them() {
        let all = credentials(["u", "pass-word", "dTpwYXNz", "identity", "registry"]);
        let shown = format!("{all:?} {:?} {:?}", all.for_basic(), all.for_basic().authorization().unwrap());
        for secret in ["pass-word", "dTpwYXNz", "identity\"", "registry\""] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(all.secrets().iter().any(|secret| secret.as_str() == "pass"));
        let broken = credentials(["", "", "", "", "a\nb"]);
        assert_eq!(broken.for_basic().authorization(), Err(Uncarried));
    }
}
