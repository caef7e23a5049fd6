//! `make registry-demo`: Debian's registry and `casemate registry serve`, and a repository into which first nobody and then only some may push.

use crate::lab::{Ended, Program};
use crate::testbed::layer_tar::LayerTar;
use crate::testbed::oci::{Image, Layer};
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const REPOSITORY: &str = "flightjs/flight";
const SERVICE: &str = "container_registry";
/// What a refused push says in docker: the words of the first design.
const PUSH_DENIED: &str = "denied: container protected; you are not allowed to push new package";
const DELETE_DENIED: &str = "denied: container protected; you are not allowed to delete this package";
/// Time limit of a program's start.
const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// Name, role in the project, and whether it is an administrator. Passwords are `NAME-password`.
const USERS: [(&str, Option<&str>, bool); 4] = [
    ("root", None, true),
    ("olga", Some("owner"), false),
    ("max", Some("maintainer"), false),
    ("dev", Some("developer"), false),
];

/// Runs the demo in a directory of its own, with the programs of `programs`.
///
/// # Errors
/// The first step that did not go as the transcript says.
pub fn run(programs: &Path) -> Result<()> {
    title("A registry whose token service is casemate, and a project with three members");
    let demo = Demo::start(&programs.join("casemate"))?;

    title("1. Without a rule, roles decide: a developer pushes");
    demo.push("dev", "1")?.exits_with(0)?;
    demo.pull(Some("dev"), "1")?.exits_with(0)?;

    title("2. Nobody may push or delete, administrators neither");
    demo.admin(&["rule", "add", REPOSITORY, REPOSITORY, "--push", "no_one", "--delete", "no_one"])?;
    demo.push("root", "2")?.fails()?.mentions("403")?;
    demo.refused("root", "push,pull", PUSH_DENIED)?;
    demo.push("olga", "2")?.fails()?.mentions("403")?;
    demo.refused("olga", "push,pull", PUSH_DENIED)?;
    println!("\nPulling goes on, without a login too:");
    demo.pull(Some("root"), "1")?.exits_with(0)?;
    demo.pull(None, "1")?.exits_with(0)?;
    println!("\nDeleting does not:");
    demo.delete("root", "1")?.fails()?.mentions("403")?;
    demo.refused("root", "delete", DELETE_DENIED)?;
    demo.pull(None, "1")?.exits_with(0)?;

    title("3. Developers are kept out: maintainers push, owners delete");
    demo.admin(&["rule", "set", REPOSITORY, REPOSITORY, "--push", "maintainer", "--delete", "owner"])?;
    demo.push("dev", "3")?.fails()?.mentions("403")?;
    demo.refused("dev", "push,pull", PUSH_DENIED)?;
    demo.pull(Some("dev"), "1")?.exits_with(0)?;
    demo.push("olga", "3")?.exits_with(0)?;
    demo.push("root", "3")?.exits_with(0)?;
    demo.pull(None, "3")?.exits_with(0)?;
    demo.delete("max", "3")?.fails()?.mentions("403")?;
    demo.refused("max", "delete", DELETE_DENIED)?;
    demo.delete("olga", "3")?.exits_with(0)?;
    demo.pull(None, "3")?.fails()?.mentions("manifest unknown")?;

    title("4. What the audit trail says of it");
    let trail = demo.admin(&["audit", "--outcome", "refused"])?;
    println!("{}", trail.text());
    let refused = trail.text().lines().skip(1).filter(|line| line.contains(REPOSITORY)).count();
    ensure!(refused >= 8, "the audit trail has {refused} refusals, but there were at least 8");
    demo.end()
}

/// Both services and their files.
struct Demo {
    casemate: String,
    config: String,
    service: Running,
    registry: Running,
    token_service: String,
    image: String,
    address: String,
    directory: TempDir,
}

/// A program that is killed if the demo ends before it.
struct Running(Option<Program>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(program) = self.0.take() {
            program.stop();
        }
    }
}

impl Demo {
    fn start(casemate: &Path) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot create a directory for the demo")?;
        let path = |name: &str| directory.path().join(name);
        let shown = |name: &str| path(name).display().to_string();
        let write = |name: &str, content: &[u8]| {
            let path = path(name);
            std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
        };
        let casemate = casemate.display().to_string();
        let (key, certificate, config) = (shown("key.pem"), shown("certificate.pem"), shown("registry.toml"));
        let text = format!(
            "listen = \"127.0.0.1:0\"\nissuer = \"casemate\"\nservices = [\"{SERVICE}\"]\ndatabase = \"sqlite:{}\"\n\n[[keys]]\nkey = \"{key}\"\n\
             certificate = \"{certificate}\"\n",
            shown("registry.db")
        );
        write("registry.toml", text.as_bytes())?;
        println!("registry.toml\n\n{text}");
        let words = [
            &casemate,
            "registry",
            "admin",
            "key",
            "new",
            "--key",
            &key,
            "--certificate",
            &certificate,
        ];
        Ended::of(&words)?.exits_with(0)?;

        let mut service = Program::start(&[&casemate, "registry", "serve", "--config", &config], &[])?;
        let line = service.first_lines(1, SOON);
        let service = Running(Some(service));
        let line = line?;
        let token_service = line
            .strip_prefix("listening on ")
            .with_context(|| format!("casemate printed {line:?}"))?
            .to_owned();

