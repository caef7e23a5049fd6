//! What the VMM is given for the launch of an SEV-SNP guest: the files that the configuration names. The VMM parses them.

use crate::config::SnpConfig;
use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};
use vm_spec::{Fd, SignedIdFiles, Snp};

/// A file of the configuration cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}, which the configuration names for SEV-SNP", .0.display())]
pub struct SnpFileError(PathBuf, #[source] io::Error);

/// Opened files, and the rest of the configuration.
#[derive(Debug)]
pub struct SnpParts {
    id: Option<[File; 2]>,
    certificates: Option<File>,
    policy: Option<u64>,
    without_vcek: bool,
}

impl SnpParts {
    /// Opens the files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn open(config: &SnpConfig) -> Result<Self, SnpFileError> {
        let open = |path: &Path| File::open(path).map_err(|e| SnpFileError(path.to_owned(), e));
        let id = match &config.id {
            None => None,
            Some(id) => Some([open(&id.block)?, open(&id.authentication)?]),
        };
        Ok(Self {
            id,
            certificates: config.certificates.as_deref().map(open).transpose()?,
            policy: config.policy,
            without_vcek: config.without_vcek,
        })
    }

    /// What the VMM inherits.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.id.iter().flatten().chain(&self.certificates).map(AsFd::as_fd)
    }

    /// The part of the VM's spec.
    pub fn spec(&self) -> Snp {
        let fd = |file: &File| Fd(file.as_raw_fd());
        Snp {
            policy: self.policy,
            id: self.id.as_ref().map(|[block, authentication]| SignedIdFiles {
                block: fd(block),
                authentication: fd(authentication),
            }),
            certificates: self.certificates.as_ref().map(fd),
            without_vcek: self.without_vcek,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SnpIdConfig;

    #[test]
    fn every_file_of_the_configuration_is_inherited_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, name).unwrap();
            path
        };
        let config = SnpConfig {
            policy: Some(0x3_0000),
            id: Some(SnpIdConfig {
                block: file("block"),
                authentication: file("authentication"),
            }),
            certificates: Some(file("certificates")),
            without_vcek: true,
        };
        let parts = SnpParts::open(&config).unwrap();
        let spec = parts.spec();
        let named = [spec.id.unwrap().block, spec.id.unwrap().authentication, spec.certificates.unwrap()];
        let inherited: Vec<_> = parts.files().map(|fd| Fd(fd.as_raw_fd())).collect();
        assert_eq!(inherited, named);
        assert_eq!((spec.policy, spec.without_vcek), (Some(0x3_0000), true));
        let missing = SnpConfig {
            certificates: Some("/nonexistent".into()),
            ..SnpConfig::default()
        };
        assert!(SnpParts::open(&missing).unwrap_err().to_string().contains("/nonexistent"));
        assert_eq!(SnpParts::open(&SnpConfig::default()).unwrap().files().count(), 0);
    }
}
