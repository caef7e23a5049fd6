//! Seals: what the service writes for itself and reads back from a client (cookies, forms), bound to a purpose.

use super::{Keyring, SigningKey};
use ring::hmac;
use subtle::ConstantTimeEq as _;

/// Bytes of a seal.
pub(crate) const SEAL_BYTES: usize = 32;

impl Keyring {
    /// The seal of some parts for one purpose, made with the signing key's derivative.
    pub(crate) fn seal(&self, purpose: &str, parts: &[&[u8]]) -> [u8; SEAL_BYTES] {
        let mut seal = [0; SEAL_BYTES];
        if let Some(key) = self.now().first().and_then(|key| sealing_key(key, purpose)) {
            seal.copy_from_slice(sign(&key, parts).as_ref());
        }
        seal
    }

    /// Whether `seal` is of these parts and this purpose, by any key of now: so it outlives a rotation, and holds for every
    /// instance with the same keys. The comparison takes the same time wherever they differ.
    pub(crate) fn unseal(&self, purpose: &str, parts: &[&[u8]], seal: &[u8]) -> bool {
        let expected = |key: &SigningKey| sealing_key(key, purpose).map(|key| sign(&key, parts));
        self.now().iter().filter_map(expected).any(|tag| tag.as_ref().ct_eq(seal).into())
    }
}

fn sealing_key(key: &SigningKey, purpose: &str) -> Option<hmac::Key> {
    let info = [purpose.as_bytes()];
    let derived = key.seal.expand(&info, ring::hkdf::HKDF_SHA256).ok()?;
    let mut bytes = zeroize::Zeroizing::new([0; SEAL_BYTES]);
    derived.fill(&mut *bytes).ok()?;
    Some(hmac::Key::new(hmac::HMAC_SHA256, &*bytes))
}

fn sign(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        // With its length before it, no part runs into the next.
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::super::{KeyAlgorithm, Keyring, new_key};
    use crate::config::KeyFiles;

    #[test]
    fn a_seal_is_of_its_purpose_and_parts_and_outlives_a_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let files = |name: &str| KeyFiles {
            key: directory.path().join(format!("{name}.key")),
            certificate: directory.path().join(format!("{name}.crt")),
        };
        for name in ["old", "new"] {
            new_key(KeyAlgorithm::Es256, &files(name).key, &files(name).certificate).unwrap();
        }
        let before = Keyring::read(vec![files("old")]).unwrap();
        let seal = before.seal("session", &[b"ab", b"c"]);
        assert!(before.unseal("session", &[b"ab", b"c"], &seal));
        assert!(!before.unseal("form", &[b"ab", b"c"], &seal));
        assert!(!before.unseal("session", &[b"a", b"bc"], &seal));
        assert!(!before.unseal("session", &[b"ab", b"c"], &seal[..31]));
        assert!(!before.unseal("session", &[b"ab", b"c"], &[0; 32]));
        let during = Keyring::read(vec![files("new"), files("old")]).unwrap();
        assert!(during.unseal("session", &[b"ab", b"c"], &seal));
        assert_ne!(during.seal("session", &[b"ab", b"c"]), seal);
        let after = Keyring::read(vec![files("new")]).unwrap();
        assert!(!after.unseal("session", &[b"ab", b"c"], &seal));
    }
}
