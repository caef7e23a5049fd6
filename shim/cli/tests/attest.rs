//! `casemate attest` as an operator types it, with the sample report of a Milan that AMD's own library has.

mod program;

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vmm/attestation/verifier/fixtures/milan");

const REQUIREMENTS: &str = r#"
products = ["milan"]
revocation = "unchecked"
measurements = ["any"]
report_data = ["any"]
[minimum_tcb.milan]
boot_loader = 3
tee = 0
snp = 8
microcode = 115
"#;

fn casemate(directory: &Path, arguments: &[&str], input: &[u8]) -> Output {
    program::run("attest", directory, arguments, input)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory with the report in hexadecimal, a policy, and the certificates.
fn prepared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("verifier.toml"), REQUIREMENTS).unwrap();
    fs::create_dir(directory.path().join("certs")).unwrap();
    for file in ["ark.pem", "ask.pem", "vcek.der"] {
        fs::copy(Path::new(FIXTURES).join(file), directory.path().join("certs").join(file)).unwrap();
    }
    fs::write(directory.path().join("certs/README"), "not a certificate").unwrap();
    fs::copy(Path::new(FIXTURES).join("report.hex"), directory.path().join("report.hex")).unwrap();
    directory
}

const VERIFY: [&str; 7] = [
    "verify",
    "--certs",
    "certs",
    "--requirements",
    "verifier.toml",
    "--at",
    "2024-06-01T00:00:00Z",
];
const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn a_report_is_verified_in_each_of_its_forms() {
    let directory = prepared();
    let hex_text = fs::read_to_string(directory.path().join("report.hex")).unwrap();
    let raw = hex::decode(hex_text.trim()).unwrap();
    let base64_text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &raw);
    let wrapped = format!("{}\n{}\n", &base64_text[..76], &base64_text[76..]);
    for input in [hex_text.as_bytes(), raw.as_slice(), wrapped.as_bytes()] {
        let output = casemate(directory.path(), &[&VERIFY[..], &["--host-data", ZERO, "-"]].concat(), input);
        let out = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{out}{}", text(&output.stderr));
        assert!(out.ends_with("\nverified\n") && !out.contains("FAILED"), "{out}");
        assert!(out.lines().any(|line| line.starts_with("ok      report signature ")), "{out}");
    }
}

#[test]
fn a_refused_report_has_its_own_exit_code_and_names_what_failed() {
    let directory = prepared();
    let other = ZERO.replace('0', "1");
    let output = casemate(
        directory.path(),
        &[&VERIFY[..], &["--host-data", &other, "report.hex"]].concat(),
        &[],
    );
    assert_eq!(output.status.code(), Some(1));
    let out = text(&output.stdout);
    assert!(out.ends_with("\nrefused: host data\n"), "{out}");
    assert!(out.contains(&format!("{ZERO}; wanted: {other}")), "{out}");

    // Without a policy nothing is expected, and Milan is not named.
    let arguments = ["verify", "report.hex", "--certs", "certs", "--json", "--at", "1717200000"];
    let output = casemate(directory.path(), &arguments, &[]);
    assert_eq!(output.status.code(), Some(1));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["verified"], false);
    let checks = document["checks"].as_array().unwrap();
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| check["passed"] == false)
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    let wanted = [
        "product allowed",
        "revocation",
        "revocation list age",
        "minimum TCB",
        "launch TCB",
        "measurement",
        "host data",
        "report data",
    ];
    assert_eq!(failed, wanted);

    let mut raw = hex::decode(fs::read_to_string(directory.path().join("report.hex")).unwrap().trim()).unwrap();
    raw[0] = 6;
    let output = casemate(directory.path(), &[&VERIFY[..], &["-"]].concat(), &raw);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stdout),
        "refused: attestation report version 6 is unknown (2 to 5 are known)\n"
    );
}

