//! The hash chain over the entries, its head, and the REPORT_DATA that binds a nonce to the head.

use sha2::{Digest as _, Sha384, Sha512};

/// Begin the input of each use of a hash, so that no digest of one use is one of another.
const CHAIN: &[u8] = b"casemate permit log: chain 1\0";
const HEAD: &[u8] = b"casemate permit log: head 1\0";
const KEPT: &[u8] = b"casemate permit log: kept 1\0";
const REPORT_DATA: &[u8] = b"casemate report data 1\0";

/// Shortest nonce in bytes: 128 bits cannot be foreseen.
pub const MIN_NONCE_BYTES: usize = 16;
/// Longest nonce in bytes: a SHA-512.
pub const MAX_NONCE_BYTES: usize = 64;

/// SHA-384 over every entry so far, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain(pub(crate) [u8; 48]);

impl Chain {
    /// Before the first entry.
    pub(crate) fn empty() -> Self {
        Self(Sha384::digest(CHAIN).into())
    }

    /// With one more entry, whose encoding includes its length.
    pub(crate) fn then(self, entry: &[u8]) -> Self {
        Self(
            Sha384::new()
                .chain_update(CHAIN)
                .chain_update(self.0)
                .chain_update(entry)
                .finalize()
                .into(),
        )
    }
}

/// Stands for a whole log: its length, its chain, and what was kept of folded entries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head(pub [u8; 48]);

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head({self})")
    }
}

/// In hex.
impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Head {
    /// `kept` is the encoding of the entries that were kept when others were folded, and `folded` how many positions these cover.
    pub(crate) fn new(length: u64, chain: Chain, folded: u64, kept: &[u8]) -> Self {
        let kept = Sha384::new()
            .chain_update(KEPT)
            .chain_update(folded.to_le_bytes())
            .chain_update(kept)
            .finalize();
        let head = Sha384::new()
            .chain_update(HEAD)
            .chain_update(length.to_le_bytes())
            .chain_update(chain.0)
            .chain_update(kept)
            .finalize();
        Self(head.into())
    }
}

/// What a verifier chose so that a report cannot be an old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(Vec<u8>);

/// A nonce is too short or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the nonce has {0} bytes; wanted {MIN_NONCE_BYTES} to {MAX_NONCE_BYTES}")]
pub struct NonceLength(pub usize);

impl Nonce {
    /// Checks the length.
    ///
    /// # Errors
    /// It is too short to be unforeseeable, or too long.
    pub fn new(bytes: Vec<u8>) -> Result<Self, NonceLength> {
        match bytes.len() {
            MIN_NONCE_BYTES..=MAX_NONCE_BYTES => Ok(Self(bytes)),
            length => Err(NonceLength(length)),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// REPORT_DATA of a report that answers `nonce` and covers the log with `head`: SHA-512 of `"casemate report data 1"` and a NUL, the
/// nonce's length in one byte, the nonce, and the head. SHA-512 because the field has 64 bytes.
pub fn report_data(nonce: &Nonce, head: &Head) -> [u8; 64] {
    let hash = Sha512::new()
        .chain_update(REPORT_DATA)
        // At most 64.
        .chain_update([nonce.0.len() as u8])
        .chain_update(&nonce.0)
        .chain_update(head.0);
    hash.finalize().into()
}
