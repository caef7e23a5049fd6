//! Messages made with OpenSSL (`examples/make_fixtures.rs`): each valid one is accepted, each invalid one is refused for its fault.

use proptest::prelude::*;

use super::*;

const MAIN: &[u8] = include_bytes!("../fixtures/svn.cose");

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../fixtures/", $name, ".cose")).as_slice()
    };
}

#[test]
fn every_algorithm_and_every_condition_is_accepted() {
    for (name, bytes) in [
        ("es256", fixture!("es256")),
        ("es384", fixture!("es384")),
        ("es512", fixture!("es512")),
        ("p256-es384", fixture!("p256-es384")),
        ("p256-es512", fixture!("p256-es512")),
        ("p384-es256", fixture!("p384-es256")),
        ("p384-es512", fixture!("p384-es512")),
        ("p521-es256", fixture!("p521-es256")),
        ("p521-es384", fixture!("p521-es384")),
        ("ed25519", fixture!("ed25519")),
        ("ps256", fixture!("ps256")),
        ("ps384", fixture!("ps384")),
        ("san-dns", fixture!("san-dns")),
        ("san-email", fixture!("san-email")),
        ("san-uri", fixture!("san-uri")),
        ("san-ip", fixture!("san-ip")),
        ("san-ip6", fixture!("san-ip6")),
        ("eku", fixture!("eku")),
        ("eku-known", fixture!("eku-known")),
        ("fulcio", fixture!("fulcio")),
        ("many", fixture!("many")),
        ("short", fixture!("short")),
        ("typed", fixture!("typed")),
    ] {
        let fragment = Fragment::open(bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(fragment.feed.as_str(), "registry.example/fragment", "{name}");
        assert!(fragment.rego.starts_with("package fragment\n"), "{name}");
        assert_eq!(fragment.svn, None, "{name}");
    }
}

#[test]
fn a_key_verifies_signatures_of_its_own_kind_only() {
    use crate::key::{Algorithm, Hash, PublicKey};
    for (bytes, wrong) in [
        (fixture!("ed25519"), Algorithm::EcdsaRaw(Hash::Sha256)),
        (fixture!("es256"), Algorithm::Ed25519),
        (fixture!("ps256"), Algorithm::EcdsaRaw(Hash::Sha256)),
    ] {
        let key = Envelope::open(bytes).unwrap().chain.leaf_key().clone();
        assert_eq!(key.verify(wrong, b"", &[0; 64]), Err(KeyError::Mismatch));
        assert_eq!(PublicKey::from_bytes(&key.to_bytes()), Ok(key));
    }
}

#[test]
fn claims_carry_the_security_version() {
    let fragment = Fragment::open(MAIN).unwrap();
    assert_eq!(fragment.svn, Some(7));
    assert!(fragment.issuer.as_str().ends_with("::subject:CN:Test%20Leaf"));
    assert!(matches!(
        Fragment::open(fixture!("bad-svn")),
        Err(BlobError::Envelope(EnvelopeError::Header("svn is not a 64-bit number")))
    ));
}

#[test]
fn an_invalid_chain_is_refused_for_its_fault() {
    let chain = |bytes| match Fragment::open(bytes) {
        Err(BlobError::Envelope(EnvelopeError::Chain(error))) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(chain(fixture!("bad-single")), ChainError::Length(1));
    assert_eq!(chain(fixture!("bad-gap")), ChainError::Issuer(0));
    assert_eq!(chain(fixture!("bad-order")), ChainError::Issuer(0));
    assert_eq!(chain(fixture!("bad-expired-authority")), ChainError::Validity(1));
    assert_eq!(chain(fixture!("bad-no-authority")), ChainError::Authority(1));
    assert_eq!(chain(fixture!("bad-leaf-usage")), ChainError::LeafUsage);
    assert_eq!(
        chain(fixture!("bad-critical-extension")),
        ChainError::Critical(0, "1.2.3.4".to_owned())
    );
    assert_eq!(chain(fixture!("bad-sha1")), ChainError::Algorithm(0));
    assert!(matches!(
        chain(fixture!("bad-secp256k1")),
        ChainError::Key(0, KeyError::Kind(kind)) if kind == "curve 1.3.132.0.10"
    ));
    assert!(matches!(chain(fixture!("bad-ed448")), ChainError::Key(0, KeyError::Kind(_))));
    assert_eq!(chain(fixture!("bad-rsa1024")), ChainError::Key(0, KeyError::RsaSize(1024)));
}

#[test]
fn a_chain_that_does_not_match_the_issuer_is_refused() {
    for (bytes, error) in [
        (fixture!("bad-did-cn"), ResolveError::Condition("the subject")),
        (
            fixture!("bad-did-one-of-two"),
            ResolveError::Condition("the subject alternative name"),
        ),
        (fixture!("bad-did-eku"), ResolveError::Condition("the extended key usage")),
        (fixture!("bad-did-fulcio"), ResolveError::Condition("the Fulcio issuer")),
        (fixture!("bad-did-leaf-fingerprint"), ResolveError::Fingerprint),
    ] {
        assert_eq!(Fragment::open(bytes).unwrap_err(), BlobError::Resolve(error));
    }
    assert_eq!(
        Fragment::open(fixture!("bad-issuer")).unwrap_err(),
        BlobError::Did(DidError::Method)
    );
    assert!(matches!(
        Fragment::open(fixture!("bad-no-feed")),
        Err(BlobError::Envelope(EnvelopeError::Identity(IdentityError::Empty)))
    ));
    assert_eq!(Fragment::open(fixture!("bad-binary")).unwrap_err(), BlobError::Rego);
}

#[test]
fn the_signed_content_type_binds_the_host() {
    assert!(matches!(
        Blob::open("application/cose-x509+rego", fixture!("typed")),
        Ok(Blob::Fragment(_))
    ));
    for other in [MediaType::TrustList, MediaType::TcbReference, MediaType::PlatformReference] {
        let error = Blob::open(&other.to_string(), fixture!("typed")).unwrap_err();
        assert!(matches!(error, BlobError::ContentType { .. }), "{error:?}");
    }
    let tcb = MediaType::TcbReference.to_string();
    assert!(matches!(
        Blob::open(&tcb, MAIN),
        Ok(Blob::ReferenceInfo(MediaType::TcbReference, bytes)) if bytes == MAIN
    ));
    assert!(matches!(Blob::open("text/plain", MAIN), Err(BlobError::MediaType(_))));
}

#[test]
fn a_trust_list_gives_keys_and_skips_unusable_ones() {
    let list = TrustList::open(fixture!("trust-list")).unwrap();
    assert_eq!(list.svn, 3);
    assert_eq!(
        list.ledgers["ledger.example"].iter().map(LedgerKey::kid).collect::<Vec<_>>(),
        ["k1"]
    );
    assert_eq!(TrustList::open(fixture!("bad-trust-list-svn")).unwrap_err(), BlobError::NoSvn);
    assert_eq!(
        TrustList::open(fixture!("bad-trust-list-keys")).unwrap_err(),
        BlobError::TrustList(TrustListError::NoKey("ledger.example".to_owned()))
    );
    assert_eq!(read_trust_list(&[0xa0]), Err(TrustListError::Empty));
}

#[test]
fn a_receipt_proves_that_the_ledger_contains_the_message() {
    let key = TrustList::open(fixture!("trust-list")).unwrap().ledgers["ledger.example"][0].clone();
    let fragment = Fragment::open(fixture!("receipt")).unwrap();
    let [receipt] = fragment.receipts.as_slice() else {
        panic!("{:?}", fragment.receipts)
    };
    assert_eq!((receipt.issuer(), receipt.kid()), ("ledger.example", "k1"));
    receipt.verify(&key).unwrap();
    assert_eq!(LedgerKey::from_bytes("k1", &key.to_bytes()), Ok(key.clone()));

    let bytes = &Envelope::open(fixture!("receipt")).unwrap().receipts[0];
    let other = Envelope::open(MAIN).unwrap().digest;
    assert_eq!(Receipt::read(bytes, &other).unwrap_err(), ReceiptError::Other);
    // A receipt with a changed byte does not parse or does not verify. (The lowest bit would change the absent payload from null to
    // undefined, which is equivalent.)
    let digest = Envelope::open(fixture!("receipt")).unwrap().digest;
    for position in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 2;
        if let Ok(receipt) = Receipt::read(&changed, &digest) {
            assert!(receipt.verify(&key).is_err(), "byte {position}");
        }
    }
}

#[test]
fn a_message_changed_or_cut_anywhere_is_refused() {
    for position in 0..MAIN.len() {
        let mut changed = MAIN.to_vec();
        changed[position] ^= 0x20;
        assert!(Fragment::open(&changed).is_err(), "byte {position}");
        assert!(Fragment::open(&MAIN[..position]).is_err(), "cut at {position}");
    }
    let mut longer = MAIN.to_vec();
    longer.push(0);
    assert!(Fragment::open(&longer).is_err());
    assert!(matches!(
        Fragment::open(&vec![0; MAX_MESSAGE_BYTES + 1]),
        Err(BlobError::Envelope(EnvelopeError::TooLong(_)))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..MAIN.len(), with in any::<u8>()) {
        fuzz(&bytes);
        let mut changed = MAIN.to_vec();
        changed[at] = with;
        fuzz(&changed);
        changed.truncate(at);
        changed.extend(&bytes);
        fuzz(&changed);
    }
}
