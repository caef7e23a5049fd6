//! A guest that takes a list of steps, in a VM of type `KVM_X86_SW_PROTECTED_VM` that the parts of the VMM make.
//!
//! It begins as an SNP guest does: all RAM is private but what it starts from, here the first 2 MiB. That is where its steps are too.

use crate::{elf, guests, launcher::Launcher, launcher::Outcome};
use casemate_vmm::{
    conversions::Conversions,
    descriptors::BootFiles,
    devices::{Buses, power::Power},
    exit_reason::{ExitEvent, ExitReason},
    guest::Guest,
    kvm::{self, KvmVm, VmType},
    memory::Memory,
    private_memory::PrivateMemory,
    seccomp::Filter,
    vcpu::{self, VcpuContext, VcpuThreads},
};
use snp_launch::{Backing, MAP_GPA_RANGE, Visibility};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Seek, Write},
    sync::{Arc, Mutex},
    thread::sleep,
    time::{Duration, Instant},
};
use vm_memory::{Bytes, GuestAddress};
use vm_spec::{
    MemoryMib,
    layout::{GpaRange, POWER_PORTS, SLEEP_CONTROL_PORT},
};

/// Where the guest's steps are, and their words.
const STEPS: u64 = 0x2_0000;
const STEP_WORDS: usize = 6;
const RESULT: usize = 5;
/// Steps must end below the ROMs.
const STEPS_MAX: usize = (0xa_0000 - STEPS as usize) / (STEP_WORDS * 8) - 1;

/// What is shared from the beginning.
const START: GpaRange = GpaRange { start: 0, length: 2 << 20 };
/// RAM of the guest.
pub const RAM_MIB: u32 = 64;
/// Limit for all steps together.
const TIMEOUT: Duration = Duration::from_secs(100);

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
    /// Goes back to the step of a number, so many times.
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

    fn words(self) -> [u64; STEP_WORDS] {
        let word = |view| match view {
            View::Current => 0,
            View::Private => u64::from_le_bytes(*b"private\0"),
            View::Shared => u64::from_le_bytes(*b"shared\0\0"),
        };
        match self {
            Self::Call(number, [a, b, c]) => [1, a, b, c, number, 0],
            Self::Load(from, view) => [2, from, word(view), 0, 0, 0],
            Self::Store(to, value, view) => [3, to, word(view), value, 0, 0],
            Self::Again(step, times) => [4, STEPS + (step * STEP_WORDS * 8) as u64, times, 0, 0, 0],
        }
    }
}

/// A guest that has ended.
pub struct Ended {
    /// Why.
    pub reason: ExitReason,
    /// The result of each step.
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

/// Lets a guest take `steps` on a vCPU thread under the VMM's filter.
pub fn run(steps: &[Step], filter: Filter) -> Outcome<Ended> {
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
    let guest = Guest::open(&spec, &files)?;
    let vm = KvmVm::create(kvm::open()?, VmType::SwProtected)?;
    let (memory, mut private) = PrivateMemory::allocate(&vm, spec.memory, 0)?;
    vm.add_interrupt_controllers()?;
    let first = guest.load(&memory, || vcpu::cpuid_leaves(&vm, spec.vcpus))?.first;
    write(&memory, steps)?;
    private.make_private()?;
    private.set_attributes(START, Visibility::Shared)?;

    let vcpus = vcpu::create(&vm, spec.vcpus, &first)?;
    let exit_event = Arc::new(ExitEvent::new()?);
    let mut buses = Buses::default();
    let power = Arc::new(Mutex::new(Power(exit_event.clone())));
    buses.pio.insert(SLEEP_CONTROL_PORT.into(), POWER_PORTS.into(), power)?;
    let context = VcpuContext {
        buses,
        conversions: Some(Conversions::new(private)),
        certificates: None,
        exit_event: exit_event.clone(),
        watchdog: Arc::default(),
        filter,
    };
    let threads = VcpuThreads::start(vcpus, context)?;
    threads.resume();
    let started = Instant::now();
    let reason = loop {
        match exit_event.reason() {
            Some(reason) => break reason.clone(),
            None if started.elapsed() > TIMEOUT => return Err(format!("the guest takes more than {TIMEOUT:?} for {steps:?}").into()),
            None => sleep(Duration::from_millis(1)),
        }
    };
    let exits = threads.stats()?.to_vmm;
    threads.stop()?;
    let result = |n| memory.read_obj(GuestAddress(STEPS + ((n * STEP_WORDS + RESULT) * 8) as u64));
    let results = (0..steps.len()).map(result).collect::<Result<_, _>>()?;
    Ok(Ended {
        reason,
        results,
        exits,
        memory,
    })
}

fn write(memory: &Memory, steps: &[Step]) -> Outcome<()> {
    assert!(steps.len() <= STEPS_MAX, "{} steps, of {STEPS_MAX} that are possible", steps.len());
    let words = steps.iter().flat_map(|step| step.words());
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    Ok(memory.write_slice(&bytes, GuestAddress(STEPS))?)
}
