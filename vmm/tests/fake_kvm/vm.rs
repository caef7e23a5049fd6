//! The ioctls but for `KVM_RUN`: records each, and does what a launch needs of it.

use super::{Behaviour, descriptor, map, record};
use crate::model::Psp;
use kvm_bindings::{
    KVM_CAP_EXIT_HYPERCALL, KVM_CAP_MEMORY_ATTRIBUTES, KVM_CAP_VM_TYPES, kvm_cpuid_entry2, kvm_cpuid2, kvm_create_guest_memfd,
    kvm_device_attr, kvm_memory_attributes, kvm_regs, kvm_run, kvm_segment, kvm_sev_cmd, kvm_sev_snp_launch_finish, kvm_sregs,
    kvm_userspace_memory_region2,
};
use sha2::{Digest, Sha256};
use snp_launch::{IdFiles, Platform, Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{c_int, c_ulong, c_void},
    fmt::Write,
};
use vm_spec::{Registers, SaveArea, Segment, Table};

pub const KVM_RUN: c_ulong = 0xae80;
const RUN_BYTES: usize = 0x3000;
const PAGE: u64 = 4096;

/// Number and name of what is recorded (Linux `include/uapi/linux/kvm.h`); the size of a structure is part of its number.
const NAMES: [(c_ulong, &str); 19] = [
    (0xae01, "KVM_CREATE_VM"),
    (0x4068_aea3, "KVM_ENABLE_CAP"),
    (0xc040_aed4, "KVM_CREATE_GUEST_MEMFD"),
    (0x4020_ae46, "KVM_SET_USER_MEMORY_REGION"),
    (0x40a0_ae49, "KVM_SET_USER_MEMORY_REGION2"),
    (0xae47, "KVM_SET_TSS_ADDR"),
    (0xae60, "KVM_CREATE_IRQCHIP"),
    (0x4008_ae6a, "KVM_SET_GSI_ROUTING"),
    (0x4020_ae76, "KVM_IRQFD"),
    (0x4040_ae79, "KVM_IOEVENTFD"),
    (0xae41, "KVM_CREATE_VCPU"),
    (0x4008_ae90, "KVM_SET_CPUID2"),
    (0x4008_ae89, "KVM_SET_MSRS"),
    (0x4138_ae84, "KVM_SET_SREGS"),
    (0x4090_ae82, "KVM_SET_REGS"),
    (0x4020_aed2, "KVM_SET_MEMORY_ATTRIBUTES"),
    (0xc080_aed2, "KVM_SET_MEMORY_ATTRIBUTES2"),
    (0xc008_aeba, "KVM_MEMORY_ENCRYPT_OP"),
    (0xaece, "KVM_GET_STATS_FD"),
];

/// A slot with its two views.
#[derive(Clone, Copy)]
pub struct Slot {
    pub gpa: u64,
    pub bytes: u64,
    pub shared: *mut u8,
    pub private: Option<*mut u8>,
    fd: c_int,
}

/// State of one vCPU.
pub struct Vcpu {
    pub id: usize,
    pub run: *mut kvm_run,
    sregs: kvm_sregs,
    regs: kvm_regs,
}

pub struct Kernel {
    pub behaviour: Behaviour,
    pub slots: Vec<Slot>,
    pub vcpus: BTreeMap<c_int, Vcpu>,
    pub step: usize,
    guest_memfds: BTreeMap<c_int, *mut u8>,
    private_pages: BTreeSet<u64>,
    psp: Psp,
}

// SAFETY: the pointers are to mappings that are never unmapped; whoever uses them holds the lock.
unsafe impl Send for Kernel {}

/// Calls the kernel answers with what it likes: they change nothing.
fn is_question(request: c_ulong) -> bool {
    matches!(request & 0xffff, 0xae00 | 0xae03..=0xae05 | 0xae81 | 0xae83 | 0xaee2 | 0xaead)
}

impl Kernel {
    pub fn new(behaviour: Behaviour) -> Self {
        Self {
            psp: Psp::new(Vec::new(), behaviour.psp),
            behaviour,
            slots: Vec::new(),
            vcpus: BTreeMap::new(),
            step: 0,
            guest_memfds: BTreeMap::new(),
            private_pages: BTreeSet::new(),
        }
    }

    /// The view of the guest's memory at `gpa`.
    pub fn slot(&self, gpa: u64) -> Option<(Slot, usize)> {
        let slot = self.slots.iter().find(|slot| slot.gpa <= gpa && gpa < slot.gpa + slot.bytes)?;
        Some((*slot, (gpa - slot.gpa) as usize))
    }

