//! Packs `vmlinux`: removes the padding between and within its segments. The file is smaller; what the kernel uses of the loaded memory
//! is the same.
//!
//! The linker places each segment at a file offset congruent to its address modulo 2 MiB. It writes bss as zeros because a
//! section with contents (`.init.scratch` of `CONFIG_AMD_MEM_ENCRYPT`, 4 MiB of zeros) follows it. And the entry code begins and ends
//! at addresses modulo 2 MiB, with up to 4 MiB of breakpoints around it (`ALIGN_ENTRY_TEXT_BEGIN` in
//! arch/x86/kernel/vmlinux.lds.S). Together that is more than half of the file. A loader reads program headers only (ELF-64 object
//! file format, "Program loading"), so the segments can follow each other directly, zeros at a segment's end need not be in the file,
//! and a segment with a long run of padding can be two. In memory such a run is zeros, even one of breakpoints: nothing jumps there.
//! Sections, including symbols, are dropped.

use anyhow::{Context, Result, bail, ensure};
use boot_manifest::SEGMENTS_MAX;
use std::ops::Range;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const PT_LOAD: u32 = 1;
/// Segments start at page boundaries, so that a loader can map them.
const PAGE: usize = 4096;
/// Shortest run of padding that divides a segment.
const HOLE_BYTES: usize = 256 << 10;
/// The linker's padding: zeros in data, breakpoints (`int3`) in code.
const PADDING: [u8; 2] = [0, 0xcc];

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
    let segments: Vec<Segment> = table.chunks_exact(size).map(Segment::of).collect::<Result<_>>()?;
    let (loads, others): (Vec<_>, Vec<_>) = segments.into_iter().partition(|segment| segment.kind == PT_LOAD);
    ensure!(!loads.is_empty(), "the kernel has no segment to load");
    let parts = divided(elf, &loads)?;

    let count = parts.len() + others.len();
    let mut packed = header.to_vec();
    packed[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
    packed[56..58].copy_from_slice(&(count as u16).to_le_bytes());
    // No section headers: e_shoff, e_shnum, e_shstrndx.
    packed[40..48].fill(0);
    packed[60..64].fill(0);
    let mut rows = Vec::with_capacity(count * size);
    let mut contents = packed.len() + count * size;
    let mut moved = Vec::with_capacity(parts.len());
    for part in &parts {
        contents = contents.next_multiple_of(PAGE);
        rows.extend(part.header(contents, Some(PAGE)));
        moved.push(contents);
        contents += part.file_bytes;
    }
    for segment in &others {
        // Notes, including the PVH entry, lie within a loaded segment, and move with it.
        let inside = parts.iter().zip(&moved).find_map(|(part, at)| {
            let distance = segment.offset.checked_sub(part.offset)?;
            (distance + segment.file_bytes <= part.file_bytes).then_some(at + distance)
        });
        match inside {
            Some(at) => rows.extend(segment.header(at, None)),
            None if segment.file_bytes == 0 => rows.extend(segment.header(0, None)),
            None => bail!("a segment of type {} of the kernel is outside of its loaded segments", segment.kind),
        }
    }
    packed.extend(rows);
    for part in &parts {
        packed.resize(packed.len().next_multiple_of(PAGE), 0);
        packed.extend_from_slice(slice(elf, part.offset, part.file_bytes)?);
    }
    Ok(packed)
}

/// The segments without zeros at their ends, divided at their longest runs of padding.
fn divided(elf: &[u8], loads: &[Segment]) -> Result<Vec<Segment>> {
    let mut holes: Vec<(usize, Range<usize>)> = Vec::new();
    let mut whole = loads.to_vec();
    for (n, segment) in whole.iter_mut().enumerate() {
        segment.trim(elf)?;
        holes.extend(long_runs(slice(elf, segment.offset, segment.file_bytes)?).map(|hole| (n, hole)));
    }
    holes.sort_by_key(|(_, hole)| std::cmp::Reverse(hole.len()));
    holes.truncate(SEGMENTS_MAX.saturating_sub(loads.len()));
    holes.sort_by_key(|(n, hole)| (*n, hole.start));
    let mut parts = Vec::with_capacity(loads.len() + holes.len());
    for (n, segment) in whole.into_iter().enumerate() {
        let mut rest = segment;
        let mut done = 0;
        for (_, hole) in holes.iter().filter(|(of, _)| *of == n) {
            let (mut part, behind) = rest.split(hole.start - done, hole.end - done);
            part.trim(elf)?;
            parts.push(part);
            rest = behind;
            done = hole.end;
        }
        parts.push(rest);
    }
    Ok(parts)
}

