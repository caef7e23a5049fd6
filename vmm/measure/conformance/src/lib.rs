//! Replays vectors of SEV-SNP launches, which `sev-snp-measure` made: digests page by page, save areas from register states, ID blocks,
//! and launches of OVMF as QEMU, EC2 and GCE do them.
#![forbid(unsafe_code)]

mod firmware;
mod guid;
mod kernel_hashes;
mod replay;
mod save_areas;
mod vectors;

pub use replay::{Outcome, ReplayError, replay};
pub use save_areas::OwnPlanError;
