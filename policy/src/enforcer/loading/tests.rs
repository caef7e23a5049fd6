use std::collections::BTreeMap;

use crate::action::{GetProperties, LoadFragment, LoadTransparencyTrustList};
use crate::{Denied, Enforcer};

const POLICY: &str = r#"package policy
api_version := "0.12.0"
framework_version := "0.5.0"
fragments := [
    {"issuer": "did:a", "feed": "one", "minimum_svn": "1", "includes": ["containers", "namespace"]},
    {"issuer": "did:a", "feed": "two", "minimum_svn": "1", "includes": ["containers", "namespace"]},
    {"issuer": "did:a", "feed": "proven", "minimum_svn": "1", "includes": ["containers"], "required_receipts": ["TTL:root"]},
]
transparency_trust_lists := [{"issuer": "did:t", "subject": "root", "minimum_svn": "1", "allowed_ledgers": ["ledger"]}]
load_fragment := data.framework.load_fragment
load_transparency_trust_list := data.framework.load_transparency_trust_list
default get_properties := {"allowed": false}
get_properties := {"allowed": true} if data.app.ok
reason := data.framework.reason
"#;

fn enforcer(extra: &str) -> Enforcer {
    Enforcer::new(&format!("{POLICY}{extra}\n")).unwrap()
}

fn fragment(feed: &str, text: &str) -> LoadFragment {
    LoadFragment {
        issuer: "did:a".to_owned(),
        feed: feed.to_owned(),
        header_svn: None,
        text: text.to_owned(),
        receipts: Vec::new(),
    }
}

fn text(namespace: &str, svn: u32, ok: bool) -> String {
    format!("package {namespace}\nsvn := \"{svn}\"\nframework_version := \"0.5.0\"\nok := {ok}\n")
}

fn load(enforcer: &mut Enforcer, fragment: LoadFragment) -> Result<(), Denied> {
    enforcer.enforce(fragment).map(|permit| permit.commit())
}

fn allowed(enforcer: &mut Enforcer) -> bool {
    enforcer.enforce(GetProperties {}).is_ok()
}

#[test]
fn a_namespace_is_in_use_once_its_load_is_committed() {
    let mut enforcer = enforcer("");
    assert!(!allowed(&mut enforcer));
    drop(enforcer.enforce(fragment("one", &text("app", 1, true))).unwrap());
    assert!(!allowed(&mut enforcer), "a dropped permit takes the fragment away again");
    assert_eq!(enforcer.active_fragments().count(), 0);
    load(&mut enforcer, fragment("one", &text("app", 1, true))).unwrap();
    assert!(allowed(&mut enforcer));
    assert_eq!(enforcer.active_fragments().collect::<Vec<_>>(), [("did:a", "one", "app")]);
}

#[test]
fn a_failed_load_keeps_the_fragment_in_use() {
    let mut enforcer = enforcer("");
    load(&mut enforcer, fragment("one", &text("app", 1, true))).unwrap();
    for broken in [
        "package app\nsvn := [\n",
        &text("app", 0, false),
        "package app\nok := nothing\n",
        "package app\nx := http.send({})\n",
    ] {
        assert!(load(&mut enforcer, fragment("one", broken)).is_err(), "{broken}");
        assert!(allowed(&mut enforcer), "{broken}");
    }
    load(&mut enforcer, fragment("one", &text("app", 2, false))).unwrap();
    assert!(!allowed(&mut enforcer), "the new text has taken the old one's place");
}

#[test]
fn a_namespace_may_be_a_keyword() {
    for name in crate::rego::KEYWORDS {
        let policy = POLICY.replace("data.app.ok", &format!("data.{name}.ok"));
        for policy in [policy, POLICY.replace("data.app.ok", &format!("data[\"{name}\"].ok"))] {
            let mut enforcer = Enforcer::new(&policy).unwrap();
            assert!(!allowed(&mut enforcer), "{name}");
            load(&mut enforcer, fragment("one", &text(name, 1, true))).unwrap();
            assert!(allowed(&mut enforcer), "{name}");
            assert!(enforcer.active_fragments().any(|(.., namespace)| namespace == *name));
        }
        let mut enforcer = enforcer("");
        let denied = load(&mut enforcer, fragment("one", &text(&format!("casemate_package_{name}"), 1, true)));
        assert!(denied.unwrap_err().decision().contains("is reserved"), "{name}");
    }
}

#[test]
fn a_fragment_is_read_as_opa_reads_it() {
    let mut enforcer = enforcer("");
    let odd = "package app\nsvn := \"1\"\nframework_version := \"0.5.0\"\nimport data.app as me\nf(\"x\")\nok if me.f(\"x\")\n";
    load(&mut enforcer, fragment("one", odd)).unwrap();
    assert!(allowed(&mut enforcer));
}

