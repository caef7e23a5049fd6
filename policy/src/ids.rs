//! Container ids and dm-verity root hashes in the spelling that policies use.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Length of a container id or a root hash: 32 bytes in hex.
const HEX_LEN: usize = 64;

fn is_lower_hex_64(text: &str) -> bool {
    text.len() == HEX_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A container id in Rego and in guest paths: 64 lower-case hex digits.
///
/// Any other id is replaced by its SHA-256, and the original is kept for messages.
/// Two ids are equal when their 64 digits are.
#[derive(Debug, Clone)]
pub struct ContainerId {
    hex: String,
    caller: String,
}

impl ContainerId {
    /// The id for the caller's name of any form.
    pub fn new(caller: &str) -> Self {
        let hex = if is_lower_hex_64(caller) {
            caller.to_owned()
        } else {
            hex::encode(Sha256::digest(caller.as_bytes()))
        };
        Self {
            hex,
            caller: caller.to_owned(),
        }
    }

    /// The 64 hex digits, as used in guest paths and in the policy's input.
    pub fn as_hex(&self) -> &str {
        &self.hex
    }

    /// The caller's name, for messages.
    pub fn caller(&self) -> &str {
        &self.caller
    }
}

impl PartialEq for ContainerId {
    fn eq(&self, other: &Self) -> bool {
        self.hex == other.hex
    }
}

impl Eq for ContainerId {}

impl std::hash::Hash for ContainerId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.hex.hash(state);
    }
}

impl PartialOrd for ContainerId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ContainerId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.hex.cmp(&other.hex)
    }
}

/// Displays the caller's name.
impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.caller)
    }
}

impl Serialize for ContainerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex)
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&String::deserialize(deserializer)?))
    }
}

/// A dm-verity root hash in lower-case hex, or empty for a device without verity (which no policy lists).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RootHash(String);

impl RootHash {
    /// The hash of a device opened with dm-verity.
    pub fn new(root: &[u8; 32]) -> Self {
        Self(hex::encode(root))
    }

    /// A device without verity.
    pub fn none() -> Self {
        Self(String::new())
    }

    /// The bytes to open the device with; `None` for a device without verity.
    pub fn bytes(&self) -> Option<[u8; 32]> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&self.0, &mut bytes).ok()?;
        Some(bytes)
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_64_hex_digits_stays() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(ContainerId::new(&id).as_hex(), id);
    }

    #[test]
    fn any_other_id_becomes_its_digest_and_keeps_its_name() {
        let id = ContainerId::new("nginx");
        assert_eq!(id.as_hex(), hex::encode(Sha256::digest(b"nginx")));
        assert_eq!(id.to_string(), "nginx");
        let upper = "0123456789ABCDEF".repeat(4);
        assert_ne!(ContainerId::new(&upper).as_hex(), upper);
    }

    #[test]
    fn a_root_hash_survives_a_round_trip() {
        assert_eq!(RootHash::new(&[0xab; 32]).bytes(), Some([0xab; 32]));
        assert_eq!(RootHash::none().bytes(), None);
    }
}
