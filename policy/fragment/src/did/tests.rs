use proptest::prelude::*;

use super::*;

const CA: &str = "did:x509:0:sha256:I5ni_nuWegx4NiLaeGabiz36bDUhDDiHEFl8HXMA_4o";

fn parse(conditions: &str) -> Result<Vec<Condition>, DidError> {
    format!("{CA}{conditions}").parse().map(|did: DidX509| did.conditions)
}

#[test]
fn every_kind_of_condition_is_parsed() {
    let conditions = parse(
        "::subject:CN:Test%20Leaf+1:O:100%25:2.5.4.97:x::san:email:a%40b::eku:1.3.6.1.5.5.7.3.3::fulcio-issuer:token.actions.example",
    );
    let expected = vec![
        Condition::Subject(vec![
            (SubjectKey::CommonName, "Test Leaf 1".to_owned()),
            (SubjectKey::Organization, "100%".to_owned()),
            (SubjectKey::Oid(Oid(vec![2, 5, 4, 97])), "x".to_owned()),
        ]),
        Condition::San(SanKind::Email, "a@b".to_owned()),
        Condition::Eku(Oid(vec![1, 3, 6, 1, 5, 5, 7, 3, 3])),
        Condition::FulcioIssuer("token.actions.example".to_owned()),
    ];
    assert_eq!(conditions, Ok(expected));
}

#[test]
fn the_fingerprint_has_the_length_of_its_algorithm() {
    assert_eq!(parse("::eku:1.2").map(|conditions| conditions.len()), Ok(1));
    let sha512: Result<DidX509, _> = format!("{}::eku:1.2", CA.replace("sha256", "sha512")).parse();
    assert_eq!(sha512, Err(DidError::Fingerprint));
    let padded: Result<DidX509, _> = format!("{CA}=::eku:1.2").parse();
    assert_eq!(padded, Err(DidError::Fingerprint));
    let unknown: Result<DidX509, _> = format!("{}::eku:1.2", CA.replace("sha256", "md5")).parse();
    assert_eq!(unknown, Err(DidError::Algorithm("md5".to_owned())));
}

#[test]
fn invalid_syntax_is_refused() {
    assert_eq!(parse(""), Err(DidError::Conditions));
    assert_eq!(parse(&"::eku:1.2".repeat(33)), Err(DidError::Conditions));
    assert_eq!(
        parse("::subject:CN"),
        Err(DidError::Subject("keys and values must come in pairs".to_owned()))
    );
    assert_eq!(
        parse("::subject:CN:a:CN:b"),
        Err(DidError::Subject("key \"CN\" is given twice".to_owned()))
    );
    assert_eq!(parse("::subject:ST:a"), Err(DidError::Subject("unknown key \"ST\"".to_owned())));
    assert_eq!(parse("::san:other:a"), Err(DidError::San("other".to_owned())));
    assert_eq!(parse("::san:dns:a:b"), Err(DidError::Condition("san:dns:a:b".to_owned())));
    assert_eq!(parse("::eku:1"), Err(DidError::Oid("1".to_owned())));
    assert_eq!(parse("::eku:1.02"), Err(DidError::Oid("1.02".to_owned())));
    assert_eq!(parse("::subject:CN:%4"), Err(DidError::Encoding("%4".to_owned())));
    assert_eq!(parse("::subject:CN:%ff"), Err(DidError::Encoding("%ff".to_owned())));
    assert_eq!(parse("::"), Err(DidError::Condition(String::new())));
    assert_eq!("did:x509:1:sha256:aa::eku:1.2".parse::<DidX509>(), Err(DidError::Method));
    assert_eq!("did:web:example".parse::<DidX509>(), Err(DidError::Method));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _ = text.parse::<DidX509>();
        let _ = parse(&text);
    }

    #[test]
    fn any_value_survives_percent_encoding(value in "\\PC{0,30}") {
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        prop_assert_eq!(
            parse(&format!("::subject:CN:{encoded}")),
            Ok(vec![Condition::Subject(vec![(SubjectKey::CommonName, value)])])
        );
    }
}
