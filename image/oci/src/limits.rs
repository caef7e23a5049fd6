//! Limits on image documents, all of which the image's author chose.

/// Largest index, manifest or config in bytes. containerd stops at 8 MB (`manifestSizeLimit`).
pub const DOCUMENT_MAX_BYTES: usize = 8 << 20;
/// Most layers of an image: overlayfs takes 500 lower directories.
pub const LAYERS_MAX: usize = 500;
/// Most documents that are read to choose an image.
pub const DOCUMENTS_MAX: usize = 256;
/// Most files of an image archive.
pub const ARCHIVE_FILES_MAX: usize = 100_000;
/// Most indexes on the way from an image's name to its manifest.
pub const INDEXES_MAX: usize = 4;
