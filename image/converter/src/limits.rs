//! What one conversion may take of the host.

use confine::privileges::{JailError, Resource, limit};
use layer::Limits;

/// Most memory in bytes, as addresses: enough for a layer that is at every limit at once. A zstd window of 512 MiB takes 1.5 GiB
/// while it grows, inodes and names 2 GiB, the leaves of the tree of 64 GiB another while they grow, and each thread's heap 64 MiB.
pub const ADDRESSES_MAX_BYTES: u64 = 5 << 30;
/// Most open descriptors: blob, image, report, slot, the standard streams, and those of the set-up.
const DESCRIPTORS_MAX: u64 = 16;
/// Most threads of the converter's user: three, and those of converters before it that were killed and that nobody has waited for yet
/// (those of a killed shim are init's, which may take its time).
const THREADS_MAX: u64 = 64;

/// Sets the limits. `own_user`: no other process runs as its user.
///
/// # Errors
/// When the kernel refuses.
pub fn set(own_user: bool) -> Result<(), JailError> {
    let image = Limits::default().max_image_bytes;
    // The tree adds a 127th, and its superblock a block.
    let image_and_tree = image + image / 100;
    limit("limit core dumps", Resource::RLIMIT_CORE, 0)?;
    limit("limit open descriptors", Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX)?;
    limit("limit the size of files", Resource::RLIMIT_FSIZE, image_and_tree)?;
    limit("limit memory", Resource::RLIMIT_AS, ADDRESSES_MAX_BYTES)?;
    if own_user {
        limit("limit threads", Resource::RLIMIT_NPROC, THREADS_MAX)?;
    }
    Ok(())
}