/// Runs of whole pages of one kind of padding that are long enough to divide a segment.
fn long_runs(content: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let padding = |page: &[u8]| PADDING.into_iter().find(|byte| page.iter().all(|other| other == byte));
    let pages = content.chunks_exact(PAGE).map(padding);
    let mut runs: Vec<(u8, Range<usize>)> = Vec::new();
    for (n, kind) in pages.enumerate() {
        let at = n * PAGE;
        match (kind, runs.last_mut()) {
            (Some(byte), Some((of, run))) if *of == byte && run.end == at => run.end = at + PAGE,
            (Some(byte), _) => runs.push((byte, at..at + PAGE)),
            (None, _) => {}
        }
    }
    runs.into_iter().map(|(_, run)| run).filter(|run| run.len() >= HOLE_BYTES)
}

/// A program header.
#[derive(Clone)]
struct Segment {
    kind: u32,
    flags: usize,
    offset: usize,
    virtual_address: usize,
    address: usize,
    file_bytes: usize,
    memory_bytes: usize,
    align: usize,
}

impl Segment {
    fn of(header: &[u8]) -> Result<Self> {
        Ok(Self {
            kind: field(header, 0, 4)? as u32,
            flags: field(header, 4, 4)?,
            offset: field(header, 8, 8)?,
            virtual_address: field(header, 16, 8)?,
            address: field(header, 24, 8)?,
            file_bytes: field(header, 32, 8)?,
            memory_bytes: field(header, 40, 8)?,
            align: field(header, 48, 8)?,
        })
    }

    /// Its header with another offset. The contents of a loaded segment and its address now agree modulo a page only; a note keeps its
    /// alignment, which is that of its entries.
    fn header(&self, offset: usize, align: Option<usize>) -> [u8; PROGRAM_HEADER_BYTES] {
        let mut bytes = [0; PROGRAM_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&(self.flags as u32).to_le_bytes());
        let numbers = [
            offset,
            self.virtual_address,
            self.address,
            self.file_bytes,
            self.memory_bytes,
            align.unwrap_or(self.align),
        ];
        for (to, number) in bytes[8..].chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&(number as u64).to_le_bytes());
        }
        bytes
    }

    /// Leaves zeros at its end out of the file.
    fn trim(&mut self, elf: &[u8]) -> Result<()> {
        let content = slice(elf, self.offset, self.file_bytes)?;
        self.file_bytes -= content.iter().rev().take_while(|byte| **byte == 0).count();
        Ok(())
    }

    /// The part before a hole, with the hole as zeros at its end, and the part behind it.
    fn split(self, hole: usize, behind: usize) -> (Self, Self) {
        let rest = Self {
            offset: self.offset + behind,
            virtual_address: self.virtual_address + behind,
            address: self.address + behind,
            file_bytes: self.file_bytes - behind,
            memory_bytes: self.memory_bytes.saturating_sub(behind),
            ..self
        };
        let part = Self {
            file_bytes: hole,
            memory_bytes: behind,
            ..self
        };
        (part, rest)
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
    fn a_segment_is_divided_at_padding_of_breakpoints_and_zeros() {
        let data = [
            &[1; 5000][..],
            &[0xcc; 2 << 20],
            b"entry",
            &[0; 1 << 19],
            b"end",
            &[0xcc; 9000],
            b"!",
        ]
        .concat();
        let before = elf(&[(0x10_0000, b"codeNOTE", 8), (0x20_0000, &data, data.len() as u64)]);
        let after = pack(&before).unwrap();
        assert_eq!((before[56], after[56]), (3, 5));
        let (mut before, after_memory) = (load(&before).0, load(&after).0);
        let holes = before.len() - after_memory.len();
        // What is left out is the whole pages of the breakpoints, at least 256 KiB of them.
        before.retain(|address, byte| after_memory.contains_key(address) || *byte != 0xcc);
        assert_eq!(before, after_memory);
        assert!(holes < 2 << 20 && holes > (2 << 20) - 2 * PAGE, "{holes}");
        assert!(after.len() < 12 * PAGE, "{}", after.len());
        assert!(pack(&after).unwrap() == after);
    }

    #[test]
    fn no_kernel_gets_more_segments_than_stage0_loads() {
        let data: Vec<u8> = (1..=20u8).flat_map(|n| [vec![n; PAGE], vec![0xcc; HOLE_BYTES]].concat()).collect();
        let after = pack(&elf(&[(0x10_0000, b"codeNOTE", 8), (0x20_0000, &data, data.len() as u64)])).unwrap();
        assert_eq!(usize::from(after[56]), SEGMENTS_MAX + 1);
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
