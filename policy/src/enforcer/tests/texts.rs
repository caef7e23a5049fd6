//! What a text makes of the engine: versions that it declares, and what it must not contain.

use super::*;

#[test]
fn a_denial_under_a_strict_policy_changes_no_state() {
    let lenient = "package policy\napi_version := \"0.12.0\"\nget_properties := {\"allowed\": false, \
        \"metadata\": [{\"name\": \"seen\", \"action\": \"update\", \"key\": \"k\", \"value\": 1}]}\n";
    let mut enforcer = Enforcer::new(lenient).unwrap();
    assert!(enforcer.enforce(crate::action::GetProperties {}).is_err());
    assert_eq!(enforcer.counters().get("seen"), Some(&1));
    let mut enforcer = Enforcer::new(&format!("{lenient}strict := true\n")).unwrap();
    assert!(enforcer.enforce(crate::action::GetProperties {}).is_err());
    assert_eq!(enforcer.counters().get("seen"), None);
}

#[test]
fn own_points_are_evaluated_only_with_casemate_version() {
    let forward = || crate::action::PortForward {
        container_id: id(),
        port: 80,
    };
    let network = || crate::action::GuestNetwork {
        interface: "eth0".to_owned(),
        addresses: vec!["10.0.0.2/24".to_owned()],
        routes: Vec::new(),
        nameservers: Vec::new(),
        hardware_address: String::new(),
        mtu: 0,
        neighbours: Vec::new(),
    };
    let mut silent = enforcer();
    assert!(!silent.judges_confinement());
    silent.enforce(network()).unwrap().commit();
    assert!(silent.enforce(forward()).is_err());
    let mut missing = Enforcer::new(&policy("casemate_version := \"1.0.0\"")).unwrap();
    assert!(missing.judges_confinement());
    let denied = denied(&mut missing, network());
    assert!(denied.to_string().contains("rule for guest_network is missing"), "{denied}");
    let networks = "casemate_version := \"1.0.0\"\nguest_network := data.framework.guest_network\n\
        networks := [{\"addresses\": [{\"pattern\": \"10.0.0.2/24\", \"strategy\": \"string\"}]}]";
    let mut judged = Enforcer::new(&policy(networks)).unwrap();
    judged.enforce(network()).unwrap().commit();
    let other = crate::action::GuestNetwork {
        addresses: vec!["10.0.0.3/24".to_owned()],
        ..network()
    };
    let denied = judged.enforce(other).err().expect("denied");
    assert_eq!(denied.reasons(), ["invalid addresses"]);
    let two = policy("casemate_version := \"1.0.0\"\ncasemate_version := \"0.9.0\"");
    let mut conflicting = Enforcer::new(&two).unwrap();
    assert!(conflicting.judges_confinement());
    assert!(conflicting.enforce(network()).is_err());
    let mut ahead = Enforcer::new(&policy("casemate_version := \"2.0.0\"")).unwrap();
    assert!(ahead.enforce(network()).is_err());
}

#[test]
fn a_pull_needs_a_rule_and_no_casemate_version() {
    let pull = |image: &str| crate::action::PullImage { image: image.to_owned() };
    let image = format!("r.corp/app@sha256:{}", "a".repeat(64));
    let without = denied(&mut enforcer(), pull(&image));
    assert!(
        without.to_string().contains("the guest may not pull r.corp/app@sha256:"),
        "{without}"
    );
    let mut open = Enforcer::new(OPEN_DOOR).unwrap();
    open.enforce(pull(&image)).unwrap().commit();
    let listed = format!("pulls := [{{\"pattern\": \"{image}\", \"strategy\": \"string\"}}]\npull_image := data.framework.pull_image\n");
    for version in ["", "casemate_version := \"1.0.0\"\n"] {
        let mut judged = Enforcer::new(&policy(&format!("{version}{listed}"))).unwrap();
        judged.enforce(pull(&image)).unwrap().commit();
        let other = denied(&mut judged, pull("r.corp/app@sha256:b"));
        assert_eq!(other.reasons(), ["image not listed"]);
        assert!(other.to_string().contains("it is not in the policy's list of pulls"), "{other}");
    }
    let mut no_rule = Enforcer::new(&policy("casemate_version := \"1.0.0\"")).unwrap();
    assert!(
        denied(&mut no_rule, pull(&image))
            .to_string()
            .contains("rule for pull_image is missing")
    );
    let mut wrong = Enforcer::new(&policy("pull_image := {\"allowed\": \"yes\"}")).unwrap();
    assert!(wrong.enforce(pull(&image)).is_err());
}

