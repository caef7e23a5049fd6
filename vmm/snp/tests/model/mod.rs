//! The secure processor, the RMP and KVM's checks as far as a launch meets them: states of guest and pages, and the digest, folded
//! here from the specification and not by the product's code.

use kvm_bindings::{kvm_sev_init, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start, kvm_sev_snp_launch_update};
use sha2::{Digest, Sha384};
use snp_launch::{Failure, IdFiles, Platform, Source, Status};
use std::collections::BTreeSet;

const INVALID_GUEST_STATE: u32 = 0x02;
const POLICY_FAILURE: u32 = 0x07;
const BAD_MEASUREMENT: u32 = 0x0b;
const INVALID_PAGE_STATE: u32 = 0x1a;
const NORMAL: u8 = 1;
const VMSA: u8 = 2;
const ZERO: u8 = 3;
const CPUID: u8 = 6;
/// KVM's address of every save area.
const SAVE_AREA: u64 = 0xffff_ffff_f000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    None,
    Initialised,
    Launching,
    Running,
}

/// What the host does beside its duty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    /// Answers EAGAIN this many times to each page.
    pub busy: u32,
    /// Command, counted from 0, that fails with this failure.
    pub fails: Option<(usize, Failure)>,
    /// Leaves bytes of a page.
    pub partial: bool,
    /// Register of the first leaf, and bits of it, that the firmware clears.
    pub corrects: Option<u8>,
    /// Corrects again what it has corrected.
    pub never_content: bool,
}

#[derive(Debug)]
pub struct Psp {
    pub guest: Guest,
    pub digest: [u8; 48],
    pub host_data: Option<[u8; 32]>,
    /// Bytes of each command's structure without addresses, in order.
    pub commands: Vec<(&'static str, Vec<u8>)>,
    rmp: BTreeSet<u64>,
    /// What KVM makes of the vCPUs' registers.
    pub save_areas: Vec<[u8; 4096]>,
    host: Host,
    busy: u32,
    count: usize,
}

fn firmware(status: u32) -> Failure {
    Failure {
        errno: libc::EIO,
        firmware: Some(Status(status)),
    }
}

fn kvm(errno: i32) -> Failure {
    Failure { errno, firmware: None }
}

impl Psp {
    /// `save_areas`: what KVM makes of the vCPUs' registers.
    pub fn new(save_areas: Vec<[u8; 4096]>, host: Host) -> Self {
        Self {
            guest: Guest::None,
            digest: [0; 48],
            host_data: None,
            commands: Vec::new(),
            rmp: BTreeSet::new(),
            save_areas,
            host,
            busy: host.busy,
            count: 0,
        }
    }

    fn command(&mut self, name: &'static str, wanted: Guest, bytes: Vec<u8>) -> Result<(), Failure> {
        self.commands.push((name, bytes));
        let number = self.count;
        self.count += 1;
        match self.host.fails {
            Some((n, failure)) if n == number => Err(failure),
            _ if self.guest != wanted => Err(firmware(INVALID_GUEST_STATE)),
            _ => Ok(()),
        }
    }

    /// PAGE_INFO (SNP firmware ABI, 8.17.2, table 67).
    fn fold(&mut self, kind: u8, gpa: u64, contents: Option<&[u8]>) {
        let mut info = Vec::with_capacity(0x70);
        info.extend(self.digest);
        info.extend(contents.map_or([0; 48], |bytes| Sha384::digest(bytes).into()));
        info.extend(0x70u16.to_le_bytes());
        info.extend([kind, 0, 0, 0, 0, 0]);
        info.extend(gpa.to_le_bytes());
        assert_eq!(info.len(), 0x70);
        self.digest = Sha384::digest(info).into();
    }
}

/// The bytes of a structure of integers without padding.
fn bytes<T>(structure: &T) -> Vec<u8> {
    // SAFETY: every byte of KVM's structures belongs to an integer field: they name their padding, and bindgen's assertions hold
    // offsets and sizes.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(structure).cast::<u8>(), size_of::<T>()) }.to_vec()
}

impl Platform for Psp {
    fn init(&mut self, init: &mut kvm_sev_init) -> Result<(), Failure> {
        self.command("init", Guest::None, bytes(init))?;
        self.guest = Guest::Initialised;
        Ok(())
    }

    fn request_certificates(&mut self) -> Result<(), Failure> {
        self.command("certificates", Guest::Initialised, Vec::new())
    }

    fn start(&mut self, start: &mut kvm_sev_snp_launch_start) -> Result<(), Failure> {
        self.command("start", Guest::Initialised, bytes(start))?;
        if start.policy & (1 << 17) == 0 {
            return Err(firmware(POLICY_FAILURE));
        }
        self.guest = Guest::Launching;
        Ok(())
    }

    fn update(&mut self, update: &mut kvm_sev_snp_launch_update, source: &mut Source) -> Result<(), Failure> {
        self.command("update", Guest::Launching, bytes(update))?;
        if self.busy > 0 {
            self.busy -= 1;
            return Err(kvm(libc::EAGAIN));
        }
        self.busy = self.host.busy;
        if update.len != 4096 || update.flags != 0 || !matches!(update.type_, NORMAL | ZERO..=CPUID) {
            return Err(kvm(libc::EINVAL));
        }
        let gpa = update.gfn_start * 4096;
        if self.rmp.contains(&gpa) {
            return Err(firmware(INVALID_PAGE_STATE));
        }
        if let (CPUID, Some(bits)) = (update.type_, self.host.corrects)
            && (self.host.never_content || source.0[40] & bits != 0)
        {
            source.0[40] = source.0[40].wrapping_add(1) & !bits;
            return Err(firmware(Status::INVALID_PARAM.0));
        }
        self.rmp.insert(gpa);
        self.fold(update.type_, gpa, (update.type_ == NORMAL).then_some(&source.0));
        update.gfn_start += 1;
        update.len = if self.host.partial { 1 } else { 0 };
        Ok(())
    }

    fn finish(&mut self, finish: &mut kvm_sev_snp_launch_finish, id: Option<IdFiles<'_>>) -> Result<(), Failure> {
        self.command("finish", Guest::Launching, bytes(finish))?;
        for area in std::mem::take(&mut self.save_areas) {
            self.fold(VMSA, SAVE_AREA, Some(&area));
        }
        if id.is_some_and(|id| id.block[..48] != self.digest) {
            return Err(firmware(BAD_MEASUREMENT));
        }
        self.guest = Guest::Running;
        self.host_data = Some(finish.host_data);
        Ok(())
    }
}
