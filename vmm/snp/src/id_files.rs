//! An ID block and its signatures as files have them (SNP firmware ABI, 8.18.2 and 8.18.3), checked before the firmware sees them.

use crate::{platform::IdFiles, policy::GuestPolicy};

/// Bytes of an ID block.
pub const ID_BLOCK_BYTES: usize = 96;
/// Bytes of an ID authentication structure.
pub const ID_AUTHENTICATION_BYTES: usize = 4096;

/// The one layout of ID blocks.
const VERSION: u32 = 1;
/// ECDSA on P-384 with SHA-384 (SNP firmware ABI, chapter 10).
const ECDSA_P384_SHA384: u32 = 1;
/// No author key.
const NO_KEY: u32 = 0;
/// The curve's number in keys.
const CURVE_P384: u32 = 2;

/// Offsets in an ID block.
const BLOCK_VERSION: usize = 80;
const BLOCK_POLICY: usize = 88;
/// Offsets in an ID authentication structure.
const ID_KEY_ALGORITHM: usize = 0;
const AUTHOR_KEY_ALGORITHM: usize = 4;
const ID_KEY: usize = 576;
const AUTHOR_KEY: usize = 2176;

/// Why an ID block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Truncated or oversized.
    #[error("the ID block has {0} bytes; {ID_BLOCK_BYTES} are needed")]
    BlockLength(usize),
    /// Truncated or oversized.
    #[error("the ID authentication structure has {0} bytes; {ID_AUTHENTICATION_BYTES} are needed")]
    AuthenticationLength(usize),
    /// Another layout.
    #[error("the ID block has version {0}; version {VERSION} is known")]
    Version(u32),
    /// The firmware would refuse it.
    #[error("the ID block is for guest policy {block:#x}, and the guest has {guest:#x}; sign one for the guest's policy")]
    Policy {
        /// Of the block.
        block: u64,
        /// Of the guest.
        guest: u64,
    },
    /// Neither P-384 nor absent.
    #[error("the {key} key has algorithm {algorithm}; ECDSA on P-384 with SHA-384 ({ECDSA_P384_SHA384}) is known")]
    Algorithm {
        /// Which key.
        key: &'static str,
        /// Its number.
        algorithm: u32,
    },
    /// Not P-384.
    #[error("the {key} key is on curve {curve}; P-384 ({CURVE_P384}) is known")]
    Curve {
        /// Which key.
        key: &'static str,
        /// Its number.
        curve: u32,
    },
}

/// A checked ID block with its signatures. Whether the signatures are right, and whether the digest is that of the guest, is for the
/// firmware to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedId {
    block: [u8; ID_BLOCK_BYTES],
    authentication: Box<[u8; ID_AUTHENTICATION_BYTES]>,
    has_author_key: bool,
}

impl SignedId {
    /// From the contents of both files, for a guest with `policy`.
    pub fn parse(block: &[u8], authentication: &[u8], policy: GuestPolicy) -> Result<Self, IdError> {
        let block: [u8; ID_BLOCK_BYTES] = block.try_into().map_err(|_| IdError::BlockLength(block.len()))?;
        let length = authentication.len();
        let authentication: Box<[u8; ID_AUTHENTICATION_BYTES]> = Box::<[u8]>::from(authentication)
            .try_into()
            .map_err(|_| IdError::AuthenticationLength(length))?;
        match u32_at(&block, BLOCK_VERSION) {
            VERSION => {}
            other => return Err(IdError::Version(other)),
        }
        let (of_block, guest) = (u64_at(&block, BLOCK_POLICY), policy.bits());
        if of_block != guest {
            return Err(IdError::Policy { block: of_block, guest });
        }
        key(&authentication[..], "ID", ID_KEY_ALGORITHM, ID_KEY)?;
        let has_author_key = u32_at(&authentication[..], AUTHOR_KEY_ALGORITHM) != NO_KEY;
        if has_author_key {
            key(&authentication[..], "author", AUTHOR_KEY_ALGORITHM, AUTHOR_KEY)?;
        }
        Ok(Self {
            block,
            authentication,
            has_author_key,
        })
    }

    /// For the last command of a launch.
    pub fn files(&self) -> IdFiles<'_> {
        IdFiles {
            block: &self.block,
            authentication: &self.authentication,
            has_author_key: self.has_author_key,
        }
    }
}

fn key(authentication: &[u8], key: &'static str, algorithm: usize, at: usize) -> Result<(), IdError> {
    let algorithm = u32_at(authentication, algorithm);
    if algorithm != ECDSA_P384_SHA384 {
        return Err(IdError::Algorithm { key, algorithm });
    }
    match u32_at(authentication, at) {
        CURVE_P384 => Ok(()),
        curve => Err(IdError::Curve { key, curve }),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use launch_measure::{IdAuth, IdBlock, LaunchDigest};
    use p384::ecdsa::SigningKey;
    use proptest::prelude::*;

    fn signed(author: bool) -> (Vec<u8>, Vec<u8>) {
        let block = IdBlock {
            digest: LaunchDigest([1; 48]),
            family_id: [2; 16],
            image_id: [3; 16],
            guest_svn: 4,
            policy: 0x3_0000,
        };
        let key = |seed| SigningKey::from_slice(&[seed; 48]).unwrap();
        let authentication = IdAuth::sign(&block, &key(5), author.then(|| key(6)).as_ref());
        (block.to_bytes().to_vec(), authentication.to_bytes().to_vec())
    }

    fn parse(block: &[u8], authentication: &[u8]) -> Result<SignedId, IdError> {
        SignedId::parse(block, authentication, GuestPolicy::default())
    }

    #[test]
    fn what_is_signed_here_is_accepted() {
        for author in [false, true] {
            let (block, authentication) = signed(author);
            let id = parse(&block, &authentication).unwrap();
            assert_eq!(id.files().has_author_key, author);
            assert_eq!(
                (&id.files().block[..], &id.files().authentication[..]),
                (&block[..], &authentication[..])
            );
        }
    }

    #[test]
    fn each_fault_is_named() {
        let (block, authentication) = signed(true);
        let long = [&block[..], &[0]].concat();
        assert_eq!(parse(&block[1..], &authentication), Err(IdError::BlockLength(95)));
        assert_eq!(parse(&long, &authentication), Err(IdError::BlockLength(97)));
        assert_eq!(parse(&block, &authentication[1..]), Err(IdError::AuthenticationLength(4095)));
        assert_eq!(parse(&block, &[]), Err(IdError::AuthenticationLength(0)));
        let changed = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] = 9;
            bytes
        };
        assert_eq!(parse(&changed(&block, 80), &authentication), Err(IdError::Version(9)));
        let policy = IdError::Policy {
            block: 0x9_0000,
            guest: 0x3_0000,
        };
        assert_eq!(parse(&changed(&block, 90), &authentication), Err(policy));
        let algorithm = |key| Err(IdError::Algorithm { key, algorithm: 9 });
        assert_eq!(parse(&block, &changed(&authentication, 0)), algorithm("ID"));
        assert_eq!(parse(&block, &changed(&authentication, 4)), algorithm("author"));
        let curve = |key| Err(IdError::Curve { key, curve: 9 });
        assert_eq!(parse(&block, &changed(&authentication, 576)), curve("ID"));
        assert_eq!(parse(&block, &changed(&authentication, 2176)), curve("author"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(block in prop::collection::vec(any::<u8>(), 90..100), authentication in prop::collection::vec(any::<u8>(), 4090..4100)) {
            let _ = parse(&block, &authentication);
        }
    }
}
