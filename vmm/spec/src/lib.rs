//! The description of a VM, shared by the VMM and its users: spec, control messages, memory layout and launch plan.
#![forbid(unsafe_code)]

mod acpi;
pub mod control;
mod elf;
mod launch_plan;
pub mod layout;
mod page;
mod registers;
mod save_area;
mod spec;
mod verified_plan;

pub use elf::{ElfError, ElfHeaders, ElfSegment};
pub use launch_plan::{Kernel, LaunchPlan, PlanError};
pub use page::{Page, PageKind};
pub use registers::{Entry, Registers, Segment, Table};
pub use save_area::{DEBUG_SWAP, SNP_ACTIVE, SaveArea, VMSA_GPA};
pub use spec::{
    Boot, Fd, HostData, Identity, MemoryMib, Network, Payload, SPEC_MAX_BYTES, Scratch, SignedIdFiles, SimulatedReports, Snp, SpecError,
    Tee, UnprivilegedId, Vcpus, VerifiedBoot, VmSpec, VolumeSlots, Volumes, Vsock,
};
pub use verified_plan::{Stage0, staging};
