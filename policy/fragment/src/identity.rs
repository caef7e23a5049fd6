//! Issuers and feeds, by which policies identify fragments.

use std::fmt;

use thiserror::Error;

/// Longest issuer or feed in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 8 << 10;

/// Why a text is not an issuer or feed.
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
            /// The name for a text that is neither empty nor too long.
            ///
            /// # Errors
            /// The text is empty or too long.
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
    /// The signer: the text of a `did:x509`, not parsed here.
    Issuer
}
name! {
    /// The name under which an issuer publishes versions of one fragment.
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
