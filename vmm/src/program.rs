//! The program: parses the command line, reads the spec, runs the VM.

use crate::{
    builder,
    descriptors::{Files, Inherited},
    exit_code::Failure,
    exit_reason::{ExitReason, with_causes},
    seccomp::Filters,
};
use std::{ffi::OsString, fs::File, io::Read};
use vm_spec::{Fd, SPEC_MAX_BYTES, VmSpec};

const USAGE: &str = "usage: casemate-vmm --spec-fd N, where N is an inherited descriptor from which the VM's spec is read";

/// Runs a VM from `arguments` (without the program's name), each thread under its seccomp filter.
///
/// Call it once, from the main thread, before the process opens a file or starts a thread: it closes descriptors and enters
/// the jail.
pub fn run(arguments: impl Iterator<Item = OsString>, filters: Filters) -> Result<ExitReason, Failure> {
    let spec_fd = spec_fd(arguments)?;
    let mut inherited = Inherited::default();
    let spec = read_spec(spec_fd, &mut inherited)?;
    let files = Files::take(&spec, &mut inherited).map_err(|e| invalid_spec(&e))?;
    inherited.close_others().map_err(|e| invalid_spec(&e))?;
    let vm = builder::build(&spec, files, filters)?;
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

/// Reads the descriptor, a file or a pipe, to its end. The process that starts a VMM may end before it has written the whole
/// spec to the pipe: this process then sees an early end of file and ends too.
fn read_spec(fd: Fd, inherited: &mut Inherited) -> Result<VmSpec, Failure> {
    let file = File::from(inherited.take("--spec-fd", fd.0).map_err(|e| invalid_spec(&e))?);
    let mut json = Vec::new();
    file.take(SPEC_MAX_BYTES as u64 + 1)
        .read_to_end(&mut json)
        .map_err(|e| invalid_spec(&e))?;
    if json.is_empty() {
        return Err(Failure::Usage("the VM's spec: nothing was written to the descriptor".into()));
    }
    VmSpec::from_json(&json).map_err(|e| invalid_spec(&e))
}

fn invalid_spec(error: &dyn std::error::Error) -> Failure {
    Failure::Usage(format!("the VM's spec: {}", with_causes(error)))
}
