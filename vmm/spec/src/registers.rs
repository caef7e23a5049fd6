//! Registers of a vCPU at its first instruction, in the form of the hardware's save area: the VMM gives them to KVM, and the save
//! area that a TEE measures is made of the same values.

use crate::layout::GDT;

/// The GDT of the 64-bit boot protocol: null, unused, code (0x10: execute/read, long mode), data (0x18: read/write).
pub const GDT_ENTRIES: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

const CR0_PE: u64 = 1;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
/// Bit 1 of RFLAGS is always set; interrupts are off.
const RFLAGS_RESERVED: u64 = 1 << 1;

/// `__BOOT_CS` and `__BOOT_DS` of Linux select these entries of the GDT.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
/// Selectors that stage0 begins with. It has no GDT: they are values without meaning until the kernel loads its own.
const STAGE0_CS: u16 = 0x08;
const STAGE0_DS: u16 = 0x10;

/// Limit of every segment and table in real mode.
const REAL_MODE_LIMIT: u32 = 0xffff;

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Bits 47:40 and 55:52 of the descriptor, next to each other (AMD64 APM 2, 15.5.1).
    pub attributes: u16,
    /// In bytes, granularity applied.
    pub limit: u32,
    /// First address.
    pub base: u64,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Last byte's offset.
    pub limit: u16,
    /// First address.
    pub base: u64,
}

/// Registers of one vCPU. All others have their reset values: FPU and SSE control words, XCR0 = 1, PAT, debug registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the registers say it")]
pub struct Registers {
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: Table,
    pub idtr: Table,
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub rflags: u64,
    pub rip: u64,
    pub rsi: u64,
    pub rdx: u64,
}

/// What differs between entries into 64-bit mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First instruction.
    pub rip: u64,
    /// Argument: the zero page, or the boot page.
    pub rsi: u64,
    /// Page tables.
    pub cr3: u64,
}

impl Segment {
    /// As loading `selector` with `descriptor` fills the register (AMD64 APM 2, 4.7).
    fn loaded(selector: u16, descriptor: u64) -> Self {
        let limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
        let granular = descriptor >> 55 & 1 == 1;
        Self {
            selector,
            attributes: (descriptor >> 40 & 0xff | descriptor >> 44 & 0xf00) as u16,
            limit: if granular { limit << 12 | 0xfff } else { limit },
            base: descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000,
        }
    }

    /// A segment of real mode.
    fn real_mode(selector: u16, attributes: u16) -> Self {
        Self {
            selector,
            attributes,
            limit: REAL_MODE_LIMIT,
            base: 0,
        }
    }
}

impl Registers {
    /// Entry into Linux (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
    pub fn linux(entry: Entry) -> Self {
        let gdtr = Table {
            limit: size_of_val(&GDT_ENTRIES) as u16 - 1,
            base: GDT,
        };
        Self::long_mode(entry, BOOT_CS, BOOT_DS, gdtr)
    }

    /// Entry into stage0. NX bits of its page tables count, and FPU instructions behave as firmware leaves them.
    pub fn stage0(entry: Entry) -> Self {
        let registers = Self::long_mode(entry, STAGE0_CS, STAGE0_DS, Table::default());
        Self {
            cr0: registers.cr0 | CR0_MP,
            efer: registers.efer | EFER_NXE,
            ..registers
        }
    }

    /// Flat segments, paging, interrupts off.
    fn long_mode(entry: Entry, code: u16, data: u16, gdtr: Table) -> Self {
        let [_, _, code_descriptor, data_descriptor] = GDT_ENTRIES;
        let (cs, data) = (Segment::loaded(code, code_descriptor), Segment::loaded(data, data_descriptor));
        Self {
            cs,
            es: data,
            ss: data,
            ds: data,
            fs: data,
            gs: data,
            gdtr,
            idtr: Table::default(),
            cr0: CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_PE,
            cr3: entry.cr3,
            cr4: CR4_PAE,
            efer: EFER_LME | EFER_LMA,
            rip: entry.rip,
            rsi: entry.rsi,
            ..Self::reset()
        }
    }

    /// After reset (AMD64 APM 2, table 14-1), as every vCPU but the first is launched. CR0.CD and CR0.NW are clear, which KVM does
    /// as well; RDX, where a processor has its model, is zero, so that the save area is the same on every processor.
    pub fn reset() -> Self {
        let data = Segment::real_mode(0, 0x93);
        let table = Table {
            limit: REAL_MODE_LIMIT as u16,
            base: 0,
        };
        Self {
            es: data,
            cs: Segment {
                base: 0xffff_0000,
                ..Segment::real_mode(0xf000, 0x9b)
            },
            ss: data,
            ds: data,
            fs: data,
            gs: data,
            ldtr: Segment::real_mode(0, 0x82),
            tr: Segment::real_mode(0, 0x8b),
            gdtr: table,
            idtr: table,
            cr0: CR0_ET,
            cr3: 0,
            cr4: 0,
            efer: 0,
            rflags: RFLAGS_RESERVED,
            rip: 0xfff0,
            rsi: 0,
            rdx: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry { rip: 1, rsi: 2, cr3: 3 };

    #[test]
    fn segments_are_flat_64_bit_code_and_writable_data() {
        let registers = Registers::linux(ENTRY);
        let segment = |selector, attributes| Segment {
            selector,
            attributes,
            limit: u32::MAX,
            base: 0,
        };
        assert_eq!(
            (registers.cs, registers.ds, registers.ss),
            (segment(0x10, 0xa9b), segment(0x18, 0xc93), segment(0x18, 0xc93))
        );
        assert_eq!((registers.rip, registers.rsi, registers.cr3), (1, 2, 3));
    }

    #[test]
    fn a_descriptor_is_taken_apart_as_the_processor_does() {
        let segment = Segment::loaded(0x28, 0x1240_8912_3456_789a);
        let expected = Segment {
            selector: 0x28,
            attributes: 0x489,
            limit: 0x0_789a,
            base: 0x1212_3456,
        };
        assert_eq!(segment, expected);
    }

    #[test]
    fn stage0_has_no_table_of_descriptors() {
        let registers = Registers::stage0(ENTRY);
        assert_eq!((registers.gdtr, registers.idtr), (Table::default(), Table::default()));
        assert_eq!((registers.cr0, registers.efer), (0x8001_0033, 0xd00));
    }
}
