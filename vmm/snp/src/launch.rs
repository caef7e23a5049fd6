//! The stages of a launch as types: a VM is initialised, started, filled with the pages of a plan, and finished, in this order only.

use crate::{
    cpuid_page::{Correction, corrections},
    platform::{Failure, IdFiles, Platform, Source},
    policy::GuestPolicy,
    status::Status,
};
use kvm_bindings::{kvm_sev_init, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start, kvm_sev_snp_launch_update};
use vm_spec::{HostData, Page, PageKind, layout::PAGE_BYTES};

/// KVM answers EAGAIN while the page is in use elsewhere, which ends; more often than this, something is wrong.
const TRIES_MAX: u32 = 1000;

/// Why a guest could not be launched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The VM cannot become an SNP VM.
    #[error("cannot make the VM an SEV-SNP VM (KVM_SEV_INIT2)")]
    Init(#[source] Failure),
    /// KVM does not ask for certificates.
    #[error("cannot serve certificates (KVM_SEV_SNP_ENABLE_REQ_CERTS)")]
    Certificates(#[source] Failure),
    /// The firmware makes no guest of it.
    #[error("cannot start the launch with guest policy {policy:#x} (SNP_LAUNCH_START)")]
    Start {
        /// The policy.
        policy: u64,
        /// Cause.
        #[source]
        source: Failure,
    },
    /// A page is not taken.
    #[error("cannot launch the {kind:?} page at {gpa:#x} (SNP_LAUNCH_UPDATE)")]
    Update {
        /// Its kind.
        kind: PageKind,
        /// Its address.
        gpa: u64,
        /// Cause.
        #[source]
        source: Failure,
    },
    /// KVM took a part of a page, or none.
    #[error("KVM says that it launched the page at {0:#x} and left bytes of it")]
    Partial(u64),
    /// KVM stays busy.
    #[error("KVM was busy with the page at {0:#x} {TRIES_MAX} times; try again")]
    Busy(u64),
    /// KVM makes save areas after all other pages, so a plan must have them last.
    #[error("the plan has the page at {0:#x} after a save area")]
    Order(u64),
    /// Not one save area for each vCPU.
    #[error("the plan has {planned} save areas for {vcpus} vCPUs")]
    SaveAreas {
        /// Of the plan.
        planned: usize,
        /// Of the VM.
        vcpus: usize,
    },
    /// The firmware does not finish.
    #[error("cannot finish the launch (SNP_LAUNCH_FINISH)")]
    Finish(#[source] Failure),
}

/// What the last command binds to the guest besides its measurement.
#[derive(Clone, Copy, Debug)]
pub struct Finish<'a> {
    /// In the guest's reports.
    pub host_data: HostData,
    /// The firmware launches no guest of another digest or policy.
    pub id: Option<IdFiles<'a>>,
    /// No report of this guest is signed with the chip's own key.
    pub without_vcek: bool,
}

/// Initialised: vCPUs can be created and memory be made private.
#[derive(Debug)]
pub struct New(());
/// Started: pages can be launched.
#[derive(Debug)]
pub struct Started {
    save_areas: usize,
    corrections: Vec<Correction>,
}
/// Finished: vCPUs can run, and use the platform: it has to stay until they have ended.
#[derive(Debug)]
pub struct Finished {
    corrections: Vec<Correction>,
}

/// A launch in stage `S`. A failure ends it: the VM cannot be used any more.
#[derive(Debug)]
pub struct Launch<P, S> {
    platform: P,
    stage: S,
}

impl<P: Platform> Launch<P, New> {
    /// Makes the VM an SNP VM, before it has vCPUs. KVM adds SNP itself to the features of save areas; no other is used, and the GHCB
    /// protocol has its default version 2.
    pub fn new(mut platform: P) -> Result<Self, LaunchError> {
        platform.init(&mut kvm_sev_init::default()).map_err(LaunchError::Init)?;
        Ok(Self { platform, stage: New(()) })
    }

    /// The VMM adds certificates to the guest's reports; before the VM has vCPUs.
    pub fn serve_certificates(mut self) -> Result<Self, LaunchError> {
        self.platform.request_certificates().map_err(LaunchError::Certificates)?;
        Ok(self)
    }

    /// Starts the launch, once all vCPUs have their registers.
    pub fn start(mut self, policy: GuestPolicy) -> Result<Launch<P, Started>, LaunchError> {
        let policy = policy.bits();
        let mut start = kvm_sev_snp_launch_start {
            policy,
            ..Default::default()
        };
        self.platform
            .start(&mut start)
            .map_err(|source| LaunchError::Start { policy, source })?;
        Ok(Launch {
            platform: self.platform,
            stage: Started {
                save_areas: 0,
                corrections: Vec::new(),
            },
        })
    }
}

impl<P: Platform> Launch<P, Started> {
    /// Launches the pages of a plan in its order. The page of CPUID leaves has this host's `cpuid` instead of the plan's zeros: its
    /// contents are checked by the firmware and not measured. Save areas are counted; KVM makes them from the vCPUs.
    pub fn load(mut self, pages: &[Page], cpuid: &Source) -> Result<Self, LaunchError> {
        for page in pages {
            match page.kind {
                PageKind::Vmsa => self.stage.save_areas += 1,
                _ if self.stage.save_areas > 0 => return Err(LaunchError::Order(page.gpa)),
                PageKind::Cpuid => self.update_cpuid(page.gpa, cpuid)?,
                kind => self.update(kind, page.gpa, &mut Source(*page.bytes))?,
            }
        }
        Ok(self)
    }

    /// Offers the leaves; if the firmware corrects them, offers its own once.
    fn update_cpuid(&mut self, gpa: u64, offered: &Source) -> Result<(), LaunchError> {
        let mut page = offered.clone();
        let Err(error) = self.update(PageKind::Cpuid, gpa, &mut page) else {
            return Ok(());
        };
        match &error {
            LaunchError::Update { source, .. } if source.firmware == Some(Status::INVALID_PARAM) && page != *offered => {}
            _ => return Err(error),
        }
        self.stage.corrections = corrections(offered, &page);
        self.update(PageKind::Cpuid, gpa, &mut page)
    }

    fn update(&mut self, kind: PageKind, gpa: u64, source: &mut Source) -> Result<(), LaunchError> {
        for _ in 0..TRIES_MAX {
            let mut update = kvm_sev_snp_launch_update {
                gfn_start: gpa / PAGE_BYTES,
                len: PAGE_BYTES,
                type_: kind as u8,
                ..Default::default()
            };
            match self.platform.update(&mut update, source) {
                Ok(()) if update.len == 0 => return Ok(()),
                Ok(()) => return Err(LaunchError::Partial(gpa)),
                Err(busy) if busy.errno == libc::EAGAIN => {}
                Err(source) => return Err(LaunchError::Update { kind, gpa, source }),
            }
        }
        Err(LaunchError::Busy(gpa))
    }

    /// Finishes the launch of a VM with as many vCPUs as the plan has save areas: KVM measures theirs in the order of their creation.
    pub fn finish(mut self, vcpus: usize, with: Finish<'_>) -> Result<Launch<P, Finished>, LaunchError> {
        let planned = self.stage.save_areas;
        if planned != vcpus {
            return Err(LaunchError::SaveAreas { planned, vcpus });
        }
        let Finish {
            host_data,
            id,
            without_vcek,
        } = with;
        let mut finish = kvm_sev_snp_launch_finish {
            id_block_en: id.is_some().into(),
            auth_key_en: id.is_some_and(|id| id.has_author_key).into(),
            vcek_disabled: without_vcek.into(),
            host_data: host_data.0,
            ..Default::default()
        };
        self.platform.finish(&mut finish, id).map_err(LaunchError::Finish)?;
        Ok(Launch {
            platform: self.platform,
            stage: Finished {
                corrections: self.stage.corrections,
            },
        })
    }
}

impl<P> Launch<P, Finished> {
    /// CPUID leaves that the firmware changed, for the log.
    pub fn corrections(&self) -> &[Correction] {
        &self.stage.corrections
    }

    /// The platform, which nothing can be launched with any more.
    pub fn into_platform(self) -> P {
        self.platform
    }
}
