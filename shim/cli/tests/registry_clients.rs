//! Debian's registry with `casemate registry serve` as its token service, and the clients that people have: skopeo, containerd, curl.

mod token_service;

use postgres_testing::Postgres;
use registry_testing::authority::Identity;
use registry_testing::image::{Image, NAME};
use registry_testing::program::{Program, free_port, installed};
use registry_testing::registry::{self, Guard, Registry};
use registry_testing::token;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use token_service::{Answer, Service, curl, login, password, until};

const PUSH_DENIED: &str = "403 DENIED container protected; you are not allowed to push new package";
const DELETE_DENIED: &str = "403 DENIED container protected; you are not allowed to delete this package";
const WRONG_PASSWORD: &str = "401 UNAUTHORIZED HTTP Basic: Access denied";
/// A second project, which is private.
const OTHER: &str = "team/other";

/// A registry with an image in [`NAME`], its token service, and users named by their roles.
struct Scene {
    service: Service,
    registry: Registry,
    image: Image,
    files: TempDir,
}

impl Scene {
    fn new(database: Option<&str>) -> Self {
        let service = Service::start(database);
        service.admin(&["project", "add", NAME, "--public"]);
        service.admin(&["project", "add", OTHER]);
        service.add_user("root", &["--administrator"]);
        for role in ["reporter", "developer", "maintainer", "owner"] {
            service.add_user(role, &[]);
            for project in [NAME, OTHER] {
                service.admin(&["member", "set", project, role, role]);
            }
        }
        let image = Image::new(2, 100);
        let guard = Guard {
            token: Some((&service.realm(), &service.bundle())),
            ..Guard::default()
        };
        let registry = Registry::with(&image).guarded(&guard);
        let files = tempfile::tempdir().unwrap();
        image.write(&files.path().join("layout"));
        Self {
            service,
            registry,
            image,
            files,
        }
    }

    fn protect(&self, project: &str, push: &str, delete: &str) {
        self.service
            .admin(&["rule", "add", project, project, "--push", push, "--delete", delete]);
    }

    fn reference(&self, repository: &str, tag: &str) -> String {
        format!("docker://127.0.0.1:{}/{repository}:{tag}", self.registry.port)
    }

    fn push(&self, user: &str, repository: &str, tag: &str) -> Output {
        let source = format!("oci:{}:test", self.files.path().join("layout").display());
        let credentials = login(user);
        let words = ["copy", "--all", "--dest-tls-verify=false", "--dest-creds", &credentials, &source];
        skopeo(&[&words[..], &[&self.reference(repository, tag)]].concat())
    }

    fn pull(&self, user: Option<&str>, repository: &str, tag: &str) -> Output {
        let directory = tempfile::tempdir_in(self.files.path()).unwrap();
        let target = format!("dir:{}", directory.path().join("image").display());
        let credentials = user.map(login);
        let access = match &credentials {
            Some(credentials) => vec!["--src-creds", credentials],
            None => vec!["--src-no-creds"],
        };
        let words = [&["copy", "--src-tls-verify=false"], &access[..]].concat();
        skopeo(&[&words[..], &[&self.reference(repository, tag), &target]].concat())
    }

    /// A request to the registry itself with the token of a granted request.
    fn request(&self, method: &str, path: &str, token: &str) -> Answer {
        let header = format!("Authorization: Bearer {token}");
        let accept = "Accept: application/vnd.oci.image.index.v1+json";
        let words = ["--request", method, "--header", &header, "--header", accept, "--data", ""];
        let words = if method == "POST" { &words[..] } else { &words[..6] };
        curl(words, &format!("http://127.0.0.1:{}/v2/{path}", self.registry.port))
    }
}

