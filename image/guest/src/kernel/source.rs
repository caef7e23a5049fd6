//! Builds `vmlinux` from Debian's `linux-source-6.12`, pinned by version and SHA-256.

use super::{Kernel, first_line, pack::pack, run};
use crate::hash::{read_hex, sha256_file};
use crate::{cache, progress::Step};
use anyhow::{Context, Result, bail};
use guest_manifest::Input;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PACKAGE: &str = "linux-source-6.12";
/// The version this project is tested with, and its package's SHA-256.
const VERSION: &str = "6.12.117-1~deb12u1";
const SHA256: &str = "e849faf31ca3555757f3a8877cb01af92122f744f75d1f3102734651c4e14703";
const FRAGMENT: &str = include_str!("../../kernel/guest.fragment");
/// Object files of a build, for the progress line only.
const OBJECTS: usize = 1530;
/// Part of the cache key; changes with build steps that neither the fragment nor the compiler reflects.
const RECIPE: &str = "packed";

/// The kernel from the cache, or built (about 6 minutes on two cores).
pub fn obtain() -> Result<Kernel> {
    let compiler = first_line(Command::new("gcc").arg("--version")).context("the guest kernel needs gcc: `make setup` installs it")?;
    let source = Source::choose()?;
    let key = cache::key(&[
        RECIPE.as_bytes(),
        source.version.as_bytes(),
        FRAGMENT.as_bytes(),
        compiler.as_bytes(),
    ]);
    let dir = cache::root()?.join("kernel").join(key);
    let vmlinux = dir.join("vmlinux");
    let hash_file = dir.join("source.sha256");
    if !vmlinux.exists() || !hash_file.exists() {
        build(&source, &dir)?;
    }
    let fragment = dir.join("guest.fragment");
    cache::write_whole(&fragment, FRAGMENT.as_bytes())?;
    let inputs = vec![
        Input {
            name: format!("{PACKAGE} {}", source.version),
            sha256: read_hex(&hash_file)?,
        },
        Input {
            name: "guest.fragment".to_owned(),
            sha256: sha256_file(&fragment)?,
        },
    ];
    Ok(Kernel {
        vmlinux,
        modules: Vec::new(),
        inputs,
        compiler,
    })
}

struct Source {
    version: String,
}

impl Source {
    /// The pinned version if it is cached or the mirror still has it; otherwise the mirror's newest, with a message.
    /// Debian's security suite drops a version as soon as it has the next.
    fn choose() -> Result<Self> {
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

fn build(source: &Source, dir: &Path) -> Result<()> {
    let (deb, sha256) = source.fetch()?;
    let work = dir.join("build");
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;

    let step = Step::start("unpacking the kernel source");
    run(Command::new("dpkg").arg("-x").args([&deb, &work]))?;
    run(Command::new("tar")
        .arg("xf")
        .arg(work.join(format!("usr/src/{PACKAGE}.tar.xz")))
        .arg("-C")
        .arg(&work))?;
    let tree = work.join(PACKAGE);
    let fragment = work.join("guest.fragment");
    std::fs::write(&fragment, FRAGMENT)?;
    step.done();

    run(kbuild(&tree).args(["-s", "tinyconfig"]))?;
    run(Command::new("scripts/kconfig/merge_config.sh")
        .args(["-m", ".config"])
        .arg(&fragment)
        .current_dir(&tree))?;
    run(kbuild(&tree).args(["-s", "olddefconfig"]))?;
    check_config(&std::fs::read_to_string(tree.join(".config"))?)?;
    compile(&tree)?;

    let linked = tree.join("vmlinux");
    let linked = std::fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
    cache::write_whole(&dir.join("vmlinux"), &pack(&linked)?)?;
    cache::write_whole(&dir.join("source.sha256"), sha256.as_bytes())?;
    std::fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))
}

/// `make` in the kernel tree, with the settings that make builds reproducible.
fn kbuild(tree: &Path) -> Command {
    let mut make = Command::new("make");
    make.current_dir(tree)
        .env("KBUILD_BUILD_TIMESTAMP", "2026-01-01T00:00:00Z")
        .env("KBUILD_BUILD_USER", "casemate")
        .env("KBUILD_BUILD_HOST", "casemate")
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL");
    make
}

/// Checks that the configuration has every option that the fragment sets, and none that it unsets. kconfig silently drops an
/// option whose dependency is missing, and adds one that another option selects.
fn check_config(config: &str) -> Result<()> {
    let has = |line: &str| config.lines().any(|l| l == line);
    let left_out = |line: &'static str| {
        line.strip_suffix("=n")
            .or_else(|| line.strip_prefix("# ")?.strip_suffix(" is not set"))
    };
    let lost: Vec<&str> = FRAGMENT
        .lines()
        .filter(|l| match left_out(l) {
            Some(name) => config.lines().any(|c| c.strip_prefix(name).is_some_and(|rest| rest == "=y")),
            None if l.starts_with("CONFIG_") => !has(l),
            None => false,
        })
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    bail!(
        "the kernel configuration differs from guest.fragment in {}: a dependency is missing, or another option selects it",
        lost.join(", ")
    )
}

fn compile(tree: &Path) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut step = Step::start(format!("building the guest kernel on {cores} cores (about 13 CPU minutes, once)"));
    let log = tree.join("casemate-build.log");
    let errors = std::fs::File::create(&log)?;
    let mut make = kbuild(tree)
        .arg(format!("-j{cores}"))
        .arg("vmlinux")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .context("cannot run make")?;
    let mut objects = 0;
    let output = make.stdout.take().context("make has no output")?;
    for line in BufReader::new(output).lines() {
        if line?.starts_with("  CC ") {
            objects += 1;
            step.at(format_args!("{objects} of about {OBJECTS} files"));
        }
    }
    if !make.wait()?.success() {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let tail: Vec<&str> = text.lines().rev().take(20).collect();
        bail!(
            "the kernel build failed:\n{}",
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    step.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_option_is_named() {
        let all: String = FRAGMENT
            .lines()
            .filter(|l| l.starts_with("CONFIG_") && !l.ends_with("=n"))
            .map(|l| format!("{l}\n"))
            .collect();
        check_config(&all).unwrap();
        let error = check_config(&all.replace("CONFIG_DM_VERITY=y\n", "")).unwrap_err().to_string();
        assert!(error.contains("CONFIG_DM_VERITY=y"), "{error}");
        let error = check_config(&format!("{all}CONFIG_IO_URING=y\n")).unwrap_err().to_string();
        assert!(error.contains("CONFIG_IO_URING"), "{error}");
    }
}
