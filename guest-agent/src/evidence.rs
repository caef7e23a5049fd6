//! The source of the host data, which is the digest of the only policy that may be set.
//!
//! The measured boot manifest names the source, and there is no fallback: a guest whose manifest says `snp` and that
//! cannot read an attestation report serves nothing.

mod boot_params;
mod sev_guest;

use std::path::Path;

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
    /// Simulated reports from the VMM are not read here.
    #[error("the boot manifest says simulated, and this guest takes host data from no report of the VMM")]
    Simulated,
    /// The processor returns no attestation report.
    #[error("the boot manifest says snp, and there is no report")]
    Snp(#[from] sev_guest::SevGuestError),
}

/// A source of the host data.
pub trait Evidence: Send {
    /// SHA-256 of the policy text that may be set.
    fn host_data(&self) -> Result<[u8; 32], EvidenceError>;
}

/// The source that the boot manifest of this guest names.
pub struct BootEvidence;

impl Evidence for BootEvidence {
    fn host_data(&self) -> Result<[u8; 32], EvidenceError> {
        from_nodes(Path::new(boot_params::SETUP_DATA))
    }
}

fn from_nodes(directory: &Path) -> Result<[u8; 32], EvidenceError> {
    let manifest = boot_params::node(directory, SETUP_DATA_MANIFEST)?;
    match Manifest::from_bytes(&manifest).map_err(EvidenceError::Manifest)?.mode {
        Mode::Plain => {
            let page = boot_params::node(directory, SETUP_DATA_HOST_PAGE)?;
            Ok(HostPage::from_bytes(&page).map_err(EvidenceError::HostPage)?.host_data)
        }
        Mode::Simulated => Err(EvidenceError::Simulated),
        Mode::Snp => Ok(sev_guest::host_data()?),
    }
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
        from_nodes(directory.path())
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
            Err(EvidenceError::Simulated)
        ));
        // No test runs in an SNP guest, so there is no device.
        assert!(matches!(
            with_nodes(&[manifest(Mode::Snp), host_page()]),
            Err(EvidenceError::Snp(_))
        ));
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
