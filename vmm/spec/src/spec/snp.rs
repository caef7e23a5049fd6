//! What the launch of an SEV-SNP guest is given besides its plan.

use super::Fd;
use serde::{Deserialize, Serialize};

/// Of a guest with tee `snp`; its host data are those of the spec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snp {
    /// Guest policy (SNP firmware ABI, 4.3); absent: SMT is allowed, and nothing else is asked for.
    pub policy: Option<u64>,
    /// What the firmware holds the guest to.
    pub id: Option<SignedIdFiles>,
    /// The table of certificates that the guest may ask for with a report (GHCB specification, 4.1.8.1), read once.
    pub certificates: Option<Fd>,
    /// No report of this guest is signed with the chip's own key (VCEK).
    pub without_vcek: bool,
}

/// An ID block and its signatures (SNP firmware ABI, 8.18.2 and 8.18.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedIdFiles {
    /// The ID block, of 96 bytes.
    pub block: Fd,
    /// Keys and signatures, of 4096 bytes.
    pub authentication: Fd,
}
