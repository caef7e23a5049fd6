//! Reports of one guest, in the layout of versions 2 to 5 (SNP firmware ABI, 7.3).

use crate::{CHIP_ID, LEVEL, PRODUCT, key::EndorsementKey};
use attestation::{REPORT_BYTES, SIGNED_BYTES};
use p384::ecdsa::{Signature, signature::hazmat::PrehashSigner};
use sha2::{Digest, Sha384};

/// The newest layout.
const VERSION: u32 = 5;
/// ECDSA on P-384 with SHA-384.
const ALGORITHM: u32 = 1;
/// Family, model and stepping of a Turin.
const CPUID: [u8; 3] = [0x1a, 0x02, 0x01];
/// SMT is on, memory has ECC, and no alias was found.
const PLATFORM_INFO: u64 = 0b10_0101;
/// CURRENT_TCB, REPORTED_TCB, COMMITTED_TCB, LAUNCH_TCB.
const TCBS: [usize; 4] = [0x38, 0x180, 0x1e0, 0x1f0];
/// Where the signature's numbers are.
const NUMBERS: [usize; 2] = [SIGNED_BYTES, SIGNED_BYTES + 72];

/// What a report says of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its launch digest.
    pub measurement: [u8; 48],
    /// SHA-256 of its policy.
    pub host_data: [u8; 32],
    /// Its guest policy.
    pub policy: u64,
}

/// Signs the reports of one guest.
#[derive(Clone, Debug)]
pub struct Reporter {
    key: EndorsementKey,
    guest: Guest,
    version: u32,
    level: u8,
}

impl Reporter {
    /// Of the newest version.
    pub fn new(key: EndorsementKey, guest: Guest) -> Self {
        Self {
            key,
            guest,
            version: VERSION,
            level: LEVEL,
        }
    }

    /// The same with another level of each part of the TCB than [`LEVEL`]: the chip's certificate does not say it.
    pub fn with_level(self, level: u8) -> Self {
        Self { level, ..self }
    }

    /// The same with reports of an older version, 2 to 5; others are ignored.
    pub fn with_version(self, version: u32) -> Self {
        let version = if (2..=VERSION).contains(&version) { version } else { self.version };
        Self { version, ..self }
    }

    /// A report with this REPORT_DATA. The same data gives the same report.
    pub fn report(&self, report_data: &[u8; 64]) -> [u8; REPORT_BYTES] {
        let mut raw = [0; REPORT_BYTES];
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.version.to_le_bytes());
        put(0x8, &self.guest.policy.to_le_bytes());
        put(0x34, &ALGORITHM.to_le_bytes());
        put(0x40, &PLATFORM_INFO.to_le_bytes());
        put(0x50, report_data);
        put(0x90, &self.guest.measurement);
        put(0xc0, &self.guest.host_data);
        for tcb in TCBS {
            for (_, at) in PRODUCT.tcb_parts() {
                put(tcb + at, &[self.level]);
            }
        }
        if self.version >= 3 {
            put(0x188, &CPUID);
        }
        put(0x1a0, &CHIP_ID);
        self.sign(&mut raw);
        raw
    }

    /// Both numbers little endian.
    fn sign(&self, raw: &mut [u8; REPORT_BYTES]) {
        let digest = Sha384::digest(&raw[..SIGNED_BYTES]);
        // RFC 6979 fails for no digest of the curve's length.
        let Ok(signature) = PrehashSigner::<Signature>::sign_prehash(&self.key.0, &digest) else {
            return;
        };
        let (r, s) = signature.split_bytes();
        for (at, number) in NUMBERS.into_iter().zip([r, s]) {
            for (byte, of_number) in raw[at..].iter_mut().zip(number.iter().rev()) {
                *byte = *of_number;
            }
        }
    }
}
