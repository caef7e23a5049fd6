//! Maps the caller's id to the id inside the guest (paths, policy, cgroups).

use sha2::{Digest, Sha256};

use crate::limits::ID_BYTES;

/// Length of an id inside the guest.
const HEX_CHARS: usize = 64;

/// Why a caller's id is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The id is empty.
    #[error("the id is empty")]
    Empty,
    /// Longer than [`ID_BYTES`].
    #[error("the id has {0} bytes, more than {ID_BYTES}")]
    Long(usize),
    /// Outside `[A-Za-z0-9_.-]`, or not beginning with a letter or digit.
    #[error("the id has a character other than letters, digits, '_', '.', '-', or begins with one of the last three")]
    Character,
}

/// The id in the guest: 64 lower-case hex digits stay as they are, anything else becomes its SHA-256.
///
/// Policies name containers by such ids and match paths built from them, so the caller's spelling never reaches the guest.
pub fn guest_id(id: &str) -> String {
    let is_guest_id = id.len() == HEX_CHARS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_guest_id {
        id.to_owned()
    } else {
        hex::encode(Sha256::digest(id.as_bytes()))
    }
}

/// Checks a caller's id: containerd's identifier rule (`identifiers.Validate`), at most [`ID_BYTES`] long.
///
/// # Errors
/// See [`IdError`].
pub fn valid_caller_id(id: &str) -> Result<(), IdError> {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    match id.as_bytes() {
        [] => Err(IdError::Empty),
        bytes if bytes.len() > ID_BYTES => Err(IdError::Long(bytes.len())),
        [first, rest @ ..] if plain(*first) && rest.iter().all(|&b| plain(b) || b"_.-".contains(&b)) => Ok(()),
        _ => Err(IdError::Character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hex_ids_stay() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(guest_id(&id), id);
    }

    #[test]
    fn other_ids_become_their_digest() {
        // printf redis | sha256sum
        assert_eq!(
            guest_id("redis"),
            "34fb46c847bb9df96e5205a39d382f648a6e8dce1e014cd85b4ca6a88d88ed03"
        );
        let upper = "0123456789ABCDEF".repeat(4);
        assert_ne!(guest_id(&upper), upper);
    }

    #[test]
    fn ids_that_would_escape_a_path_are_refused() {
        for bad in ["a/b", "..", ".a", "a\0", "-x", "_x", "a b", "ä"] {
            assert_eq!(valid_caller_id(bad), Err(IdError::Character), "{bad:?}");
        }
        assert_eq!(valid_caller_id(""), Err(IdError::Empty));
        assert_eq!(valid_caller_id(&"a".repeat(10_000)), Err(IdError::Long(10_000)));
        assert_eq!(valid_caller_id("my-container_1.2"), Ok(()));
    }

    proptest! {
        #[test]
        fn always_64_lower_hex_and_stable(id: String) {
            let once = guest_id(&id);
            prop_assert_eq!(once.len(), HEX_CHARS);
            prop_assert!(once.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
            prop_assert_eq!(guest_id(&once), once);
        }
    }
}
