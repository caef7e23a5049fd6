//! New keys, each with a certificate of its own for a registry's `rootcertbundle`.

use rcgen::{CertificateParams, DnType, KeyPair};
use rsa::pkcs8::EncodePrivateKey as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use zeroize::Zeroizing;

/// Bits of an RSA key (NIST SP 800-57: good past 2030).
const RSA_BITS: usize = 3072;
/// The first and last year of a certificate: rotation ends a key, not its certificate.
const YEARS: (i32, i32) = (2020, 2049);

/// How tokens are signed (RFC 7518).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256.
    Es256,
    /// RSA, PKCS #1.
    Rs256,
}

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
pub enum NewKeyError {
    /// Neither ES256 nor RS256.
    #[error("the algorithm is neither ES256 nor RS256")]
    Algorithm,
    /// No RSA key.
    #[error("cannot make an RSA key: {reason}")]
    Rsa {
        /// What the library said.
        reason: rsa::Error,
    },
    /// The key cannot be written as PKCS #8.
    #[error("cannot encode the RSA key: {reason}")]
    Encode {
        /// What the library said.
        reason: rsa::pkcs8::Error,
    },
    /// No key or certificate.
    #[error("cannot make the key or its certificate")]
    Certificate {
        /// What the library said.
        source: rcgen::Error,
    },
    /// A file that exists, or cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl FromStr for KeyAlgorithm {
    type Err = NewKeyError;
    fn from_str(word: &str) -> Result<Self, NewKeyError> {
        match word {
            "es256" | "ES256" => Ok(Self::Es256),
            "rs256" | "RS256" => Ok(Self::Rs256),
            _ => Err(NewKeyError::Algorithm),
        }
    }
}

/// Writes a new private key (mode 0600) and its self-signed certificate, both PEM. No file is overwritten.
///
/// # Errors
/// [`NewKeyError`]; a key whose certificate cannot be written stays.
pub fn new_key(algorithm: KeyAlgorithm, key: &Path, certificate: &Path) -> Result<(), NewKeyError> {
    let failed = |source| NewKeyError::Certificate { source };
    let pair = match algorithm {
        KeyAlgorithm::Es256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?,
        KeyAlgorithm::Rs256 => {
            let mut random = argon2::password_hash::rand_core::OsRng;
            let private = rsa::RsaPrivateKey::new(&mut random, RSA_BITS).map_err(|reason| NewKeyError::Rsa { reason })?;
            let der = private.to_pkcs8_der().map_err(|reason| NewKeyError::Encode { reason })?;
            KeyPair::try_from(der.as_bytes()).map_err(failed)?
        }
    };
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, "casemate registry token signer");
    params.not_before = rcgen::date_time_ymd(YEARS.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(YEARS.1, 12, 31);
    let public = params.self_signed(&pair).map_err(failed)?;
    write(key, 0o600, Zeroizing::new(pair.serialize_pem()).as_bytes())?;
    write(certificate, 0o644, public.pem().as_bytes())
}

fn write(path: &Path, mode: u32, text: &[u8]) -> Result<(), NewKeyError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    written.map_err(|source| NewKeyError::Write {
        path: path.to_owned(),
        source,
    })
}
