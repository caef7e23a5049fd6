//! Exit codes: the only place that knows them.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | the guest powered off, or the control socket's `stop` |
//! | 1 | the command line or the spec is wrong |
//! | 2 | the VM could not be built: a file of the spec, or this host's KVM |
//! | 3 | the guest asked for a reset (Linux after a panic does) |
//! | 4 | triple fault in the guest |
//! | 5 | KVM could not run the guest any further |
//! | 6 | a fault in the VMM itself |
//!
//! SIGSYS (159 in a shell) means that a thread made a system call that its filter forbids; the kernel's log names it.
//! Another signal (137 for SIGKILL) means that the host ended the process.

use crate::{builder::BuildError, exit_reason::ExitReason, seccomp::FilterError, vm::RunError};
use std::process::ExitCode;

/// Why `main` did not get as far as an [`ExitReason`].
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Before anything of the VM exists.
    #[error("{0}")]
    Usage(String),
    /// While compiling system call filters.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// While building it.
    #[error("cannot build the VM")]
    Build(#[from] BuildError),
    /// While running it.
    #[error("the VM cannot go on")]
    Run(#[from] RunError),
}

/// The process's exit code; what is worth a word goes to stderr, causes after colons.
pub fn report(result: Result<ExitReason, Failure>) -> ExitCode {
    let (code, message) = match result {
        Ok(ExitReason::PowerOff | ExitReason::Stopped) => return ExitCode::SUCCESS,
        Ok(ExitReason::Reset) => (3, "the guest asked for a reset; its console says why".into()),
        Ok(ExitReason::TripleFault) => (4, "triple fault in the guest; its console says how far it came".into()),
        Ok(ExitReason::VmmFailed(why)) => (6, why),
        Ok(ExitReason::KvmFailed(why)) => (5, format!("KVM cannot run the guest any further: {why}")),
        Err(failure) => (failure_code(&failure), with_causes(&failure)),
    };
    eprintln!("casemate-vmm: {message}");
    ExitCode::from(code)
}

fn failure_code(failure: &Failure) -> u8 {
    match failure {
        Failure::Usage(_) => 1,
        Failure::Build(_) => 2,
        Failure::Filter(_) | Failure::Run(_) => 6,
    }
}

/// An error and what caused it, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
