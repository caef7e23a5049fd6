//! One entry of a file of logins.

use crate::credentials::Credentials;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

/// What docker and podman write for a registry; `{}` where a helper has the login.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Entry {
    auth: Option<Zeroizing<String>>,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
    identitytoken: Option<Zeroizing<String>>,
}

impl Entry {
    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        let empty = |text: &Option<Zeroizing<String>>| text.as_ref().is_none_or(|text| text.is_empty());
        empty(&self.auth) && empty(&self.identitytoken) && empty(&self.password)
    }

    /// The login, or why there is none.
    pub(super) fn login(&self) -> Result<Credentials, String> {
        // Docker stores one in place of the password whenever the token service gives it, and an `auth` without a password beside it.
        if self.identitytoken.as_ref().is_some_and(|token| !token.is_empty()) {
            return Err(IDENTITY.to_owned());
        }
        let secret = |text: &Zeroizing<String>| Secret::new(text.to_string());
        let pair = self
            .username
            .clone()
            .zip(self.password.as_ref())
            .filter(|(user, password)| !user.is_empty() && !password.is_empty());
        let auth = self.auth.as_ref().filter(|auth| !auth.trim().is_empty());
        let (pair, auth) = match (pair, auth) {
            (_, Some(auth)) if !is_pair(auth) => return Err("auth is not the base64 of user:password".to_owned()),
            (_, Some(auth)) => (None, Some(secret(auth))),
            (Some((user, password)), None) => (Some((user, secret(password))), None),
            (None, None) => return Err("the entry has neither auth nor username and password".to_owned()),
        };
        let (user, password) = pair.unzip();
        Credentials::new(user, password, auth, None, None).map_err(|error| error.to_string())
    }
}

/// Why an identity token is not used here, and what to do.
pub(super) const IDENTITY: &str = "it holds an identity token, which cannot be used here; log in with an access token as the password \
    (docker login -u USER), or put it as identitytoken into a registry configuration";

fn is_pair(auth: &str) -> bool {
    let decoded = STANDARD.decode(auth.trim()).map(Zeroizing::new);
    decoded.is_ok_and(|decoded| decoded.contains(&b':'))
}
