//! Debian's `docker-registry`: open while it is filled, then guarded by a login and by TLS of an authority that nobody knows.

use super::Program;
use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Its only user.
pub const USER: &str = "robot";
/// The user's password, which has the word of all secrets in it: [`crate::runner::secrets`].
pub const PASSWORD: &str = "hunter2-of-the-private-registry";
/// The line of `htpasswd -nbB` for both: L1 has no such program.
const HTPASSWD: &str = "robot:$2y$05$rWW7b2GZy9wUXz4YBOFAZ.LGbBxY1pYfTOJP2It1gtTGEyJtGSOA2\n";
/// Time limit of its start in an emulated machine.
const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// The registry's files, and its program while it runs.
pub struct Registry {
    /// Where it answers, as images' names begin.
    pub address: String,
    /// What it listens on.
    listens: String,
    directory: TempDir,
    /// Certificate of the authority that signed the registry's, in PEM.
    pub authority: String,
    program: Option<Program>,
}

impl Registry {
    /// A registry without images at a port of the loopback address, not started; its files are in `place`.
    pub fn new(port: u16, place: &Path) -> Result<Self> {
        Self::at("127.0.0.1", "127.0.0.1", port, place)
    }

    /// The same for guests that reach the machine at `host`, an address that it may get later.
    pub fn reached_at(host: &str, port: u16, place: &Path) -> Result<Self> {
        Self::at(host, "0.0.0.0", port, place)
    }

    fn at(host: &str, listens: &str, port: u16, place: &Path) -> Result<Self> {
        let directory = tempfile::tempdir_in(place).context("cannot create a directory for the registry")?;
        let (authority, certificate, key) = certificates(host).context("cannot make certificates")?;
        let registry = Self {
            address: format!("{host}:{port}"),
            listens: format!("{listens}:{port}"),
            directory,
            authority,
            program: None,
        };
        registry.write("tls.crt", &certificate)?;
        registry.write("tls.key", &key)?;
        registry.write("htpasswd", HTPASSWD)?;
        Ok(registry)
    }

    /// Answers anybody, without TLS.
    pub fn open(&mut self) -> Result<()> {
        self.serve("open.yml", "")
    }

    /// Answers with a certificate of the authority, to who has the password.
    pub fn guard(&mut self) -> Result<()> {
        let path = |name: &str| self.path(name);
        let guard = format!(
            "  tls:\n    certificate: {}\n    key: {}\nauth:\n  htpasswd:\n    realm: private\n    path: {}\n",
            path("tls.crt"),
            path("tls.key"),
            path("htpasswd")
        );
        self.serve("guarded.yml", &guard)
    }

    /// Ends it; the images stay.
    pub fn stop(&mut self) {
        if let Some(program) = self.program.take() {
            program.stop();
        }
    }

    fn serve(&mut self, name: &str, more: &str) -> Result<()> {
        self.stop();
        let storage = self.path("storage");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {storage}\nhttp:\n  addr: {}\n  secret: story\n{more}",
            self.listens
        );
        let config = self.write(name, &config)?;
        self.program = Some(Program::start(&["docker-registry", "serve", &config], &[])?);
        let end = Instant::now() + SOON;
        while TcpStream::connect(&self.listens).is_err() {
            if Instant::now() > end {
                bail!("docker-registry does not answer at {} within {SOON:?}", self.listens);
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// A file with its section of a registry configuration, and a password.
    pub fn configuration(&self, path: &Path, password: Option<&str>) -> Result<String> {
        let login = password.map(|password| format!("username = '{USER}'\npassword = '{password}'\n"));
        let section = format!(
            "[registries.'{}']\nca-certs = '''\n{}'''\n{}",
            self.address,
            self.authority,
            login.unwrap_or_default()
        );
        std::fs::write(path, section).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path.display().to_string())
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, content: &str) -> Result<String> {
        let path = self.path(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {path}"))?;
        Ok(path)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An authority's certificate, one that it signed for `host`, and its key; all in PEM.
fn certificates(host: &str) -> Result<(String, String, String), rcgen::Error> {
    let named = |names: &[&str], common: &str| {
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, common);
        Ok::<_, rcgen::Error>(params)
    };
    let mut authority = named(&[], "casemate story authority")?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?.pem();
    let key = KeyPair::generate()?;
    let certificate = named(&[host], "casemate story registry")?.signed_by(&key, &Issuer::new(authority, authority_key))?;
    Ok((authority_certificate, certificate.pem(), key.serialize_pem()))
}
