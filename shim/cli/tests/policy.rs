//! `casemate policy` as an operator runs it: what each subcommand prints, and its exit code.

mod program;

use std::path::Path;

use serde_json::Value;

const CONFIG: &str = r#"
[[container]]
image_name = "redis"
layers = ["abababababababababababababababababababababababababababababababab"]
command = ["redis-server", "--save", ""]
signals = [15]

[[container.env_rule]]
strategy = "re2"
rule = "NONCE=[0-9]+|NONCE=none"
"#;

struct Output {
    code: Option<i32>,
    text: String,
    errors: String,
}

/// Runs `casemate policy …` in `directory`.
fn casemate(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let output = program::run("policy", directory, arguments, input.as_bytes());
    Output {
        code: output.status.code(),
        text: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.text).unwrap_or_else(|_| panic!("{}{}", output.text, output.errors))
}

fn commands() -> String {
    let device = r#"{"target": "/run/mounts/scsi/m0", "mountPathRegex": "/run/mounts/scsi/m[0-9]+", "deviceHash": "HASH"}"#;
    let known = device.replace("HASH", &"ab".repeat(32));
    let unknown = device.replace("HASH", &"cd".repeat(32)).replace("scsi/m0", "scsi/m1");
    format!(r#"[{{"name": "mount_device", "input": {known}}}, {{"name": "mount_device", "input": {unknown}}}]"#)
}

#[test]
fn a_policy_is_generated_checked_simulated_and_its_denial_explained() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(at.join("policy.toml"), CONFIG).unwrap();
    std::fs::write(at.join("commands.json"), commands()).unwrap();

    let made = casemate(at, &["generate", "--config", "policy.toml", "--output", "policy.rego"], "");
    assert_eq!(made.code, Some(0), "{}", made.errors);
    let digest = casemate(at, &["digest", "policy.rego"], "");
    assert_eq!(made.text, digest.text);
    assert_eq!(
        json(&casemate(at, &["digest", "policy.rego", "--json"], ""))["digest"],
        digest.text.trim()
    );
    let printed = casemate(at, &["generate", "--config", "policy.toml"], "");
    assert_eq!(printed.text, std::fs::read_to_string(at.join("policy.rego")).unwrap());
    let warned = printed.errors.strip_suffix(&digest.text);
    assert!(
        warned.is_some_and(|warning| warning.contains("its alternatives are not")),
        "{}",
        printed.errors
    );

    let checked = casemate(at, &["check", "policy.rego"], "");
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    assert!(
        checked
            .text
            .starts_with("warning: container 1 env_rules: pattern \"NONCE=[0-9]+|NONCE=none\""),
        "{}",
        checked.text
    );
    assert!(checked.text.ends_with("2 containers, 0 errors, 1 warnings\n"), "{}", checked.text);
    let broken = std::fs::read_to_string(at.join("policy.rego"))
        .unwrap()
        .replace("\"umask\": \"0022\"", "\"umask\": 22");
    std::fs::write(at.join("broken.rego"), broken).unwrap();
    let checked = casemate(at, &["check", "broken.rego", "--json"], "");
    // Both containers have the fault, which is one finding.
    assert_eq!((checked.code, &json(&checked)["errors"]), (Some(1), &Value::from(1)));

    let tried = casemate(at, &["simulate", "policy.rego", "commands.json"], "");
    assert_eq!(tried.code, Some(1), "{}", tried.errors);
    assert_eq!(
        tried.text,
        "0 mount_device: ok\n1 mount_device: not allowed: deviceHash not found\n1 allowed, 1 not allowed\n"
    );
    let tried = json(&casemate(at, &["simulate", "policy.rego", "commands.json", "--json"], ""));
    let message = tried["outcomes"][1]["message"].as_str().unwrap();
    let explained = casemate(at, &["explain", "--policy", "policy.rego"], message);
    assert_eq!(explained.code, Some(0), "{}", explained.errors);
    assert!(explained.text.contains("\n  field    layers\n"), "{}", explained.text);
    let cut = json(&casemate(at, &["explain", "--json", &message[..100]], ""));
    assert_eq!(cut["fields"], serde_json::json!(["layers"]), "{cut}");
    assert_eq!(casemate(at, &["explain", "nothing denied"], "").code, Some(3));
}

