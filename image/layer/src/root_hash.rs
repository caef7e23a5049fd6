//! The root hash of a layer's dm-verity tree, in the form that policies carry: 64 hex digits without an algorithm.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Root of a dm-verity tree: the guest's kernel checks every block of the layer against it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootHash(pub [u8; 32]);

/// Not 64 lower-case hex digits.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a root hash is 64 lower-case hexadecimal digits")]
pub struct RootHashError;

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootHash({self})")
    }
}

impl FromStr for RootHash {
    type Err = RootHashError;

    fn from_str(text: &str) -> Result<Self, RootHashError> {
        let mut hash = [0; 32];
        if text.len() != 64 {
            return Err(RootHashError);
        }
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(hash))
    }
}

fn nibble(digit: u8) -> Result<u8, RootHashError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(RootHashError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_bytes_are_the_same_hash(bytes: [u8; 32]) {
            prop_assert_eq!(RootHash(bytes).to_string().parse(), Ok(RootHash(bytes)));
        }

        #[test]
        fn any_other_text_is_refused(text in ".{0,80}") {
            if let Ok(hash) = text.parse::<RootHash>() {
                prop_assert_eq!(hash.to_string(), text);
            }
        }
    }

    #[test]
    fn one_spelling_only() {
        let lower = "ab".repeat(32);
        assert!(lower.parse::<RootHash>().is_ok());
        assert_eq!(lower.to_uppercase().parse::<RootHash>(), Err(RootHashError));
        assert_eq!(lower[1..].parse::<RootHash>(), Err(RootHashError));
        assert_eq!(format!("sha256:{lower}").parse::<RootHash>(), Err(RootHashError));
    }
}
