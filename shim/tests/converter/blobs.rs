//! Blobs to convert, in files.

use casemate_shim::layers::converter::Blob;
use flate2::{Compression, write::GzEncoder};
use layer_cache::Wanted;
use oci::Digest;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io::{self, PipeWriter, Write},
    path::{Path, PathBuf},
};

/// Bytes of a tar header.
const HEADER: usize = 512;

/// A blob and what it is asked for by.
pub struct Sample {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub wanted: Wanted,
}

impl Sample {
    /// An uncompressed blob, whose digest is the layer's.
    pub fn new(dir: &Path, bytes: Vec<u8>) -> Self {
        let digest = Digest::of(&bytes);
        let path = dir.join(digest.hex());
        fs::write(&path, &bytes).expect("a blob");
        let wanted = Wanted {
            diff_id: digest,
            blob: digest,
        };
        Self { path, bytes, wanted }
    }

    pub fn blob(&self) -> Blob {
        Blob {
            input: File::open(&self.path).expect("a blob").into(),
            feed: None,
        }
    }

    /// As a line of a list.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.path.display(), self.wanted.diff_id, self.wanted.blob)
    }

    /// From a line of a list.
    pub fn listed(line: &str) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().expect("three words");
        let path = word().into();
        let mut digest = || word().parse().expect("a digest");
        let wanted = Wanted {
            diff_id: digest(),
            blob: digest(),
        };
        Self {
            path,
            bytes: Vec::new(),
            wanted,
        }
    }
}

/// A layer with one file.
pub fn small(dir: &Path, content: &[u8]) -> Sample {
    Sample::new(dir, tar_of(content))
}

fn tar_of(content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", content).expect("a tar in memory");
    tar.into_inner().expect("a tar in memory")
}

/// How a blob is compressed.
#[derive(Clone, Copy)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A layer with one file of `length` bytes that differ from those of other seeds: half of them are random.
pub fn packed(dir: &Path, seed: u64, length: usize, packing: Packing) -> Sample {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut content = vec![0; length];
    content.chunks_mut(4096).step_by(2).for_each(|half| random.fill(half));
    let tar = tar_of(&content);
    let diff_id = Digest::of(&tar);
    let blob = match packing {
        Packing::Plain => tar,
        Packing::Gzip => {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&tar).expect("a gzip member in memory");
            gzip.finish().expect("a gzip member in memory")
        }
        Packing::Zstd => compress_to_vec(tar.as_slice(), CompressionLevel::Fastest),
    };
    let mut sample = Sample::new(dir, blob);
    sample.wanted.diff_id = diff_id;
    sample
}

/// A tar, and the blobs that it is compressed to.
pub fn compressed() -> (Vec<u8>, Vec<(&'static str, Vec<u8>)>) {
    let mut builder = tar::Builder::new(Vec::new());
    // What estargz adds to a layer is content of it (stargz-snapshotter, docs/estargz.md).
    for (name, content) in [
        (".prefetch.landmark", &[0xf][..]),
        ("etc/motd", b"hello\n"),
        ("stargz.index.json", br#"{"version":1,"entries":[]}"#),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).expect("a tar in memory");
    }
    let tar = builder.into_inner().expect("a tar in memory");
    let (first, second) = tar.split_at(tar.len() / 2);
    // The footer of estargz: an empty member whose extra field tells where the table is.
    let footer = flate2::GzBuilder::new().extra(b"SG\x16\x000000000000000400STARGZ".to_vec());
    let footer = footer
        .write(Vec::new(), Compression::none())
        .finish()
        .expect("a gzip member in memory");
    let estargz = [gzip(first), gzip(second), footer].concat();
    // zstd:chunked keeps its table in a skippable frame (RFC 8878, section 3.1.2), others begin with one.
    let skippable = [b"\x50\x2a\x4d\x18\x05\0\0\0".as_slice(), b"table"].concat();
    let chunked = [zstd(first), zstd(second), skippable.clone()].concat();
    let forms = vec![
        ("plain", tar.clone()),
        ("gzip", gzip(&tar)),
        ("estargz", estargz),
        ("zstd", zstd(&tar)),
        ("zstd:chunked", chunked),
        ("zstd after a skippable frame", [skippable, zstd(&tar)].concat()),
    ];
    (tar, forms)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a gzip member in memory");
    encoder.finish().expect("a gzip member in memory")
}

/// A frame of one raw block (RFC 8878, sections 3.1.1.1 and 3.1.1.2).
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let block = (bytes.len() as u32) << 3 | 1;
    // A window of 1 MiB, no content size; the block is the last one.
    [b"\x28\xb5\x2f\xfd\0\x50", &block.to_le_bytes()[..3], bytes].concat()
}

/// A blob without end, as long as the writer lives.
pub fn endless() -> (Blob, PipeWriter) {
    let (input, pipe) = io::pipe().expect("a pipe");
    let blob = Blob {
        input: input.into(),
        feed: None,
    };
    (blob, pipe)
}

/// Writes `layers` compressed layers of so many empty files, which differ in one name. What they share is compressed once: a gzip
/// file may have several members (RFC 1952, section 2.2).
pub fn many_entries(dir: &Path, layers: usize, entries: usize) -> Vec<Sample> {
    let mut shared = Two {
        tar: Vec::new(),
        gzip: GzEncoder::new(Vec::new(), Compression::fast()),
    };
    let mut hashes: Vec<Sha256> = Vec::new();
    let firsts: Vec<Vec<u8>> = (0..layers).map(|n| header(&format!("layer-{n}"))).collect();
    hashes.extend(firsts.iter().map(Sha256::new_with_prefix));
    for n in 1..entries {
        shared.put(&header(&format!("{}/{n}", n / 1000)), &mut hashes);
    }
    shared.put(&[0; 2 * HEADER], &mut hashes);
    shared.flush(&mut hashes);
    let shared = shared.gzip.finish().expect("a gzip member in memory");
    let made = firsts.iter().zip(hashes).map(|(first, hash)| {
        let mut own = GzEncoder::new(Vec::new(), Compression::fast());
        own.write_all(first).expect("a gzip member in memory");
        let blob = [own.finish().expect("a gzip member in memory"), shared.clone()].concat();
        let mut sample = Sample::new(dir, blob);
        sample.bytes.clear();
        sample.wanted.diff_id = Digest::from_sha256(hash.finalize().into());
        sample
    });
    made.collect()
}

/// A tar that is compressed and hashed as it grows.
struct Two {
    tar: Vec<u8>,
    gzip: GzEncoder<Vec<u8>>,
}

impl Two {
    fn put(&mut self, bytes: &[u8], hashes: &mut [Sha256]) {
        self.tar.extend_from_slice(bytes);
        if self.tar.len() > 1 << 20 {
            self.flush(hashes);
        }
    }

    fn flush(&mut self, hashes: &mut [Sha256]) {
        self.gzip.write_all(&self.tar).expect("a gzip member in memory");
        hashes.iter_mut().for_each(|hash| hash.update(&self.tar));
        self.tar.clear();
    }
}

/// The header of an empty file (POSIX ustar).
fn header(name: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).expect("a short name");
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}