#[test]
fn a_fragment_is_generated_signed_verified_and_injected() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(at.join("policy.toml"), CONFIG).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policy/tools/fixtures");
    let (key, chain) = (fixtures.join("p256.key"), fixtures.join("p256.chain.pem"));
    let (key, chain) = (key.to_str().unwrap(), chain.to_str().unwrap());

    let made = casemate(
        at,
        &[
            "generate",
            "--config",
            "policy.toml",
            "--fragment",
            "app",
            "--svn",
            "1",
            "--output",
            "app.rego",
        ],
        "",
    );
    assert_eq!(made.code, Some(0), "{}", made.errors);
    let sign = [
        "fragment",
        "sign",
        "--key",
        key,
        "--chain",
        chain,
        "--feed",
        "example/app",
        "--svn",
        "1",
        "app.rego",
        "app.cose",
    ];
    let signed = casemate(at, &sign, "");
    assert_eq!(signed.code, Some(0), "{}", signed.errors);
    assert_eq!(signed.text, casemate(at, &["fragment", "issuer", chain], "").text);
    let verified = casemate(at, &["fragment", "verify", "app.cose"], "");
    assert_eq!(verified.code, Some(0), "{}", verified.text);
    assert!(
        verified.text.ends_with("\nverified\n") && verified.text.contains("feed     example/app\n"),
        "{}",
        verified.text
    );
    let injected = json(&casemate(at, &["fragment", "inject", "app.cose"], ""));
    assert_eq!(injected["MediaType"], "");

    let mut bytes = std::fs::read(at.join("app.cose")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(at.join("app.cose"), bytes).unwrap();
    let refused = casemate(at, &["fragment", "verify", "app.cose"], "");
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert_eq!(
        refused.text,
        "refused: InjectFragment failed COSE validation: signature of the message: signature does not verify\n"
    );
}

/// The configuration's policy, in the directory as `policy.rego` and in base64 as `policy.b64`.
fn generated(at: &Path) -> String {
    std::fs::write(at.join("policy.toml"), CONFIG).unwrap();
    let made = casemate(at, &["generate", "--config", "policy.toml", "--output", "policy.rego"], "");
    assert_eq!(made.code, Some(0), "{}", made.errors);
    let packed = casemate(at, &["generate", "--config", "-", "--base64"], CONFIG);
    assert_eq!(packed.code, Some(0), "{}", packed.errors);
    std::fs::write(at.join("policy.b64"), &packed.text).unwrap();
    std::fs::read_to_string(at.join("policy.rego")).unwrap()
}

#[test]
fn base64_of_a_policy_is_the_policy_everywhere() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let text = generated(at);
    let packed = std::fs::read_to_string(at.join("policy.b64")).unwrap();
    std::fs::write(at.join("commands.json"), commands()).unwrap();
    let same = |one: &[&str], other: &[&str], input: &str| {
        let (one, other) = (casemate(at, one, input), casemate(at, other, input));
        assert_eq!((one.code, &one.text), (other.code, &other.text), "{}{}", one.errors, other.errors);
        assert_ne!(one.code, Some(3), "{}", one.errors);
    };
    same(&["digest", "policy.rego"], &["digest", "policy.b64"], "");
    same(&["digest", "policy.rego"], &["digest", "-"], &packed);
    same(&["digest", "policy.rego"], &["digest", "-"], &text);
    same(&["check", "policy.rego"], &["check", "-"], &packed);
    same(
        &["simulate", "policy.rego", "commands.json"],
        &["simulate", "policy.b64", "-"],
        &commands(),
    );
    let message = casemate(at, &["simulate", "--json", "policy.b64", "commands.json"], "").text;
    same(
        &["explain", "--policy", "policy.rego", &message],
        &["explain", "--policy", "policy.b64"],
        &message,
    );

    // What is base64 of something else, or cut, is never hashed as a text.
    for wrong in [&packed[..packed.len() / 8 * 4 + 1], "c29tZXRoaW5nIGVsc2U=\n"] {
        let refused = casemate(at, &["digest", "-"], wrong);
        assert_eq!((refused.code, refused.text.as_str()), (Some(3), ""), "{}", refused.errors);
        assert!(
            refused.errors.starts_with("casemate: standard input cannot be used: it "),
            "{}",
            refused.errors
        );
    }
    let two = casemate(at, &["simulate", "-", "-"], &text);
    assert_eq!(two.code, Some(3));
    assert!(two.errors.contains("only one of the files"), "{}", two.errors);
}