#[test]
fn blanks_around_a_version_number_make_it_none() {
    for svn in [" 1", "1 ", "\t1", "0x1", "1_0", "inf", "one", ""] {
        let text = text("app", 1, true).replace("svn := \"1\"", &format!("svn := \"{svn}\""));
        assert!(load(&mut enforcer(""), fragment("one", &text)).is_err(), "{svn:?}");
    }
    for svn in ["1", "+1", "01", "1.0", "1e0", "10"] {
        let text = text("app", 1, true).replace("svn := \"1\"", &format!("svn := \"{svn}\""));
        load(&mut enforcer(""), fragment("one", &text)).unwrap_or_else(|denied| panic!("{svn:?}: {denied}"));
    }
}

#[test]
fn two_fragments_never_share_a_namespace() {
    let mut enforcer = enforcer("");
    load(&mut enforcer, fragment("one", &text("app", 1, true))).unwrap();
    let denied = load(&mut enforcer, fragment("two", &text("app", 1, false))).unwrap_err();
    assert!(denied.decision().contains("is in use by feed \"one\""), "{denied}");
    assert!(allowed(&mut enforcer));
}

#[test]
fn no_fragment_shadows_the_engine_s_data() {
    let mut enforcer = enforcer("");
    for name in ["defaultMounts", "privilegedMounts", "plan9Prefix", "framework", "metadata"] {
        let denied = load(&mut enforcer, fragment("one", &text(name, 1, true))).unwrap_err();
        assert!(denied.decision().contains("is reserved"), "{denied}");
    }
}

#[test]
fn a_strict_policy_refuses_an_older_fragment() {
    let mut strict = enforcer("strict := true");
    load(&mut strict, fragment("one", &text("app", 3, true))).unwrap();
    let denied = load(&mut strict, fragment("one", &text("app", 2, false))).unwrap_err();
    assert!(denied.decision().contains("svn 2 is below 3"), "{denied}");
    assert!(allowed(&mut strict));
    let mut lenient = enforcer("");
    load(&mut lenient, fragment("one", &text("app", 3, true))).unwrap();
    load(&mut lenient, fragment("one", &text("app", 2, false))).unwrap();
}

fn trust_list(key: &[u8]) -> LoadTransparencyTrustList {
    let keys = BTreeMap::from([("k".to_owned(), key.to_owned())]);
    LoadTransparencyTrustList {
        issuer: "did:t".to_owned(),
        subject: "root".to_owned(),
        svn: 1,
        ledgers: BTreeMap::from([("ledger".to_owned(), keys.clone()), ("other".to_owned(), keys)]),
    }
}

#[test]
fn receipts_count_if_a_trust_list_has_their_key() {
    let mut enforcer = enforcer("");
    let proven = |enforcer: &Enforcer, ledger: &str| {
        let claims = [(ledger.to_owned(), ())];
        enforcer.proven_receipts(claims, |(), id, key| id == "k" && key == b"key")
    };
    assert!(proven(&enforcer, "ledger").is_empty());
    drop(enforcer.enforce(trust_list(b"key")).unwrap());
    assert!(proven(&enforcer, "ledger").is_empty(), "a dropped permit takes the keys away again");
    enforcer.enforce(trust_list(b"key")).unwrap().commit();
    assert!(proven(&enforcer, "other").is_empty(), "the policy does not let this ledger in");
    let receipts = proven(&enforcer, "ledger");
    assert_eq!(receipts.len(), 1);
    assert!(load(&mut enforcer, fragment("proven", &text("x", 1, true))).is_err());
    let with_receipt = LoadFragment {
        receipts,
        ..fragment("proven", &text("x", 1, true))
    };
    load(&mut enforcer, with_receipt).unwrap();
}

#[test]
fn a_strict_policy_requires_receipts_with_the_rules_loaded() {
    // The first answers while only the header is known, the second where the text says svn 1.
    let two = r#"fragments := [
    {"issuer": "did:a", "feed": "both", "minimum_svn": "5", "includes": ["namespace"]},
    {"issuer": "did:a", "feed": "both", "minimum_svn": "1", "includes": ["namespace"], "required_receipts": ["ledger"]},"#;
    let of = |strict: bool| {
        let policy = POLICY.replace("fragments := [", two);
        Enforcer::new(&format!("{policy}strict := {strict}\n")).unwrap()
    };
    let unproven = || fragment("both", &text("app", 1, true));
    load(&mut of(false), unproven()).unwrap();
    load(&mut of(true), unproven()).unwrap_err();
    load(&mut of(true), fragment("both", &text("app", 5, true))).unwrap();
}
