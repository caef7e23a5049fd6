//! A guest that takes lists of steps, one for each vCPU.

use crate::{
    elf, guests,
    launcher::{Launcher, Outcome},
    protected::{self, Setup},
};
use casemate_vmm::{descriptors::BootFiles, exit_reason::ExitReason, memory::Memory, seccomp::Filter};
use snp_launch::MAP_GPA_RANGE;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Seek, Write},
};
use vm_memory::{Bytes, GuestAddress};
use vm_spec::{MemoryMib, layout::GpaRange};

/// Where the guest's steps are, and their words.
const STEPS: u64 = 0x2_0000;
const STEP_WORDS: usize = 6;
const RESULT: usize = 5;
/// From the steps of one vCPU to those of the next; those of two end below the ROMs.
const STEPS_BYTES: u64 = 0x4_0000;
/// The last has to be a power-off, which zeros are.
const STEPS_MAX: usize = STEPS_BYTES as usize / (STEP_WORDS * 8) - 1;

/// What is shared from the beginning: code, page tables and steps.
const START: GpaRange = GpaRange { start: 0, length: 2 << 20 };
/// RAM of the guest.
pub const RAM_MIB: u32 = 64;

/// As what a guest reads or writes a page.
#[derive(Clone, Copy, Debug)]
pub enum View {
    /// As what it is.
    Current,
    /// As private. The kernel of the test machine takes it from a register, where the processor of an SNP guest has the C bit
    /// (`CHANGE` in `integration/src/testbed/one_program.rs`).
    Private,
    /// As shared.
    Shared,
}

/// One step of the guest; each has a result.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A hypercall; what it returns.
    Call(u64, [u64; 3]),
    /// Reads eight bytes.
    Load(u64, View),
    /// Writes eight bytes.
    Store(u64, u64, View),
    /// Goes back to a step of the same list, so many times.
    Again(usize, u64),
}

impl Step {
    /// `KVM_HC_MAP_GPA_RANGE`: address and pages are to be private.
    pub fn make_private(start: u64, pages: u64) -> Self {
        Self::Call(MAP_GPA_RANGE, [start, pages, 1 << 4])
    }

    /// `KVM_HC_MAP_GPA_RANGE`: address and pages are to be shared.
    pub fn make_shared(start: u64, pages: u64) -> Self {
        Self::Call(MAP_GPA_RANGE, [start, pages, 0])
    }

    /// Reads a page as what it is.
    pub fn load(from: u64) -> Self {
        Self::Load(from, View::Current)
    }

    /// Writes a page as what it is.
    pub fn store(to: u64, value: u64) -> Self {
        Self::Store(to, value, View::Current)
    }

    /// In a list at `address`.
    fn words(self, address: u64) -> [u64; STEP_WORDS] {
        let word = |view| match view {
            View::Current => 0,
            View::Private => u64::from_le_bytes(*b"private\0"),
            View::Shared => u64::from_le_bytes(*b"shared\0\0"),
        };
        match self {
            Self::Call(number, [a, b, c]) => [1, a, b, c, number, 0],
            Self::Load(from, view) => [2, from, word(view), 0, 0, 0],
            Self::Store(to, value, view) => [3, to, word(view), value, 0, 0],
            Self::Again(step, times) => [4, address + (step * STEP_WORDS * 8) as u64, times, 0, 0, 0],
        }
    }
}

/// A guest that has ended.
pub struct Ended {
    /// Why.
    pub reason: ExitReason,
    /// The result of each step of the first vCPU.
    pub results: Vec<u64>,
    /// Exits that reached the VMM, by the names of its statistics.
    pub exits: BTreeMap<String, u64>,
    memory: Memory,
}

impl Ended {
    /// The eight bytes that the host reads at `address`.
    pub fn host_reads(&self, address: u64) -> u64 {
        self.memory.read_obj(GuestAddress(address)).expect("the address is RAM")
    }
}

/// Lets each vCPU of a guest take its steps, under the VMM's filter; the guest ends with the first vCPU's.
pub fn run(lists: &[&[Step]], filter: Filter) -> Outcome<Ended> {
    let mut kernel = tempfile::tempfile()?;
    kernel.write_all(&elf::executable(guests::steps()))?;
    kernel.rewind()?;
    let mut spec = Launcher::new(kernel.try_clone()?, File::open("/dev/null")?.into())?.spec;
    spec.memory = MemoryMib::try_from(RAM_MIB)?;
    let files = BootFiles {
        stage0: None,
        kernel,
        initrd: None,
    };
    let address = |n: usize| STEPS + n as u64 * STEPS_BYTES;
    let setup = Setup {
        spec,
        files,
        shared: START,
        more_vcpus: (1..lists.len()).map(address).collect(),
    };
    let ended = protected::run(setup, filter, |memory| {
        (0..).zip(lists).try_for_each(|(n, steps)| write(memory, address(n), steps))
    })?;
    let result = |n| ended.memory.read_obj(GuestAddress(STEPS + ((n * STEP_WORDS + RESULT) * 8) as u64));
    Ok(Ended {
        results: (0..lists[0].len()).map(result).collect::<Result<_, _>>()?,
        reason: ended.reason,
        exits: ended.exits,
        memory: ended.memory,
    })
}

fn write(memory: &Memory, address: u64, steps: &[Step]) -> Outcome<()> {
    assert!(steps.len() <= STEPS_MAX, "{} steps, of {STEPS_MAX} that are possible", steps.len());
    let words = steps.iter().flat_map(|step| step.words(address));
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    Ok(memory.write_slice(&bytes, GuestAddress(address))?)
}
