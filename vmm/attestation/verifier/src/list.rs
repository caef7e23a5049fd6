//! One certificate revocation list: parsed once, with the exact bytes that its issuer signed.

use crate::certificate::{Certificate, CertificateError, extensions, first_member};
use crate::time::Time;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

/// A revocation list, untrusted until its signature is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevocationList {
    parsed: CertificateList,
    signed: Vec<u8>,
}

impl RevocationList {
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = CertificateList::from_der(der).map_err(|_| CertificateError::Malformed)?;
        let signed = first_member(der).ok_or(CertificateError::Malformed)?;
        Ok(Self { parsed, signed })
    }

    /// Whether it says that `issuer` made it.
    pub fn names(&self, issuer: &Certificate) -> bool {
        self.parsed.tbs_cert_list.issuer == *issuer.subject()
    }

    /// Verifies that `issuer` signed it, and that it limits its own scope in no way that is unknown here (RFC 5280, section 5.2).
    pub fn signed_by(&self, issuer: &Certificate) -> Result<(), CertificateError> {
        if !self.names(issuer) {
            return Err(CertificateError::Issuer);
        }
        if extensions(&self.parsed.tbs_cert_list.crl_extensions).any(|extension| extension.critical) {
            return Err(CertificateError::Critical);
        }
        let signature = self.parsed.signature.as_bytes().ok_or(CertificateError::Malformed)?;
        let algorithms = [&self.parsed.signature_algorithm, &self.parsed.tbs_cert_list.signature];
        issuer.verify(algorithms, &self.signed, signature)
    }

    pub fn issued(&self) -> Time {
        Time::of(self.parsed.tbs_cert_list.this_update)
    }

    /// When the next one is due; a list without it is due at once.
    pub fn due(&self) -> Time {
        self.parsed.tbs_cert_list.next_update.map_or(self.issued(), Time::of)
    }

    /// Whether it has a certificate's serial number, whatever an entry's extensions say.
    pub fn revokes(&self, certificate: &Certificate) -> bool {
        let mut entries = self.parsed.tbs_cert_list.revoked_certificates.iter().flatten();
        entries.any(|entry| entry.serial_number.as_bytes() == certificate.serial())
    }
}
