//! Keys of transparency ledgers, from trust lists that the policy allowed, to verify receipts of fragments.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

/// Maximum number of keys of all ledgers.
pub(crate) const MAX_KEYS: usize = 4096;

/// A key of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerKey {
    key: Vec<u8>,
    offered_by: Vec<String>,
}

impl LedgerKey {
    /// The key's encoding, as in the trust list.
    pub fn bytes(&self) -> &[u8] {
        &self.key
    }

    /// Subjects of the trust lists that contain this key.
    pub fn offered_by(&self) -> &[String] {
        &self.offered_by
    }
}

/// A receipt whose signature was verified with a key of a loaded trust list. Only [`crate::Enforcer::proven_receipts`] makes one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProvenReceipt {
    issuer: String,
    ttl_subjects: Vec<String>,
}

/// By ledger and key id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledgers {
    keys: Arc<BTreeMap<String, BTreeMap<String, LedgerKey>>>,
}

impl Ledgers {
    /// Keys of the ledger called `issuer`, by key id.
    pub(crate) fn keys_of(&self, issuer: &str) -> Option<&BTreeMap<String, LedgerKey>> {
        self.keys.get(issuer)
    }

    /// Adds a key. If it is known, the subject is added to it; a different key with the same id replaces it.
    /// `false` if there are too many keys.
    pub(crate) fn offer(&mut self, ledger: &str, key_id: &str, key: &[u8], subject: &str) -> bool {
        let full = self.keys.values().map(BTreeMap::len).sum::<usize>() >= MAX_KEYS;
        let ledgers = Arc::make_mut(&mut self.keys);
        let known = ledgers.get_mut(ledger).and_then(|keys| keys.get_mut(key_id));
        match known {
            Some(known) if known.key == key => {
                if !known.offered_by.iter().any(|offered| offered == subject) {
                    known.offered_by.push(subject.to_owned());
                }
            }
            Some(known) => {
                *known = LedgerKey {
                    key: key.to_owned(),
                    offered_by: vec![subject.to_owned()],
                };
            }
            None if full => return false,
            None => {
                let new = LedgerKey {
                    key: key.to_owned(),
                    offered_by: vec![subject.to_owned()],
                };
                ledgers.entry(ledger.to_owned()).or_default().insert(key_id.to_owned(), new);
            }
        }
        true
    }

    /// The receipt, if one of the ledger's keys verifies it.
    pub(crate) fn prove(&self, issuer: &str, mut confirms: impl FnMut(&str, &[u8]) -> bool) -> Option<ProvenReceipt> {
        let (_, key) = self.keys_of(issuer)?.iter().find(|(id, key)| confirms(id, &key.key))?;
        Some(ProvenReceipt {
            issuer: issuer.to_owned(),
            ttl_subjects: key.offered_by.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_subjects_until_another_key_replaces_it() {
        let mut ledgers = Ledgers::default();
        assert!(ledgers.offer("l", "k", b"1", "a") && ledgers.offer("l", "k", b"1", "b") && ledgers.offer("l", "k", b"1", "b"));
        assert_eq!(ledgers.prove("l", |_, key| key == b"1").unwrap().ttl_subjects, ["a", "b"]);
        ledgers.offer("l", "k", b"2", "c");
        assert_eq!(ledgers.prove("l", |_, key| key == b"1"), None);
        assert_eq!(ledgers.prove("l", |_, key| key == b"2").unwrap().ttl_subjects, ["c"]);
        assert_eq!(ledgers.prove("unknown", |_, _| true), None);
    }

    #[test]
    fn the_number_of_keys_is_limited() {
        let mut ledgers = Ledgers::default();
        for id in 0..MAX_KEYS {
            assert!(ledgers.offer("l", &id.to_string(), b"1", "a"));
        }
        assert!(!ledgers.offer("m", "k", b"1", "a"));
        assert!(ledgers.offer("l", "0", b"2", "a"), "a known id can change");
    }
}