        let address = free_address()?;
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n  secret: demo\n\
             auth:\n  token:\n    realm: http://{token_service}/jwt/auth\n    service: {SERVICE}\n    issuer: casemate\n    rootcertbundle: {certificate}\n",
            shown("storage")
        );
        write("docker-registry.yml", text.as_bytes())?;
        println!("\ndocker-registry.yml\n\n{text}");
        let registry = Running(Some(Program::start(
            &["docker-registry", "serve", &shown("docker-registry.yml")],
            &[],
        )?));
        await_listener(&address)?;

        write("image.tar", &image()?)?;
        let demo = Self {
            image: shown("image.tar"),
            casemate,
            config,
            service,
            registry,
            token_service,
            address,
            directory,
        };
        demo.admin(&["project", "add", REPOSITORY, "--public"])?;
        for (name, role, administrator) in USERS {
            let words = ["user", "add", name, "--password-file", "-", "--administrator"];
            let words = if administrator { &words[..] } else { &words[..5] };
            demo.admin_reading(words, &password(name))?;
            if let Some(role) = role {
                demo.admin(&["member", "set", REPOSITORY, name, role])?;
            }
        }
        Ok(demo)
    }

    fn admin(&self, words: &[&str]) -> Result<Ended> {
        self.admin_reading(words, "")
    }

    fn admin_reading(&self, words: &[&str], input: &str) -> Result<Ended> {
        let first = [&self.casemate, "registry", "admin", "--config", &self.config];
        let words = [&first[..], words].concat();
        Program::start(&words, input.as_bytes())?.end()?.exits_with(0)
    }

    fn name(&self, tag: &str) -> String {
        format!("docker://{}/{REPOSITORY}:{tag}", self.address)
    }

    fn push(&self, user: &str, tag: &str) -> Result<Ended> {
        let (credentials, image, name) = (credentials(user), format!("oci-archive:{}", self.image), self.name(tag));
        let words = ["--dest-tls-verify=false", "--dest-creds", &credentials, &image, &name];
        skopeo("copy", &words)
    }

    fn pull(&self, user: Option<&str>, tag: &str) -> Result<Ended> {
        // skopeo refuses a directory that is there.
        let pulled = tempfile::tempdir_in(self.directory.path()).context("cannot create a directory")?;
        let (target, name) = (format!("dir:{}", pulled.path().join("image").display()), self.name(tag));
        let credentials = user.map(credentials);
        let login = match &credentials {
            Some(credentials) => vec!["--src-creds", credentials],
            None => vec!["--src-no-creds"],
        };
        skopeo("copy", &[&["--src-tls-verify=false"], &login[..], &[&name, &target]].concat())
    }

    fn delete(&self, user: &str, tag: &str) -> Result<Ended> {
        let credentials = credentials(user);
        skopeo("delete", &["--tls-verify=false", "--creds", &credentials, &self.name(tag)])
    }

    /// Asks for a token as docker does, and prints the refusal as docker does. skopeo shows the status alone.
    fn refused(&self, user: &str, actions: &str, wanted: &str) -> Result<()> {
        let url = format!(
            "http://{}/jwt/auth?service={SERVICE}&scope=repository:{REPOSITORY}:{actions}",
            self.token_service
        );
        let credentials = credentials(user);
        let answer = Ended::of(&["curl", "--silent", "--noproxy", "*", "--user", &credentials, &url])?.exits_with(0)?;
        let body: serde_json::Value = serde_json::from_slice(&answer.stdout).context("the answer is not JSON")?;
        let error = &body["errors"][0];
        ensure!(error["code"] == "DENIED", "{user} was not refused: {body}");
        let denied = format!("denied: {}", error["message"].as_str().unwrap_or_default());
        println!("\n  {denied}\n");
        ensure!(denied == wanted, "the refusal is {denied:?} instead of {wanted:?}");
        Ok(())
    }

    /// Ends both services.
    fn end(mut self) -> Result<()> {
        title("Everything ends, and nothing is left");
        for program in [&mut self.registry, &mut self.service] {
            if let Some(program) = program.0.take() {
                terminate(program)?;
            }
        }
        let place: PathBuf = self.directory.path().to_owned();
        self.directory
            .close()
            .with_context(|| format!("cannot remove {}", place.display()))?;
        println!("\nEvery step went as it should.");
        Ok(())
    }
}

fn terminate(program: Program) -> Result<()> {
    let pid = i32::try_from(program.pid()).context("the process id is out of range")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).context("cannot end a program")?;
    program.end().map(drop)
}

fn skopeo(verb: &str, words: &[&str]) -> Result<Ended> {
    Ended::of(&[&["skopeo", "--insecure-policy", verb], words].concat())
}

fn password(user: &str) -> String {
    format!("{user}-password")
}

fn credentials(user: &str) -> String {
    format!("{user}:{}", password(user))
}

/// A small image, as an archive of an OCI layout.
fn image() -> Result<Vec<u8>> {
    let mut layer = LayerTar::default();
    layer.file("flight", 0o644, b"an aeroplane\n")?;
    let layer = Layer::from_tar(&layer.finish()?)?;
    let image = Image {
        reference: REPOSITORY,
        layers: &[layer],
        command: &["/flight"],
        environment: &[],
    };
    image.to_layout_tar()
}

/// An address of the loopback at which nobody listens.
fn free_address() -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
    Ok(listener.local_addr().context("there is no free port")?.to_string())
}

fn await_listener(address: &str) -> Result<()> {
    let end = Instant::now() + SOON;
    while TcpStream::connect(address).is_err() {
        ensure!(Instant::now() < end, "docker-registry does not answer at {address} within {SOON:?}");
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn title(text: &str) {
    println!("\n━━ {text}\n");
}
