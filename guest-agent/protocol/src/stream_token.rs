//! Names one stdio connection, so that a request can refer to it.

use std::fmt;

/// Sixteen random bytes chosen by the shim; the first bytes on a stream connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamToken(pub [u8; StreamToken::BYTES]);

/// The length of a request's field that is not a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stream token has 16 bytes, not {0}")]
pub struct TokenError(pub usize);

impl StreamToken {
    /// Length on the wire in bytes.
    pub const BYTES: usize = 16;

    /// The token in a request's field; `None` for the empty field, which means /dev/null.
    ///
    /// # Errors
    /// Any length but 0 and [`Self::BYTES`].
    pub fn from_field(field: &[u8]) -> Result<Option<Self>, TokenError> {
        match field {
            [] => Ok(None),
            bytes => match bytes.try_into() {
                Ok(token) => Ok(Some(Self(token))),
                Err(_) => Err(TokenError(bytes.len())),
            },
        }
    }

    /// The field of a request that names this stream.
    pub fn to_field(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// Shows the first bytes only: whoever knows a token can claim its stream.
impl fmt::Debug for StreamToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamToken({}..)", hex::encode(&self.0[..2]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_field_is_empty_or_sixteen_bytes(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let read = StreamToken::from_field(&bytes);
            match bytes.len() {
                0 => prop_assert_eq!(read, Ok(None)),
                16 => prop_assert_eq!(read.unwrap().unwrap().to_field(), bytes),
                other => prop_assert_eq!(read, Err(TokenError(other))),
            }
        }
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", StreamToken([0xab; 16])), "StreamToken(abab..)");
    }
}
