//! AMD's root keys, one for each product, by digest; a caller can trust others, which no requirements file can.

use crate::certificate::Certificate;
use crate::check::Check;
use crate::collateral::{Collateral, CollateralError};
use crate::expectations::Expectations;
use attestation::Product;

/// Why a file's certificates are not trusted as roots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// No certificates.
    #[error("no root certificates")]
    Collateral(#[from] CollateralError),
    /// A certificate that did not sign itself, or that has not the name of a product's root.
    #[error("{0:?} is no root: wanted a certificate that signed itself, named ARK-Milan, ARK-Genoa, ARK-Turin or ARK-Venice")]
    Root(String),
    /// Revocation lists only.
    #[error("there is no certificate in it")]
    Empty,
}

/// SHA-256 of the SubjectPublicKeyInfo of ARK-Milan, ARK-Genoa and ARK-Turin, from the certificates that AMD's own library carries
/// (`virtee/sev` 7.1, `src/certs/snp/builtin`), compared with the key servers' by others. One root signs the authority of chip keys (ASK)
/// and that of loaded keys (ASVK). No certificate of ARK-Venice was published when this was written: it has to be given.
const PINNED: [(Product, [u8; 32]); 3] = [
    (
        Product::Milan,
        [
            0x9f, 0x05, 0x6b, 0xee, 0x44, 0x37, 0x7e, 0x29, 0x30, 0x8c, 0xb5, 0xff, 0xa8, 0x95, 0xbd, 0xfb, 0x62, 0xd1, 0x88, 0x81, 0xfa,
            0x6b, 0xed, 0x8d, 0x6f, 0x07, 0x5b, 0x02, 0x04, 0x08, 0x9c, 0xb9,
        ],
    ),
    (
        Product::Genoa,
        [
            0x42, 0x9a, 0x69, 0xc9, 0x42, 0x2a, 0xa2, 0x58, 0xee, 0x4d, 0x8d, 0xb5, 0xfc, 0xda, 0x9c, 0x64, 0x70, 0xef, 0x15, 0xf8, 0xcd,
            0x5a, 0x9c, 0xeb, 0xd6, 0xcb, 0xc7, 0xd9, 0x0b, 0x86, 0x38, 0x31,
        ],
    ),
    (
        Product::Turin,
        [
            0x4f, 0x12, 0x54, 0x10, 0x56, 0x3a, 0x2a, 0xb9, 0xa5, 0x03, 0x56, 0xf9, 0x24, 0x3f, 0x6f, 0xe0, 0xb6, 0xf7, 0x3d, 0xe9, 0x86,
            0x03, 0xf5, 0x3f, 0x90, 0x33, 0x9c, 0x70, 0xe9, 0xd7, 0xad, 0x08,
        ],
    ),
];

impl Expectations {
    /// Trusts the roots that a file has, and those that are built in no longer: whoever verifies simulated guests, say, must not accept a
    /// real processor's report of the same pages, whose host may have left them unencrypted.
    ///
    /// # Errors
    /// A certificate is no root; then nothing changes.
    pub fn trust(&mut self, bytes: &[u8]) -> Result<(), RootError> {
        let mut given = Collateral::default();
        given.add(bytes)?;
        let mut roots = self.roots.clone();
        for root in &given.certificates {
            let product = product(root).filter(|_| root.signed_by(root).is_ok());
            let product = product.ok_or_else(|| RootError::Root(root.shown_name()))?;
            roots.entry(product).or_default().insert(root.key_digest());
        }
        if given.certificates.is_empty() {
            return Err(RootError::Empty);
        }
        self.roots = roots;
        Ok(())
    }
}

/// The product whose root a certificate claims to be.
fn product(root: &Certificate) -> Option<Product> {
    let name = root.common_name();
    Product::ALL
        .into_iter()
        .find(|product| name.strip_prefix("ARK-") == Some(product.name()))
}

/// Whether a certificate has the root key of any product.
pub(crate) fn is_trusted(root: &Certificate, expectations: &Expectations) -> bool {
    let digest = root.key_digest();
    Product::ALL
        .into_iter()
        .any(|product| trusted(product, expectations).contains(&digest))
}

/// The digests of a product's root keys that are trusted.
fn trusted(product: Product, expectations: &Expectations) -> Vec<[u8; 32]> {
    if expectations.roots.is_empty() {
        built_in(product).copied().collect()
    } else {
        expectations.roots.get(&product).into_iter().flatten().copied().collect()
    }
}

fn built_in(product: Product) -> impl Iterator<Item = &'static [u8; 32]> {
    PINNED.iter().filter(move |(known, _)| *known == product).map(|(_, digest)| digest)
}

/// Whether the root's key is one that is trusted for the product.
pub(crate) fn pinned(root: Option<&Certificate>, product: Option<Product>, expectations: &Expectations) -> Check {
    const NAME: &str = "root key";
    let Some(product) = product else {
        return Check::impossible(NAME, "product unknown", "a root of the product");
    };
    let trusted = trusted(product, expectations);
    let wanted = match (trusted.is_empty(), expectations.roots.is_empty()) {
        (true, true) => format!("a root of {product}, of which none is built in: it has to be given"),
        (true, false) => format!("a root of {product}, of which none was given"),
        (false, _) => trusted.iter().map(hex::encode).collect::<Vec<_>>().join(" or "),
    };
    let Some(root) = root else {
        return Check::impossible(NAME, "no certificate", wanted);
    };
    let digest = root.key_digest();
    let passed = trusted.contains(&digest);
    let seen = match passed && !built_in(product).any(|known| *known == digest) {
        true => format!("{}, given by the caller: not one of AMD's that are built in", hex::encode(digest)),
        false => hex::encode(digest),
    };
    Check::new(NAME, passed, seen, wanted)
}
