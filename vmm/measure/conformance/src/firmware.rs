//! The launch of an OVMF image as other VMMs do it: the image below 4 GiB, the sections of its SEV metadata, one save area a vCPU.
//!
//! The image ends with a table of GUIDs (edk2 `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`), which leads to the metadata
//! (`OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`).

use crate::guid::{Guid, guid};
use crate::kernel_hashes::Hashes;
use crate::save_areas::{Peer, peer};
use launch_measure::{LaunchDigest, MeasureError, Measurement};
use std::collections::BTreeMap;
use vm_spec::{PageKind, VMSA_GPA};

const FOOTER: Guid = guid("96b582de-1fb2-45f7-baea-a366c55a082d");
const HASH_TABLE: Guid = guid("7255371f-3a3b-4b04-927b-1da6efa8d454");
const AP_RESET: Guid = guid("00f771de-1a7e-4fcb-890e-68c77e2fb44e");
const METADATA: Guid = guid("dc886566-984a-4798-a75e-5585a7bf67cc");
/// The table ends so far from the image's end.
const TABLE_END: usize = 32;
/// Length and GUID, after an entry's data.
const ENTRY_TAIL: usize = 2 + 16;
const FOUR_GIB: u64 = 1 << 32;
/// Largest section; those of OVMF have a few pages.
const SECTION_MAX_BYTES: u64 = 16 << 20;
const BSP_EIP: u32 = 0xffff_fff0;

/// Why an image cannot be launched.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// A structure is not where it should be, or ends early.
    #[error("the firmware's {0} is damaged or missing")]
    Damaged(&'static str),
    /// A section whose type has no meaning.
    #[error("the firmware's metadata has a section of type {0}")]
    Section(u32),
    /// OVMF without `SNP_KERNEL_HASHES` would not check what it loads.
    #[error("kernel hashes are given, and the firmware's metadata has no section for them")]
    NoKernelHashes,
    /// The firmware of the processor would refuse it.
    #[error(transparent)]
    Measure(#[from] MeasureError),
}

/// How the image is launched.
pub struct Launch<'a> {
    pub image: &'a [u8],
    pub peer: Peer,
    pub vcpus: u8,
    /// CPUID leaf 1's EAX.
    pub signature: u64,
    pub sev_features: u64,
    pub hashes: Option<Hashes>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Memory,
    Secrets,
    Cpuid,
    CallingArea,
    KernelHashes,
}

impl Launch<'_> {
    /// The digest of the launch.
    pub fn measure(&self) -> Result<LaunchDigest, FirmwareError> {
        let table = table(self.image)?;
        let sections = sections(self.image, &table)?;
        if self.hashes.is_some() && !sections.iter().any(|(section, ..)| *section == Section::KernelHashes) {
            return Err(FirmwareError::NoKernelHashes);
        }
        let mut measurement = Measurement::default();
        let start = FOUR_GIB
            .checked_sub(self.image.len() as u64)
            .ok_or(FirmwareError::Damaged("length"))?;
        let pages = self.image.chunks_exact(4096);
        if !pages.remainder().is_empty() {
            return Err(FirmwareError::Damaged("length"));
        }
        for (page, gpa) in pages.zip((start..).step_by(4096)) {
            measurement.add(
                PageKind::Normal,
                gpa,
                page.try_into().map_err(|_| FirmwareError::Damaged("length"))?,
            )?;
        }
        // EC2 launches the CPUID page last.
        let last = |section: Section| self.peer == Peer::Ec2 && section == Section::Cpuid;
        let (late, early): (Vec<_>, Vec<_>) = sections.into_iter().partition(|(section, ..)| last(*section));
        for (section, gpa, bytes) in early.into_iter().chain(late) {
            self.section(&mut measurement, &table, section, gpa, bytes)?;
        }
        let ap_eip = value(&table, AP_RESET).ok_or(FirmwareError::Damaged("AP reset vector"))?;
        for id in 0..self.vcpus {
            let eip = if id == 0 { BSP_EIP } else { ap_eip };
            let area = peer(self.peer, eip, self.signature, self.sev_features);
            measurement.add(PageKind::Vmsa, VMSA_GPA, &area.to_page())?;
        }
        Ok(measurement.digest())
    }

    fn section(&self, to: &mut Measurement, table: &Table, section: Section, gpa: u64, bytes: u64) -> Result<(), FirmwareError> {
        let kind = match section {
            Section::Memory if self.peer == Peer::Gce => PageKind::Unmeasured,
            Section::Memory | Section::CallingArea => PageKind::Zero,
            Section::Secrets => PageKind::Secrets,
            Section::Cpuid => PageKind::Cpuid,
            Section::KernelHashes => match &self.hashes {
                None => PageKind::Zero,
                Some(hashes) => {
                    let at = value(table, HASH_TABLE).ok_or(FirmwareError::Damaged("hash table"))?;
                    let page = hashes.to_page(at as usize % 4096).ok_or(FirmwareError::Damaged("hash table"))?;
                    to.add(PageKind::Normal, gpa, &page)?;
                    return Ok(());
                }
            },
        };
        for gpa in (gpa..gpa + bytes).step_by(4096) {
            to.add(kind, gpa, &[0; 4096])?;
        }
        Ok(())
    }
}

type Table<'a> = BTreeMap<Guid, &'a [u8]>;

