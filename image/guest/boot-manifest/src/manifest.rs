//! The measured part: the mode, and the SHA-256 of kernel and initrd, which stage0 verifies.

/// Size of an encoded manifest in bytes.
pub const MANIFEST_BYTES: usize = 128;

const MAGIC: &[u8; 8] = b"CASEMANI";
const VERSION: u32 = 1;

/// The source of host data (the digest of the policy). The guest never falls back to another source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The unmeasured host page: no protection from the host; all other code is the same.
    Plain,
    /// A report that the VMM signs with a test root key.
    Simulated,
    /// The attestation report of the SNP hardware.
    Snp,
}

/// The content of the measured page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Source of host data.
    pub mode: Mode,
    /// SHA-256 of the kernel file (`vmlinux`).
    pub kernel_sha256: [u8; 32],
    /// SHA-256 of the initramfs.
    pub initrd_sha256: [u8; 32],
}

/// Why bytes are not a manifest, host page or boot page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Fewer bytes than the layout needs.
    Short,
    /// The first eight bytes are not the magic.
    Magic,
    /// An unknown version.
    Version(u32),
    /// An unknown mode.
    Mode(u32),
    /// Reserved bytes are not zero.
    Reserved,
    /// A load map that cannot be followed.
    LoadMap,
    /// The command line has no end, or is not UTF-8.
    Cmdline,
}

impl core::fmt::Display for ReadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short => write!(f, "too few bytes"),
            Self::Magic => write!(f, "wrong magic"),
            Self::Version(v) => write!(f, "unknown version {v}"),
            Self::Mode(m) => write!(f, "unknown mode {m}"),
            Self::Reserved => write!(f, "reserved bytes are set"),
            Self::LoadMap => write!(f, "the kernel cannot be loaded as the load map says"),
            Self::Cmdline => write!(f, "the command line has no end or is not UTF-8"),
        }
    }
}

impl core::error::Error for ReadError {}

impl Manifest {
    /// The layout: magic 8, version u32, mode u32, kernel hash 32, initrd hash 32, zeros; little endian.
    pub fn to_bytes(&self) -> [u8; MANIFEST_BYTES] {
        let mut b = [0u8; MANIFEST_BYTES];
        b[..8].copy_from_slice(MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let mode: u32 = match self.mode {
            Mode::Plain => 1,
            Mode::Simulated => 2,
            Mode::Snp => 3,
        };
        b[12..16].copy_from_slice(&mode.to_le_bytes());
        b[16..48].copy_from_slice(&self.kernel_sha256);
        b[48..80].copy_from_slice(&self.initrd_sha256);
        b
    }

    /// Reads the layout of [`Manifest::to_bytes`]; bytes after it are ignored (the node may be padded).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReadError> {
        let b: &[u8; MANIFEST_BYTES] = bytes.first_chunk().ok_or(ReadError::Short)?;
        if &b[..8] != MAGIC {
            return Err(ReadError::Magic);
        }
        let version = u32_at(b, 8);
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
        let mode = match u32_at(b, 12) {
            1 => Mode::Plain,
            2 => Mode::Simulated,
            3 => Mode::Snp,
            other => return Err(ReadError::Mode(other)),
        };
        if b[80..].iter().any(|&x| x != 0) {
            return Err(ReadError::Reserved);
        }
        Ok(Self {
            mode,
            kernel_sha256: hash_at(b, 16),
            initrd_sha256: hash_at(b, 48),
        })
    }
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    let mut le = [0u8; 4];
    le.copy_from_slice(&b[at..at + 4]);
    u32::from_le_bytes(le)
}

pub(crate) fn hash_at(b: &[u8], at: usize) -> [u8; 32] {
    let mut hash = [0u8; 32];
    hash.copy_from_slice(&b[at..at + 32]);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_round_trip(k: [u8; 32], i: [u8; 32], m in 0..3) {
            let mode = [Mode::Plain, Mode::Simulated, Mode::Snp][m as usize];
            let manifest = Manifest { mode, kernel_sha256: k, initrd_sha256: i };
            prop_assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = Manifest::from_bytes(&bytes);
        }
    }

    #[test]
    fn each_damage_has_its_own_error() {
        let good = Manifest {
            mode: Mode::Snp,
            kernel_sha256: [1; 32],
            initrd_sha256: [2; 32],
        }
        .to_bytes();
        assert_eq!(Manifest::from_bytes(&good[..MANIFEST_BYTES - 1]), Err(ReadError::Short));
        let damaged = |at: usize, value: u8| {
            let mut b = good;
            b[at] = value;
            Manifest::from_bytes(&b)
        };
        assert_eq!(damaged(0, b'X'), Err(ReadError::Magic));
        assert_eq!(damaged(8, 9), Err(ReadError::Version(9)));
        assert_eq!(damaged(12, 4), Err(ReadError::Mode(4)));
        assert_eq!(damaged(127, 1), Err(ReadError::Reserved));
    }
}
