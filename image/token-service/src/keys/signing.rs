//! One private key with its certificate, ready to sign tokens.

use super::KeyError;
use crate::config::KeyFiles;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, Signer};
use rustls::{SignatureScheme, crypto};
use std::io::Read as _;
use std::path::Path;
use x509_cert::der::Decode as _;
use zeroize::Zeroizing;

/// Largest file of a key or certificate in bytes.
const FILE_MAX_BYTES: u64 = 1 << 16;
/// Bytes of a P-256 coordinate.
const P256_BYTES: usize = 32;
/// What is derived from a key for seals.
const SEAL_SALT: &[u8] = b"casemate registry seal 1";

/// A key that signs tokens.
pub(crate) struct SigningKey {
    signer: Box<dyn Signer>,
    /// `alg`, `typ` and `x5c`, in base64url.
    header: String,
    expires: i64,
    pub(super) seal: ring::hkdf::Prk,
}

impl SigningKey {
    /// Reads the key and the certificate, and checks that they belong together.
    ///
    /// # Errors
    /// [`KeyError`], with the file.
    pub(crate) fn read(files: &KeyFiles) -> Result<Self, KeyError> {
        let key_text = read(&files.key)?;
        let certificate_text = read(&files.certificate)?;
        let pem = |path: &Path, kind| KeyError::Pem {
            path: path.to_owned(),
            kind,
        };
        let key = PrivateKeyDer::from_pem_slice(&key_text).map_err(|_| pem(&files.key, "private key"))?;
        let certificate = CertificateDer::from_pem_slice(&certificate_text).map_err(|_| pem(&files.certificate, "certificate"))?;
        let kind = || KeyError::Kind { path: files.key.clone() };
        let loaded = crypto::ring::sign::any_supported_type(&key).map_err(|_| kind())?;
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
        let signer = loaded.choose_scheme(&schemes).ok_or_else(kind)?;
        let pair = CertifiedKey::new(vec![certificate.clone()], loaded);
        pair.keys_match().map_err(|_| KeyError::Mismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        })?;
        let parsed = x509_cert::Certificate::from_der(&certificate).map_err(|_| pem(&files.certificate, "certificate"))?;
        let expires = parsed.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
        let algorithm = if signer.scheme() == SignatureScheme::RSA_PKCS1_SHA256 {
            "RS256"
        } else {
            "ES256"
        };
        let x5c = STANDARD.encode(&certificate);
        let header = format!(r#"{{"typ":"JWT","alg":"{algorithm}","x5c":["{x5c}"]}}"#);
        Ok(Self {
            signer,
            header: URL_SAFE_NO_PAD.encode(header),
            expires: i64::try_from(expires).unwrap_or(i64::MAX),
            seal: ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, SEAL_SALT).extract(key.secret_der()),
        })
    }

    /// Seconds since 1970 at which the certificate ends; registries refuse its tokens then.
    pub(crate) fn expires(&self) -> i64 {
        self.expires
    }

    /// The signed token (RFC 7519) of claims in JSON.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub(crate) fn token(&self, claims: &[u8]) -> Result<String, KeyError> {
        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 360);
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.signer.sign(token.as_bytes()).map_err(|source| KeyError::Sign { source })?;
        token.push('.');
        if self.signer.scheme() == SignatureScheme::RSA_PKCS1_SHA256 {
            URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        } else {
            let failed = || KeyError::Sign {
                source: rustls::Error::General("an ECDSA signature is not in DER".to_owned()),
            };
            URL_SAFE_NO_PAD.encode_string(fixed(&signature).ok_or_else(failed)?, &mut token);
        }
        Ok(token)
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed = |source| KeyError::Read {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = Zeroizing::new(Vec::new());
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(KeyError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// The two numbers of an ECDSA signature, which TLS has in DER, side by side as tokens have them (RFC 7518, section 3.4).
fn fixed(der: &[u8]) -> Option<[u8; 2 * P256_BYTES]> {
    let (length, mut rest) = der.strip_prefix(&[0x30])?.split_first()?;
    if usize::from(*length) != rest.len() {
        return None;
    }
    let mut numbers = [0; 2 * P256_BYTES];
    for number in numbers.chunks_exact_mut(P256_BYTES) {
        let (length, after) = rest.strip_prefix(&[0x02])?.split_first()?;
        let (digits, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
        number.get_mut(P256_BYTES.checked_sub(digits.len())?..)?.copy_from_slice(digits);
    }
    rest.is_empty().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::super::{KeyAlgorithm, new_key};
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm};

    fn files(directory: &Path, name: &str, algorithm: KeyAlgorithm) -> KeyFiles {
        let files = KeyFiles {
            key: directory.join(format!("{name}.key")),
            certificate: directory.join(format!("{name}.crt")),
        };
        new_key(algorithm, &files.key, &files.certificate).unwrap();
        files
    }

    #[test]
    fn both_algorithms_sign_what_the_certificate_verifies() {
        let directory = tempfile::tempdir().unwrap();
        let cases: [(KeyAlgorithm, &str, &'static dyn VerificationAlgorithm); 2] = [
            (KeyAlgorithm::Es256, "ES256", &ECDSA_P256_SHA256_FIXED),
            (KeyAlgorithm::Rs256, "RS256", &RSA_PKCS1_2048_8192_SHA256),
        ];
        for (algorithm, word, verification) in cases {
            let key = SigningKey::read(&files(directory.path(), word, algorithm)).unwrap();
            // Enough for numbers that are short of their leading bytes.
            for n in 0..if word == "ES256" { 2000 } else { 2 } {
                let token = key.token(format!(r#"{{"n":{n}}}"#).as_bytes()).unwrap();
                let (signed, signature) = token.rsplit_once('.').unwrap();
                let header: serde_json::Value =
                    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split('.').next().unwrap()).unwrap()).unwrap();
                assert_eq!((&header["alg"], &header["typ"]), (&word.into(), &"JWT".into()));
                let der = STANDARD.decode(header["x5c"][0].as_str().unwrap()).unwrap();
                let certificate = x509_cert::Certificate::from_der(&der).unwrap();
                let public = certificate.tbs_certificate.subject_public_key_info.subject_public_key;
                UnparsedPublicKey::new(verification, public.raw_bytes())
                    .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
                    .unwrap();
            }
        }
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (
            files(directory.path(), "a", KeyAlgorithm::Es256),
            files(directory.path(), "b", KeyAlgorithm::Es256),
        );
        let crossed = KeyFiles {
            key: a.key.clone(),
            certificate: b.certificate,
        };
        assert!(matches!(SigningKey::read(&crossed), Err(KeyError::Mismatch { .. })));
        let swapped = KeyFiles {
            key: a.certificate.clone(),
            certificate: a.key.clone(),
        };
        assert!(matches!(SigningKey::read(&swapped), Err(KeyError::Pem { .. })));
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        std::fs::write(&a.key, other.serialize_pem()).unwrap();
        assert!(matches!(SigningKey::read(&a), Err(KeyError::Kind { .. })));
        std::fs::write(&a.key, vec![b'a'; FILE_MAX_BYTES as usize + 1]).unwrap();
        assert!(matches!(SigningKey::read(&a), Err(KeyError::TooLarge { .. })));
    }

    #[test]
    fn signatures_that_are_no_der_are_none() {
        for bad in [&[][..], &[0x30], &[0x30, 1, 2], &[0x30, 2, 2, 1], &[0x31, 6, 2, 1, 1, 2, 1, 1]] {
            assert_eq!(fixed(bad), None);
        }
        let small = fixed(&[0x30, 6, 2, 1, 1, 2, 1, 2]).unwrap();
        assert_eq!((small[31], small[63]), (1, 2));
        let mut long = vec![0x30, 38, 2, 33];
        long.extend([1; 33]);
        long.extend([2, 1, 1]);
        assert_eq!(fixed(&long), None);
    }
}
