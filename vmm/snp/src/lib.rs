//! The launch of an SEV-SNP guest by KVM and the secure processor, and its memory's later moves between private and shared, without
//! the system calls: those are a [`Platform`] and a [`Backing`], which the VMM implements and tests model.
#![forbid(unsafe_code)]

mod conversion;
mod cpuid_page;
mod launch;
mod platform;
mod policy;
mod status;

pub use conversion::{Backing, Conversion, ConversionError, MAP_GPA_RANGE, Visibility, convert};
pub use cpuid_page::{Correction, TooManyLeaves, cpuid_page};
pub use launch::{Finished, Launch, LaunchError, New, Started};
pub use platform::{Failure, IdFiles, Platform, Source};
pub use policy::{GuestPolicy, PolicyError};
pub use status::Status;