/// The entries of the table, which is read from its end.
fn table(image: &[u8]) -> Result<Table<'_>, FirmwareError> {
    let damaged = || FirmwareError::Damaged("table of GUIDs");
    let end = image.len().checked_sub(TABLE_END).ok_or_else(damaged)?;
    let (mut rest, length, guid) = last_entry(&image[..end]).ok_or_else(damaged)?;
    if guid != FOOTER {
        return Err(damaged());
    }
    rest = &rest[rest
        .len()
        .checked_sub(length.checked_sub(ENTRY_TAIL).ok_or_else(damaged)?)
        .ok_or_else(damaged)?..];
    let mut table = BTreeMap::new();
    while rest.len() >= ENTRY_TAIL {
        let (before, length, guid) = last_entry(rest).ok_or_else(damaged)?;
        let start = rest.len().checked_sub(length).ok_or_else(damaged)?;
        table.insert(guid, before.get(start..).ok_or_else(damaged)?);
        rest = &rest[..start];
    }
    Ok(table)
}

/// The bytes before the tail of the last entry, the entry's length, and its GUID.
fn last_entry(bytes: &[u8]) -> Option<(&[u8], usize, Guid)> {
    let (before, tail) = bytes.split_at_checked(bytes.len().checked_sub(ENTRY_TAIL)?)?;
    let (length, guid) = tail.split_first_chunk()?;
    Some((before, u16::from_le_bytes(*length).into(), guid.try_into().ok()?))
}

/// The number at the start of an entry.
fn value(table: &Table, guid: Guid) -> Option<u32> {
    table.get(&guid).and_then(|data| u32_at(data, 0))
}

fn sections(image: &[u8], table: &Table) -> Result<Vec<(Section, u64, u64)>, FirmwareError> {
    let damaged = || FirmwareError::Damaged("SEV metadata");
    let from_end = value(table, METADATA).ok_or_else(damaged)? as usize;
    let metadata = &image[image.len().checked_sub(from_end).ok_or_else(damaged)?..];
    let (version, count) = (u32_at(metadata, 8), u32_at(metadata, 12).ok_or_else(damaged)?);
    if !metadata.starts_with(b"ASEV") || version != Some(1) {
        return Err(damaged());
    }
    let descriptions = metadata[16..].chunks_exact(12).take(count as usize);
    if descriptions.len() != count as usize {
        return Err(damaged());
    }
    descriptions
        .map(|description| {
            let field = |at| u32_at(description, at).ok_or_else(damaged);
            let (gpa, bytes) = (u64::from(field(0)?), u64::from(field(4)?));
            if bytes > SECTION_MAX_BYTES || !bytes.is_multiple_of(4096) {
                return Err(damaged());
            }
            let section = match field(8)? {
                1 => Section::Memory,
                2 => Section::Secrets,
                3 => Section::Cpuid,
                4 => Section::CallingArea,
                0x10 => Section::KernelHashes,
                other => return Err(FirmwareError::Section(other)),
            };
            Ok((section, gpa, bytes))
        })
        .collect()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that ends as OVMF does, with metadata of `sections` and an AP vector.
    fn image(sections: &[(u32, u32, u32)]) -> Vec<u8> {
        let mut metadata = b"ASEV\0\0\0\0\x01\0\0\0".to_vec();
        metadata.extend((sections.len() as u32).to_le_bytes());
        metadata.extend(sections.iter().flat_map(|s| [s.0, s.1, s.2]).flat_map(u32::to_le_bytes));
        let mut table = Vec::new();
        for (guid, value) in [(AP_RESET, 0x80_b004), (METADATA, 4096u32)] {
            table.extend(value.to_le_bytes());
            table.extend(22u16.to_le_bytes());
            table.extend(guid);
        }
        let length = (table.len() + ENTRY_TAIL) as u16;
        table.extend(length.to_le_bytes());
        table.extend(FOOTER);
        let mut image = vec![0; 4096];
        image[..metadata.len()].copy_from_slice(&metadata);
        let end = 4096 - TABLE_END;
        image[end - table.len()..end].copy_from_slice(&table);
        image
    }

    fn launch(image: &[u8], hashes: bool) -> Result<LaunchDigest, FirmwareError> {
        Launch {
            image,
            peer: Peer::Qemu,
            vcpus: 2,
            signature: 0,
            sev_features: 1,
            hashes: hashes.then(|| Hashes::new([0; 32], [0; 32], "")),
        }
        .measure()
    }

    #[test]
    fn an_image_is_launched_with_its_sections() {
        let good = image(&[(0x80_0000, 0x2000, 1), (0x80_d000, 0x1000, 2), (0x80_e000, 0x1000, 3)]);
        let digest = launch(&good, false).unwrap();
        assert_ne!(launch(&image(&[(0x80_0000, 0x1000, 1)]), false).unwrap(), digest);
        assert!(matches!(launch(&good, true), Err(FirmwareError::NoKernelHashes)));
        assert!(matches!(launch(&image(&[(0, 0x1000, 9)]), false), Err(FirmwareError::Section(9))));
        assert!(matches!(
            launch(&image(&[(0x80_0000, 0x1000, 1), (0x80_0000, 0x1000, 1)]), false),
            Err(FirmwareError::Measure(MeasureError::Twice(0x80_0000)))
        ));
    }

    #[test]
    fn a_damaged_image_is_refused_and_never_panics() {
        let good = image(&[(0x80_0000, 0x1000, 1)]);
        assert!(launch(&[], false).is_err());
        assert!(launch(&good[1..], false).is_err());
        for at in 0..good.len() {
            for value in [0, 0x7f, 0xff] {
                let mut damaged = good.clone();
                damaged[at] = value;
                let _ = launch(&damaged, false);
            }
        }
    }
}
