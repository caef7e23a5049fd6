//! Files and helpers as docker and podman leave them.

use super::*;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

struct Host {
    directory: TempDir,
    variables: HashMap<&'static str, PathBuf>,
}

impl Host {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            variables: HashMap::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn with(mut self, variable: &'static str, name: &str) -> Self {
        let path = self.path(name);
        self.variables.insert(variable, path);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn look_up(&self, registry: &str, repository: &str) -> Result<Stored, LoginsError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let variable = |name: &str| self.variables.get(name).cloned();
        runtime.block_on(look_up(variable, &RegistryName::new(registry), repository))
    }
}

/// `{"auths": {KEY: {"auth": base64 of u:PASSWORD}}}`
fn auths(key: &str, auth: &str) -> String {
    format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}}}}"#)
}

fn kind(stored: &Stored) -> &'static str {
    stored.credentials.for_basic().kind()
}

#[test]
fn docker_config_is_a_directory_or_a_file() {
    for name in ["docker", "docker/config.json"] {
        let host = Host::new()
            .file("docker/config.json", &auths("r.test", "dTpw"))
            .with("DOCKER_CONFIG", name);
        let stored = host.look_up("r.test", "a/b").unwrap();
        assert_eq!(kind(&stored), "basic-raw", "{name}");
        assert!(stored.source.ends_with("docker/config.json"), "{}", stored.source);
    }
}

#[test]
fn a_named_file_must_be_readable_and_a_default_one_need_not() {
    for broken in ["{", "{\"auths\":{\"r.test\":\"hunter2\"}}", "[]"] {
        let host = Host::new().file("named.json", broken).with("DOCKER_CONFIG", "named.json");
        let error = host.look_up("r.test", "a/b").unwrap_err();
        assert!(matches!(error, LoginsError::Form { .. }), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let host = Host::new().file(".docker/config.json", broken).with("HOME", "");
        let stored = host.look_up("r.test", "a/b").unwrap();
        assert!(stored.credentials.are_none() && stored.warnings.len() == 1, "{stored:?}");
        assert!(!stored.warnings[0].contains("hunter2"), "{stored:?}");
    }
    let absent = Host::new().with("DOCKER_CONFIG", "none");
    assert!(matches!(absent.look_up("r.test", "a/b"), Err(LoginsError::Read { .. })));
    // Podman makes the file with the first login.
    let stored = Host::new().with("REGISTRY_AUTH_FILE", "none").look_up("r.test", "a/b").unwrap();
    assert!(stored.credentials.are_none() && stored.warnings.is_empty());
    assert!(Host::new().look_up("r.test", "a/b").unwrap().source.starts_with("no file"));
}

#[test]
fn the_first_file_with_an_entry_decides() {
    let host = Host::new()
        .with("HOME", "home")
        .with("REGISTRY_AUTH_FILE", "podman.json")
        .with("XDG_RUNTIME_DIR", "run")
        .file("home/.docker/config.json", &auths("one.test", "dTox"))
        .file("podman.json", &auths("two.test", "dToy"))
        .file("run/containers/auth.json", &auths("three.test", "dToz"))
        .file("home/.config/containers/auth.json", &auths("three.test/ns", "dTo0"));
    for (registry, file) in [
        ("one.test", "config.json"),
        ("two.test", "podman.json"),
        ("three.test", "run/containers/auth.json"),
    ] {
        let stored = host.look_up(registry, "ns/app").unwrap();
        assert_eq!(kind(&stored), "basic-raw");
        assert!(stored.source.ends_with(file), "{}", stored.source);
    }
    let stored = host.look_up("four.test", "ns/app").unwrap();
    assert!(stored.credentials.are_none() && stored.source.contains("podman.json"), "{stored:?}");
}

#[test]
fn entries_without_a_usable_login_are_named_and_anonymous() {
    for (entry, word) in [
        (r#"{"identitytoken":"hunter2"}"#, "docker login -u"),
        (r#"{"auth":"dTo=","identitytoken":"hunter2"}"#, "docker login -u"),
        (r#"{"auth":"aHVudGVyMg=="}"#, "base64"),
        (r#"{"auth":"!!"}"#, "base64"),
    ] {
        let host = Host::new()
            .with("HOME", "")
            .file(".docker/config.json", &format!(r#"{{"auths":{{"r.test":{entry}}}}}"#));
        let stored = host.look_up("r.test", "a/b").unwrap();
        assert!(stored.credentials.are_none(), "{entry}");
        assert!(
            stored.warnings[0].contains(word) && !stored.warnings[0].contains("hunter2"),
            "{stored:?}"
        );
    }
    let pair = r#"{"auths":{"r.test":{"username":"u","password":"p"},"x.test":null,"y.test":{}}}"#;
    let host = Host::new().with("HOME", "").file(".docker/config.json", pair);
    assert_eq!(kind(&host.look_up("r.test", "a/b").unwrap()), "basic");
    assert!(host.look_up("y.test", "a/b").unwrap().warnings.is_empty());
}

#[test]
fn helpers_are_asked_and_may_fail() {
    let mut host = Host::new().with("HOME", "");
    let bin = host.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let program = |name: &str, script: &str| {
        let path = bin.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\nread -r server || true\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    program(
        "good",
        r#"printf '{"ServerURL":"%s","Username":"u","Secret":"of-%s"}' "$server" "$server""#,
    );
    program("token", r#"echo '{"Username":"<token>","Secret":"hunter2"}'"#);
    program("unknown", "echo 'credentials not found in native keychain'; exit 1");
    program("broken", "printf 'it is locked\\033[31m'; exit 1");
    program("junk", "echo hunter2");
    program("endless", "exec cat /dev/zero");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    host.variables.insert("PATH", path.into());
    let with = |config: &str| {
        let path = host.path(".docker/config.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, config).unwrap();
    };

    with(r#"{"credHelpers":{"r.test":"good"},"credsStore":"absent"}"#);
    let stored = host.look_up("r.test", "a/b").unwrap();
    assert_eq!(
        stored.credentials.for_basic().authorization().unwrap().unwrap(),
        "Basic dTpvZi1yLnRlc3Q="
    );
    assert!(host.look_up("other.test", "a/b").unwrap().warnings[0].contains("docker-credential-absent cannot be run"));

    with(r#"{"credsStore":"good","auths":{"https://index.docker.io/v1/":{}}}"#);
    let hub = host.look_up("docker.io", "library/x").unwrap();
    assert!(
        hub.credentials
            .secrets()
            .iter()
            .any(|secret| secret.as_str() == "of-https://index.docker.io/v1/")
    );

    for (name, warning) in [
        ("token", Some("identity token")),
        ("broken", Some("it is locked\\u{1b}[31m")),
        ("junk", Some("no login that can be read")),
        ("endless", Some("docker-credential-endless")),
        ("../evil", Some("is no name")),
        ("unknown", None),
    ] {
        with(&format!(r#"{{"credsStore":"{name}"}}"#));
        let stored = host.look_up("r.test", "a/b").unwrap();
        assert!(stored.credentials.are_none(), "{name}");
        match warning {
            Some(words) => assert!(stored.warnings[0].contains(words), "{name}: {stored:?}"),
            None => assert!(stored.warnings.is_empty(), "{name}: {stored:?}"),
        }
        assert!(!format!("{stored:?}").contains("hunter2"), "{stored:?}");
    }
}
