//! The guest's physical address space, I/O ports and interrupt lines.
//!
//! ```text
//! 0x0000_0000  RAM: zero page, GDT, page tables, command line, setup_data (one page each, below 64 KiB)
//! 0x000a_0000  no RAM; ACPI tables from 0x000e_0000, reset vector at 0x000f_fff0
//! 0x0010_0000  RAM: kernel where its ELF headers say (Linux: 16 MiB); initrd at the top of low RAM
//! 0xc000_0000  no RAM up to 4 GiB: virtio-mmio slots, I/O APIC, local APICs, KVM's own pages
//! 0x1_0000_0000  RAM beyond 3 GiB
//! ```
//! All addresses are fixed, so that the tables which describe them can be measured before a VM exists.

use crate::{MemoryMib, VolumeSlots};

pub use boot_manifest::boot_params::E820Type;

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;

/// `struct boot_params` ("zero page") of the Linux boot protocol.
pub const ZERO_PAGE: u64 = 0x7000;
/// The GDT that the 64-bit boot protocol asks for (`__BOOT_CS` 0x10, `__BOOT_DS` 0x18).
pub const GDT: u64 = 0x8000;
/// Page map level 4.
pub const PML4: u64 = 0x9000;
/// Page directory pointer table.
pub const PDPT: u64 = 0xa000;
/// Page directory: identity-maps the first GiB with 2 MiB pages.
pub const PAGE_DIRECTORY: u64 = 0xb000;
/// Kernel command line, NUL-terminated.
pub const CMDLINE: u64 = 0xc000;
/// Longest command line with its NUL: `COMMAND_LINE_SIZE` of x86 Linux.
pub const CMDLINE_MAX_BYTES: usize = boot_manifest::launch_area::CMDLINE_MAX_BYTES;
/// `setup_data` node with the boot manifest (measured).
pub const SETUP_DATA_MANIFEST_NODE: u64 = 0xd000;
/// `setup_data` node with the host page (not measured).
pub const SETUP_DATA_HOST_PAGE_NODE: u64 = 0xe000;

/// End of conventional memory; video memory and ROMs of a PC would follow.
pub const LOW_RAM_END: u64 = 0xa_0000;
/// ACPI tables, RSDP first, outside RAM so that nothing can be allocated over them.
pub const ACPI_TABLES: u64 = 0xe_0000;
/// Real-mode reset vector; its code writes the reset register.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// First byte above the ACPI area; RAM continues here.
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// Start of the MMIO hole, for devices.
pub const MMIO_HOLE_START: u64 = 0xc000_0000;
/// End of the MMIO hole: 4 GiB, where RAM continues.
pub const MMIO_HOLE_END: u64 = 0x1_0000_0000;

/// First virtio-mmio slot.
pub const VIRTIO_BASE: u64 = 0xd000_0000;
/// Size of a slot and distance between slots.
pub const VIRTIO_SLOT_BYTES: u64 = 0x1000;
/// Number of slots in a VM without volume slots; Linux probes each once at boot.
pub const VIRTIO_SLOTS: u32 = 8;
/// Number of slots in a VM with volume slots, however many.
pub const VIRTIO_SLOTS_WITH_VOLUMES: u32 = VirtioSlot::VOLUMES[VolumeSlots::MAX as usize - 1] as u32 + 1;
/// GSI of slot 0; slot `n` has this plus `n`.
pub const VIRTIO_FIRST_GSI: u32 = 5;

/// I/O APIC registers (fixed in KVM's in-kernel model).
pub const IO_APIC: u32 = 0xfec0_0000;
/// Local APIC registers.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Input pins of KVM's I/O APIC.
pub const IO_APIC_PINS: u32 = 24;
/// Three pages KVM needs on Intel hosts for real mode (`KVM_SET_TSS_ADDR`).
pub const KVM_TSS: u64 = 0xfffb_d000;

/// First port of the 16550 serial console.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Ports of a 16550.
pub const SERIAL_PORTS: u16 = 8;
/// Interrupt line of the serial console.
pub const SERIAL_GSI: u32 = 4;
/// ACPI sleep control register (ACPI 6.5, 4.8.3.7).
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// ACPI sleep status register.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// ACPI reset register (ACPI 6.5, 4.8.3.6).
pub const RESET_PORT: u16 = 0x602;
/// Ports of the power device: the three registers above.
pub const POWER_PORTS: u16 = 3;
/// Value that resets when written to the reset register.
pub const RESET_VALUE: u8 = 1;
/// `SLP_TYP` of S5 (soft off), as `\_S5` in the DSDT says.
pub const SLEEP_TYPE_S5: u8 = 5;

