//! Debian's `docker-registry`, filled by `skopeo`.

use super::authority::Identity;
use super::image::Image;
pub use super::image::NAME;
use super::program::{Program, free_port, run};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

pub const PROGRAMS: [&str; 2] = ["docker-registry", "skopeo"];

/// A running registry.
pub struct Registry {
    pub port: u16,
    directory: TempDir,
    program: Program,
}

/// What its configuration has beside the storage.
#[derive(Default)]
pub struct Guard<'a> {
    pub tls: Option<&'a Identity>,
    /// User and password.
    pub basic: Option<(&'a str, &'a str)>,
    /// URL of the token service, and the certificate of its key.
    pub token: Option<(&'a str, &'a str)>,
}

impl Registry {
    /// A registry with an image in [`NAME`], which anybody may pull by plain HTTP until it is guarded.
    pub fn with(image: &Image) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = directory.path().join("layout");
        image.write(&layout);
        let port = free_port();
        let program = start(directory.path(), port, &Guard::default());
        let target = format!("docker://127.0.0.1:{port}/{NAME}:test");
        run(Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--all", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:test", layout.display()))
            .arg(target));
        Self { port, directory, program }
    }

    /// The same with a guard, on another port.
    pub fn guarded(self, guard: &Guard<'_>) -> Self {
        drop(self.program);
        let port = free_port();
        Self {
            port,
            program: start(self.directory.path(), port, guard),
            directory: self.directory,
        }
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// The file of a blob in its storage.
    pub fn blob_file(&self, hex: &str) -> std::path::PathBuf {
        let blobs = self.directory.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

fn start(directory: &Path, port: u16, guard: &Guard<'_>) -> Program {
    let write = |name: &str, content: &str| {
        let path = directory.join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let storage = directory.join("storage");
    let mut config = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  \
         addr: 127.0.0.1:{port}\n  secret: test\n",
        storage.display()
    );
    if let Some(identity) = guard.tls {
        let (certificate, key) = (write("tls.crt", &identity.certificate), write("tls.key", &identity.key));
        config += &format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
    }
    if let Some((user, password)) = guard.basic {
        let htpasswd = run(Command::new("htpasswd").args(["-nbB", user, password]));
        config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", write("htpasswd", &htpasswd));
    }
    if let Some((realm, certificate)) = guard.token {
        let bundle = write("token.crt", certificate);
        config += &format!(
            "auth:\n  token:\n    realm: {realm}\n    service: {}\n    issuer: {}\n    rootcertbundle: {bundle}\n",
            super::token::SERVICE,
            super::token::ISSUER
        );
    }
    let config = write("config.yml", &config);
    Program::start(
        Command::new("docker-registry").args(["serve", &config]),
        &directory.join("log"),
        port,
    )
}
