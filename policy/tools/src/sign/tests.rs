use policy_fragment::{Fragment, TrustList};

use super::*;

const REGO: &[u8] = b"package app\n\nsvn := \"1\"\nframework_version := \"0.5.0\"\n";
const KEY: &str = include_str!("../../fixtures/p256.key");
const CHAIN: &str = include_str!("../../fixtures/p256.chain.pem");

fn signing() -> Signing<'static> {
    Signing {
        key: KEY,
        chain: CHAIN,
        issuer: None,
        feed: "registry.example/app",
        svn: Some(3),
        content_type: FRAGMENT_TYPE,
    }
}

#[test]
fn a_signed_fragment_opens_and_shows_its_signer() {
    let fragment = Fragment::open(&sign(REGO, &signing()).unwrap()).unwrap();
    assert_eq!(fragment.rego.as_bytes(), REGO);
    assert_eq!((fragment.svn, fragment.feed.as_str()), (Some(3), "registry.example/app"));
    assert_eq!(fragment.issuer.as_str(), issuer_of(CHAIN).unwrap());
    assert!(fragment.issuer.as_str().ends_with("::subject:CN:Test%20Leaf%20%C3%A9"));
    let other = Signing {
        key: include_str!("../../fixtures/p384.key"),
        chain: include_str!("../../fixtures/p384.chain.pem"),
        svn: None,
        ..signing()
    };
    assert_eq!(Fragment::open(&sign(REGO, &other).unwrap()).unwrap().svn, None);
}

#[test]
fn an_invalid_message_is_not_signed() {
    let refused = |signing: Signing<'_>| sign(REGO, &signing).unwrap_err();
    let wrong_key = Signing {
        key: include_str!("../../fixtures/p384.key"),
        ..signing()
    };
    assert!(matches!(refused(wrong_key), SignError::Refused(_)));
    assert!(matches!(refused(Signing { feed: "", ..signing() }), SignError::Refused(_)));
    assert!(matches!(
        refused(Signing {
            issuer: Some("did:web:x"),
            ..signing()
        }),
        SignError::Refused(_)
    ));
    let kind = "application/vnd.transparency-trust-list.v1+cose";
    assert!(matches!(
        refused(Signing {
            content_type: kind,
            ..signing()
        }),
        SignError::Refused(_)
    ));
    assert!(matches!(refused(Signing { key: "none", ..signing() }), SignError::Key));
    assert!(matches!(
        refused(Signing {
            chain: "none",
            ..signing()
        }),
        SignError::Pem
    ));
    // The signature covers the content type.
    assert!(TrustList::open(&sign(REGO, &signing()).unwrap()).is_err());
}