/// The device of a virtio-mmio slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VirtioSlot {
    /// The growable read-only layer disk.
    Layers = 0,
    /// The scratch disk.
    Scratch = 1,
    /// The socket device.
    Vsock = 2,
    /// The entropy device.
    Rng = 3,
    /// The disk with the configuration of registries.
    Registries = 4,
    /// The network device.
    Network = 5,
    /// The first volume slot.
    Volume0 = 6,
    /// The second.
    Volume1 = 7,
    /// The third.
    Volume2 = 8,
    /// The fourth.
    Volume3 = 9,
}

impl VirtioSlot {
    /// Those of volumes, in the order of their numbers.
    pub const VOLUMES: [Self; VolumeSlots::MAX as usize] = [Self::Volume0, Self::Volume1, Self::Volume2, Self::Volume3];

    /// First address of the slot's registers.
    pub fn base(self) -> u64 {
        slot_base(self as u32)
    }

    /// The slot's interrupt line.
    pub fn gsi(self) -> u32 {
        VIRTIO_FIRST_GSI + self as u32
    }
}

/// How many slots a VM with this many for volumes has.
pub fn virtio_slots(volumes: VolumeSlots) -> u32 {
    if volumes == VolumeSlots::NONE {
        VIRTIO_SLOTS
    } else {
        VIRTIO_SLOTS_WITH_VOLUMES
    }
}

/// First address of slot `n`, `n` below [`virtio_slots`].
pub const fn slot_base(n: u32) -> u64 {
    VIRTIO_BASE + n as u64 * VIRTIO_SLOT_BYTES
}

/// A range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpaRange {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

impl GpaRange {
    /// First address after the range.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Whether `other` lies within this range.
    pub fn contains(self, other: Self) -> bool {
        other.start >= self.start && other.start.checked_add(other.length).is_some_and(|end| end <= self.end())
    }
}

/// The ranges of RAM: one below the device hole, and one above it when there is more.
pub fn ram_ranges(memory: MemoryMib) -> Vec<GpaRange> {
    let bytes = memory.bytes();
    let low = bytes.min(MMIO_HOLE_START);
    let mut ranges = vec![GpaRange { start: 0, length: low }];
    if bytes > low {
        ranges.push(GpaRange {
            start: MMIO_HOLE_END,
            length: bytes - low,
        });
    }
    ranges
}

/// The E820 map: RAM, without the reserved range below 1 MiB that holds the ACPI tables.
pub fn e820(memory: MemoryMib) -> Vec<(GpaRange, E820Type)> {
    let mut map = vec![
        (
            GpaRange {
                start: 0,
                length: LOW_RAM_END,
            },
            E820Type::Ram,
        ),
        (
            GpaRange {
                start: LOW_RAM_END,
                length: HIGH_MEMORY - LOW_RAM_END,
            },
            E820Type::Reserved,
        ),
    ];
    for range in ram_ranges(memory) {
        let start = range.start.max(HIGH_MEMORY);
        map.push((
            GpaRange {
                start,
                length: range.end() - start,
            },
            E820Type::Ram,
        ));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mib(n: u32) -> MemoryMib {
        MemoryMib::try_from(n).unwrap()
    }

    #[test]
    fn memory_is_split_around_the_device_hole() {
        let range = |start, length| GpaRange { start, length };
        assert_eq!(ram_ranges(mib(64)), [range(0, 64 << 20)]);
        assert_eq!(ram_ranges(mib(3072)), [range(0, 3 << 30)]);
        assert_eq!(ram_ranges(mib(3073)), [range(0, 3 << 30), range(4 << 30, 1 << 20)]);
        assert_eq!(ram_ranges(mib(8192)), [range(0, 3 << 30), range(4 << 30, 5 << 30)]);
    }

    proptest! {
        #[test]
        fn the_map_covers_all_memory_once_and_no_device(n in 64u32..=1 << 20) {
            let map = e820(mib(n));
            let total: u64 = map.iter().map(|(r, _)| r.length).sum();
            prop_assert_eq!(total, u64::from(n) << 20);
            for pair in map.windows(2) {
                prop_assert!(pair[0].0.end() <= pair[1].0.start);
            }
            for (range, kind) in map {
                prop_assert!(range.end() <= MMIO_HOLE_START || range.start >= MMIO_HOLE_END);
                if kind == E820Type::Ram {
                    prop_assert!(range.end() <= ACPI_TABLES || range.start > ACPI_TABLES);
                }
            }
        }
    }

    #[test]
    fn interrupt_lines_fit_the_io_apic() {
        const { assert!(VIRTIO_FIRST_GSI + VIRTIO_SLOTS_WITH_VOLUMES <= IO_APIC_PINS && SERIAL_GSI < VIRTIO_FIRST_GSI) };
        const { assert!(slot_base(VIRTIO_SLOTS_WITH_VOLUMES) <= IO_APIC as u64) };
        const { assert!(VIRTIO_SLOTS <= VIRTIO_SLOTS_WITH_VOLUMES) };
        assert_eq!((VirtioSlot::Rng.base(), VirtioSlot::Rng.gsi()), (0xd000_3000, 8));
    }
}
