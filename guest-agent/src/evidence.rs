//! The source of the host data, which is the digest of the only policy that may be set, and of reports that prove it.
//!
//! The measured boot manifest names the source, and there is no fallback: a guest whose manifest says `snp` and that
//! cannot read an attestation report serves nothing.

mod boot_params;
mod sev_guest;
mod simulated;
mod tsm;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use attestation::{Report, ReportError};
use boot_manifest::{HostPage, Manifest, Mode, ReadError, SETUP_DATA_HOST_PAGE, SETUP_DATA_MANIFEST};

/// Why the host data cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The boot loader's setup_data nodes cannot be read.
    #[error("the boot parameters cannot be read")]
    BootParams(#[source] std::io::Error),
    /// There is not exactly one node of the type.
    #[error("there are {count} boot nodes of type {node:#x}, one is needed")]
    Nodes {
        /// `setup_data` type.
        node: u32,
        /// How many were found.
        count: usize,
    },
    /// The manifest's bytes are wrong.
    #[error("the boot manifest is damaged")]
    Manifest(#[source] ReadError),
    /// The host page's bytes are wrong.
    #[error("the host page is damaged")]
    HostPage(#[source] ReadError),
    /// The VMM returns no report.
    #[error("the boot manifest says simulated, and there is no report")]
    Simulated(#[from] simulated::SimulatedError),
    /// The processor returns no attestation report.
    #[error("the boot manifest says snp, and there is no report")]
    Snp(#[from] sev_guest::SevGuestError),
    /// The kernel's interface for reports fails.
    #[error("the boot manifest says snp, and the kernel gives no report")]
    Tsm(#[from] tsm::TsmError),
    /// The bytes are no report.
    #[error("the report is damaged")]
    Report(#[from] ReportError),
    /// The report does not bind what was asked for.
    #[error("the report answers another request")]
    OtherRequest,
    /// The report is of a guest with another policy.
    #[error("the report is not about this guest's policy")]
    OtherPolicy,
    /// Nobody vouches for a plain guest.
    #[error("this guest has no reports: its boot manifest says plain")]
    Plain,
    /// No random bytes for a request.
    #[error("the kernel gives no random bytes")]
    Random(#[source] std::io::Error),
}

/// A report with what verifies it.
#[derive(Debug)]
pub struct Attested {
    /// The report.
    pub report: Report,
    /// The table of certificates that the host supplies (GHCB specification, SNP Extended Guest Request); empty if it supplies none.
    pub certificates: Vec<u8>,
}

/// A source of the host data.
pub trait Evidence: Send + Sync {
    /// SHA-256 of the policy text that may be set.
    fn host_data(&self) -> Result<[u8; 32], EvidenceError>;

    /// A new report with this REPORT_DATA. The caller checks what it says.
    fn report(&self, report_data: &[u8; 64]) -> Result<Attested, EvidenceError>;
}

impl<E: Evidence> Evidence for Arc<E> {
    fn host_data(&self) -> Result<[u8; 32], EvidenceError> {
        (**self).host_data()
    }

    fn report(&self, report_data: &[u8; 64]) -> Result<Attested, EvidenceError> {
        (**self).report(report_data)
    }
}

/// A new report that answers this request and is about a guest with this policy.
pub fn proof(evidence: &impl Evidence, report_data: &[u8; 64], policy: &[u8; 32]) -> Result<Attested, EvidenceError> {
    let attested = evidence.report(report_data)?;
    if attested.report.report_data() != *report_data {
        return Err(EvidenceError::OtherRequest);
    }
    if attested.report.host_data() != *policy {
        return Err(EvidenceError::OtherPolicy);
    }
    Ok(attested)
}

/// The source that the boot manifest of this guest names.
pub struct BootEvidence {
    /// Where the boot loader's nodes are.
    nodes: PathBuf,
    simulated: simulated::Reports,
}

impl Default for BootEvidence {
    fn default() -> Self {
        Self::of(Path::new(boot_params::SETUP_DATA))
    }
}

impl BootEvidence {
    fn of(nodes: &Path) -> Self {
        Self {
            nodes: nodes.to_owned(),
            simulated: simulated::Reports::default(),
        }
    }
}

impl Evidence for BootEvidence {
    fn host_data(&self) -> Result<[u8; 32], EvidenceError> {
        if mode(&self.nodes)? == Mode::Plain {
            let page = boot_params::node(&self.nodes, SETUP_DATA_HOST_PAGE)?;
            return Ok(HostPage::from_bytes(&page).map_err(EvidenceError::HostPage)?.host_data);
        }
        let mut nonce = [0; 64];
        crate::sys::random(&mut nonce).map_err(EvidenceError::Random)?;
        let report = self.report(&nonce)?.report;
        if report.report_data() != nonce {
            return Err(EvidenceError::OtherRequest);
        }
        Ok(report.host_data())
    }

    fn report(&self, report_data: &[u8; 64]) -> Result<Attested, EvidenceError> {
        match mode(&self.nodes)? {
            Mode::Plain => Err(EvidenceError::Plain),
            Mode::Simulated => Ok(self.simulated.report(report_data)?),
            Mode::Snp => snp_report(report_data),
        }
    }
}

fn mode(directory: &Path) -> Result<Mode, EvidenceError> {
    let manifest = boot_params::node(directory, SETUP_DATA_MANIFEST)?;
    Ok(Manifest::from_bytes(&manifest).map_err(EvidenceError::Manifest)?.mode)
}

/// From the security processor: by the kernel's common interface, which also gives certificates, or by the device that it stands on.
fn snp_report(report_data: &[u8; 64]) -> Result<Attested, EvidenceError> {
    if let Some(reports) = tsm::reports()? {
        return Ok(tsm::report(&reports, report_data)?);
    }
    Ok(Attested {
        report: sev_guest::report(report_data)?,
        certificates: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn with_nodes(nodes: &[(u32, Vec<u8>)]) -> Result<[u8; 32], EvidenceError> {
        let directory = tempfile::tempdir().unwrap();
        for (n, (kind, data)) in nodes.iter().enumerate() {
            let node = directory.path().join(n.to_string());
            fs::create_dir(&node).unwrap();
            fs::write(node.join("type"), format!("{kind:#x}\n")).unwrap();
            fs::write(node.join("data"), data).unwrap();
        }
        BootEvidence::of(directory.path()).host_data()
    }

    fn manifest(mode: Mode) -> (u32, Vec<u8>) {
        (
            SETUP_DATA_MANIFEST,
            Manifest {
                mode,
                kernel_sha256: [1; 32],
                initrd_sha256: [2; 32],
            }
            .to_bytes()
            .to_vec(),
        )
    }

    fn host_page() -> (u32, Vec<u8>) {
        (SETUP_DATA_HOST_PAGE, HostPage { host_data: [9; 32] }.to_bytes().to_vec())
    }

    #[test]
    fn mode_plain_reads_the_host_page() {
        assert_eq!(with_nodes(&[(1, vec![0; 8]), manifest(Mode::Plain), host_page()]).unwrap(), [9; 32]);
    }

    #[test]
    fn other_modes_never_fall_back_to_it() {
        assert!(matches!(
            with_nodes(&[manifest(Mode::Simulated), host_page()]),
            Err(EvidenceError::Simulated(_))
        ));
        // No test runs in an SNP guest, so there is no device.
        assert!(matches!(
            with_nodes(&[manifest(Mode::Snp), host_page()]),
            Err(EvidenceError::Snp(_) | EvidenceError::Tsm(_))
        ));
    }

    /// Answers every request with one report.
    struct Replays(Vec<u8>);

    impl Evidence for Replays {
        fn host_data(&self) -> Result<[u8; 32], EvidenceError> {
            Ok(Report::parse(&self.0)?.host_data())
        }

        fn report(&self, _: &[u8; 64]) -> Result<Attested, EvidenceError> {
            let report = Report::parse(&self.0)?;
            let certificates = Vec::new();
            Ok(Attested { report, certificates })
        }
    }

    #[test]
    fn a_report_of_another_request_or_policy_is_not_passed_on() {
        let mut bytes = vec![0; attestation::REPORT_BYTES];
        bytes[0] = 3;
        bytes[0x50..0x90].fill(7);
        bytes[0xc0..0xe0].fill(9);
        let replays = Arc::new(Replays(bytes));
        assert!(proof(&replays, &[7; 64], &[9; 32]).is_ok());
        assert!(matches!(proof(&replays, &[8; 64], &[9; 32]), Err(EvidenceError::OtherRequest)));
        assert!(matches!(proof(&replays, &[7; 64], &[8; 32]), Err(EvidenceError::OtherPolicy)));
    }

    #[test]
    fn each_node_must_exist_once_and_be_complete() {
        let missing = |node, count| move |r: Result<_, EvidenceError>| matches!(r, Err(EvidenceError::Nodes { node: n, count: c }) if (n, c) == (node, count));
        assert!(missing(SETUP_DATA_MANIFEST, 0)(with_nodes(&[host_page()])));
        assert!(missing(SETUP_DATA_MANIFEST, 2)(with_nodes(&[
            manifest(Mode::Plain),
            manifest(Mode::Snp)
        ])));
        assert!(missing(SETUP_DATA_HOST_PAGE, 0)(with_nodes(&[manifest(Mode::Plain)])));
        assert!(missing(SETUP_DATA_HOST_PAGE, 2)(with_nodes(&[
            manifest(Mode::Plain),
            host_page(),
            host_page()
        ])));
        let damaged = with_nodes(&[(SETUP_DATA_MANIFEST, vec![0; 128])]);
        assert!(matches!(damaged, Err(EvidenceError::Manifest(ReadError::Magic))));
        let damaged = with_nodes(&[manifest(Mode::Plain), (SETUP_DATA_HOST_PAGE, vec![])]);
        assert!(matches!(damaged, Err(EvidenceError::HostPage(ReadError::Short))));
    }
}
