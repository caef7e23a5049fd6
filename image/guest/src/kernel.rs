//! Kernels: built from Debian's source with a fragment of configuration, or Debian's packaged cloud kernel.

mod pack;
mod packaged;
mod recipe;
mod source;

pub use recipe::{Change, Recipe};

use anyhow::{Context, Result, bail};
use guest_manifest::Input;
use std::path::PathBuf;
use std::process::Command;

/// Which kernel the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `linux-source-6.12` with `image/guest/kernel/guest.fragment`, everything built in.
    Source,
    /// The packaged `linux-image-*-cloud-amd64` with modules: it boots slower, and needs no compiler.
    Packaged,
}

impl std::str::FromStr for Kind {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "source" => Ok(Self::Source),
            "debian" => Ok(Self::Packaged),
            _ => bail!("unknown kernel {text:?}: `source` or `debian`"),
        }
    }
}

/// A kernel ready to boot.
pub struct Kernel {
    /// ELF kernel, without symbols.
    pub vmlinux: PathBuf,
    /// Modules in loading order; empty if everything is built in.
    pub modules: Vec<PathBuf>,
    /// What it was built from.
    pub inputs: Vec<Input>,
    /// First line of the compiler's `--version`, or the package's name.
    pub compiler: String,
}

/// The guest's kernel.
const GUEST: Recipe = Recipe {
    name: "guest",
    fragment_name: "guest.fragment",
    fragment: include_str!("../kernel/guest.fragment"),
    change: None,
    objects: 1530,
    minutes: 13,
};

/// Takes the guest's kernel from the cache, builds it or downloads it.
pub fn obtain(kind: Kind) -> Result<Kernel> {
    match kind {
        Kind::Source => GUEST.obtain(),
        Kind::Packaged => packaged::obtain(),
    }
}

/// Runs a command; shows its output only if it fails.
fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!(
            "{:?} failed ({}):\n{}{}",
            command,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// First line of a command's output.
fn first_line(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .next()
        .map(str::to_owned)
        .with_context(|| format!("{command:?} printed nothing"))
}
