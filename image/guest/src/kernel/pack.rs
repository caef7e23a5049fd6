//! Packs `vmlinux`: removes the padding between its segments. The file is smaller, the loaded memory is the same.
//!
//! The linker places each segment at a file offset congruent to its address modulo 2 MiB. It writes bss as zeros because a
//! section with contents (`.init.scratch` of `CONFIG_AMD_MEM_ENCRYPT`, 4 MiB of zeros) follows it. Together that is two fifths
//! of the file. A loader reads program headers only (ELF-64 object file format, "Program loading"), so the segments can follow
//! each other directly, and zeros at a segment's end need not be in the file. Sections, including symbols, are dropped.

use anyhow::{Context, Result, bail, ensure};

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const PT_LOAD: u32 = 1;
/// Segments start at page boundaries, so that a loader can map them.
const PAGE: usize = 4096;

/// The packed form of an ELF executable for x86-64.
///
/// # Errors
/// The file is not such an executable, or its headers point outside of it.
pub fn pack(elf: &[u8]) -> Result<Vec<u8>> {
    let header = elf.get(..HEADER_BYTES).context("the kernel is shorter than an ELF header")?;
    ensure!(
        header[..6] == *b"\x7fELF\x02\x01",
        "the kernel is not a 64-bit little-endian ELF file"
    );
    let (table, size, count) = (field(header, 32, 8)?, field(header, 54, 2)?, field(header, 56, 2)?);
    ensure!(size == PROGRAM_HEADER_BYTES, "the kernel's program headers have {size} bytes");
    let table = slice(elf, table, size * count)?;
    let mut packed = header.to_vec();
    packed[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
    // No section headers: e_shoff, e_shnum, e_shstrndx.
    packed[40..48].fill(0);
    packed[60..64].fill(0);
    packed.extend_from_slice(table);

    let headers: Vec<Segment> = table.chunks_exact(size).map(Segment::of).collect::<Result<_>>()?;
    ensure!(
        headers.iter().any(|segment| segment.kind == PT_LOAD),
        "the kernel has no segment to load"
    );
    let mut moved = vec![None; headers.len()];
    for (n, segment) in headers.iter().enumerate().filter(|(_, segment)| segment.kind == PT_LOAD) {
        let content = slice(elf, segment.offset, segment.file_bytes)?;
        let content = &content[..content.len() - content.iter().rev().take_while(|byte| **byte == 0).count()];
        packed.resize(packed.len().next_multiple_of(PAGE), 0);
        moved[n] = Some((packed.len(), content.len()));
        packed.extend_from_slice(content);
    }
    for (n, segment) in headers.iter().enumerate().filter(|(_, segment)| segment.kind != PT_LOAD) {
        // Notes, including the PVH entry, lie within a loaded segment, and move with it.
        let inside = headers.iter().zip(&moved).find_map(|(load, at)| {
            let (at, kept) = (*at)?;
            let distance = segment.offset.checked_sub(load.offset)?;
            (distance + segment.file_bytes <= kept).then_some(at + distance)
        });
        moved[n] = match inside {
            Some(at) => Some((at, segment.file_bytes)),
            None if segment.file_bytes == 0 => Some((0, 0)),
            None => bail!("segment {n} of the kernel is outside of its loaded segments"),
        };
    }
    for (n, (offset, bytes)) in moved.into_iter().flatten().enumerate() {
        let at = HEADER_BYTES + n * PROGRAM_HEADER_BYTES;
        packed[at + 8..at + 16].copy_from_slice(&(offset as u64).to_le_bytes());
        packed[at + 32..at + 40].copy_from_slice(&(bytes as u64).to_le_bytes());
        // Offsets and addresses now agree modulo a page only. A note keeps its alignment, which is that of its entries.
        if headers[n].kind == PT_LOAD {
            packed[at + 48..at + 56].copy_from_slice(&(PAGE as u64).to_le_bytes());
        }
    }
    Ok(packed)
}

/// The fields of a program header that describe the file.
struct Segment {
    kind: u32,
    offset: usize,
    file_bytes: usize,
}

impl Segment {
    fn of(header: &[u8]) -> Result<Self> {
        Ok(Self {
            kind: field(header, 0, 4)? as u32,
            offset: field(header, 8, 8)?,
            file_bytes: field(header, 32, 8)?,
        })
    }
}

/// A little-endian number of up to 8 bytes.
fn field(bytes: &[u8], at: usize, length: usize) -> Result<usize> {
    let mut number = [0; 8];
    number[..length].copy_from_slice(slice(bytes, at, length)?);
    Ok(u64::from_le_bytes(number) as usize)
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    let end = at.checked_add(length).context("the kernel's headers overflow")?;
    bytes.get(at..end).context("the kernel's headers point outside of the file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// An executable with segments of (physical address, content, bytes in memory) 1 MiB apart, and a note in the first.
    fn elf(segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        (bytes[54], bytes[56]) = (56, segments.len() as u8 + 1);
        let mut header = |n: usize, kind: u8, fields: [u64; 4]| {
            let at = 64 + n * 56;
            bytes[at] = kind;
            for (place, value) in [8, 24, 32, 40].into_iter().zip(fields) {
                bytes[at + place..at + place + 8].copy_from_slice(&value.to_le_bytes());
            }
        };
        for (n, (address, content, memory)) in segments.iter().enumerate() {
            header(n, 1, [(n as u64 + 1) << 20, *address, content.len() as u64, *memory]);
        }
        header(segments.len(), 4, [(1 << 20) + 2, segments[0].0 + 2, 2, 2]);
        bytes[64 + segments.len() * 56 + 48] = 4;
        for (_, content, _) in segments {
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(1 << 20), 0);
        }
        bytes
    }

    /// Guest memory after loading, zeros left out; and the note.
    fn load(elf: &[u8]) -> (BTreeMap<u64, u8>, Vec<u8>) {
        let (mut memory, mut note) = (BTreeMap::new(), Vec::new());
        let number = |at| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
        for n in 0..usize::from(elf[56]) {
            let at = number(32) as usize + n * 56;
            let (offset, address, bytes) = (number(at + 8) as usize, number(at + 24), number(at + 32) as usize);
            assert!(number(at + 32) <= number(at + 40));
            let content = &elf[offset..offset + bytes];
            match elf[at] {
                1 => memory.extend((address..).zip(content.iter().copied()).filter(|(_, byte)| *byte != 0)),
                _ => note.extend_from_slice(content),
            }
        }
        (memory, note)
    }

    #[test]
    fn the_same_memory_from_a_smaller_file() {
        let data = [&b"data"[..], &[0; 70_000], b"end", &[0; 300_000]].concat();
        let before = elf(&[
            (0x10_0000, b"codeNOTE", 8),
            (0x20_0000, &data, 400_000),
            (0x40_0000, &[0; 100], 100),
        ]);
        let after = pack(&before).unwrap();
        assert_eq!(load(&before), load(&after));
        assert_eq!(load(&after).1, b"de");
        assert_eq!((after[64 + 48..][..2].to_vec(), after[64 + 3 * 56 + 48]), (vec![0, 0x10], 4));
        assert!(after.len() < 2 * PAGE + 70_007 + PAGE && before.len() > 3 << 20, "{}", after.len());
        assert_eq!(pack(&after).unwrap(), after);
    }

    #[test]
    fn damaged_headers_are_refused() {
        let good = elf(&[(0x10_0000, b"codeNOTE", 8)]);
        for (at, value) in [(0, 0), (4, 1), (54, 55), (33, 0xff), (78, 0xff), (103, 0xff)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(pack(&bad).is_err(), "{value} at {at}");
        }
        assert!(pack(&good[..40]).is_err());
    }
}
