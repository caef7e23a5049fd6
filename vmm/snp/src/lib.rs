//! The launch of an SEV-SNP guest by KVM and the secure processor, and its memory's later moves between private and shared, without
//! the system calls: those are a [`Platform`] and a [`Backing`], which the VMM implements and tests model.
#![forbid(unsafe_code)]

mod certificates;
mod conversion;
mod cpuid_page;
mod id_files;
mod launch;
mod platform;
mod policy;
mod status;

pub use certificates::{Answer, CERTIFICATES_MAX_BYTES, CertificateTable, CertificatesError};
pub use conversion::{Backing, Conversion, ConversionError, MAP_GPA_RANGE, Visibility, convert};
pub use cpuid_page::{Correction, TooManyLeaves, cpuid_page};
pub use id_files::{ID_AUTHENTICATION_BYTES, ID_BLOCK_BYTES, IdError, SignedId};
pub use launch::{Finish, Finished, Launch, LaunchError, New, Started};
pub use platform::{Failure, IdFiles, Platform, Source};
pub use policy::{GuestPolicy, PolicyError};
pub use status::Status;
