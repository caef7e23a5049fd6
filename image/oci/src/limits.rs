//! Limits on image documents, all of which the image's author chose.

/// Largest index, manifest or config in bytes. containerd stops at 8 MB (`manifestSizeLimit`).
pub const DOCUMENT_MAX_BYTES: usize = 8 << 20;
/// Most layers of an image: overlayfs takes 500 lower directories.
pub const LAYERS_MAX: usize = 500;
/// Most documents that are read to choose an image.
pub const DOCUMENTS_MAX: usize = 256;
/// Most bytes of all the documents that are read to choose an image.
pub const DOCUMENTS_MAX_BYTES: usize = 32 << 20;
/// Most entries of all their indexes.
pub const ENTRIES_MAX: usize = 10_000;
/// Longest name that an index gives an image: a reference has at most 255 characters before its tag, and a tag 128 (distribution,
/// `reference`).
pub const NAME_MAX_BYTES: usize = 384;
/// Most files of an image archive.
pub const ARCHIVE_FILES_MAX: usize = 100_000;
/// Most indexes on the way from an image's name to its manifest.
pub const INDEXES_MAX: usize = 4;
