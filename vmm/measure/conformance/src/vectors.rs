//! The form of the vectors' file, and the contents that it describes.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Longest contents that a vector may ask for.
const CONTENTS_MAX_BYTES: usize = 64 << 20;

/// The file. Entries that are not listed here describe it.
#[derive(Deserialize)]
pub struct Vectors {
    #[serde(default)]
    pub vmsa: BTreeMap<String, SaveAreaVector>,
    #[serde(default)]
    pub sequences: BTreeMap<String, Sequence>,
    pub kernel_hashes: Option<KernelHashes>,
    #[serde(default)]
    pub full: BTreeMap<String, Full>,
    pub id_block: Option<IdBlockVector>,
}

/// A save area: runs of bytes at offsets, zero elsewhere.
#[derive(Deserialize)]
pub struct SaveAreaVector {
    pub sha256: String,
    pub sha384: String,
    pub nonzero: Vec<(Number, String)>,
}

/// Pages, and the digest after each step.
#[derive(Deserialize)]
pub struct Sequence {
    pub steps: Vec<Step>,
    pub ld: String,
    pub chain: Vec<String>,
}

/// Consecutive pages of one type.
#[derive(Deserialize)]
pub struct Step {
    #[serde(rename = "type")]
    pub kind: String,
    pub gpa: Option<Number>,
    /// Bytes; one page if absent.
    pub len: Option<usize>,
    /// Of the contents.
    pub seed: Option<String>,
    /// Name of a save area.
    pub vmsa: Option<String>,
}

/// QEMU's table of kernel hashes.
#[derive(Deserialize)]
pub struct KernelHashes {
    pub kernel: Stream,
    pub initrd: Stream,
    pub cmdline: String,
    pub table_hex: String,
    pub page_offset: Number,
    pub page_sha384: String,
}

/// A launch of a firmware file.
#[derive(Deserialize)]
pub struct Full {
    pub firmware: String,
    pub firmware_sha256: Option<String>,
    pub args: Option<FullArguments>,
    pub ld: Option<String>,
}

/// As given to `sev-snp-measure`.
#[derive(Deserialize)]
pub struct FullArguments {
    pub mode: String,
    pub vcpus: u8,
    pub vcpu_sig: u64,
    pub guest_features: u64,
    #[serde(default)]
    pub vmm: Option<String>,
    /// Whether kernel, initramfs and command line of [`KernelHashes`] are measured.
    #[serde(default)]
    pub kernel: bool,
}

/// An ID block and the layout of its signatures.
#[derive(Deserialize)]
pub struct IdBlockVector {
    pub policy: Number,
    pub version: u32,
    pub guest_svn: u32,
    pub id_block_hex: String,
    pub id_block_sha384: String,
    pub id_auth_size: usize,
    pub id_auth_offsets: BTreeMap<String, usize>,
    #[serde(default)]
    pub key_digests: BTreeMap<String, String>,
}

/// A number in hexadecimal text (`0x…`).
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct Number(pub u64);

impl TryFrom<String> for Number {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").ok_or_else(|| format!("{text} does not begin with 0x"))?;
        u64::from_str_radix(digits, 16)
            .map(Self)
            .map_err(|_| format!("{text} is not a number of 64 bits"))
    }
}

/// `stream('seed',bytes)`: contents that are computed.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct Stream {
    seed: String,
    bytes: usize,
}

impl TryFrom<String> for Stream {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let parts = || {
            let (seed, bytes) = text.strip_prefix("stream('")?.strip_suffix(')')?.split_once("',")?;
            let bytes = bytes.parse().ok().filter(|&bytes| bytes <= CONTENTS_MAX_BYTES)?;
            Some((seed.to_owned(), bytes))
        };
        let (seed, bytes) = parts().ok_or_else(|| format!("{text} is not stream('SEED',BYTES), at most {CONTENTS_MAX_BYTES} bytes"))?;
        Ok(Self { seed, bytes })
    }
}

impl Stream {
    /// SHA-256 of the contents.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(contents(&self.seed, self.bytes)).into()
    }
}

impl Step {
    /// Bytes of the step, if a launch can have so many.
    pub fn length(&self) -> Option<usize> {
        let length = self.len.unwrap_or(4096);
        (length.is_multiple_of(4096) && length <= CONTENTS_MAX_BYTES).then_some(length)
    }
}

/// SHA-256 of `snpvec:`, the seed, `:` and a counter of 64 bits, one after the other.
pub fn contents(seed: &str, bytes: usize) -> Vec<u8> {
    let block = |n: u64| {
        Sha256::new()
            .chain_update(format!("snpvec:{seed}:"))
            .chain_update(n.to_le_bytes())
            .finalize()
    };
    (0u64..).flat_map(block).take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_streams_are_read_or_refused() {
        let number = |text: &str| Number::try_from(text.to_owned()).map(|number| number.0);
        assert_eq!(number("0xc00"), Ok(0xc00));
        assert!(number("12").is_err() && number("0x").is_err() && number("0x10000000000000000").is_err());
        let stream = |text: &str| Stream::try_from(text.to_owned()).map(|stream| (stream.seed, stream.bytes));
        assert_eq!(stream("stream('kernel',70000)"), Ok(("kernel".to_owned(), 70000)));
        for wrong in ["kernel", "stream('a',x)", "stream('a',1", "stream('a',99999999999)"] {
            assert!(stream(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn contents_continue_with_the_counter() {
        let bytes = contents("a", 40);
        assert_eq!(bytes[..32], Sha256::digest(b"snpvec:a:\0\0\0\0\0\0\0\0")[..]);
        assert_eq!(bytes[32..], Sha256::digest(b"snpvec:a:\x01\0\0\0\0\0\0\0")[..8]);
    }
}