fn skopeo(words: &[&str]) -> Output {
    Command::new("skopeo")
        .args(["--insecure-policy"])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn succeeds(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn fails(output: Output, says: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains(says), "{says:?} is not in {error}");
}

/// Each story, on one database.
fn stories(mut database: impl FnMut() -> Option<String>) {
    if !installed(
        "the registry's clients",
        &[&registry::PROGRAMS[..], &["curl", "containerd", "ctr"]].concat(),
    ) {
        return;
    }
    let mut scene = || Scene::new(database().as_deref());
    logins(&scene());
    pushes_and_pulls(&scene());
    mounts(&scene());
    deletes(&scene());
    jobs(&scene());
    tokens_end(&scene());
    containerd(&scene());
    // The last: the key is another one afterwards.
    keys_rotate(&scene());
}

#[test]
fn on_sqlite() {
    stories(|| None);
}

#[test]
fn on_postgresql() {
    let server = Postgres::start();
    let mut databases = 0;
    stories(|| {
        databases += 1;
        Some(server.database(&format!("story_{databases}")))
    });
}

fn logins(scene: &Scene) {
    let registry = format!("127.0.0.1:{}", scene.registry.port);
    let authfile = scene.files.path().join("auth.json").display().to_string();
    let log_in = |user: &str, password: &str| {
        let words = [
            "login",
            "--tls-verify=false",
            "--authfile",
            &authfile,
            "--username",
            user,
            "--password",
            password,
            &registry,
        ];
        skopeo(&words)
    };
    succeeds(log_in("developer", &password("developer")));
    fails(log_in("developer", "wrong"), "invalid username/password");
    fails(log_in("nobody", "wrong"), "invalid username/password");
    // Wrong credentials are never the anonymous ones, even for what anybody may pull.
    let pull = format!("repository:{NAME}:pull");
    assert_eq!(scene.service.ask(Some("developer:wrong"), &[&pull]).refusal(), WRONG_PASSWORD);
    assert_eq!(scene.service.ask(None, &[]).refusal(), "403 DENIED access forbidden");
    let log = scene.service.log();
    assert!(!log.contains("password"), "{log}");
}

fn pushes_and_pulls(scene: &Scene) {
    succeeds(scene.push("developer", NAME, "first"));
    fails(scene.push("reporter", NAME, "never"), "denied");
    scene.protect(NAME, "maintainer", "owner");
    fails(scene.push("developer", NAME, "second"), "403");
    let scope = format!("repository:{NAME}:push,pull");
    assert_eq!(scene.service.ask_as("developer", &[&scope]).refusal(), PUSH_DENIED);
    succeeds(scene.push("maintainer", NAME, "second"));
    succeeds(scene.push("root", NAME, "second"));
    for user in [None, Some("reporter"), Some("developer")] {
        succeeds(scene.pull(user, NAME, "second"));
    }
    fails(scene.pull(None, OTHER, "none"), "denied");
    scene.service.admin(&["rule", "set", NAME, NAME, "--push", "no_one"]);
    fails(scene.push("root", NAME, "third"), "403");
    assert_eq!(scene.service.ask_as("root", &[&scope]).refusal(), PUSH_DENIED);
    succeeds(scene.pull(None, NAME, "second"));
}

fn mounts(scene: &Scene) {
    // From a protected repository: pulling is enough.
    scene.protect(NAME, "owner", "owner");
    let (from, into) = (format!("repository:{NAME}:pull"), format!("repository:{OTHER}:pull,push"));
    let token = scene.service.ask_as("developer", &[&into, &from]).token();
    let blob = scene.image.layers[0];
    let mount = |token: &str| {
        scene
            .request("POST", &format!("{OTHER}/blobs/uploads/?mount={blob}&from={NAME}"), token)
            .status
    };
    assert_eq!(mount(&token), 201);
    // 202: the registry begins an upload instead.
    let blind = scene.service.ask_as("developer", &[&into]).token();
    assert_ne!(mount(&blind), 201);
    let credentials = login("developer");
    let (source, target) = (scene.reference(NAME, "test"), scene.reference(OTHER, "copied"));
    let words = [
        "copy",
        "--all",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        "--src-creds",
        &credentials,
        "--dest-creds",
    ];
    succeeds(skopeo(&[&words[..], &[&credentials, &source, &target]].concat()));
    // Into one it is a push.
    scene.protect(OTHER, "maintainer", "owner");
    assert_eq!(scene.service.ask_as("developer", &[&into, &from]).refusal(), PUSH_DENIED);
    fails(skopeo(&[&words[..], &[&credentials, &source, &target]].concat()), "403");
}

fn deletes(scene: &Scene) {
    scene.protect(NAME, "maintainer", "owner");
    let scope = format!("repository:{NAME}:delete");
    let manifest = format!("{NAME}/manifests/{}", scene.image.index);
    // A developer's role does not delete, so that no rule is asked.
    let powerless = scene.service.ask_as("developer", &[&scope]).token();
    assert_eq!(scene.request("DELETE", &manifest, &powerless).status, 401);
    assert_eq!(scene.service.ask_as("maintainer", &[&scope]).refusal(), DELETE_DENIED);
    let delete = |user: &str| {
        let credentials = login(user);
        skopeo(&[
            "delete",
            "--tls-verify=false",
            "--creds",
            &credentials,
            &scene.reference(NAME, "test"),
        ])
    };
    fails(delete("maintainer"), "403");
    let pull = scene.service.ask(None, &[&format!("repository:{NAME}:pull")]).token();
    assert_eq!(scene.request("GET", &manifest, &pull).status, 200);
    succeeds(delete("owner"));
    assert_eq!(scene.request("GET", &manifest, &pull).status, 404);
    succeeds(scene.push("maintainer", NAME, "again"));
    let token = scene.service.ask_as("owner", &[&scope]).token();
    assert_eq!(scene.request("DELETE", &manifest, &token).status, 202);
}

fn jobs(scene: &Scene) {
    let scope = format!("repository:{NAME}:pull,push");
    let job = |user: &str, project: &str| format!("ci-token:{}", scene.service.new_token(&["job", user, project]));
    let (reporter, developer, elsewhere) = (job("reporter", NAME), job("developer", NAME), job("owner", OTHER));
    // A job pushes into its own project whatever the role of its user.
    scene.service.ask(Some(&reporter), &[&scope]).token();
    scene.protect(NAME, "maintainer", "owner");
    for login in [&reporter, &developer] {
        assert_eq!(scene.service.ask(Some(login), &[&scope]).refusal(), PUSH_DENIED);
    }
    // Into another project it does not push, and so no rule refuses it.
    let token = scene.service.ask(Some(&elsewhere), &[&scope]).token();
    let upload = format!("{NAME}/blobs/uploads/");
    assert_eq!(scene.request("POST", &upload, &token).status, 401);
    // With a user's name a job's token is a wrong password.
    let secret = reporter.strip_prefix("ci-token:").unwrap();
    let answer = scene.service.ask(Some(&format!("reporter:{secret}")), &[&scope]);
    assert_eq!(answer.refusal(), WRONG_PASSWORD);
}

fn tokens_end(scene: &Scene) {
    // The registry's own view of a token that was good minutes ago, and of the same one now.
    let signer = Identity {
        certificate: scene.service.read("certificate.pem"),
        key: scene.service.read("key.pem"),
    };
    let manifest = format!("{NAME}/manifests/test");
    let now = SystemTime::now();
    assert_eq!(scene.request("GET", &manifest, &token::token(&signer, now)).status, 200);
    let old = now - Duration::from_secs(3600);
    assert_eq!(scene.request("GET", &manifest, &token::token(&signer, old)).status, 401);
    // Tokens with which one logs in.
    let words = ["deploy", NAME, "short", "--login", "robot", "--read", "--expires", "1s"];
    let short = format!("robot:{}", scene.service.new_token(&words));
    let scope = format!("repository:{NAME}:pull");
    until("a deploy token ends", || scene.service.ask(Some(&short), &[&scope]).status == 401);
    let personal = scene.service.new_token(&["personal", "developer", "laptop", "--read"]);
    let login = format!("developer:{personal}");
    let grant = scene.service.ask(Some(&login), &[&scope]).token();
    assert_eq!(scene.request("GET", &manifest, &grant).status, 200);
    let id = scene.service.admin(&["--json", "token", "list"]);
    let id: serde_json::Value = serde_json::from_str(&id).unwrap();
    let id = id.as_array().unwrap().iter().find(|token| token["name"] == "laptop").unwrap()["id"].to_string();
    scene.service.admin(&["token", "revoke", &id]);
    assert_eq!(scene.service.ask(Some(&login), &[&scope]).refusal(), WRONG_PASSWORD);
}

fn keys_rotate(scene: &Scene) {
    let scope = format!("repository:{NAME}:pull");
    let manifest = format!("{NAME}/manifests/test");
    let before = scene.service.ask_as("reporter", &[&scope]).token();
    scene.service.rotate();
    let after = scene.service.ask_as("reporter", &[&scope]).token();
    for token in [&before, &after] {
        assert_eq!(scene.request("GET", &manifest, token).status, 200);
    }
    succeeds(scene.push("developer", NAME, "rotated"));
    // A key that the registry does not know.
    let stranger = registry_testing::authority::self_signed(&["stranger"]);
    let foreign = token::token(&stranger, SystemTime::now());
    assert_eq!(scene.request("GET", &manifest, &foreign).status, 401);
}

/// containerd with a root of its own, and without the parts that need the network or a file system.
struct Containerd {
    socket: String,
    _program: Program,
}

impl Containerd {
    fn start(directory: &Path) -> Self {
        let path = |name: &str| directory.join(name).display().to_string();
        let (socket, port) = (path("containerd.sock"), free_port());
        let config = format!(
            "version = 2\nroot = '{}'\nstate = '{}'\ndisabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.internal.v1.opt']\n\
             [grpc]\naddress = '{socket}'\n[ttrpc]\naddress = '{socket}.ttrpc'\n[metrics]\naddress = '127.0.0.1:{port}'\n",
            path("root"),
            path("state")
        );
        std::fs::write(directory.join("config.toml"), config).unwrap();
        let mut command = Command::new("containerd");
        command.args(["--config", &path("config.toml")]);
        let containerd = Self {
            _program: Program::start(&mut command, &directory.join("log"), port),
            socket,
        };
        until("containerd answers", || containerd.ctr(&["version"]).status.success());
        containerd
    }

    fn ctr(&self, words: &[&str]) -> Output {
        let mut command = Command::new("ctr");
        command.args(["--address", &self.socket]).args(words);
        command.stdin(Stdio::null()).output().unwrap()
    }
}

fn containerd(scene: &Scene) {
    let directory = tempfile::tempdir().unwrap();
    let containerd = Containerd::start(directory.path());
    scene.protect(NAME, "maintainer", "owner");
    let image = format!("127.0.0.1:{}/{NAME}:test", scene.registry.port);
    let fetch = |login: &str| containerd.ctr(&["content", "fetch", "--plain-http", "--all-platforms", "--user", login, &image]);
    fails(fetch("developer:wrong"), "401");
    succeeds(fetch(&login("developer")));
    succeeds(containerd.ctr(&["content", "fetch", "--plain-http", "--all-platforms", &image]));
    let push = |user: &str, tag: &str| {
        let (target, login) = (format!("127.0.0.1:{}/{NAME}:{tag}", scene.registry.port), login(user));
        containerd.ctr(&["images", "push", "--plain-http", "--user", &login, &target, &image])
    };
    fails(push("developer", "by-ctr"), "403");
    succeeds(push("maintainer", "by-ctr"));
    succeeds(scene.pull(None, NAME, "by-ctr"));
}
