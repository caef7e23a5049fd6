//! `casemate policy generate IMAGE` from Debian's registry, with TLS by a private authority and a login.

#[path = "../../../image/registry/tests/support/mod.rs"]
mod support;

use base64::Engine as _;
use std::path::Path;
use std::process::{Command, Output};
use support::authority::Authority;
use support::image::Image;
use support::program::installed;
use support::registry::{Guard, NAME, Registry};
use support::section;

const PASSWORD: &str = "hunter2-of-the-registry";

struct Lab {
    registry: Registry,
    authority: Authority,
    image: Image,
    directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let image = Image::new(2, 50_000);
        let authority = Authority::new();
        let identity = authority.issue(&["127.0.0.1"]);
        let guard = Guard {
            tls: Some(&identity),
            basic: Some(("robot", PASSWORD)),
            ..Guard::default()
        };
        Self {
            registry: Registry::with(&image).guarded(&guard),
            authority,
            image,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.registry.port)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// Runs `casemate policy generate …` with nothing of this machine's user.
    fn generate(&self, arguments: &[&str], variables: &[(&str, &Path)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
        command
            .args(["policy", "generate"])
            .args(arguments)
            .current_dir(self.directory.path());
        command
            .env_clear()
            .env("XDG_CACHE_HOME", self.directory.path().join("cache"))
            .envs(variables.iter().copied());
        let output = command.output().unwrap();
        let shown = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        for secret in [PASSWORD, "cm9ib3Q6", "wrong-password"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        output
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_reference_alone_becomes_a_policy() {
    if !installed("a_reference_alone_becomes_a_policy", &["docker-registry", "skopeo", "htpasswd"]) {
        return;
    }
    let lab = Lab::new();
    let login = format!("username = 'robot'\npassword = '{PASSWORD}'");
    let registries = lab.write("registries.toml", &section(&lab.host(), &lab.authority.certificate, &login));
    let reference = format!("{}/{NAME}:test", lab.host());
    let made = lab.generate(&[&reference, "--registries", &registries], &[]);
    assert!(made.status.success(), "{}", errors(&made));
    let policy = String::from_utf8(made.stdout.clone()).unwrap();
    assert!(
        policy.contains("\"/bin/true\"") && policy.contains("\"signals\": [9,15]"),
        "{policy}"
    );
    assert!(
        errors(&made).contains(&format!("{reference} is {}/{NAME}@{}", lab.host(), lab.image.index)),
        "{}",
        errors(&made)
    );

    // The same from the layout: which way an image comes does not matter to its policy.
    let layout = lab.directory.path().join("layout");
    lab.image.write(&layout);
    let from_layout = lab.generate(&["layout"], &[]);
    assert_eq!(String::from_utf8(from_layout.stdout).unwrap(), policy, "{}", errors(&made));

    // Layers are pulled once. One that is damaged in the cache is pulled again.
    let layer = lab.image.layers[0].hex();
    let kept = lab.directory.path().join("cache/casemate/images/blobs/sha256").join(&layer);
    std::fs::remove_file(lab.registry.blob_file(&layer)).unwrap();
    let pinned = format!("{}/{NAME}@{}", lab.host(), lab.image.index);
    let cached = lab.generate(&[&pinned, "--registries", &registries], &[]);
    assert_eq!(String::from_utf8(cached.stdout).unwrap(), policy);
    std::fs::write(&kept, vec![0; lab.image.blobs[&lab.image.layers[0]].len()]).unwrap();
    let gone = lab.generate(&[&pinned, "--registries", &registries], &[]);
    assert!(
        errors(&gone).contains(&format!("cannot get layer sha256:{layer}")),
        "{}",
        errors(&gone)
    );
    std::fs::write(lab.registry.blob_file(&layer), &lab.image.blobs[&lab.image.layers[0]]).unwrap();
    assert!(lab.generate(&[&pinned, "--registries", &registries], &[]).status.success());
}

#[test]
fn a_configuration_names_an_image_and_docker_has_the_login() {
    if !installed(
        "a_configuration_names_an_image_and_docker_has_the_login",
        &["docker-registry", "skopeo", "htpasswd"],
    ) {
        return;
    }
    let lab = Lab::new();
    let registries = lab.write("registries.toml", &section(&lab.host(), &lab.authority.certificate, ""));
    let policy = lab.write(
        "policy.toml",
        &format!(
            "[[container]]\nimage_name = '{}/{NAME}:test'\ncommand = ['/bin/other']\n",
            lab.host()
        ),
    );
    let login = |password: &str| {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("robot:{password}"));
        lab.write("login.json", &format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, lab.host()))
    };
    let generate = |file: &str| {
        lab.generate(
            &["--config", &policy, "--registries", &registries],
            &[("DOCKER_CONFIG", Path::new(file))],
        )
    };
    let made = generate(&login(PASSWORD));
    assert!(made.status.success(), "{}", errors(&made));
    assert!(String::from_utf8(made.stdout).unwrap().contains("\"/bin/other\""));

    let file = login("wrong-password");
    let refused = generate(&file);
    assert_eq!(refused.status.code(), Some(3));
    for words in [
        "cannot pull",
        "the server answers 401",
        &format!("used: basic-raw credentials, file {file}"),
    ] {
        assert!(errors(&refused).contains(words), "{}", errors(&refused));
    }
    let own = format!(
        "{}[container.auth]\nusername = 'robot'\npassword = '{PASSWORD}'\n",
        std::fs::read_to_string(&policy).unwrap()
    );
    std::fs::write(&policy, own).unwrap();
    assert!(generate(&file).status.success(), "the container's own login goes before docker's");

    let absent = format!("{}/team/absent:1", lab.host());
    let missing = lab.generate(
        &[&absent, "--registries", &registries],
        &[("DOCKER_CONFIG", Path::new(&login(PASSWORD)))],
    );
    assert!(
        errors(&missing).contains("cannot get manifest 1 of") && errors(&missing).contains("manifest unknown"),
        "{}",
        errors(&missing)
    );
    let untrusted = lab.generate(&[&absent], &[]);
    assert!(
        errors(&untrusted).contains("cannot reach the registry of") && errors(&untrusted).contains("UnknownIssuer"),
        "{}",
        errors(&untrusted)
    );
}
