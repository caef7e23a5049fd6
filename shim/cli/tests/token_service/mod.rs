//! `casemate registry serve` and `casemate registry admin`, as an operator runs them, and `curl` for what other clients hide.
#![allow(dead_code, reason = "each test uses a part")]

use registry_testing::program::{Program, free_port, run};
use registry_testing::token::{ISSUER, SERVICE};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Within this time a change of files is seen.
const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A running service with a database of its own.
pub struct Service {
    pub port: u16,
    pub database: String,
    directory: TempDir,
    program: Program,
}

/// The answer of a token endpoint, or of anything else over HTTP.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The token of a granted request.
    pub fn token(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()["token"].as_str().unwrap().to_owned()
    }

    /// `STATUS CODE MESSAGE` of a refused one.
    pub fn refusal(&self) -> String {
        let error = &self.json()["errors"][0];
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", self.status, text("code"), text("message"))
    }
}

impl Service {
    /// Starts it, with a new SQLite database if none is given.
    pub fn start(database: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let database = database.map_or_else(|| format!("sqlite:{}", path("registry.db")), str::to_owned);
        for name in ["", "-2"] {
            let (key, certificate) = (path(&format!("key{name}.pem")), path(&format!("certificate{name}.pem")));
            run(casemate().args(["registry", "admin", "key", "new", "--key", &key, "--certificate", &certificate]));
        }
        let port = free_port();
        let config = format!(
            "listen = '127.0.0.1:{port}'\nissuer = '{ISSUER}'\nservices = ['{SERVICE}']\ndatabase = '{database}'\ntoken_lifetime = 60\n\
             failed_logins = {{ per_address = 1000, per_account = 1000, window = 1 }}\n[[keys]]\nkey = '{}'\ncertificate = '{}'\n",
            path("key.pem"),
            path("certificate.pem")
        );
        fs::write(path("registry.toml"), config).unwrap();
        let mut command = casemate();
        command.args(["registry", "serve", "--config", &path("registry.toml")]);
        let program = Program::start(&mut command, &directory.path().join("log"), port);
        Self {
            port,
            database,
            directory,
            program,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// For the registry's configuration.
    pub fn realm(&self) -> String {
        format!("http://127.0.0.1:{}/jwt/auth", self.port)
    }

    /// The certificates of the present key and of the next one.
    pub fn bundle(&self) -> String {
        self.read("certificate.pem") + &self.read("certificate-2.pem")
    }

    /// Runs `casemate registry admin` with an input.
    pub fn try_admin(&self, words: &[&str], input: &str) -> Output {
        let mut child = casemate()
            .args(["registry", "admin", "--database", &self.database])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its input may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// The same; it must succeed.
    pub fn admin(&self, words: &[&str]) -> String {
        self.admin_reading(words, "")
    }

    pub fn admin_reading(&self, words: &[&str], input: &str) -> String {
        let output = self.try_admin(words, input);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A user whose password is `NAME-password`.
    pub fn add_user(&self, name: &str, more: &[&str]) {
        let words = [&["user", "add", name, "--password-file", "-"], more].concat();
        self.admin_reading(&words, &password(name));
    }

    /// A new token's text.
    pub fn new_token(&self, words: &[&str]) -> String {
        self.admin(&[&["token"], words].concat()).trim_end().to_owned()
    }

    /// Asks for a token; `login` is `NAME:PASSWORD`.
    pub fn ask(&self, login: Option<&str>, scopes: &[&str]) -> Answer {
        let scopes: Vec<String> = scopes.iter().map(|scope| format!("scope={scope}")).collect();
        let mut words = vec!["--get", "--data-urlencode", "service=test-registry"];
        for scope in &scopes {
            words.extend(["--data-urlencode", scope]);
        }
        if let Some(login) = login {
            words.extend(["--user", login]);
        }
        curl(&words, &self.realm())
    }

    /// The same as a user with the password of [`Self::add_user`].
    pub fn ask_as(&self, user: &str, scopes: &[&str]) -> Answer {
        self.ask(Some(&login(user)), scopes)
    }

    /// Puts the next key in the place of the present one, and waits until it signs.
    pub fn rotate(&self) {
        let before = self.signer();
        fs::rename(self.path("key.pem"), self.path("key-1.pem")).unwrap();
        fs::rename(self.path("certificate.pem"), self.path("certificate-1.pem")).unwrap();
        fs::rename(self.path("key-2.pem"), self.path("key.pem")).unwrap();
        fs::rename(self.path("certificate-2.pem"), self.path("certificate.pem")).unwrap();
        run(Command::new("kill").args(["-HUP", &self.program.id().to_string()]));
        until("the next key signs", || self.signer() != before);
    }

    /// The header of a token of somebody without a login, which names the certificate.
    fn signer(&self) -> String {
        let token = self.ask(None, &["repository:nobody/knows:pull"]).token();
        token.split('.').next().unwrap().to_owned()
    }

    pub fn log(&self) -> String {
        self.read("log")
    }
}

/// The program under test.
pub fn casemate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_casemate"))
}

pub fn password(user: &str) -> String {
    format!("{user}-password")
}

pub fn login(user: &str) -> String {
    format!("{user}:{}", password(user))
}

/// Runs `curl`: the status of the answer and its body.
pub fn curl(words: &[&str], url: &str) -> Answer {
    let output = run(Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "60",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(words)
        .arg(url));
    let (body, status) = output.rsplit_once('\n').unwrap();
    Answer {
        status: status.parse().unwrap(),
        body: body.to_owned(),
    }
}

/// Waits for a condition.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "it takes too long until {what}");
        sleep(POLL);
    }
}