    /// # Safety
    /// `argument` is what the caller of the ioctl gave.
    pub unsafe fn ioctl(&mut self, fd: c_int, request: c_ulong, argument: *mut c_void) -> Result<c_int, c_int> {
        let bytes = (request >> 16 & 0x3fff) as usize;
        let name = NAMES.iter().find(|(number, _)| *number == request).map(|(_, name)| *name);
        // Of the two without an argument, a register has a value that nobody gave.
        let value = if matches!(request, 0xae60 | 0xaece) {
            0
        } else {
            argument.addr() as u64
        };
        // SAFETY: the size is part of the number.
        let mut structure = unsafe {
            if bytes > 0 {
                std::slice::from_raw_parts(argument.cast::<u8>(), bytes).to_vec()
            } else {
                value.to_le_bytes().to_vec()
            }
        };
        if !is_question(request) && request != 0xc008_aeba {
            let hidden = match request {
                0x4020_ae46 => 24..32,
                0x40a0_ae49 => 24..32,
                0x4020_ae76 => 0..4,
                0x4040_ae79 => 20..24,
                _ => 0..0,
            };
            structure[hidden].fill(0);
            if request == 0x40a0_ae49 {
                structure[40..44].fill(0);
            }
            let Some(name) = name else { panic!("unknown ioctl {request:#x}") };
            line(name, &structure);
        }
        // SAFETY: as above.
        unsafe {
            match request {
                0xae00 => Ok(12),
                0xae01 => Ok(descriptor()),
                0xae03 => Ok(self.capability(value as u32)),
                0xae04 => Ok(RUN_BYTES as c_int),
                0xc008_ae05 => self.supported_cpuid(argument.cast()),
                0x4018_aee2 => self.attribute(&*argument.cast()),
                0xae41 => Ok(self.create_vcpu(value as usize)),
                0x4008_ae90 => cpuid(argument.cast()),
                // The number of MSRs that were set.
                0x4008_ae89 => Ok(*argument.cast::<c_int>()),
                0x8138_ae83 => {
                    *argument.cast() = kvm_sregs::default();
                    Ok(0)
                }
                0x4138_ae84 => {
                    self.vcpus.get_mut(&fd).ok_or(libc::EBADF)?.sregs = *argument.cast();
                    Ok(0)
                }
                0x4090_ae82 => {
                    self.vcpus.get_mut(&fd).ok_or(libc::EBADF)?.regs = *argument.cast();
                    Ok(0)
                }
                0xc040_aed4 => self.create_guest_memfd(&*argument.cast()),
                0x4020_ae46 => self.map_slot(argument.cast(), false),
                0x40a0_ae49 => self.map_slot(argument.cast(), true),
                0x4020_aed2 => self.set_attributes(&*argument.cast()),
                0xc080_aed2 => self.set_attributes2(fd, argument.cast()),
                0xc008_aeba => self.encrypt_op(&mut *argument.cast()),
                0xaece => Ok(descriptor()),
                // KVM_KVMCLOCK_CTRL before the guest has a clock; KVM_GET_REGS of an encrypted guest.
                0xaead | 0x8090_ae81 => Err(libc::EINVAL),
                _ => Ok(0),
            }
        }
    }

    fn capability(&self, capability: u32) -> c_int {
        match capability {
            KVM_CAP_VM_TYPES => 1 | c_int::from(self.behaviour.snp) << 4,
            KVM_CAP_EXIT_HYPERCALL => 1 << 12,
            KVM_CAP_MEMORY_ATTRIBUTES => 8,
            _ => 1,
        }
    }

    unsafe fn attribute(&self, request: &kvm_device_attr) -> Result<c_int, c_int> {
        let value = match (request.group, request.attr) {
            (1, 1) => self.behaviour.policy_bits,
            (1, 2) => self.behaviour.certificates.then_some(1),
            _ => None,
        };
        // SAFETY: the caller's address of 64 bits.
        unsafe { *(request.addr as *mut u64) = value.ok_or(libc::ENXIO)? };
        Ok(0)
    }

