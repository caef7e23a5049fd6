//! The ACPI tables. They depend only on the number of vCPUs and whether there are volume slots, so that their measurement is predictable.
//!
//! Hardware-reduced ACPI (ACPI 6.5, 3.11.1): no PM timer, no legacy interrupt controllers, no CMOS clock to probe.
//! The DSDT always declares every virtio-mmio slot; an empty one has device ID 0, which Linux ignores.

use crate::{
    Vcpus, VolumeSlots,
    layout::{
        IO_APIC, LOCAL_APIC, RESET_PORT, RESET_VALUE, SERIAL_GSI, SERIAL_PORT, SERIAL_PORTS, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT,
        SLEEP_TYPE_S5, VIRTIO_FIRST_GSI, VIRTIO_SLOT_BYTES, slot_base, virtio_slots,
    },
};
use acpi_tables::{
    Aml,
    aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope},
    fadt::{FADTBuilder, Flags},
    gas::{AccessSize, AddressSpace, GAS},
    madt::{EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic},
    rsdp::Rsdp,
    sdt::Sdt,
    xsdt::XSDT,
};

const OEM: [u8; 6] = *b"CASEMT";
const OEM_TABLE: [u8; 8] = *b"CASEMATE";
const OEM_REVISION: u32 = 1;
/// Alignment of each table; the RSDP requires it (ACPI 6.5, 5.2.5.1).
const TABLE_ALIGN: usize = 16;
/// `IAPC_BOOT_ARCH` (ACPI 6.5, table 5.10): no VGA, no MSI, no ASPM, no CMOS clock; legacy devices and 8042 absent.
const IAPC_BOOT_ARCH: u16 = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5;

/// The bytes at guest address `start`, which begin with the RSDP.
pub fn tables(vcpus: Vcpus, volumes: VolumeSlots, start: u64) -> Vec<u8> {
    let mut area = Area {
        start,
        bytes: vec![0; Rsdp::len()],
    };
    let dsdt = area.append(dsdt(virtio_slots(volumes)).as_slice());
    let fadt = area.append(&aml_bytes(&fadt(dsdt)));
    let madt = area.append(&aml_bytes(&madt(vcpus)));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = area.append(&aml_bytes(&xsdt));
    area.bytes[..Rsdp::len()].copy_from_slice(&aml_bytes(&Rsdp::new(OEM, xsdt)));
    area.bytes
}

struct Area {
    start: u64,
    bytes: Vec<u8>,
}

impl Area {
    /// Appends a table and returns its guest address.
    fn append(&mut self, table: &[u8]) -> u64 {
        let at = self.bytes.len().next_multiple_of(TABLE_ALIGN);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(table);
        self.start + at as u64
    }
}

fn aml_bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn dsdt(slots: u32) -> Sdt {
    let mut system_bus = device(
        "COM1",
        &EISAName::new("PNP0501"),
        0,
        &[
            &IO::new(SERIAL_PORT, SERIAL_PORT, 1, SERIAL_PORTS as u8),
            &edge_triggered(SERIAL_GSI),
        ],
    );
    for n in 0..slots {
        system_bus.extend(device(
            &format!("VR{n:02}"),
            &"LNRO0005",
            n,
            &[
                &Memory32Fixed::new(true, slot_base(n) as u32, VIRTIO_SLOT_BYTES as u32),
                &edge_triggered(VIRTIO_FIRST_GSI + n),
            ],
        ));
    }
    let mut dsdt = Sdt::new(*b"DSDT", 36, 6, OEM, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&Scope::raw("\\_SB_".into(), system_bus));
    dsdt.append_slice(&aml_bytes(&Name::new("\\_S5_".into(), &Package::new(vec![&SLEEP_TYPE_S5]))));
    dsdt
}

/// One device with `_HID`, `_UID` and `_CRS`.
fn device(name: &str, hid: &dyn Aml, uid: u32, resources: &[&dyn Aml]) -> Vec<u8> {
    aml_bytes(&Device::new(
        name.into(),
        vec![
            &Name::new("_HID".into(), hid),
            &Name::new("_UID".into(), &uid),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources.to_vec())),
        ],
    ))
}

/// Edge-triggered, active high, not shared: what an irqfd delivers.
fn edge_triggered(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

fn fadt(dsdt: u64) -> impl Aml {
    let port = |port: u16| GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, port.into());
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = IAPC_BOOT_ARCH.into();
    fadt.reset_reg = port(RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = port(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = port(SLEEP_STATUS_PORT);
    fadt.finalize()
}

fn madt(vcpus: Vcpus) -> MADT {
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, LocalInterruptController::Address(LOCAL_APIC));
    for id in 0..vcpus.get() {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(vcpus.get(), IO_APIC, 0));
    madt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{ACPI_TABLES, PAGE_BYTES};

    fn for_vcpus(n: u8) -> Vec<u8> {
        with_volumes(n, 0)
    }

    fn with_volumes(vcpus: u8, slots: u8) -> Vec<u8> {
        tables(vcpus.try_into().unwrap(), slots.try_into().unwrap(), ACPI_TABLES)
    }

    fn u32_at(b: &[u8], at: usize) -> usize {
        u32::from_le_bytes(b[at..at + 4].try_into().unwrap()) as usize
    }

    fn u64_at(b: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
    }

    fn sum(b: &[u8]) -> u8 {
        b.iter().fold(0, |s, x| s.wrapping_add(*x))
    }

    /// The table at a guest address; checks its checksum.
    fn table(area: &[u8], gpa: u64) -> &[u8] {
        let at = (gpa - ACPI_TABLES) as usize;
        let table = &area[at..at + u32_at(area, at + 4)];
        assert_eq!(sum(table), 0, "checksum of {:?}", str::from_utf8(&table[..4]));
        table
    }

    #[test]
    fn every_table_is_reachable_from_the_rsdp() {
        let area = for_vcpus(3);
        assert_eq!(&area[..8], b"RSD PTR ");
        assert_eq!((sum(&area[..20]), sum(&area[..36])), (0, 0));
        let xsdt = table(&area, u64_at(&area, 24));
        let (fadt, madt) = (table(&area, u64_at(xsdt, 36)), table(&area, u64_at(xsdt, 44)));
        assert_eq!((&fadt[..4], &madt[..4]), (&b"FACP"[..], &b"APIC"[..]));
        assert_eq!(&table(&area, u64_at(fadt, 140))[..4], b"DSDT");
        assert_eq!(madt.len(), 44 + 3 * 8 + 12);
        assert_eq!(
            u32_at(fadt, 112) & (1 << 20 | 1 << 10),
            1 << 20 | 1 << 10,
            "hardware-reduced, with reset register"
        );
        assert_eq!(fadt[128], RESET_VALUE);
        assert_eq!((u64_at(fadt, 120), u64_at(fadt, 248), u64_at(fadt, 260)), (0x602, 0x600, 0x601));
    }

    #[test]
    fn tables_depend_on_the_number_of_vcpus_and_the_presence_of_volume_slots_and_fit_one_page() {
        assert_eq!(for_vcpus(2), for_vcpus(2));
        assert_ne!(for_vcpus(2), for_vcpus(3));
        let slots = |area: &[u8]| area.windows(3).filter(|name| name.starts_with(b"VR0")).count();
        assert_eq!([0, 1, 4].map(|n| slots(&with_volumes(2, n))), [8, 10, 10]);
        assert_eq!(with_volumes(2, 1), with_volumes(2, 4));
        assert!(with_volumes(64, 4).len() as u64 <= PAGE_BYTES);
    }
}
