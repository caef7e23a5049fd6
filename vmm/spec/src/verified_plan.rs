//! The launch plan of a guest that stage0 starts: measured pages only, the same for every guest of an image with as many vCPUs and the same
//! answer to whether it has volume slots.
//!
//! It is made from nothing else, so neither the guest's memory nor its host data can change the measurement. Kernel and initramfs are
//! not launched: stage0 copies them from the staging memory and compares them with the boot manifest.

use crate::{
    MemoryMib, Vcpus, VolumeSlots, acpi,
    launch_plan::{LaunchPlan, PlanError},
    layout::{GpaRange, PAGE_BYTES, ram_ranges},
    page::{Page, PageKind, in_pages},
    registers::{Entry, Registers},
    save_area::{SaveArea, VMSA_GPA},
};
use boot_manifest::{
    BootPage, CmdlineError, Mode,
    launch_area::{
        BOOT_PAGE, CPUID_PAGE, ENCRYPTION_BIT, SECRETS_PAGE, STAGE0, STAGE0_ACPI, STAGE0_ACPI_PAGES, STAGE0_MAX_BYTES, STAGE0_PAGE_TABLES,
        STAGE0_SMALLER_TABLES, STAGING,
    },
};

const PRESENT_WRITABLE: u64 = 0b11;
/// A level 3 entry that maps 1 GiB, or a level 2 entry that maps 2 MiB.
const HUGE_PAGE: u64 = 1 << 7;
const HUGE_PAGE_BYTES: u64 = 1 << 30;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
const NO_EXECUTE: u64 = 1 << 63;
/// The GiB below 4 GiB, which has no RAM (`layout::MMIO_HOLE_START`).
const DEVICE_HOLE: u64 = 3 << 30;

/// stage0's program: one flat piece, linked to run at [`STAGE0`], entered at its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Stage0<'a>(&'a [u8]);

impl<'a> TryFrom<&'a [u8]> for Stage0<'a> {
    type Error = PlanError;
    fn try_from(program: &'a [u8]) -> Result<Self, PlanError> {
        if program.is_empty() || program.len() > STAGE0_MAX_BYTES {
            Err(PlanError::Stage0(program.len()))
        } else {
            Ok(Self(program))
        }
    }
}

impl From<CmdlineError> for PlanError {
    fn from(error: CmdlineError) -> Self {
        match error {
            CmdlineError::Long(bytes) => Self::CmdlineTooLong(bytes),
            CmdlineError::Nul => Self::CmdlineNul,
        }
    }
}

impl LaunchPlan {
    /// The plan of a guest that begins with stage0 and has no volume slots: pages in the order of their addresses, then a save area for each
    /// vCPU.
    pub fn verified(vcpus: Vcpus, boot_page: &BootPage<'_>, stage0: Stage0<'_>) -> Result<Self, PlanError> {
        Self::verified_with_volumes(vcpus, VolumeSlots::NONE, boot_page, stage0)
    }

