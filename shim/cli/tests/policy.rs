//! `casemate policy` as an operator runs it: what each subcommand prints, and its exit code.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

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
    let mut child = Command::new(env!("CARGO_BIN_EXE_casemate"))
        .arg("policy")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
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
    assert_eq!(
        (printed.text, printed.errors),
        (std::fs::read_to_string(at.join("policy.rego")).unwrap(), digest.text)
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
    assert_eq!((checked.code, &json(&checked)["errors"]), (Some(1), &Value::from(2)));

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
