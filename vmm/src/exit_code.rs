//! The exit codes of `casemate-vmm`.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | the guest powered off, or the control socket's `stop` |
//! | 1 | the command line or the spec is invalid |
//! | 2 | the VM could not be built: a file of the spec, or the host's KVM |
//! | 3 | the guest requested a reset, as Linux does after a panic |
//! | 4 | triple fault in the guest |
//! | 5 | KVM failed to run the guest |
//! | 6 | the VMM failed |
//! | 7 | stage0 did not start the kernel, for the reason that is written |
//! | 8 | the guest terminated itself, or accessed memory that it does not have |
//!
//! SIGSYS (159 in a shell) means that a thread made a system call that its seccomp filter forbids; the kernel's log names
//! the call. Any other signal (137 for SIGKILL) came from the host.

use crate::{
    builder::BuildError,
    exit_reason::{ExitReason, with_causes},
    seccomp::FilterError,
    vm::RunError,
};
use boot_manifest::Refusal;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// Why the program has no [`ExitReason`].
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line or the spec is invalid.
    #[error("{0}")]
    Usage(String),
    /// Compiling the seccomp filters failed.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// Building the VM failed.
    #[error("cannot build the VM")]
    Build(#[from] BuildError),
    /// Running the VM failed.
    #[error("cannot run the VM")]
    Run(#[from] RunError),
}

/// The process's exit code. Anything but success is also written to stderr.
pub fn report(result: Result<ExitReason, Failure>) -> ExitCode {
    let (code, message) = match result {
        Ok(ExitReason::PowerOff | ExitReason::Stopped) => return ExitCode::SUCCESS,
        Ok(ExitReason::Reset) => (3, "the guest requested a reset; see its console for the reason".into()),
        Ok(ExitReason::TripleFault) => (4, "triple fault in the guest; see its console for how far it got".into()),
        Ok(ExitReason::Refused(code)) => (7, refusal(code)),
        Ok(ExitReason::GuestFailed(why)) => (8, why),
        Ok(ExitReason::VmmFailed(why)) => (6, why),
        Ok(ExitReason::KvmFailed(why)) => (5, format!("KVM failed to run the guest: {why}")),
        Err(failure) => (failure_code(&failure), with_causes(&failure)),
    };
    // Whoever reads it may have ended.
    let _ = writeln!(io::stderr(), "casemate-vmm: {message}");
    ExitCode::from(code)
}

/// What the guest says, with the code: another stage0 may have codes that this VMM does not know.
fn refusal(code: u8) -> String {
    let why = Refusal::of_code(code).map_or("unknown to this VMM; use VMM and guest image of one build", Refusal::text);
    format!("stage0 did not start the kernel (code {code:#04x}): {why}")
}

fn failure_code(failure: &Failure) -> u8 {
    match failure {
        Failure::Usage(_) => 1,
        Failure::Build(_) => 2,
        Failure::Filter(_) | Failure::Run(_) => 6,
    }
}
