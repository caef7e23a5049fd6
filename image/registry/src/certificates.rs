//! Certificates in PEM, as operators paste them: with labels between, and blocks that are something else.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// Certificates, at least one, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates(Vec<CertificateDer<'static>>);

/// What a text holds.
pub(crate) struct Found {
    /// The certificates, if there are any.
    pub(crate) certificates: Option<Certificates>,
    /// What was passed over.
    pub(crate) skipped: Vec<String>,
}

impl Certificates {
    /// How many.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0.iter()
    }

    pub(crate) fn contain(&self, certificate: &CertificateDer<'_>) -> bool {
        self.0.iter().any(|own| own.as_ref() == certificate.as_ref())
    }
}

/// Finds every certificate. Text between the blocks is ignored, and so is a block that is none.
pub(crate) fn parse(text: &str) -> Found {
    let mut found = Vec::new();
    let mut skipped = Vec::new();
    for (index, block) in CertificateDer::pem_slice_iter(text.as_bytes()).enumerate() {
        match block {
            Ok(der) if Certificate::from_der(&der).is_err() => skipped.push(format!("certificate {} is not X.509, and skipped", index + 1)),
            Ok(der) if found.contains(&der) => {}
            Ok(der) => found.push(der),
            Err(_) => skipped.push("a block that is not PEM is skipped".to_owned()),
        }
    }
    if found.is_empty() {
        skipped.push("no certificate in it: nothing will be trusted".to_owned());
    }
    Found {
        certificates: (!found.is_empty()).then_some(Certificates(found)),
        skipped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(name: &str) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new([name.to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap()
            .pem()
    }

    fn count(text: &str) -> usize {
        parse(text).certificates.map_or(0, |certificates| certificates.len())
    }

    #[test]
    fn certificates_are_found_among_other_things() {
        let (one, two) = (pem("one"), pem("two"));
        let block = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
        let broken = block("CERTIFICATE", "!!!!");
        let junk = block("CERTIFICATE", "AQID");
        let key = block("PRIVATE KEY", "AQID");
        assert_eq!(count(&format!("Root 1\n{one}\nRoot 2\n{two}")), 2);
        assert_eq!(count(&format!("{one}{one}")), 1);
        assert_eq!(count(&format!("{broken}{one}{junk}{two}{key}")), 2);
        assert_eq!(count(&one.replace('\n', "\r\n")), 1);
        for nothing in ["none", " \n", &broken, &junk, &key, "-----BEGIN CERTIFICATE-----\nAQID"] {
            assert_eq!(count(nothing), 0, "{nothing}");
            assert!(!parse(nothing).skipped.is_empty(), "{nothing}");
        }
    }
}
