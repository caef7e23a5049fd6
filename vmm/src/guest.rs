//! What the guest begins with: kernel and initrd where the launch plan has them, or in staging memory for stage0.

use crate::{
    descriptors::BootFiles,
    kernel::{ElfKernel, KernelError},
    memory::{self, Memory, MemoryError},
    vcpu::VcpuError,
};
use boot_manifest::{
    BootPage, HostPage, LoadMap, Manifest, Mode, STAGED_KERNEL, StagingPage,
    cpuid_page::{self, Leaf},
    launch_area::{STAGE0_MAX_BYTES, STAGING},
    ram::Ram,
    staged_initrd, staging_end,
};
use launch_measure::{LaunchDigest, MeasureError};
use std::{
    fs::File,
    io::{self, Read},
};
use vm_spec::{ElfError, LaunchPlan, Page, PageKind, PlanError, Registers, Stage0, Tee, VmSpec, layout::GpaRange};

/// Why the guest cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The kernel file.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel's headers, for stage0.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The initrd file.
    #[error("cannot load the initrd")]
    Initrd(#[source] MemoryError),
    /// The length of a file is unknown.
    #[error("cannot stat the {0} file")]
    Length(&'static str, #[source] io::Error),
    /// stage0's file.
    #[error("cannot read stage0's file")]
    Stage0(#[source] io::Error),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The layout of memory.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// stage0 would refuse it.
    #[error("{0} MiB of memory cannot be used with stage0; give the guest a multiple of 2 MiB, at most 510 GiB")]
    Ram(u32),
    /// The leaves for the CPUID page.
    #[error(transparent)]
    Cpuid(#[from] VcpuError),
    /// Firmware would refuse the plan's pages.
    #[error("the guest's pages cannot be measured")]
    Measure(#[from] MeasureError),
}

/// A guest in memory.
pub struct Loaded {
    /// Registers of its first vCPU.
    pub first: Registers,
    /// What firmware would measure; computed for simulated reports only.
    pub measurement: Option<LaunchDigest>,
    /// Pages that only the firmware can write, those of an SNP guest, and its save areas.
    pub to_launch: Vec<Page>,
}

/// A guest whose files are open, and whose sizes are known.
pub struct Guest<'a> {
    spec: &'a VmSpec,
    kernel: &'a File,
    elf: ElfKernel<'a>,
    initrd: Option<&'a File>,
    initrd_bytes: u64,
    /// stage0's program and what it loads, in a guest that it starts.
    verified: Option<(Vec<u8>, LoadMap)>,
}

impl<'a> Guest<'a> {
    /// Reads the kernel's headers and stage0.
    pub fn open(spec: &'a VmSpec, files: &'a BootFiles) -> Result<Self, GuestError> {
        let elf = ElfKernel::open(&files.kernel)?;
        let initrd = files.initrd.as_ref();
        let initrd_bytes = initrd.map_or(Ok(0), |file| length("initrd", file))?;
        let verified = match &files.stage0 {
            None => None,
            Some(file) => {
                let mut program = Vec::new();
                file.take(STAGE0_MAX_BYTES as u64 + 1)
                    .read_to_end(&mut program)
                    .map_err(GuestError::Stage0)?;
                Ram::new(spec.memory.bytes()).ok_or(GuestError::Ram(spec.memory.get()))?;
                let map = elf.headers().load_map(length("kernel", &files.kernel)?, initrd_bytes)?;
                Some((program, map))
            }
        };
        Ok(Self {
            spec,
            kernel: &files.kernel,
            elf,
            initrd,
            initrd_bytes,
            verified,
        })
    }

    /// Bytes of staging memory: 0 without stage0.
    pub fn staging_bytes(&self) -> u64 {
        self.verified.as_ref().map_or(0, |(_, map)| staging_end(map) - STAGING)
    }

    /// Fills the guest's memory, but for what is still to be launched. `leaves` are those of the first vCPU.
    pub fn load(&self, memory: &Memory, leaves: impl FnOnce() -> Result<Vec<Leaf>, VcpuError>) -> Result<Loaded, GuestError> {
        let Some((program, map)) = &self.verified else {
            return Ok(Loaded {
                first: self.direct(memory)?,
                measurement: None,
                to_launch: Vec::new(),
            });
        };
        self.stage(memory, map)?;
        let mut plan = self.verified(program, *map)?;
        let first = plan.first;
        if self.spec.tee == Tee::Snp {
            return Ok(Loaded {
                first,
                measurement: None,
                to_launch: plan.pages,
            });
        }
        let simulated = self.spec.tee == Tee::Simulated;
        let measurement = simulated.then(|| launch_measure::measure(&plan.pages)).transpose()?;
        // Leaves that the firmware would have checked. This guest trusts its host.
        let cpuid_page = Box::new(cpuid_page::to_bytes(&leaves()?));
        plan.pages
            .iter_mut()
            .filter(|page| page.kind == PageKind::Cpuid)
            .for_each(|page| page.bytes = cpuid_page.clone());
        // KVM has the vCPUs' registers; there is no save area to launch.
        plan.pages.retain(|page| page.kind != PageKind::Vmsa);
        memory::write_pages(memory, &plan.pages)?;
        Ok(Loaded {
            first,
            measurement,
            to_launch: Vec::new(),
        })
    }

    /// Reads kernel and initrd to the addresses of the launch plan, then writes the plan's pages.
    fn direct(&self, memory: &Memory) -> Result<Registers, GuestError> {
        let plan = LaunchPlan::direct(self.spec, self.elf.layout(), self.initrd_bytes)?;
        self.elf.load(memory)?;
        if let (Some(range), Some(file)) = (plan.initrd, self.initrd) {
            memory::read_file(memory, range, file, 0).map_err(GuestError::Initrd)?;
        }
        memory::write_pages(memory, &plan.pages)?;
        Ok(plan.first)
    }

    fn verified(&self, program: &[u8], load: LoadMap) -> Result<LaunchPlan, GuestError> {
        let payload = self.spec.boot.payload();
        let manifest = Manifest {
            mode: match self.spec.tee {
                Tee::Plain => Mode::Plain,
                Tee::Simulated => Mode::Simulated,
                Tee::Snp => Mode::Snp,
            },
            kernel_sha256: payload.kernel_sha256.0,
            initrd_sha256: payload.initrd_sha256.0,
        };
        let boot_page = BootPage {
            manifest,
            load,
            cmdline: &payload.cmdline,
        };
        let VmSpec { vcpus, volumes, .. } = self.spec;
        Ok(LaunchPlan::verified_with_volumes(
            *vcpus,
            volumes.slots,
            &boot_page,
            Stage0::try_from(program)?,
        )?)
    }

    /// Reads the files to staging memory, after the host's page.
    fn stage(&self, memory: &Memory, map: &LoadMap) -> Result<(), GuestError> {
        let ram = Ram::new(self.spec.memory.bytes()).ok_or(GuestError::Ram(self.spec.memory.get()))?;
        let host = StagingPage {
            ram_bytes: ram.bytes(),
            host_page: HostPage {
                host_data: self.spec.host_data.0,
            },
        };
        let page = Page {
            gpa: STAGING,
            kind: PageKind::Unmeasured,
            bytes: Box::new(host.to_bytes()),
        };
        memory::write_pages(memory, &[page])?;
        let range = |start, length| GpaRange { start, length };
        memory::read_file(memory, range(STAGED_KERNEL, map.kernel_bytes()), self.kernel, 0)?;
        if let Some(file) = self.initrd {
            memory::read_file(memory, range(staged_initrd(map), map.initrd_bytes()), file, 0).map_err(GuestError::Initrd)?;
        }
        Ok(())
    }
}

fn length(what: &'static str, file: &File) -> Result<u64, GuestError> {
    file.metadata()
        .map(|metadata| metadata.len())
        .map_err(|e| GuestError::Length(what, e))
}
