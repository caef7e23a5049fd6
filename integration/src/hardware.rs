//! `make snp-test`: stories on this host itself, with SEV-SNP guests under its own containerd. It needs a host that `casemate host check`
//! finds fit; the test machine has no SEV-SNP.

mod stories;

use crate::lab::{Ended, Lab, Runtime};
use crate::testbed::{host, images, job::Build};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Exit code on a host that cannot run SEV-SNP guests, where no story ran. As automake's tests say it.
pub const UNFIT: u8 = 77;

/// How the tests ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every story passed.
    Passed,
    /// A story failed.
    Failed,
    /// This host lacks something.
    Unfit,
}

/// What stories use.
pub struct Host {
    lab: Lab,
    /// Images as OCI layouts, unpacked.
    images: PathBuf,
    /// Directory of the guest image.
    guest: PathBuf,
    /// The runtime's configuration for these stories.
    config: PathBuf,
    /// Where reports and certificates are kept; certificates for the next run too, because the key server answers rarely.
    out: PathBuf,
}

/// Runs the stories whose names are in `wanted` (all, if it is empty).
pub fn run(build: &Build, wanted: &[String], out: &Path) -> Result<Verdict> {
    let mut check = Command::new(build.programs.join("casemate"));
    check.args(["host", "check", "--tee", "snp"]);
    if !fit(&mut check)? {
        eprintln!("no story ran: SEV-SNP guests need what is missing above");
        return Ok(Verdict::Unfit);
    }
    let host = Host::prepare(build, out)?;
    let mut verdict = Verdict::Passed;
    for story in stories::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == story.name) {
            continue;
        }
        println!("==> {}: {}", story.name, story.about);
        let started = Instant::now();
        let ended = (story.run)(&host).and_then(|()| host.lab.nothing_is_left());
        let took = started.elapsed().as_secs_f32();
        match ended {
            Ok(()) => println!("passed  {} ({took:.1} s)", story.name),
            Err(error) => {
                println!("FAILED  {} ({took:.1} s): {error:#}", story.name);
                verdict = Verdict::Failed;
            }
        }
    }
    Ok(verdict)
}

/// Whether this host can run SEV-SNP guests; its answer is on standard output.
fn fit(check: &mut Command) -> Result<bool> {
    let status = check.status().context("cannot run `casemate host check`")?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => anyhow::bail!("`casemate host check` ended with {status}"),
    }
}

impl Host {
    fn prepare(build: &Build, out: &Path) -> Result<Self> {
        let missing = build.missing();
        ensure!(missing.is_empty(), "not built yet: {missing:?}");
        let guest = build.guest.canonicalize().context("cannot find the guest image")?;
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        let out = out.canonicalize().context("cannot find the directory of results")?;
        let config = out.join("config.toml");
        let text = format!("tee = \"snp\"\nimage_dir = {guest:?}\nrequire_policy = true\n");
        std::fs::write(&config, text).context("cannot write the runtime's configuration")?;
        let images = out.join("images");
        for file in images::obtain()?.files {
            Ended::of(&["ctr", "image", "import", path(&file)?])?.exits_with(0)?;
            let layout = images.join(file.file_stem().context("an image's file has no name")?);
            std::fs::create_dir_all(&layout).context("cannot create a directory for an image")?;
            host::run(Command::new("tar").arg("xf").arg(&file).arg("-C").arg(&layout))?;
        }
        Ok(Self {
            lab: Lab::enter(Runtime::Casemate)?,
            images,
            guest,
            config,
            out,
        })
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_of_the_check_decides() {
        let check = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        assert!(fit(&mut check("exit 0")).unwrap());
        assert!(!fit(&mut check("exit 1")).unwrap());
        assert!(fit(&mut check("exit 3")).is_err());
        assert!(fit(&mut check("kill $$")).is_err());
    }
}
