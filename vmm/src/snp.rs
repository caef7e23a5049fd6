//! The launch of an SEV-SNP guest, between the VM's creation and its first instruction.
//!
//! ```text
//!  Parameters::read ─► Snp::begin (KVM_SEV_INIT2) ─► memory, devices, vCPUs ─► Snp::launch (START, UPDATE…, FINISH)
//! ```
//! [`snp_launch::Launch`] holds the order of the commands; this module gives it what the spec says.

use crate::{
    descriptors::SnpFiles,
    kvm::{KvmVm, sev, sev::Sev},
    private_memory::{PrivateMemory, PrivateMemoryError},
};
use boot_manifest::cpuid_page::Leaf;
use kvm_ioctls::Kvm;
use snp_launch::{
    CERTIFICATES_MAX_BYTES, CertificateTable, CertificatesError, Correction, Finish, Finished, GuestPolicy, ID_AUTHENTICATION_BYTES,
    ID_BLOCK_BYTES, IdError, Launch, LaunchError, New, PolicyError, SignedId, TooManyLeaves, cpuid_page,
};
use std::{
    fs::File,
    io::{self, Read},
};
use vm_spec::{HostData, Page, PageKind, Snp as SnpSpec};

/// Why an SNP guest cannot be launched.
#[derive(Debug, thiserror::Error)]
pub enum SnpError {
    /// The guest policy of the spec, or this host's KVM does not take it.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A file of the spec cannot be read.
    #[error("cannot read {0}")]
    Read(&'static str, #[source] io::Error),
    /// The ID block of the spec.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The certificates of the spec.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// The secure processor's device.
    #[error("cannot open /dev/sev; load ccp, enable SEV-SNP in the firmware setup, and let this user read and write the device")]
    Device(#[source] io::Error),
    /// KVM is too old for certificates.
    #[error("this host's KVM asks for no certificates (KVM_SEV_SNP_ENABLE_REQ_CERTS); use Linux 6.20 or later, or give the guest none")]
    NoCertificates,
    /// RAM does not become private.
    #[error(transparent)]
    Memory(#[from] PrivateMemoryError),
    /// More leaves than the CPUID page holds.
    #[error(transparent)]
    Cpuid(#[from] TooManyLeaves),
    /// A command of the launch.
    #[error("the guest cannot be launched; `casemate host check` says what the host lacks")]
    Launch(#[from] LaunchError),
}

/// What a spec says of the launch: checked, and nothing done yet.
#[derive(Debug)]
pub struct Parameters {
    policy: GuestPolicy,
    id: Option<SignedId>,
    certificates: Option<CertificateTable>,
    without_vcek: bool,
    device: File,
}

impl Parameters {
    /// Reads the files of the spec and opens the secure processor's device.
    pub fn read(spec: &SnpSpec, files: SnpFiles, kvm: &Kvm) -> Result<Self, SnpError> {
        let policy = spec.policy.map_or(Ok(GuestPolicy::default()), GuestPolicy::try_from)?;
        let policy = policy.check(sev::policy_bits(kvm))?;
        let id = match files.id {
            None => None,
            Some((block, authentication)) => {
                let block = read("the ID block", block, ID_BLOCK_BYTES)?;
                let authentication = read("the ID authentication structure", authentication, ID_AUTHENTICATION_BYTES)?;
                Some(SignedId::parse(&block, &authentication, policy)?)
            }
        };
        let certificates = match files.certificates {
            None => None,
            Some(file) => Some(read("the table of certificates", file, CERTIFICATES_MAX_BYTES)?.try_into()?),
        };
        if certificates.is_some() && !sev::asks_for_certificates(kvm) {
            return Err(SnpError::NoCertificates);
        }
        Ok(Self {
            policy,
            id,
            certificates,
            without_vcek: spec.without_vcek,
            device: sev::open().map_err(SnpError::Device)?,
        })
    }
}

/// A file of at most `most` bytes; one more is read, so that the file's parser sees one that is too long.
fn read(what: &'static str, file: File, most: usize) -> Result<Vec<u8>, SnpError> {
    let mut bytes = Vec::new();
    let done = file.take(most as u64 + 1).read_to_end(&mut bytes);
    done.map_err(|e| SnpError::Read(what, e))?;
    Ok(bytes)
}

/// An SNP VM whose guest is not launched.
#[derive(Debug)]
pub struct Snp {
    launch: Launch<Sev, New>,
    policy: GuestPolicy,
    id: Option<SignedId>,
    without_vcek: bool,
}

impl Snp {
    /// Makes a new VM an SNP VM. Returns the certificates for its vCPUs' requests.
    pub fn begin(vm: &KvmVm, parameters: Parameters) -> Result<(Self, Option<CertificateTable>), SnpError> {
        let mut launch = Launch::new(Sev::new(vm, parameters.device))?;
        if parameters.certificates.is_some() {
            launch = launch.serve_certificates()?;
        }
        let this = Self {
            launch,
            policy: parameters.policy,
            id: parameters.id,
            without_vcek: parameters.without_vcek,
        };
        Ok((this, parameters.certificates))
    }

    /// Launches the pages of a plan. The vCPUs have their registers, which are a part of it, and `leaves` are those of the first.
    pub fn launch(self, pages: &[Page], leaves: &[Leaf], host_data: HostData, memory: &mut PrivateMemory) -> Result<Launched, SnpError> {
        let vcpus = pages.iter().filter(|page| page.kind == PageKind::Vmsa).count();
        let cpuid = cpuid_page(leaves)?;
        memory.make_private()?;
        let finish = Finish {
            host_data,
            id: self.id.as_ref().map(SignedId::files),
            without_vcek: self.without_vcek,
        };
        let launched = self.launch.start(self.policy)?.load(pages, &cpuid)?.finish(vcpus, finish)?;
        Ok(Launched(launched))
    }
}

/// A guest that is launched. KVM keeps the number of the secure processor's descriptor, and uses it for each of the guest's requests
/// (`sev_issue_cmd` of Linux `arch/x86/kvm/svm/sev.c`): this must live as long as the guest runs.
#[derive(Debug)]
pub struct Launched(Launch<Sev, Finished>);

impl Launched {
    /// What the firmware changed in the leaves.
    pub fn corrections(&self) -> &[Correction] {
        self.0.corrections()
    }
}
