//! `casemate-vmm --spec-fd N`: one process, one VM. Reads a [`VmSpec`] from descriptor N, runs it, and exits with a
//! code of [`exit`].
#![forbid(unsafe_code)]

use casemate_vmm::builder;
use casemate_vmm::descriptors::{Files, Inherited};
use casemate_vmm::ending::Ending;
use casemate_vmm::exit::{self, Failure};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::process::ExitCode;
use vm_spec::{Fd, SPEC_MAX_BYTES, VmSpec};

const USAGE: &str = "usage: casemate-vmm --spec-fd N, where N is an inherited descriptor from which the VM's spec is read";

fn main() -> ExitCode {
    exit::report(run())
}

fn run() -> Result<Ending, Failure> {
    let spec_fd = spec_fd(std::env::args_os().skip(1))?;
    let mut inherited = Inherited::default();
    let spec = read_spec(spec_fd, &mut inherited)?;
    let files = Files::take(&spec, &mut inherited).map_err(|e| wrong_spec(&e))?;
    let vm = builder::build(&spec, files)?;
    Ok(vm.run()?)
}

fn spec_fd(mut arguments: impl Iterator<Item = OsString>) -> Result<Fd, Failure> {
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(option), Some(number), None) if option == "--spec-fd" => number
            .to_str()
            .and_then(|n| n.parse().ok())
            .map(Fd)
            .ok_or_else(|| Failure::Usage(USAGE.into())),
        _ => Err(Failure::Usage(USAGE.into())),
    }
}

/// Reads the descriptor to its end, from where its offset is.
fn read_spec(fd: Fd, inherited: &mut Inherited) -> Result<VmSpec, Failure> {
    let file = File::from(inherited.take("--spec-fd", fd).map_err(|e| wrong_spec(&e))?);
    let mut json = Vec::new();
    file.take(SPEC_MAX_BYTES as u64 + 1)
        .read_to_end(&mut json)
        .map_err(|e| wrong_spec(&e))?;
    VmSpec::from_json(&json).map_err(|e| wrong_spec(&e))
}

fn wrong_spec(error: &dyn std::error::Error) -> Failure {
    Failure::Usage(format!("the VM's spec: {}", exit::with_causes(error)))
}