/// The sample's host data is zero and its measurement is AMD's: the files that name others are what is refused.
#[test]
fn policy_and_manifest_say_what_is_expected() {
    let directory = prepared();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let hex_text = fs::read_to_string(directory.path().join("report.hex")).unwrap();
    let measurement = &hex_text[2 * 0x90..2 * 0xc0];
    write("policy.rego", "package policy\n");
    write(
        "manifest.json",
        &format!(
            r#"{{"version": 1, "launch_digests": {{"1": "{}", "4": "{measurement}"}}}}"#,
            "0".repeat(96)
        ),
    );
    write("other.json", &format!(r#"{{"launch_digests": {{"1": "{}"}}}}"#, "1".repeat(96)));
    let judged = |arguments: &[&str]| {
        let output = casemate(directory.path(), &[&VERIFY[..], &["report.hex"], arguments].concat(), &[]);
        text(&output.stdout).lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(judged(&["--host-data", ZERO, "--manifest", "manifest.json"]), "verified");
    assert_eq!(judged(&["--host-data", ZERO, "--manifest", "other.json"]), "refused: measurement");
    assert_eq!(
        judged(&["--policy", "policy.rego", "--manifest", "other.json"]),
        "refused: measurement, host data"
    );
    let output = casemate(
        directory.path(),
        &[&VERIFY[..], &["report.hex", "--policy", "policy.rego"]].concat(),
        &[],
    );
    let digest = "89d09cb5c2f579afa733a1f68ae0dd5ff13e59efa75b870c64ca9fd62e9ec139";
    assert!(
        text(&output.stdout).contains(&format!("{ZERO}; wanted: {digest}")),
        "{}",
        text(&output.stdout)
    );

    write("none.json", r#"{"version": 1}"#);
    write("any.json", r#"{"launch_digests": {"1": "any"}}"#);
    write("short.json", r#"{"launch_digests": {"1": "00"}}"#);
    for (file, problem) in [
        ("none.json", "none.json has no launch_digests"),
        ("any.json", "any.json cannot be used: launch_digests are digests"),
        ("short.json", "short.json cannot be used: launch_digests: wanted 48 bytes"),
    ] {
        let output = casemate(directory.path(), &[&VERIFY[..], &["report.hex", "--manifest", file]].concat(), &[]);
        assert_eq!(output.status.code(), Some(3));
        assert!(text(&output.stderr).contains(problem), "{}", text(&output.stderr));
    }
    let both = ["report.hex", "--policy", "policy.rego", "--host-data", ZERO];
    assert_eq!(
        casemate(directory.path(), &[&VERIFY[..], &both].concat(), &[]).status.code(),
        Some(2)
    );
}

#[test]
fn roots_are_trusted_only_from_their_own_argument() {
    let directory = prepared();
    let with = |arguments: &[&str]| {
        casemate(
            directory.path(),
            &[&VERIFY[..], &["report.hex", "--host-data", ZERO], arguments].concat(),
            &[],
        )
    };
    // The root need not be in the directory of certificates then.
    fs::rename(directory.path().join("certs/ark.pem"), directory.path().join("root.pem")).unwrap();
    assert!(text(&with(&[]).stdout).contains("\nrefused: certificates, "));
    assert_eq!(text(&with(&["--roots", "root.pem"]).stdout).lines().last(), Some("verified"));
    let output = with(&["--roots", "certs/ask.pem"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        text(&output.stderr).contains("certs/ask.pem cannot be used: \"SEV-Milan\" is no root"),
        "{}",
        text(&output.stderr)
    );
    let mut requirements = fs::read_to_string(directory.path().join("verifier.toml")).unwrap();
    requirements.push_str("[roots]\nmilan = []\n");
    fs::write(directory.path().join("verifier.toml"), requirements).unwrap();
    let output = with(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("unknown field `roots`"), "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_used_is_named() {
    let directory = prepared();
    let with = |arguments: &[&str]| {
        let output = casemate(directory.path(), &[&["verify", "report.hex"][..], arguments].concat(), &[]);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        text(&output.stderr)
    };
    assert!(with(&["--certs", "missing"]).contains("cannot read missing"));
    assert!(with(&["--certs", "."]).contains(". has no file that ends in pem, der, crt, cer, crl"));
    assert!(with(&["--certs", "certs", "--measurement", "00"]).contains("--measurement: wanted 48 bytes in hexadecimal"));
    fs::write(directory.path().join("bad.toml"), "product = []").unwrap();
    let error = with(&["--certs", "certs", "--requirements", "bad.toml"]);
    assert!(
        error.contains("bad.toml cannot be used") && error.contains("unknown field `product`"),
        "{error}"
    );
    // What others made is refused, and the last line says so.
    fs::write(directory.path().join("certs/other.crl"), "no list").unwrap();
    let output = casemate(directory.path(), &[&VERIFY[..], &["report.hex"]].concat(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let refused = "refused: certs/other.crl cannot be used: neither a certificate nor a revocation list";
    assert!(text(&output.stdout).starts_with(refused), "{}", text(&output.stdout));
}

/// The sample binds no log, which is what is refused; each requirement of the log is judged beside it.
#[test]
fn a_guests_answer_must_bind_its_log_to_the_nonce() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let directory = prepared();
    let hex_text = fs::read_to_string(directory.path().join("report.hex")).unwrap();
    let mut log = permit_log::Log::default();
    log.append(permit_log::Entry::Policy { digest: [0; 32] }).unwrap();
    let write = |log: &[u8]| {
        let answer = serde_json::json!({
            "nonce": "00", "head": "00", "certificates": "",
            "report": STANDARD.encode(hex::decode(hex_text.trim()).unwrap()),
            "log": STANDARD.encode(log),
        });
        fs::write(directory.path().join("answer.json"), answer.to_string()).unwrap();
    };
    write(&log.encode());
    let policy = format!("policy = \"{ZERO}\"\nlayers = [\"{ZERO}\"]\nfragments = []\n");
    fs::write(directory.path().join("log.toml"), policy).unwrap();
    let nonce = "11".repeat(32);
    let arguments = [
        "answer.json",
        "--host-data",
        ZERO,
        "--nonce",
        &nonce,
        "--log-requirements",
        "log.toml",
    ];
    let judged = || {
        let output = casemate(directory.path(), &[&VERIFY[..], &arguments].concat(), &[]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let out = judged();
    assert!(out.ends_with("\nrefused: report data, log\n"), "{out}");
    let nonce_bytes = permit_log::Nonce::new(vec![0x11; 32]).unwrap();
    let wanted = hex::encode(permit_log::report_data(&nonce_bytes, &log.head()));
    assert!(out.contains(&format!("; wanted: {wanted}\n")), "{out}");
    let lines: Vec<&str> = out.lines().filter(|line| line.split_whitespace().nth(1) == Some("log")).collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(lines[1].starts_with("FAILED") && lines[1].contains("was not mounted"), "{out}");

    write(&log.encode()[1..]);
    assert_eq!(
        judged(),
        "refused: the answer's log cannot be read: not a permit log of version 1\n"
    );
    fs::copy(directory.path().join("report.hex"), directory.path().join("answer.json")).unwrap();
    assert!(judged().starts_with("refused: with --nonce the input must be a guest's answer"));
}
