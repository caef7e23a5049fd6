//! What the caller may show while something runs.

/// What the caller may show while it runs.
pub enum News<'a> {
    /// A step of what takes long.
    Step(String),
    /// How far the image's layers are.
    Layers(Progress),
    /// Something that the user should know.
    Note(String),
    /// The policy, before anything runs under it.
    Policy {
        /// Its text.
        text: &'a str,
        /// SHA-256 of the text, the guest's host data.
        digest: [u8; 32],
    },
}

/// How far the layers of an image are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Layers that are in the node's cache.
    pub ready: usize,
    /// All layers of the image.
    pub layers: usize,
    /// Bytes of blobs that need not be read any more.
    pub read: u64,
    /// Bytes of all blobs that containerd has.
    pub bytes: u64,
}
