//! What a verifier expects of a report: the checked content of its requirements file.

use crate::expectations::file::File;
use attestation::{Part, Product, SigningKey};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

mod file;

/// Why a requirements file's content is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpectationError {
    /// No product of this name.
    #[error("unknown product {0:?}; known: milan, genoa, turin, venice")]
    Product(String),
    /// No signing key of this name.
    #[error("unknown signing key {0:?}; known: vcek, vlek")]
    SigningKey(String),
    /// No bit of PLATFORM_INFO has this name.
    #[error(
        "unknown platform information {0:?}; known: smt, tsme, ecc, rapl-disabled, ciphertext-hiding, alias-check-complete, \
         iommu-write-safe, tio"
    )]
    PlatformInfo(String),
    /// Not a digest in hexadecimal.
    #[error("{field}: wanted {bytes} bytes in hexadecimal, or any alone")]
    Digest {
        /// Which one.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A minimum that does not name each part of the product's TCB, and only those.
    #[error("minimum TCB of {product}: wanted {wanted}")]
    Levels {
        /// The product.
        product: Product,
        /// The parts that it has.
        wanted: String,
    },
}

/// The values of a field of `N` bytes that are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Wanted<const N: usize> {
    /// Nothing was said: no report passes, since a verifier that looks at nothing proves nothing.
    #[default]
    Unsaid,
    /// The word `any`: every value is accepted.
    Any,
    /// One of these.
    OneOf(BTreeSet<[u8; N]>),
}

impl<const N: usize> Wanted<N> {
    /// From texts: values in hexadecimal, or `any` alone. No text is [`Self::Unsaid`].
    ///
    /// # Errors
    /// A text is neither.
    pub fn parse(field: &'static str, texts: &[String]) -> Result<Self, ExpectationError> {
        match texts {
            [] => Ok(Self::Unsaid),
            [word] if word == "any" => Ok(Self::Any),
            texts => texts
                .iter()
                .map(|text| digest(field, text))
                .collect::<Result<_, _>>()
                .map(Self::OneOf),
        }
    }
}

/// One value in hexadecimal.
fn digest<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], ExpectationError> {
    let mut bytes = [0; N];
    match hex::decode_to_slice(text.trim(), &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(ExpectationError::Digest { field, bytes: N }),
    }
}

/// What to do about revocation lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revocation {
    /// A current list of the root is needed.
    #[default]
    Required,
    /// A list of the root is needed; its age is said.
    StaleAllowed,
    /// No list is needed; one that is given counts.
    Unchecked,
}

/// Which freedoms a guest's launch policy may give to its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuestPolicy {
    /// The host may debug: read and write the guest's memory.
    pub debug: bool,
    /// A migration agent may be bound to the guest.
    pub migration: bool,
    /// The host may run the guest with simultaneous multithreading.
    pub smt: bool,
}

impl Default for GuestPolicy {
    fn default() -> Self {
        Self {
            debug: false,
            migration: false,
            smt: true,
        }
    }
}

/// Bits of PLATFORM_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlatformInfo {
    /// Must be set.
    pub required: u64,
    /// Must be clear.
    pub forbidden: u64,
}

/// Bits of the mitigation vectors that must be set; AMD's bulletins name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mitigations {
    /// When the guest was launched.
    pub launch: u64,
    /// When the report was made.
    pub current: u64,
}

/// Lowest levels of a TCB, one for each part that the product has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels(BTreeMap<Part, u8>);

impl Levels {
    /// Checks that exactly the product's parts are named.
    ///
    /// # Errors
    /// A part is missing, or is none of the product's.
    pub fn new(product: Product, levels: BTreeMap<Part, u8>) -> Result<Self, ExpectationError> {
        let parts: BTreeSet<Part> = product.tcb_parts().iter().map(|(part, _)| *part).collect();
        if levels.keys().copied().collect::<BTreeSet<_>>() == parts {
            return Ok(Self(levels));
        }
        let names: Vec<&str> = product.tcb_parts().iter().map(|(part, _)| part.name()).collect();
        let wanted = names.join(", ");
        Err(ExpectationError::Levels { product, wanted })
    }

    /// The lowest level of a part.
    pub(crate) fn of(&self, part: Part) -> u8 {
        self.0.get(&part).copied().unwrap_or(u8::MAX)
    }

    pub(crate) fn shown(&self, product: Product) -> String {
        let parts = product
            .tcb_parts()
            .iter()
            .map(|(part, _)| format!("{} {}", part.name(), self.of(*part)));
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// What is expected of a report. By default it accepts none: measurement, host data, report data and minimum TCB must be said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "File")]
pub struct Expectations {
    /// Processors. Milan must be named: the root of its keys has been extracted, so that no TCB is high enough.
    pub products: BTreeSet<Product>,
    /// Keys that may sign.
    pub signing_keys: BTreeSet<SigningKey>,
    /// Revocation lists.
    pub revocation: Revocation,
    /// Whether a platform may hide which chip it has.
    pub allow_masked_chip_id: bool,
    /// Lowest TCB, by product: for the reported one and for that at launch.
    pub minimum_tcb: BTreeMap<Product, Levels>,
    /// PLATFORM_INFO.
    pub platform_info: PlatformInfo,
    /// Mitigation vectors.
    pub mitigations: Mitigations,
    /// The launch policy's bits.
    pub guest_policy: GuestPolicy,
    /// Launch digests: of an image there is one for each number of virtual CPUs.
    pub measurements: Wanted<48>,
    /// Host data: SHA-256 of the guest's policy.
    pub host_data: Wanted<32>,
    /// Report data: the caller's nonce.
    pub report_data: Wanted<64>,
    /// Digests of ID keys; empty: not looked at.
    pub id_key_digests: BTreeSet<[u8; 48]>,
    /// Root keys beside the built-in ones: SHA-256 of the SubjectPublicKeyInfo, by product. See [`Self::trust`].
    pub(crate) roots: BTreeMap<Product, BTreeSet<[u8; 32]>>,
}

impl Default for Expectations {
    fn default() -> Self {
        Self {
            products: [Product::Genoa, Product::Turin, Product::Venice].into(),
            signing_keys: [SigningKey::Vcek].into(),
            revocation: Revocation::default(),
            allow_masked_chip_id: false,
            minimum_tcb: BTreeMap::new(),
            platform_info: PlatformInfo::default(),
            mitigations: Mitigations::default(),
            guest_policy: GuestPolicy::default(),
            measurements: Wanted::default(),
            host_data: Wanted::default(),
            report_data: Wanted::default(),
            id_key_digests: BTreeSet::new(),
            roots: BTreeMap::new(),
        }
    }
}
