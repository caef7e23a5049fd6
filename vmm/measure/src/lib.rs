//! What SEV-SNP firmware measures of a launch plan, computed without the hardware; the ID block that binds a guest to it; and plans as
//! files for other tools.
#![forbid(unsafe_code)]

mod digest;
mod id_block;
mod igvm_file;
mod plan_file;

pub use digest::{LaunchDigest, MeasureError, Measurement, NotADigest, measure};
pub use id_block::{ID_AUTH_BYTES, ID_AUTH_LAYOUT, ID_BLOCK_BYTES, IdAuth, IdBlock, key_digest};
pub use igvm_file::{IgvmError, SignedId, igvm_file, measure_igvm};
pub use plan_file::write_plan;
