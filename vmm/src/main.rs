//! `casemate-vmm --spec-fd N`: one process, one VM. Reads a [`vm_spec::VmSpec`] from descriptor N, runs the VM, and exits
//! with a code of [`exit_code`].
#![forbid(unsafe_code)]

use casemate_vmm::{exit_code, program, seccomp::Filters};
use std::process::ExitCode;

/// Allocations from this size are given back when they are freed, in bytes: glibc's own default.
const MAPPED: u32 = 128 << 10;

fn main() -> ExitCode {
    confine::allocator::keep_freed_memory(MAPPED);
    let filters = Filters::new().map_err(Into::into);
    exit_code::report(filters.and_then(|filters| program::run(std::env::args_os().skip(1), filters)))
}