#[test]
fn patterns_that_cannot_keep_their_meaning_are_named_at_load() {
    let text = policy("").replace("NONCE=[0-9a-f]+", r"NONCE=\\Bx");
    let error = Enforcer::new(&text).err().expect("refused").to_string();
    assert!(error.contains(r#"NONCE=\\Bx"#), "{error}");
    let refused_by_re2 = policy("").replace("NONCE=[0-9a-f]+", "NONCE=(");
    assert!(Enforcer::new(&refused_by_re2).is_ok(), "it never matches, as in hcsshim");
    let strict = policy("strict := true").replace("NONCE=[0-9a-f]+", "NONCE=(");
    assert!(Enforcer::new(&strict).is_err());
}

#[test]
fn recursive_functions_do_not_load() {
    assert!(Enforcer::new(&policy("f(x) := f(x)\nx := f(1)")).is_err());
}

#[test]
fn random_functions_cannot_be_aliased() {
    let text = "package policy\nx := sprintf(\"seed\", 1) with sprintf as rand.intn\n";
    assert!(Enforcer::new(text).is_err());
}

#[test]
fn print_in_a_rule_changes_nothing() {
    let text = "package policy\napi_version := \"0.12.0\"\nget_properties := {\"allowed\": true} if print(input)\n";
    let mut enforcer = Enforcer::new(text).unwrap();
    enforcer.enforce(crate::action::GetProperties {}).unwrap().commit();
}

#[test]
fn a_policy_that_reads_no_data_is_answered_as_with_the_framework() {
    // At this version the framework is asked about writable devices.
    let old = "package policy\napi_version := \"0.9.0\"\nload_fragment := {\"allowed\": true, \"add_module\": true}\n";
    let device = RwMountDevice::on_disk("/run/gcs/c/".to_owned() + &"a".repeat(64), true);
    let inputs = [
        Value::new_object(),
        Value::from(serde_json::to_value(device.clone()).unwrap()),
        Value::from(serde_json::to_value(mount_layer()).unwrap()),
    ];
    for text in [OPEN_DOOR, old, "package policy\n", "package policy\napi_version := \"9.0.0\"\n"] {
        let mut without = Enforcer::new(text).unwrap();
        let mut with = Enforcer::new(&format!("{text}# data\n")).unwrap();
        for round in 0..2 {
            for (point, input) in crate::POINTS.iter().chain(crate::OWN_POINTS).zip(inputs.iter().cycle()) {
                assert_eq!(
                    without.result(point.name, input),
                    with.result(point.name, input),
                    "{} {text}",
                    point.name
                );
                assert_eq!(without.snapshot().state, with.snapshot().state);
            }
            let fragment = || LoadFragment {
                issuer: "i".to_owned(),
                feed: format!("f{round}"),
                header_svn: None,
                text: format!("package f{round}\nsvn := count(data.framework.versions) + 1\n"),
                receipts: Vec::new(),
            };
            let load = |enforcer: &mut Enforcer| {
                enforcer
                    .enforce(fragment())
                    .map(|permit| permit.commit())
                    .map_err(|denied| denied.to_string())
            };
            assert_eq!(load(&mut without), load(&mut with));
        }
        let mount = |enforcer: &mut Enforcer| {
            enforcer
                .enforce(device.clone())
                .map(|permit| permit.commit())
                .map_err(|denied| denied.to_string())
        };
        assert_eq!(mount(&mut without), mount(&mut with));
    }
}
