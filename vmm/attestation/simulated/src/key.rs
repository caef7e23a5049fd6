//! The chip's key, which signs reports.

use p384::ecdsa::SigningKey;

/// Bytes that are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an endorsement key has 48 bytes, of a number below the order of P-384")]
pub struct NotAKey;

/// The chip's key, which signs reports.
#[derive(Clone)]
pub struct EndorsementKey(pub(crate) SigningKey);

impl From<SigningKey> for EndorsementKey {
    fn from(key: SigningKey) -> Self {
        Self(key)
    }
}

impl EndorsementKey {
    /// Its secret.
    pub fn to_bytes(&self) -> [u8; 48] {
        self.0.to_bytes().into()
    }
}

impl TryFrom<&[u8]> for EndorsementKey {
    type Error = NotAKey;
    fn try_from(bytes: &[u8]) -> Result<Self, NotAKey> {
        // The library takes shorter numbers too.
        let bytes: [u8; 48] = bytes.try_into().map_err(|_| NotAKey)?;
        SigningKey::from_slice(&bytes).map(Self).map_err(|_| NotAKey)
    }
}

impl std::fmt::Debug for EndorsementKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EndorsementKey")
    }
}
