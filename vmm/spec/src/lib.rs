//! What a VM is made of, before it exists: the spec, the control messages, the memory layout and the launch plan.
#![forbid(unsafe_code)]

pub mod control;
mod spec;

pub use spec::{Boot, Fd, HostData, MemoryMib, Scratch, SpecError, Tee, Vcpus, VmSpec, Vsock, SPEC_MAX_BYTES};