    unsafe fn supported_cpuid(&self, answer: *mut kvm_cpuid2) -> Result<c_int, c_int> {
        let leaf = |function, [eax, ebx, ecx, edx]: [u32; 4]| kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        };
        let leaves = [
            leaf(
                0,
                [
                    0x10,
                    u32::from_le_bytes(*b"Auth"),
                    u32::from_le_bytes(*b"cAMD"),
                    u32::from_le_bytes(*b"enti"),
                ],
            ),
            leaf(1, [0x00a1_0f11, 0x0800, 0x8020_0000, 0x0f8b_fbff]),
            leaf(0x8000_0000, [0x8000_0021, 0, 0, 0]),
            leaf(0x8000_0008, [0x3030, 0, 0, 0]),
            leaf(0x8000_001f, [u32::MAX, 0xffff_ffc0 | self.behaviour.encryption_bit, 509, 7]),
        ];
        // SAFETY: the caller has room for KVM_MAX_CPUID_ENTRIES.
        unsafe {
            (*answer).nent = leaves.len() as u32;
            std::ptr::copy_nonoverlapping(leaves.as_ptr(), answer.add(1).cast(), leaves.len());
        }
        Ok(0)
    }

    fn create_vcpu(&mut self, id: usize) -> c_int {
        let fd = descriptor();
        let vcpu = Vcpu {
            id,
            run: map(fd, RUN_BYTES).cast(),
            sregs: kvm_sregs::default(),
            regs: kvm_regs::default(),
        };
        self.vcpus.insert(fd, vcpu);
        fd
    }

    fn create_guest_memfd(&mut self, request: &kvm_create_guest_memfd) -> Result<c_int, c_int> {
        if request.flags & !u64::from(self.behaviour.in_place) != 0 {
            return Err(libc::EINVAL);
        }
        let fd = descriptor();
        self.guest_memfds.insert(fd, map(fd, request.size as usize));
        Ok(fd)
    }

    unsafe fn map_slot(&mut self, region: *const kvm_userspace_memory_region2, two_views: bool) -> Result<c_int, c_int> {
        // SAFETY: the first fields are those of the older structure.
        let (gpa, bytes, shared, readonly) = unsafe {
            (
                (*region).guest_phys_addr,
                (*region).memory_size,
                (*region).userspace_addr as *mut u8,
                (*region).flags & 2 != 0,
            )
        };
        if readonly {
            return Err(libc::EINVAL);
        }
        let mut fd = -1;
        if two_views {
            // SAFETY: the longer structure.
            fd = unsafe { (*region).guest_memfd.cast_signed() };
        }
        let private = self.guest_memfds.get(&fd).copied();
        self.slots.push(Slot {
            gpa,
            bytes,
            shared,
            private,
            fd,
        });
        Ok(0)
    }

    fn mark(&mut self, pages: std::ops::Range<u64>, attributes: u64) {
        for page in pages {
            if attributes == 8 {
                self.private_pages.insert(page)
            } else {
                self.private_pages.remove(&page)
            };
        }
    }

    fn set_attributes(&mut self, request: &kvm_memory_attributes) -> Result<c_int, c_int> {
        if self.behaviour.in_place {
            return Err(libc::ENOTTY);
        }
        let first = request.address / PAGE;
        self.mark(first..first + request.size / PAGE, request.attributes);
        Ok(0)
    }

    unsafe fn set_attributes2(&mut self, fd: c_int, request: *const u64) -> Result<c_int, c_int> {
        if !self.behaviour.in_place {
            return Err(libc::ENOTTY);
        }
        // SAFETY: offset, size, attributes, flags and more.
        let [offset, size, attributes] = unsafe { [*request, *request.add(1), *request.add(2)] };
        if let Some(slot) = self.slots.iter().find(|slot| slot.fd == fd) {
            let first = (slot.gpa + offset) / PAGE;
            self.mark(first..first + size / PAGE, attributes);
        }
        Ok(0)
    }

    unsafe fn encrypt_op(&mut self, command: &mut kvm_sev_cmd) -> Result<c_int, c_int> {
        // SAFETY: the structure of the command.
        let done = unsafe {
            match command.id {
                22 => {
                    sev_line("KVM_SEV_INIT2", command, 48, 0..0);
                    self.psp.init(&mut *(command.data as *mut _))
                }
                100 => {
                    sev_line("KVM_SEV_SNP_LAUNCH_START", command, 64, 0..0);
                    self.psp.save_areas = self.save_areas();
                    self.psp.start(&mut *(command.data as *mut _))
                }
                101 => self.update(command),
                102 => self.finish(command),
                103 => {
                    line("KVM_SEV_SNP_ENABLE_REQ_CERTS", &[]);
                    self.psp.request_certificates()
                }
                other => panic!("unknown command {other}"),
            }
        };
        done.map(|()| 0).map_err(|failure| {
            command.error = failure.firmware.map_or(u32::MAX, |status| status.0);
            failure.errno
        })
    }

    unsafe fn update(&mut self, command: &kvm_sev_cmd) -> Result<(), snp_launch::Failure> {
        // SAFETY: the structure of the command, whose source is a page.
        unsafe {
            let update: &mut kvm_bindings::kvm_sev_snp_launch_update = &mut *(command.data as *mut _);
            assert!(update.uaddr != 0 && update.uaddr.is_multiple_of(PAGE), "sources lie at a page");
            assert!(self.private_pages.contains(&update.gfn_start), "only a private page is launched");
            let source = &mut *(update.uaddr as *mut Source);
            let mut text = Line::of("KVM_SEV_SNP_LAUNCH_UPDATE", command, 64, 8..16);
            if update.type_ == 1 {
                let _ = write!(text.0, " of {}", hex(&Sha256::digest(source.0)[..8]));
            }
            record(&text.0);
            self.psp.update(update, source)
        }
    }

    unsafe fn finish(&mut self, command: &kvm_sev_cmd) -> Result<(), snp_launch::Failure> {
        // SAFETY: the structure of the command, with the files that it says it has.
        unsafe {
            sev_line("KVM_SEV_SNP_LAUNCH_FINISH", command, 88, 0..16);
            let finish: &mut kvm_sev_snp_launch_finish = &mut *(command.data as *mut _);
            let id = (finish.id_block_en == 1).then(|| IdFiles {
                block: &*(finish.id_block_uaddr as *const _),
                authentication: &*(finish.id_auth_uaddr as *const _),
                has_author_key: finish.auth_key_en == 1,
            });
            self.psp.finish(finish, id)?;
        }
        record(&format!("digest {}", hex(&self.psp.digest)));
        Ok(())
    }

    /// What KVM makes of the vCPUs' registers.
    fn save_areas(&self) -> Vec<[u8; 4096]> {
        let mut vcpus: Vec<_> = self.vcpus.values().collect();
        vcpus.sort_by_key(|vcpu| vcpu.id);
        vcpus
            .iter()
            .map(|vcpu| *SaveArea::by_kvm(&registers(&vcpu.sregs, &vcpu.regs), 0).to_page())
            .collect()
    }
}

