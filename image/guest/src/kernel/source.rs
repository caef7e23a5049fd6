//! The source package of Debian's kernel, pinned by version and SHA-256.

use super::run;
use crate::hash::sha256_file;
use crate::{cache, progress::Step};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package.
pub const PACKAGE: &str = "linux-source-6.12";
/// The version this project is tested with, and its package's SHA-256.
const VERSION: &str = "6.12.117-1~deb12u1";
const SHA256: &str = "e849faf31ca3555757f3a8877cb01af92122f744f75d1f3102734651c4e14703";

/// One version of the package.
pub struct Source {
    /// Debian's version.
    pub version: String,
}

impl Source {
    /// The pinned version if it is cached or the mirror still has it; otherwise the mirror's newest, with a message.
    /// Debian's security suite drops a version as soon as it has the next.
    pub fn choose() -> Result<Self> {
        let cached = cache::root()?.join("kernel").join(deb_name(VERSION));
        if cached.exists() {
            return Ok(Self {
                version: VERSION.to_owned(),
            });
        }
        let output = Command::new("apt-cache")
            .args(["madison", PACKAGE])
            .output()
            .context("cannot run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let versions: Vec<&str> = text.lines().filter_map(|l| l.split('|').nth(1)).map(str::trim).collect();
        match versions.first() {
            None => bail!("apt lists no {PACKAGE}: Debian 12's security suite has it; check the apt sources and run `apt-get update`"),
            Some(_) if versions.contains(&VERSION) => Ok(Self {
                version: VERSION.to_owned(),
            }),
            Some(newest) => {
                eprintln!(
                    "    the mirror no longer has {PACKAGE} {VERSION}; using {newest} instead, and recording its digest in the manifest"
                );
                Ok(Self {
                    version: (*newest).to_owned(),
                })
            }
        }
    }

    /// Downloads the package into the cache, and checks the digest of the pinned version.
    fn fetch(&self) -> Result<(PathBuf, String)> {
        let dir = cache::root()?.join("kernel");
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let deb = dir.join(deb_name(&self.version));
        if !deb.exists() {
            let step = Step::start(format!("downloading {PACKAGE} {} (150 MB)", self.version));
            run(Command::new("apt-get")
                .args(["-q", "download", &format!("{PACKAGE}={}", self.version)])
                .current_dir(&dir))?;
            // apt percent-encodes special characters such as the epoch's colon, so look for the new file.
            let written = newest_deb(&dir)?;
            if written != deb {
                std::fs::rename(&written, &deb).with_context(|| format!("cannot rename {}", written.display()))?;
            }
            step.done();
        }
        let sha256 = hex::encode(sha256_file(&deb)?);
        if self.version == VERSION && sha256 != SHA256 {
            bail!(
                "{} has SHA-256 {sha256}, but {SHA256} is pinned; delete it and retry",
                deb.display()
            );
        }
        Ok((deb, sha256))
    }

    /// Unpacks the source into `work`; returns the kernel's tree, and the SHA-256 of the package.
    pub fn unpack(&self, work: &Path) -> Result<(PathBuf, String)> {
        let (deb, sha256) = self.fetch()?;
        let step = Step::start("unpacking the kernel source");
        run(Command::new("dpkg").arg("-x").args([deb.as_path(), work]))?;
        run(Command::new("tar")
            .arg("xf")
            .arg(work.join(format!("usr/src/{PACKAGE}.tar.xz")))
            .arg("-C")
            .arg(work))?;
        step.done();
        Ok((work.join(PACKAGE), sha256))
    }
}

fn deb_name(version: &str) -> String {
    format!("{PACKAGE}_{version}_all.deb")
}

fn newest_deb(dir: &Path) -> Result<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir)?
        .filter_map(|e| e.ok())
        .filter(|e| e.file_name().to_string_lossy().starts_with(PACKAGE))
        .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path).context("apt-get download wrote no package")
}
