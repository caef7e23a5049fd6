//! Who a server may be.

use crate::certificates::Certificates;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use std::sync::Arc;
use x509_cert::Version;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::BasicConstraints;

/// Nothing is trusted.
#[derive(Debug, thiserror::Error)]
#[error("ca-certs of this registry's section holds no certificate, so no server is trusted")]
struct NothingTrusted;

/// Certificates that chain to some roots, and with pinned certificates also those themselves.
#[derive(Debug)]
pub(super) struct Roots {
    /// `None`: none of the pinned certificates can be a root.
    chains: Option<Arc<WebPkiServerVerifier>>,
    pinned: Option<Certificates>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Roots {
    /// The web's authorities.
    pub(super) fn web(provider: &Arc<CryptoProvider>) -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Self::new(roots, None, provider)
    }

    /// These certificates and no others.
    pub(super) fn pinned(certificates: Certificates, provider: &Arc<CryptoProvider>) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in certificates.iter().filter(|certificate| is_authority(certificate)) {
            // One that cannot be a root can still be a server's own.
            let _ = roots.add(certificate.clone());
        }
        Self::new(roots, Some(certificates), provider)
    }

    fn new(roots: RootCertStore, pinned: Option<Certificates>, provider: &Arc<CryptoProvider>) -> Self {
        Self {
            // Fails only for a store without roots.
            chains: WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .ok(),
            pinned,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    /// A certificate that is pinned itself: name and time are checked, whatever it says of authorities. rustls alone answers
    /// `CaUsedAsEndEntity` to one that is its own authority, which Go and OpenSSL accept.
    fn verify_itself(&self, server: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
        verify_server_name(&ParsedCertificate::try_from(server)?, name)?;
        let parsed = x509_cert::Certificate::from_der(server).map_err(|_| CertificateError::BadEncoding)?;
        let validity = parsed.tbs_certificate.validity;
        let now = now.as_secs();
        if now < validity.not_before.to_unix_duration().as_secs() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.to_unix_duration().as_secs() {
            return Err(CertificateError::Expired.into());
        }
        Ok(())
    }
}

/// Whether a certificate may sign others. rustls takes every root for an authority, but a server's own certificate that an operator
/// pins must not become one (RFC 5280, 4.2.1.9; certificates before version 3 cannot say it).
fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    let Ok(parsed) = x509_cert::Certificate::from_der(certificate) else {
        return false;
    };
    let constraints = parsed.tbs_certificate.get::<BasicConstraints>();
    parsed.tbs_certificate.version != Version::V3 || matches!(constraints, Ok(Some((_, constraints))) if constraints.ca)
}

impl ServerCertVerifier for Roots {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pinned.as_ref().is_some_and(|pinned| pinned.contain(server)) {
            return self.verify_itself(server, name, now).map(|()| ServerCertVerified::assertion());
        }
        match &self.chains {
            Some(chains) => chains.verify_server_cert(server, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Verified {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(&self, message: &[u8], cert: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Verified {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

type Verified = Result<HandshakeSignatureValid, Error>;

/// No certificate at all.
#[derive(Debug)]
pub(super) struct Nobody;

fn nothing_trusted() -> Error {
    Error::Other(OtherError(Arc::new(NothingTrusted)))
}

impl ServerCertVerifier for Nobody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Err(nothing_trusted())
    }

    fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Verified {
        Err(nothing_trusted())
    }

    fn verify_tls13_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Verified {
        Err(nothing_trusted())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Any certificate, even one that cannot be parsed.
#[derive(Debug)]
pub(super) struct Anybody(WebPkiSupportedAlgorithms);

impl Anybody {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Verified {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct) -> Verified {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