/// The leaf of SEV among those that a vCPU is given.
unsafe fn cpuid(given: *const kvm_cpuid2) -> Result<c_int, c_int> {
    // SAFETY: the structure says how many entries follow.
    let leaves = unsafe { std::slice::from_raw_parts(given.add(1).cast::<kvm_cpuid_entry2>(), (*given).nent as usize) };
    for leaf in leaves.iter().filter(|leaf| leaf.function == 0x8000_001f) {
        record(&format!(
            "leaf 0x8000001f {:x} {:x} {:x} {:x}",
            leaf.eax, leaf.ebx, leaf.ecx, leaf.edx
        ));
    }
    Ok(0)
}

/// As `svm_set_segment` fills a save area.
fn segment(set: &kvm_segment) -> Segment {
    let bits = [
        (set.type_, 0),
        (set.s, 4),
        (set.dpl, 5),
        (set.present, 7),
        (set.avl, 8),
        (set.l, 9),
        (set.db, 10),
        (set.g, 11),
    ];
    Segment {
        selector: set.selector,
        attributes: bits.iter().map(|(value, shift)| u16::from(*value) << shift).sum(),
        limit: set.limit,
        base: set.base,
    }
}

fn registers(sregs: &kvm_sregs, regs: &kvm_regs) -> Registers {
    let table = |table: &kvm_bindings::kvm_dtable| Table {
        limit: table.limit,
        base: table.base,
    };
    assert_eq!((regs.rax, regs.rbx, regs.rcx, regs.rdi, regs.rsp), (0, 0, 0, 0, 0));
    Registers {
        es: segment(&sregs.es),
        cs: segment(&sregs.cs),
        ss: segment(&sregs.ss),
        ds: segment(&sregs.ds),
        fs: segment(&sregs.fs),
        gs: segment(&sregs.gs),
        ldtr: segment(&sregs.ldt),
        tr: segment(&sregs.tr),
        gdtr: table(&sregs.gdt),
        idtr: table(&sregs.idt),
        cr0: sregs.cr0,
        cr3: sregs.cr3,
        cr4: sregs.cr4,
        efer: sregs.efer,
        rflags: regs.rflags,
        rip: regs.rip,
        rsi: regs.rsi,
        rdx: regs.rdx,
    }
}

/// A line of the record.
struct Line(String);

impl Line {
    /// Of a structure: its length, and its bytes up to the last that is not zero.
    fn new(name: &str, structure: &[u8]) -> Self {
        let end = structure.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Self(format!("{name} {}: {}", structure.len(), hex(&structure[..end])))
    }

    /// Of the structure of a command of SEV, without addresses.
    unsafe fn of(name: &str, command: &kvm_sev_cmd, bytes: usize, hidden: std::ops::Range<usize>) -> Self {
        // SAFETY: the command's structure has this size.
        let mut structure = unsafe { std::slice::from_raw_parts(command.data as *const u8, bytes) }.to_vec();
        structure[hidden].fill(0);
        Self::new(name, &structure)
    }
}

fn line(name: &str, structure: &[u8]) {
    record(&Line::new(name, structure).0);
}

unsafe fn sev_line(name: &str, command: &kvm_sev_cmd, bytes: usize, hidden: std::ops::Range<usize>) {
    // SAFETY: as of `Line::of`.
    record(&unsafe { Line::of(name, command, bytes, hidden) }.0);
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
