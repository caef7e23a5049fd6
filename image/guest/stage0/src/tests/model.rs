//! A model of the machine: RMP entries of every page, RAM with what a hostile host left in it, staging that changes.

use crate::*;
use boot_manifest::{
    HostPage, LoadMap, STAGED_KERNEL, Segment,
    launch_area::{LAUNCH_AREA_END, STAGE0},
    staged_initrd,
};
use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

pub const RAM_BYTES: u64 = 64 << 20;
pub const KERNEL_AT: u64 = 16 << 20;
const PAGE: u64 = 4096;
const HIGH: u64 = 4 << 30;

/// A kernel file of two segments, and an initramfs.
#[derive(Clone)]
pub struct Files {
    pub kernel: Vec<u8>,
    pub initrd: Vec<u8>,
}

impl Default for Files {
    fn default() -> Self {
        let bytes = |count: u32, seed: u32| (0..count).map(|n| (n.wrapping_mul(seed) >> 3) as u8 | 1).collect::<Vec<_>>();
        let mut kernel = bytes(4096, 77);
        kernel.extend(bytes(5000, 31));
        kernel.resize(4096 + 8192, 0);
        kernel.extend(bytes(700, 13));
        Self {
            kernel,
            initrd: bytes(9000, 91),
        }
    }
}

impl Files {
    pub fn load_map(&self) -> LoadMap {
        LoadMap::new(&self.segments(), KERNEL_AT, self.initrd.len() as u64).unwrap()
    }

    fn segments(&self) -> [Segment; 2] {
        let segment = |address, bytes, memory| Segment { address, bytes, memory };
        [segment(KERNEL_AT, 5000, 5001), segment(KERNEL_AT + (1 << 20), 700, 20_000)]
    }
}

/// What a host does to a guest.
#[derive(Clone, Debug)]
pub enum Attack {
    /// Says that there is another amount of RAM.
    ClaimedRam(u64),
    /// Flips a bit of the staging page.
    StagingPage(usize),
    /// Sets a byte of the staging page.
    StagingByte(usize, u8),
    /// Flips a bit of the staged kernel.
    Kernel(usize),
    /// Flips a bit of the staged initramfs.
    Initrd(usize),
    /// Flips a bit of staging as soon as it was read once: a second read would see it.
    ChangeAfterRead(usize),
    /// Presents a page as valid that stage0 has not validated.
    AlreadyValid(u64),
    /// Has no memory at the page.
    Missing(u64),
}

/// An RMP entry as stage0 can see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Assigned,
    Valid,
    Missing,
}

pub struct Model {
    entries: BTreeMap<u64, Entry>,
    validated: BTreeSet<u64>,
    ram: Vec<u8>,
    ram_bytes: u64,
    staging: Vec<u8>,
    read: Vec<bool>,
    change_after_read: Vec<usize>,
    initrd_at: usize,
    /// Pages of 2 MiB whose number has a bit of these set exist in small pages only.
    pub pieces: u8,
    pub double_reads: usize,
    /// Bytes copied from staging to RAM.
    pub loaded: u64,
}

impl Model {
    pub fn honest(files: &Files) -> Self {
        let host_page = HostPage { host_data: [9; 32] };
        let page = StagingPage {
            ram_bytes: RAM_BYTES,
            host_page,
        };
        let mut staging = page.to_bytes().to_vec();
        staging.extend(&files.kernel);
        let initrd_at = (staged_initrd(&files.load_map()) - STAGING) as usize;
        staging.resize(initrd_at, 0xee);
        staging.extend(&files.initrd);
        Self {
            ram: vec![0xa5; RAM_BYTES as usize],
            read: vec![false; staging.len()],
            staging,
            initrd_at,
            ..Self::of_ram(RAM_BYTES)
        }
    }

    pub fn new(files: &Files, attack: Attack) -> Self {
        let mut model = Self::honest(files);
        model.attack(attack);
        model
    }

    /// Without files; RAM is not backed, but for the first MiB.
    pub fn of_ram(bytes: u64) -> Self {
        let low = bytes.min(3 << 30);
        let pages = (0..low).chain(HIGH..HIGH + (bytes - low)).step_by(PAGE as usize);
        let entry = |page| {
            if (STAGE0..LAUNCH_AREA_END).contains(&page) {
                Entry::Valid
            } else {
                Entry::Assigned
            }
        };
        Self {
            entries: pages.map(|page| (page, entry(page))).collect(),
            validated: BTreeSet::new(),
            ram: vec![0xa5; 1 << 20],
            ram_bytes: bytes,
            staging: Vec::new(),
            read: Vec::new(),
            change_after_read: Vec::new(),
            initrd_at: 0,
            pieces: 0,
            double_reads: 0,
            loaded: 0,
        }
    }

