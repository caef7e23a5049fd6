//! What one pull may take of the guest.

use confine::privileges::{JailError, Resource, limit};
use layer::Limits;

/// Layers that are pulled and converted at once: each takes three threads and, at its worst, 2 GiB of memory.
pub const LAYERS_AT_ONCE: usize = 2;
/// Most threads that block: conversions, and the look-up of a name for each connection.
pub const BLOCKING_THREADS: usize = LAYERS_AT_ONCE + 2;
/// Most memory in bytes, as addresses: that of the layers at once (see the converter's limit), and TLS.
const ADDRESSES_MAX_BYTES: u64 = 11 << 30;
/// Most open descriptors beside the layers' files: connections, the runtime's own, the C library's files, the standard streams.
const DESCRIPTORS: u64 = 64;
/// Most threads of the puller's user: the main one, those that block, two more for each conversion, and a margin.
const THREADS_MAX: u64 = 16;

/// Sets the limits of a process with `files` files of layers. `own_user`: no other process runs as its user.
///
/// # Errors
/// When the kernel refuses.
pub fn set(files: usize, own_user: bool) -> Result<(), JailError> {
    let image = Limits::default().max_image_bytes;
    // The tree adds a 127th, and its superblock a block.
    let image_and_tree = image + image / 100;
    limit("limit core dumps", Resource::RLIMIT_CORE, 0)?;
    limit("limit open descriptors", Resource::RLIMIT_NOFILE, DESCRIPTORS + files as u64)?;
    limit("limit the size of files", Resource::RLIMIT_FSIZE, image_and_tree)?;
    limit("limit memory", Resource::RLIMIT_AS, ADDRESSES_MAX_BYTES)?;
    if own_user {
        limit("limit threads", Resource::RLIMIT_NPROC, THREADS_MAX)?;
    }
    Ok(())
}
