//! `casemate policy generate IMAGE` from Debian's registry, with TLS by a private authority and a login.

use base64::Engine as _;
use oci::Digest;
use policy_tools::{Pin, pins};
use registry_testing::authority::Authority;
use registry_testing::image::Image;
use registry_testing::program::{free_port, installed, run};
use registry_testing::registry::{Guard, NAME, PROGRAMS, Registry};
use registry_testing::section;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

    /// A file of the cache.
    fn cached(&self, name: &str) -> PathBuf {
        self.directory.path().join("cache/casemate/images").join(name)
    }

    /// The configuration with which the registry gives its images.
    fn registries(&self) -> String {
        let login = format!("username = 'robot'\npassword = '{PASSWORD}'");
        self.write("registries.toml", &section(&self.host(), &self.authority.certificate, &login))
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

/// The policy without the comments that name its images.
fn unpinned(policy: &str) -> &str {
    &policy[policy.find("package policy").unwrap()..]
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", errors(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn pin(image: &str, digest: Digest) -> Pin {
    Pin {
        image: image.to_owned(),
        digest,
    }
}

#[test]
fn a_reference_alone_becomes_a_policy() {
    if !installed("a_reference_alone_becomes_a_policy", &["docker-registry", "skopeo", "htpasswd"]) {
        return;
    }
    let lab = Lab::new();
    let registries = lab.registries();
    let reference = format!("{}/{NAME}:test", lab.host());
    let made = lab.generate(&[&reference, "--registries", &registries], &[]);
    let policy = text(&made);
    assert!(
        policy.contains("\"/bin/true\"") && policy.contains("\"signals\": [9,15]"),
        "{policy}"
    );
    assert!(
        errors(&made).contains(&format!("{reference} is {}", lab.image.manifest)),
        "{}",
        errors(&made)
    );
    // What `casemate run --policy` compares: the complete name, and the digest of the manifest for the guest.
    assert_eq!(pins(&policy), [pin(&reference, lab.image.manifest)]);
    let by_digest = format!("{}/{NAME}@{}", lab.host(), lab.image.index);
    let both = text(&lab.generate(&[&reference, &by_digest, &reference, "--registries", &registries], &[]));
    assert_eq!(
        pins(&both),
        [pin(&reference, lab.image.manifest), pin(&by_digest, lab.image.manifest)]
    );
    policy::Enforcer::new(&both).unwrap();

    // Without a home directory there is no cache, and the same policy.
    let homeless = lab.generate(&[&reference, "--registries", &registries], &[("XDG_CACHE_HOME", Path::new(""))]);
    assert_eq!(text(&homeless), policy);

    // The same from the layout: which way an image comes does not matter to its policy. A path is no name to pin.
    let layout = lab.directory.path().join("layout");
    lab.image.write(&layout);
    assert_eq!(text(&lab.generate(&["./layout"], &[])), unpinned(&policy));

    // The first line of a fragment is its package.
    let fragment = lab.generate(&[&reference, "--registries", &registries, "--fragment", "app", "--svn", "1"], &[]);
    assert!(text(&fragment).starts_with("package app\n"));
}

#[test]
fn a_known_image_needs_none_of_its_layers() {
    if !installed("a_known_image_needs_none_of_its_layers", &["docker-registry", "skopeo", "htpasswd"]) {
        return;
    }
    let mut lab = Lab::new();
    let registries = lab.registries();
    let by_tag = format!("{}/{NAME}:test", lab.host());
    let by_digest = format!("{}/{NAME}@{}", lab.host(), lab.image.index);
    let generate = |lab: &Lab, reference: &str| lab.generate(&[reference, "--registries", &registries], &[]);
    let policy = text(&generate(&lab, &by_tag));

    // Without the blobs: not here, not in the registry. A tag costs its manifest alone.
    let layer = lab.image.layers[0].hex();
    let (blob, entry) = (
        lab.cached(&format!("blobs/sha256/{layer}")),
        lab.cached(&format!("roots/{layer}.json")),
    );
    for digest in &lab.image.layers {
        std::fs::remove_file(lab.cached(&format!("blobs/sha256/{}", digest.hex()))).unwrap();
        std::fs::remove_file(lab.registry.blob_file(&digest.hex())).unwrap();
    }
    let before = lab.registry.log().len();
    assert_eq!(text(&generate(&lab, &by_tag)), policy);
    let asked = lab.registry.log()[before..].to_owned();
    assert!(!asked.contains("/blobs/") && asked.contains("/manifests/test"), "{asked}");
    assert!(!asked.contains(&lab.image.manifest.to_string()), "{asked}");
    assert_eq!(unpinned(&text(&generate(&lab, &by_digest))), unpinned(&policy));

    // A root hash that is damaged is no root hash: the layer is wanted again.
    let whole = std::fs::read_to_string(&entry).unwrap();
    std::fs::write(&entry, whole.replacen("\"root_hash\":\"", "\"root_hash\":\"0", 1)).unwrap();
    let gone = generate(&lab, &by_digest);
    assert!(
        errors(&gone).contains(&format!("cannot get layer sha256:{layer}")),
        "{}",
        errors(&gone)
    );
    let bytes = &lab.image.blobs[&lab.image.layers[0]];
    std::fs::write(lab.registry.blob_file(&layer), bytes).unwrap();
    // So is a blob.
    std::fs::write(&blob, vec![0; bytes.len()]).unwrap();
    assert_eq!(unpinned(&text(&generate(&lab, &by_digest))), unpinned(&policy));
    assert_eq!(std::fs::read_to_string(&entry).unwrap(), whole);

    // A directory that others can write to is not believed.
    let roots = lab.cached("roots");
    let open_to = |mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&roots, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for digest in &lab.image.layers {
        std::fs::write(lab.registry.blob_file(&digest.hex()), &lab.image.blobs[digest]).unwrap();
    }
    open_to(0o777);
    let shared = generate(&lab, &by_digest);
    assert!(
        errors(&shared).contains("is not used: it is not a directory of yours alone"),
        "{}",
        errors(&shared)
    );
    open_to(0o700);

    // Without the registry a digest still says what is meant, and a tag does not.
    lab.registry = Registry::with(&Image::new(1, 10));
    assert_eq!(unpinned(&text(&generate(&lab, &by_digest))), unpinned(&policy));
    let unreachable = generate(&lab, &by_tag);
    assert!(
        errors(&unreachable).contains("cannot reach the registry of"),
        "{}",
        errors(&unreachable)
    );
}

#[test]
fn a_tag_that_moved_has_another_pin() {
    if !installed("a_tag_that_moved_has_another_pin", &PROGRAMS) {
        return;
    }
    let (old, new) = (Image::new(1, 1000), Image::new(2, 1000));
    let lab = Lab {
        registry: Registry::with(&old),
        authority: Authority::new(),
        image: old,
        directory: tempfile::tempdir().unwrap(),
    };
    let registries = lab.write(
        "registries.toml",
        &format!("[registries.\"{}\"]\ninsecure-skip-verify = true\n", lab.host()),
    );
    let reference = format!("{}/{NAME}:test", lab.host());
    let pinned = || pins(&text(&lab.generate(&[&reference, "--registries", &registries], &[])));
    assert_eq!(pinned(), [pin(&reference, lab.image.manifest)]);
    let layout = lab.directory.path().join("new");
    new.write(&layout);
    let target = format!("docker://{reference}");
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--all", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:test", layout.display()))
        .arg(target));
    assert_eq!(pinned(), [pin(&reference, new.manifest)]);
    // The old one is still there by its digest.
    let by_digest = format!("{}/{NAME}@{}", lab.host(), lab.image.manifest);
    let old = text(&lab.generate(&[&by_digest, "--registries", &registries], &[]));
    assert_eq!(pins(&old), [pin(&by_digest, lab.image.manifest)]);
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

    // So does a container definition of az confcom.
    let name = format!("{}/{NAME}:test", lab.host());
    let definition = format!(r#"{{"version": "1.0", "containers": [{{"name": "app", "properties": {{"image": "{name}"}}}}]}}"#);
    let made = lab.generate(
        &["--config", &lab.write("input.json", &definition), "--registries", &registries],
        &[("DOCKER_CONFIG", Path::new(&login(PASSWORD)))],
    );
    let defined = text(&made);
    assert_eq!(pins(&defined), [pin(&name, lab.image.manifest)]);
    assert!(
        defined.contains("\"/bin/true\"") && defined.contains("sandbox:///tmp/atlas/resolvconf/.+"),
        "{defined}"
    );

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
    let no_tag = lab.generate(
        &[&format!("{}/{NAME}:none", lab.host()), "--registries", &registries],
        &[("DOCKER_CONFIG", Path::new(&login(PASSWORD)))],
    );
    for words in [
        "cannot pull",
        "cannot get manifest none of",
        "the server answers 404",
        "manifest unknown",
    ] {
        assert!(errors(&no_tag).contains(words), "{}", errors(&no_tag));
    }
    let nobody = lab.generate(&[&format!("127.0.0.1:{}/{NAME}:test", free_port())], &[]);
    for words in ["cannot pull", "cannot reach the registry of", "refused"] {
        assert!(errors(&nobody).contains(words), "{}", errors(&nobody));
    }
    let no_name = lab.generate(&["No Such Image"], &[]);
    assert!(
        errors(&no_name).contains("\"No Such Image\" is neither a path"),
        "{}",
        errors(&no_name)
    );
    let untrusted = lab.generate(&[&absent], &[]);
    assert!(
        errors(&untrusted).contains("cannot reach the registry of") && errors(&untrusted).contains("UnknownIssuer"),
        "{}",
        errors(&untrusted)
    );
}
