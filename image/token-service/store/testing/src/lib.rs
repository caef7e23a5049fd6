//! A PostgreSQL server of its own for each test that needs one.
//!
//! It is Debian's, in a temporary directory, by the loopback and a Unix socket, and ends with the test. PostgreSQL refuses to
//! run as root: tests of root start it as the user whom Debian's package makes for it.
#![allow(missing_docs, reason = "names say what the parts of a test are")]
#![forbid(unsafe_code)]

use registry_testing::program::{free_port, run};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::fs::File;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;

/// Where Debian's package puts each major version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user of Debian's package.
const USER: &str = "postgres";
/// Looks whether the server is ready, 50 ms apart.
const TRIES: u32 = 1200;
/// Another program may take a free port first.
const PORTS: u32 = 5;

const PASSWORD: &str = "of-tests";

pub struct Postgres {
    directory: TempDir,
    programs: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// A server with an empty cluster.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("postgres-").tempdir().unwrap();
        if let Some((user, group)) = other_user() {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let mut postgres = Self {
            programs: programs(),
            directory,
            port: 0,
            server: None,
        };
        let password = postgres.directory.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let mut initdb = postgres.command("initdb");
        initdb.args(["--username=casemate", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
        initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256"]);
        initdb
            .arg(format!("--pwfile={}", password.display()))
            .arg("-D")
            .arg(postgres.data());
        run(&mut initdb);
        postgres.run();
        postgres
    }

    /// The URL of a new database, by the loopback and a password.
    pub fn database(&self, name: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-q", "-U", "casemate", "-d", "postgres", "-p", &self.port.to_string()]);
        psql.arg("-h").arg(self.directory.path());
        run(psql.arg("-c").arg(format!("CREATE DATABASE \"{name}\"")));
        format!("postgres://casemate:{PASSWORD}@127.0.0.1:{}/{name}", self.port)
    }

    /// The URL of a database by the Unix socket.
    pub fn by_socket(&self, name: &str) -> String {
        let socket = self.directory.path().display().to_string().replace('/', "%2F");
        format!("postgres://casemate@{socket}:{}/{name}", self.port)
    }

    /// Runs a statement as the cluster's owner.
    pub fn execute(&self, database: &str, statement: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-q", "-A", "-t", "-U", "casemate", "-d", database, "-p", &self.port.to_string()]);
        run(psql.arg("-h").arg(self.directory.path()).arg("-c").arg(statement))
    }

    /// Ends the server at once; what was committed is there when it is started again.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = Pid::from_child(&server);
            // "Immediate shutdown" of its manual: the server ends its children too, which a kill would leave.
            let _ = kill_process(pid, Signal::QUIT);
            let _ = server.wait();
        }
    }

    /// Starts the server again, on the same port if it has one.
    pub fn run(&mut self) {
        let ports = if self.port == 0 { PORTS } else { 1 };
        for _ in 0..ports {
            let port = if ports == 1 { self.port } else { free_port() };
            if let Some(server) = self.try_run(port) {
                self.port = port;
                self.server = Some(server);
                return;
            }
        }
        panic!("PostgreSQL does not start: {}", self.log());
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn try_run(&self, port: u16) -> Option<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .unwrap();
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        command.arg("-k").arg(self.directory.path());
        // The machine does not lose its power during a test.
        command.args(["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "max_connections=60"]);
        let mut server = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        for _ in 0..TRIES {
            // The last line of the file says how far it is (PostgreSQL, `miscadmin.h`, LOCK_FILE_LINE_PM_STATUS).
            let state = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let own = state.lines().next() == Some(&server.id().to_string());
            if own && state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return Some(server);
            }
            if server.try_wait().unwrap().is_some() {
                return None;
            }
            sleep(Duration::from_millis(50));
        }
        let _ = server.kill();
        let _ = server.wait();
        None
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.directory.path()).stdin(Stdio::null()).env_clear();
        if let Some((user, group)) = other_user() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The programs of the latest version that is installed.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir(VERSIONS).unwrap_or_else(|_| panic!("PostgreSQL is not installed (make setup)"));
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let latest = versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .max_by_key(|path| number(path));
    latest.expect("PostgreSQL is not installed (make setup)").join("bin")
}

/// User and group for the server, where the test's own may not run it.
fn other_user() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.split(':').next() == Some(USER));
    let fields: Vec<&str> = line.expect("Debian's PostgreSQL makes the user postgres").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}
