//! The pair that a policy trusts: an issuer and one of its feeds.

use std::fmt;

use thiserror::Error;

/// Longest issuer or feed in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 8 << 10;

/// Why a text is no issuer or feed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// One of the two is missing.
    #[error("either issuer and feed must both be provided in the COSE_Sign1 protected header")]
    Empty,
    /// Longer than 8 KiB.
    #[error("issuer or feed is longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Takes a text that is neither empty nor too long.
            ///
            /// # Errors
            /// It is.
            pub fn new(text: impl Into<String>) -> Result<Self, IdentityError> {
                let text = text.into();
                match text.len() {
                    0 => Err(IdentityError::Empty),
                    length if length > MAX_NAME_BYTES => Err(IdentityError::TooLong),
                    _ => Ok(Self(text)),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Who signs: the text of a `did:x509`. That it is one, and that the chain proves it, is checked elsewhere.
    Issuer
}
name! {
    /// What is signed: the name under which an issuer publishes versions of one fragment.
    Feed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_empty_and_not_endless() {
        assert_eq!(Feed::new(""), Err(IdentityError::Empty));
        assert_eq!(Issuer::new("x".repeat(MAX_NAME_BYTES + 1)), Err(IdentityError::TooLong));
        assert_eq!(Feed::new("registry.example/app").unwrap().as_str(), "registry.example/app");
    }
}
