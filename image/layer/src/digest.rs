//! The two digests of a layer as types of their own, so that one is never taken for the other.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Why a text is not a digest.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a SHA-256 digest is 64 lower-case hexadecimal digits")]
pub struct DigestError;

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                parse(text).map($name)
            }
        }
    };
}

digest! {
    /// Root of a layer's dm-verity tree: what policies carry and what the guest's kernel checks every block against.
    RootHash
}
digest! {
    /// SHA-256 of a layer's uncompressed tar, the `diff_ids` entry of an image's configuration (OCI image spec, "Layer DiffID").
    DiffId
}

fn parse(text: &str) -> Result<[u8; 32], DigestError> {
    let mut digest = [0; 32];
    if text.len() != 64 {
        return Err(DigestError);
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(digest)
}

fn nibble(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_bytes_are_the_same_digest(bytes: [u8; 32]) {
            prop_assert_eq!(RootHash(bytes).to_string().parse(), Ok(RootHash(bytes)));
        }

        #[test]
        fn any_other_text_is_refused(text in ".{0,80}") {
            if let Ok(digest) = text.parse::<DiffId>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }

    #[test]
    fn one_spelling_only() {
        let lower = "ab".repeat(32);
        assert!(lower.parse::<RootHash>().is_ok());
        assert_eq!(lower.to_uppercase().parse::<RootHash>(), Err(DigestError));
        assert_eq!(lower[1..].parse::<RootHash>(), Err(DigestError));
        assert_eq!(format!("sha256:{lower}").parse::<RootHash>(), Err(DigestError));
    }
}