    pub fn attack(&mut self, attack: Attack) {
        let mut flip = |at: usize| {
            if let Some(byte) = self.staging.get_mut(at) {
                *byte ^= 4;
            }
        };
        match attack {
            Attack::ClaimedRam(bytes) => self.staging[16..24].copy_from_slice(&bytes.to_le_bytes()),
            Attack::StagingPage(at) => flip(at),
            Attack::StagingByte(at, value) => self.staging[at] = value,
            Attack::Kernel(at) => flip((STAGED_KERNEL - STAGING) as usize + at),
            Attack::Initrd(at) => flip(self.initrd_at + at),
            Attack::ChangeAfterRead(at) => self.change_after_read.push(at),
            Attack::AlreadyValid(page) => drop(self.entries.insert(page, Entry::Valid)),
            Attack::Missing(page) => drop(self.entries.insert(page, Entry::Missing)),
        }
    }

    /// What must hold when the kernel starts.
    pub fn check(&self, files: &Files, snp: bool) {
        let [first, second] = files.segments();
        let at = |address: u64| &self.ram[address as usize..];
        assert!(at(first.address).starts_with(&files.kernel[4096..9096]));
        assert!(at(second.address).starts_with(&files.kernel[4096 + 8192..]));
        for segment in [first, second] {
            let rest = segment.address + segment.bytes..segment.pages().end;
            assert!(self.ram(rest).iter().all(|byte| *byte == 0), "memory after a segment is zero");
        }
        if snp {
            self.all_is_valid();
        } else {
            assert!(self.validated.is_empty());
        }
    }

    /// Every page is valid: launched ones since the launch, all others by stage0, which was told so once.
    pub fn all_is_valid(&self) {
        for (page, entry) in &self.entries {
            let launched = (STAGE0..LAUNCH_AREA_END).contains(page);
            assert_eq!((*entry, self.validated.contains(page)), (Entry::Valid, !launched), "{page:#x}");
        }
        assert_eq!(self.entries.len() as u64 * PAGE, self.ram_bytes);
    }

    fn staging(&mut self, from: u64, bytes: usize) -> Vec<u8> {
        let from = (from - STAGING) as usize;
        let seen = (from..from + bytes)
            .map(|at| self.staging.get(at).copied().unwrap_or_default())
            .collect();
        for at in from..from + bytes {
            if let Some(read) = self.read.get_mut(at) {
                self.double_reads += usize::from(*read);
                *read = true;
            }
            if self.change_after_read.contains(&at) && at < self.staging.len() {
                self.staging[at] ^= 0x80;
            }
        }
        seen
    }
}

impl Machine for Model {
    fn validate(&mut self, address: u64, size: PageSize) -> Validation {
        let (bytes, in_pieces) = match size {
            PageSize::Small => (PAGE, false),
            PageSize::Large => (2 << 20, (address >> 21) as u8 & self.pieces != 0),
        };
        assert_eq!(address % bytes, 0, "the page of {size:?} at {address:#x} is not aligned");
        let pages: Vec<u64> = (address..address + bytes).step_by(PAGE as usize).collect();
        let entries: Vec<Option<Entry>> = pages.iter().map(|page| self.entries.get(page).copied()).collect();
        let uniform = entries.iter().all(|entry| *entry == entries[0]);
        let result = match entries[0] {
            // Outside of RAM, or the host has nothing there: a nested page fault that never ends.
            None | Some(Entry::Missing) if uniform => Validation::Failed,
            _ if in_pieces || !uniform => Validation::SizeMismatch,
            Some(Entry::Valid) => Validation::Unchanged,
            _ => Validation::Validated,
        };
        if result == Validation::Validated {
            for page in pages {
                assert!(self.validated.insert(page), "{page:#x} is validated twice");
                self.entries.insert(page, Entry::Valid);
            }
        }
        result
    }

    fn evict(&mut self, address: u64) {
        assert!(self.validated.contains(&address));
    }

    fn read_staging(&mut self, from: u64, to: &mut [u8]) {
        let bytes = self.staging(from, to.len());
        to.copy_from_slice(&bytes);
    }

    fn load_staging(&mut self, from: u64, to: Range<u64>) {
        let bytes = self.staging(from, (to.end - to.start) as usize);
        self.loaded += to.end - to.start;
        self.write(to.start, &bytes);
    }

    fn zero(&mut self, range: Range<u64>) {
        self.write(range.start, &vec![0; (range.end - range.start) as usize]);
    }

    fn ram(&self, range: Range<u64>) -> &[u8] {
        &self.ram[range.start as usize..range.end as usize]
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        assert!(end <= STAGE0 || at >= LAUNCH_AREA_END, "a write to the launch area at {at:#x}");
        self.ram[at as usize..end as usize].copy_from_slice(bytes);
    }

    fn compress(&self, state: &mut [u32; 8], blocks: &[[u8; 64]]) {
        soft(state, blocks);
    }
}
