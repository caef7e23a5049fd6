//! Limits on one conversion; a layer that exceeds one is refused before the memory or disk space is spent.

const GIB: u64 = 1 << 30;

/// Limits on the input of one conversion, all of which the image's author chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the ext4 image, without the hash tree (which adds 1/127). Values above 128 GiB have no effect: the layout is that of a 128 GiB disk.
    pub max_image_bytes: u64,
    /// Bytes of the decompressed tar, up to the end of the stream.
    pub max_tar_bytes: u64,
    /// Inodes, counting directories that the tar only implies; the same number of hard links is allowed. An inode costs up to about 600 bytes of
    /// memory, a link about 140 and its name.
    pub max_inodes: u32,
    /// Bytes of one entry's cleaned path; Linux's `PATH_MAX` is 4096.
    pub max_path_bytes: usize,
    /// Bytes of a zstd window; the decoder takes up to twice as much memory. A single frame of known size counts as its own window.
    pub max_zstd_window_bytes: u64,
    /// Bytes of extended attributes of directories, which stay in memory because an opaque whiteout may follow.
    pub max_directory_xattr_bytes: usize,
}

impl Default for Limits {
    /// Four times the largest layers seen in public registries; at most 2 GB of memory, and for a zstd window of the size that
    /// containerd decodes 1 GiB (1.5 GiB of addresses while it grows).
    fn default() -> Self {
        Limits {
            max_image_bytes: 64 * GIB,
            max_tar_bytes: 64 * GIB,
            max_inodes: 2_000_000,
            max_path_bytes: 4096,
            max_zstd_window_bytes: 512 << 20,
            max_directory_xattr_bytes: 64 << 20,
        }
    }
}
