//! `casemate registry which` and `casemate conformance registry`, as an operator runs them.

mod program;

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../image/registry/vectors/registry.json");

const CONFIG: &str = r#"
unknown = 1
[registries."."]
insecure-skip-verify = true
[registries."corp"]
ca-certs = "none"
[registries.".r.corp"]
auth = "QQ=="
[registries."r.corp"]
username = "robot"
password = "hunter2"
auth = "aHVudGVyMg=="
identitytoken = "hunter2-identity"
[extra-env]
HTTPS_PROXY = "http://user:hunter2-proxy@proxy.corp:3128"
NO_PROXY = ".other"
"#;

fn which(directory: &Path, arguments: &[&str]) -> Output {
    let arguments = [&["which"], arguments].concat();
    program::run("registry", directory, &arguments, CONFIG.as_bytes())
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn which_explains_the_choice_without_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let answer = text(&which(directory.path(), &["-", "r.corp/team/app:1"]));
    for line in [
        "registry     r.corp/team/app",
        "section      \"r.corp\"",
        "not \".\": applies, but another is more specific",
        "not \".r.corp\": its leading dot takes only names below",
        "credentials  identity-token for a token service, basic otherwise (section \"r.corp\")",
        "not auth: username and password go before it",
        "tls          webpki: the web's authorities",
        "proxy        http://proxy.corp:3128 (HTTPS_PROXY of extra-env)",
        "warning      the registry configuration: \"unknown\" is not known and ignored",
        "has no digest",
    ] {
        assert!(answer.contains(line), "{line:?} is not in\n{answer}");
    }
    assert!(!answer.contains("hunter2") && !answer.contains("aHVudGVy"), "{answer}");

    let json = text(&which(directory.path(), &["-", "x.other/app", "--json"]));
    assert!(!json.contains("hunter2") && !json.contains("aHVudGVy"), "{json}");
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(answer["section"], ".");
    assert_eq!(answer["tls"]["mode"], "skip-verify");
    assert_eq!(answer["tls"]["plain_http_fallback"], true);
    assert_eq!(answer["proxy"], Value::Null);
    assert_eq!(answer["proxy_reason"], "NO_PROXY lists .other");
    assert_eq!(answer["credentials"]["bearer_challenge"], "anonymous");
}

#[test]
fn which_looks_for_logins_of_docker() {
    let directory = tempfile::tempdir().unwrap();
    let login = r#"{"auths":{"ghcr.io":{"auth":"dTpodW50ZXIy"},"old.corp":{"identitytoken":"hunter2"}}}"#;
    fs::write(directory.path().join("config.json"), login).unwrap();
    let run = |image: &str| {
        let command =
            |subcommand: &mut std::process::Command| subcommand.args(["registry", "which", "none.toml", image, "--logins"]).output();
        let mut casemate = std::process::Command::new(env!("CARGO_BIN_EXE_casemate"));
        casemate
            .current_dir(directory.path())
            .env_clear()
            .env("DOCKER_CONFIG", directory.path());
        command(&mut casemate).unwrap()
    };
    let answer = text(&run("ghcr.io/org/app"));
    assert!(
        answer.contains("credentials  basic-raw (file ") && answer.contains("none.toml does not exist"),
        "{answer}"
    );
    assert!(!answer.contains("dTpodW50ZXIy"), "{answer}");
    let answer = text(&run("old.corp/app"));
    assert!(
        answer.contains("credentials  anonymous") && answer.contains("docker login -u"),
        "{answer}"
    );
    assert!(!answer.contains("hunter2"), "{answer}");
}

#[test]
fn what_cannot_be_used_is_refused_without_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    for (config, reason) in [
        ("[registries.'r.corp']\npassword = 'hunter2", "not TOML: line 2"),
        ("[registries.'r.corp']\npassword = ['hunter2']", "password must be a string"),
        ("[registries.r.corp]\npassword = 'hunter2'", "put the whole name in quotes"),
        ("[extra-env]\nHTTPS_PROXY = 'socks5://u:hunter2@p'", "HTTPS_PROXY is no proxy"),
    ] {
        let output = program::run("registry", directory.path(), &["which", "-", "r.corp/a"], config.as_bytes());
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{error}");
        assert!(error.contains(reason) && !error.contains("hunter2"), "{error}");
    }
    let output = which(directory.path(), &["-", "R.corp/UPPER"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("\"R.corp/UPPER\" cannot be used") && error.contains("repository name"),
        "{error}"
    );
}

#[test]
fn every_vector_passes_and_a_changed_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let vectors = fs::read_to_string(VECTORS).unwrap();
    let replay = |vectors: &str| program::run("conformance", directory.path(), &["registry", "-"], vectors.as_bytes());
    let answer = text(&replay(&vectors));
    assert_eq!(answer.lines().last(), Some("131 passed, 0 failed"), "{answer}");

    // Two configurations, and the level of one rule that a developer does not pass.
    let changed = vectors.replace("\"kind\": \"identity-token\"", "\"kind\": \"basic\"").replacen(
        "\"push\": \"maintainer\"}",
        "\"delete\": \"maintainer\"}",
        1,
    );
    let output = replay(&changed);
    assert_eq!(output.status.code(), Some(1));
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(answer.contains("cfg-a07-identity-token: auth.bearer_challenge.kind is"), "{answer}");
    assert!(answer.contains("tok-push-maintainer-developer: "), "{answer}");
    assert_eq!(answer.lines().last(), Some("128 passed, 3 failed"));
}
