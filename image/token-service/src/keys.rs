//! The keys that sign tokens: the first of the configuration signs, and any of them checks what the service sealed for itself.

mod new;
mod seal;
mod signing;

pub use new::{KeyAlgorithm, NewKeyError, new_key};
pub(crate) use signing::SigningKey;

use crate::config::KeyFiles;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

/// Why a key with its certificate is not usable.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// More than 64 KiB.
    #[error("{} is too large for a key or certificate", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// No PEM block of the kind that is wanted.
    #[error("{} holds no {kind} in PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// `private key` or `certificate`.
        kind: &'static str,
    },
    /// Neither RSA of 2048 bits and more nor P-256.
    #[error("the key {} is neither RSA nor P-256", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is of another key.
    #[error("the certificate {} is not of the key {}", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The key does not sign.
    #[error("the signature failed")]
    Sign {
        /// What the library said.
        source: rustls::Error,
    },
}

/// The keys of now. Reading them anew changes nothing where one of them is faulty.
pub(crate) struct Keyring {
    files: Vec<KeyFiles>,
    keys: RwLock<Arc<[SigningKey]>>,
}

impl Keyring {
    /// Reads every key.
    ///
    /// # Errors
    /// The first faulty one.
    pub(crate) fn read(files: Vec<KeyFiles>) -> Result<Self, KeyError> {
        let keys = RwLock::new(read_all(&files)?);
        Ok(Self { files, keys })
    }

    /// Reads every key again.
    ///
    /// # Errors
    /// The first faulty one; the old keys stay.
    pub(crate) fn reread(&self) -> Result<(), KeyError> {
        let keys = read_all(&self.files)?;
        *self.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner) = keys;
        Ok(())
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().flat_map(|files| [&files.key, &files.certificate])
    }

    /// The keys, the signing one first; never empty.
    pub(crate) fn now(&self) -> Arc<[SigningKey]> {
        self.keys.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

fn read_all(files: &[KeyFiles]) -> Result<Arc<[SigningKey]>, KeyError> {
    files.iter().map(SigningKey::read).collect()
}