    /// As [`LaunchPlan::verified`], of a guest with `volumes`.
    pub fn verified_with_volumes(
        vcpus: Vcpus,
        volumes: VolumeSlots,
        boot_page: &BootPage<'_>,
        stage0: Stage0<'_>,
    ) -> Result<Self, PlanError> {
        let encrypted = match boot_page.manifest.mode {
            Mode::Snp => 1 << ENCRYPTION_BIT,
            Mode::Plain | Mode::Simulated => 0,
        };
        let acpi = acpi::tables(vcpus, volumes, STAGE0_ACPI);
        let mut acpi_pages = vec![0; STAGE0_ACPI_PAGES * PAGE_BYTES as usize];
        acpi_pages
            .get_mut(..acpi.len())
            .ok_or(PlanError::Acpi(acpi.len()))?
            .copy_from_slice(&acpi);
        let first = Registers::stage0(Entry {
            rip: STAGE0,
            rsi: BOOT_PAGE,
            cr3: STAGE0_PAGE_TABLES | encrypted,
        });

        let mut pages: Vec<Page> = in_pages(STAGE0, PageKind::Normal, stage0.0).collect();
        let program_end = STAGE0 + pages.len() as u64 * PAGE_BYTES;
        let tables = page_tables(encrypted);
        let tables_start = STAGE0_PAGE_TABLES + 2 * PAGE_BYTES - tables.len() as u64;
        if program_end > tables_start {
            return Err(PlanError::Stage0(stage0.0.len()));
        }
        pages.extend(zeros(PageKind::Zero, program_end, tables_start));
        pages.extend(in_pages(tables_start, PageKind::Normal, &tables));
        pages.extend(in_pages(BOOT_PAGE, PageKind::Normal, &boot_page.to_bytes()?));
        pages.extend(in_pages(STAGE0_ACPI, PageKind::Normal, &acpi_pages));
        pages.extend(zeros(PageKind::Secrets, SECRETS_PAGE, SECRETS_PAGE + PAGE_BYTES));
        pages.extend(zeros(PageKind::Cpuid, CPUID_PAGE, CPUID_PAGE + PAGE_BYTES));
        pages.extend((0..vcpus.get()).map(|id| {
            let registers = if id == 0 { first } else { Registers::reset() };
            Page {
                gpa: VMSA_GPA,
                kind: PageKind::Vmsa,
                bytes: SaveArea::by_kvm(&registers, 0).to_page(),
            }
        }));
        Ok(Self {
            pages,
            initrd: None,
            first,
        })
    }
}

/// The range for kernel, initramfs and host page, beside RAM of `memory`.
///
/// # Errors
/// [`PlanError::RamInStaging`] if RAM reaches into the GiB that stage0's page tables map for it.
pub fn staging(memory: MemoryMib) -> Result<GpaRange, PlanError> {
    if ram_ranges(memory).iter().any(|range| range.end() > STAGING) {
        return Err(PlanError::RamInStaging(memory.get()));
    }
    Ok(GpaRange {
        start: STAGING,
        length: HUGE_PAGE_BYTES,
    })
}

/// Pages without contents from `start` up to `end`.
fn zeros(kind: PageKind, start: u64, end: u64) -> impl Iterator<Item = Page> {
    (start..end).step_by(PAGE_BYTES as usize).map(move |gpa| Page {
        gpa,
        kind,
        bytes: Box::new([0; PAGE_BYTES as usize]),
    })
}

/// RAM at its own addresses, encrypted; staging shared and never executed, since the host can change it. Level 4 and 3 are the last
/// two pages, at [`STAGE0_PAGE_TABLES`]. Where nothing is encrypted, level 2 is before them: not every processor has pages of 1 GiB,
/// and stage0 uses RAM below the devices only.
fn page_tables(encrypted: u64) -> Vec<u8> {
    let mut tables = Vec::new();
    let mut level3 = [0u64; 512];
    for (entry, start) in level3.iter_mut().zip((0..).step_by(HUGE_PAGE_BYTES as usize)) {
        *entry = match start {
            DEVICE_HOLE => 0,
            STAGING => start | HUGE_PAGE | PRESENT_WRITABLE | NO_EXECUTE,
            _ => start | encrypted | HUGE_PAGE | PRESENT_WRITABLE,
        };
    }
    if encrypted == 0 {
        let at = (STAGE0_SMALLER_TABLES..).step_by(PAGE_BYTES as usize);
        for (table, n) in at.zip([0, 1, 2, 511]) {
            let whole = std::mem::replace(&mut level3[n], table | PRESENT_WRITABLE);
            tables.extend((0..512).map(|n| whole + n * LARGE_PAGE_BYTES));
        }
        level3[3..511].fill(0);
    }
    tables.extend(level3);
    let mut level4 = [0u64; 512];
    level4[0] = (STAGE0_PAGE_TABLES + PAGE_BYTES) | encrypted | PRESENT_WRITABLE;
    tables.splice(tables.len() - 512..tables.len() - 512, level4);
    tables.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests;
