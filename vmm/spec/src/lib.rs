//! The description of a VM, shared by the VMM and its users: spec, control messages, memory layout and launch plan.
#![forbid(unsafe_code)]

mod acpi;
mod boot_params;
pub mod control;
mod launch_plan;
pub mod layout;
mod spec;

pub use launch_plan::{Entry, GDT_ENTRIES, Kernel, LaunchPlan, Page, PageKind, PlanError};

pub use spec::{Boot, Fd, HostData, Identity, MemoryMib, SPEC_MAX_BYTES, Scratch, SpecError, Tee, UnprivilegedId, Vcpus, VmSpec, Vsock};
