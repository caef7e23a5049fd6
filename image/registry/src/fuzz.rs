//! What fuzz targets call: each parser of hostile bytes, and what must hold of its result.

use crate::challenge::Challenge;
use crate::config::Standing;
use crate::realm::RealmRules;
use crate::{Config, Environment, PinnedReference, RegistryName, device};
use oci::{Pick, Search};
use std::collections::BTreeSet;
use url::Url;

/// Names that keys of a fuzzed configuration can mean.
const NAMES: [&str; 5] = ["docker.io", "r.corp", "eu.r.corp:5000", "10.0.0.7:5000", "a.b"];

/// A configuration, as a text and as a disk: one section is chosen for a name, or none.
pub fn configuration(bytes: &[u8]) {
    let unpacked = device::decode(bytes);
    let text = unpacked.as_ref().map_or(bytes, |text| text.as_slice());
    let Ok(config) = Config::from_bytes(text) else { return };
    for name in NAMES {
        let registry = RegistryName::new(name);
        let standings = config.standings(&registry);
        let chosen = standings.iter().filter(|(_, standing)| *standing == Standing::Chosen).count();
        assert_eq!(chosen, usize::from(config.section(&registry).is_some()));
        if let Ok(access) = config.access(&registry, &Environment::default()) {
            let _ = access.proxies().chosen(&access.origin().unwrap_or_else(|_| access.registry_url()));
            let credentials = access.credentials();
            assert!(credentials.for_basic().kind() != "identity-token");
            assert_eq!(access.section().is_some(), chosen == 1);
        }
    }
    let disk = device::encode(text).unwrap();
    assert_eq!(device::decode(disk.as_slice()).unwrap().as_slice(), text);
}

/// A `WWW-Authenticate` header, and the realm in it.
pub fn challenge(bytes: &[u8]) {
    let Ok(Challenge::Bearer(bearer)) = Challenge::parse(&[bytes]) else {
        return;
    };
    let registry = Url::parse("https://r.corp").unwrap();
    if let Ok(realm) = RealmRules::new(&registry, false).parse(&bearer.realm) {
        assert_eq!(realm.scheme(), "https");
        assert!(realm.username().is_empty() && realm.password().is_none());
    }
}

/// A reference: what is written is read the same.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(pinned) = text.parse::<PinnedReference>() {
        assert_eq!(pinned.to_string().parse().as_ref(), Ok(&pinned));
    }
}

/// One document in place of every one that a search for an image asks for: it ends, within its limits.
pub fn manifest(bytes: &[u8]) {
    let mut search = Search::document(oci::Digest::of(bytes), Pick::Only);
    let mut read = BTreeSet::new();
    while let Ok(Some(digest)) = search.wanted() {
        read.insert(digest);
        assert!(read.len() <= oci::limits::DOCUMENTS_MAX);
        if search.take(bytes).is_err() {
            return;
        }
    }
    let _ = search.finish();
}

/// An image's config.
pub fn image_config(bytes: &[u8]) {
    if let Ok(config) = oci::Config::parse(bytes) {
        let _ = (config.platform.is_guest(), config.platform.to_string(), config.diff_ids().len());
    }
}
