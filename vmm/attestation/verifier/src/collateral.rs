//! Certificates and revocation lists as they come from a directory, a key server or a guest: in any order, of any number of chips.

use crate::certificate::{Certificate, CertificateError};
use crate::list::RevocationList;
use x509_cert::der::pem;

/// Largest file: AMD's chain has 4.6 KB in PEM.
pub const MAX_COLLATERAL_BYTES: usize = 1 << 20;
/// Largest certificate or list: AMD's have at most 1.7 KB. Parsing sorts the attributes of names in time that grows with their square.
const MAX_DOCUMENT_BYTES: usize = 16 << 10;
/// Most certificates and most lists, and most in one file: each costs a signature verification.
const MAX_ITEMS: usize = 256;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// Why bytes are no certificates and no revocation lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollateralError {
    /// Too large.
    #[error("more than {MAX_COLLATERAL_BYTES} bytes")]
    Size,
    /// Too many certificates or lists in all.
    #[error("more than {MAX_ITEMS} certificates or revocation lists")]
    Count,
    /// A certificate or list that is too large.
    #[error("a certificate or revocation list of more than {MAX_DOCUMENT_BYTES} bytes")]
    Document,
    /// PEM that cannot be read.
    #[error("PEM block {0} cannot be read")]
    Pem(usize),
    /// Neither a certificate nor a revocation list.
    #[error("neither a certificate nor a revocation list")]
    Kind(#[source] CertificateError),
}

/// What a chain is chosen from.
#[derive(Debug, Clone, Default)]
pub struct Collateral {
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) lists: Vec<RevocationList>,
}

impl Collateral {
    /// Adds what a file has: one certificate or list in DER, or any number of them in PEM. Adds all of it or nothing; what is there already
    /// is not added again.
    ///
    /// # Errors
    /// The bytes are something else, or too many.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), CollateralError> {
        let added = Self::of(bytes)?;
        let certificates = merged(&self.certificates, added.certificates)?;
        let lists = merged(&self.lists, added.lists)?;
        *self = Self { certificates, lists };
        Ok(())
    }

    fn of(bytes: &[u8]) -> Result<Self, CollateralError> {
        if bytes.len() > MAX_COLLATERAL_BYTES {
            return Err(CollateralError::Size);
        }
        let documents = match std::str::from_utf8(bytes) {
            Ok(text) if text.contains(BEGIN) => unpack(text)?,
            _ => vec![bytes.to_vec()],
        };
        if documents.len() > MAX_ITEMS {
            return Err(CollateralError::Count);
        }
        let mut read = Self::default();
        for der in documents {
            if der.len() > MAX_DOCUMENT_BYTES {
                return Err(CollateralError::Document);
            }
            match Certificate::from_der(&der) {
                Ok(certificate) => read.certificates.push(certificate),
                Err(error) => read
                    .lists
                    .push(RevocationList::from_der(&der).map_err(|_| CollateralError::Kind(error))?),
            }
        }
        Ok(read)
    }

    /// How many certificates and how many lists there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.certificates.len(), self.lists.len())
    }
}

/// What is there, and what is new of what is added.
fn merged<T: Clone + PartialEq>(there: &[T], added: Vec<T>) -> Result<Vec<T>, CollateralError> {
    let mut all = there.to_vec();
    for item in added {
        if !all.contains(&item) {
            all.push(item);
        }
    }
    match all.len() <= MAX_ITEMS {
        true => Ok(all),
        false => Err(CollateralError::Count),
    }
}

/// The DER documents of PEM text; what stands between the blocks is a comment (RFC 7468, section 2).
fn unpack(text: &str) -> Result<Vec<Vec<u8>>, CollateralError> {
    let blocks = text.split(BEGIN).skip(1).enumerate();
    let unpacked = blocks.map(|(index, block)| {
        let end = block.find(END).and_then(|at| {
            let line = block[at + END.len()..].find("-----")?;
            Some(at + END.len() + line + "-----".len())
        });
        let block = end.map(|end| format!("{BEGIN}{}", &block[..end]));
        let document = block.and_then(|block| pem::decode_vec(block.as_bytes()).map(|(_, der)| der).ok());
        document.ok_or(CollateralError::Pem(index + 1))
    });
    unpacked.take(MAX_ITEMS + 1).collect()
}
