//! Texts that must not be seen: new tokens and the hashes of passwords.

use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Longest hash in bytes; argon2id with 64 bytes of salt and output has about 220.
const HASH_MAX_BYTES: usize = 512;

/// A password's hash in PHC form, `$argon2id$…`.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Zeroizing<Box<str>>);

/// A text that is no hash in PHC form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a password hash has the form $NAME$… and at most {HASH_MAX_BYTES} printable characters")]
pub struct PasswordHashError;

/// A new token's text, which nobody can read a second time.
#[derive(Clone)]
pub struct NewSecret(Zeroizing<String>);

impl PasswordHash {
    /// The PHC text.
    pub fn as_phc(&self) -> &str {
        &self.0
    }
}

impl FromStr for PasswordHash {
    type Err = PasswordHashError;
    fn from_str(phc: &str) -> Result<Self, PasswordHashError> {
        let form = phc.starts_with('$') && phc.bytes().all(|byte| byte.is_ascii_graphic());
        if form && phc.len() <= HASH_MAX_BYTES {
            Ok(Self(Zeroizing::new(phc.into())))
        } else {
            Err(PasswordHashError)
        }
    }
}

impl NewSecret {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The token, to be shown once.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewSecret(…)")
    }
}
