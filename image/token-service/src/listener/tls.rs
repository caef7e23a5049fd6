//! TLS of the listener, whose certificate can be replaced while it listens.

use crate::config::KeyFiles;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// Why a certificate with its key cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read, or is not PEM.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A key of a kind that TLS has not, or of another certificate.
    #[error("the certificate {} does not go with its key", path.display())]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// What the library said.
        source: rustls::Error,
    },
}

/// The certificate chain and key of now.
pub(crate) struct TlsIdentity {
    files: KeyFiles,
    pair: RwLock<Arc<CertifiedKey>>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").field("files", &self.files).finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Reads chain and key.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn read(files: KeyFiles) -> Result<Self, TlsError> {
        let pair = RwLock::new(read(&files)?);
        Ok(Self { files, pair })
    }

    /// Reads them again; connections from now on see them.
    ///
    /// # Errors
    /// [`TlsError`]; the old ones stay.
    pub(crate) fn reread(&self) -> Result<(), TlsError> {
        let pair = read(&self.files)?;
        *self.pair.write().unwrap_or_else(PoisonError::into_inner) = pair;
        Ok(())
    }

    pub(crate) fn files(&self) -> [&PathBuf; 2] {
        [&self.files.key, &self.files.certificate]
    }
}

impl ResolvesServerCert for TlsIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.pair.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn read(files: &KeyFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| TlsError::Read { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed(&files.key))?;
    let pair = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|source| TlsError::Pair {
        path: files.certificate.clone(),
        source,
    })?;
    Ok(Arc::new(pair))
}

/// TLS 1.2 and 1.3 with the identity of the moment.
pub(super) fn acceptor(identity: Arc<TlsIdentity>) -> TlsAcceptor {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_no_client_auth()
        .with_cert_resolver(identity);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