#[test]
fn the_old_form_is_converted_from_base64_too() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    // {"allow_all":null,"containers":null}
    let packed = "eyJhbGxvd19hbGwiOm51bGwsImNvbnRhaW5lcnMiOm51bGx9";
    std::fs::write(at.join("old.json"), r#"{"allow_all":null,"containers":null}"#).unwrap();
    let converted = casemate(at, &["convert", "-"], packed);
    assert_eq!(converted.code, Some(0), "{}", converted.errors);
    assert_eq!(converted.text, casemate(at, &["convert", "old.json"], "").text);
    let again = casemate(at, &["convert", "--to-json", "-"], &converted.text);
    assert_eq!(json(&again)["containers"]["length"], 0);
    // Where Rego is wanted, the error says what it is.
    let checked = casemate(at, &["check", "old.json"], "");
    assert_eq!(checked.code, Some(3));
    assert!(checked.errors.contains("old JSON form"), "{}", checked.errors);
}

#[test]
fn errors_name_the_file_that_was_given() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(at.join("mine.rego"), "package policy\n\nx := := 1\n").unwrap();
    std::fs::write(at.join("commands.json"), "[]").unwrap();
    for arguments in [
        ["check", "mine.rego"].as_slice(),
        &["simulate", "mine.rego", "commands.json"],
        &["convert", "--to-json", "mine.rego"],
        &["explain", "--policy", "mine.rego", "denied by policy: x"],
    ] {
        let refused = casemate(at, arguments, "");
        assert_eq!(refused.code, Some(3), "{arguments:?}: {}", refused.text);
        assert!(
            refused.errors.contains("mine.rego") && refused.errors.contains("line 3"),
            "{arguments:?}: {}",
            refused.errors
        );
        assert!(!refused.errors.contains("policy.rego"), "{arguments:?}: {}", refused.errors);
    }
    let refused = casemate(at, &["check", "-"], "package policy\n\nx := := 1\n");
    assert!(
        refused.errors.contains("standard input") && refused.errors.contains("line 3"),
        "{}",
        refused.errors
    );
}

#[test]
fn every_denial_of_a_text_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    // {"decision":"deny","reason":{"errors":["deviceHash not found"]}}
    let decision = "eyJkZWNpc2lvbiI6ImRlbnkiLCJyZWFzb24iOnsiZXJyb3JzIjpbImRldmljZUhhc2ggbm90IGZvdW5kIl19fQ==";
    let text = format!(
        "{{\"a\": \"mounting scsi device denied by policy: policyDecision\\u003c {decision} \\u003epolicyDecision\"}}\n\
         create_container not allowed by policy. Errors: [invalid command]. Input: {{\"argList\":[\"sh\"]}}\n"
    );
    let explained = casemate(at, &["explain"], &text);
    assert_eq!(explained.code, Some(0), "{}", explained.errors);
    assert!(explained.text.contains("\n  reason   deviceHash not found\n"), "{}", explained.text);
    assert!(explained.text.contains("\n\nthe container may not start: "), "{}", explained.text);
    let lines = casemate(at, &["explain", "--json"], &text).text;
    let fields: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].clone())
        .collect();
    assert_eq!(fields, [serde_json::json!(["layers"]), serde_json::json!(["command"])]);
}
