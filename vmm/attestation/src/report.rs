//! One report: its raw bytes, of which the first part is signed, and accessors for its fields.

use crate::product::{Cpuid, Product};
use crate::tcb::TcbVersion;
use std::fmt;
use std::ops::Range;

/// Size of a report in bytes, signature included.
pub const REPORT_BYTES: usize = 1184;

/// Bytes of a report that the signature covers.
pub const SIGNED_BYTES: usize = 0x2a0;

const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;

/// Bits of POLICY that have a meaning: ABI version, SMT, 17 (always one), and 18 to 25.
const POLICY_BITS: u64 = (1 << 26) - 1;
/// POLICY bit 17 "must be one".
const POLICY_ONE: u64 = 1 << 17;
/// AUTHOR_KEY_EN, MASK_CHIP_KEY and SIGNING_KEY.
const KEY_INFO_BITS: u32 = 0x1f;

/// Ranges that must be zero in every version; those that a version made into fields are in [`Report::reserved`].
const RESERVED: [(&str, Range<usize>); 7] = [
    ("0x4C", 0x4c..0x50),
    ("0x18B", 0x18b..0x1a0),
    ("0x1EB", 0x1eb..0x1ec),
    ("0x1EF", 0x1ef..0x1f0),
    ("0x208", 0x208..SIGNED_BYTES),
    ("SIGNATURE.R", 0x2d0..0x2e8),
    ("SIGNATURE.S", 0x318..0x330),
];
/// Behind the signature's two numbers.
const AFTER_SIGNATURE: Range<usize> = 0x330..REPORT_BYTES;
/// CPUID_FAM_ID, CPUID_MOD_ID, CPUID_STEP: since version 3.
const CPUID: Range<usize> = 0x188..0x18b;
/// LAUNCH_MIT_VECTOR, CURRENT_MIT_VECTOR: since version 5.
const MITIGATIONS: Range<usize> = 0x1f8..0x208;

/// Why bytes are not a known report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Not exactly [`REPORT_BYTES`] long.
    #[error("an attestation report has {REPORT_BYTES} bytes, not {0}")]
    Length(usize),
    /// A version with an unknown layout. Version 6 is refused too: fields read from a guessed layout would prove nothing.
    #[error("attestation report version {0} is unknown (2 to 5 are known)")]
    Version(u32),
}

/// Which key signed a report (SIGNING_KEY).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SigningKey {
    /// Versioned chip endorsement key: derived from the chip and its TCB.
    Vcek,
    /// Versioned loaded endorsement key: AMD gave it to a cloud provider.
    Vlek,
    /// Not signed.
    None,
    /// A value that the specification reserves.
    Reserved(u8),
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vcek => f.write_str("VCEK"),
            Self::Vlek => f.write_str("VLEK"),
            Self::None => f.write_str("none"),
            Self::Reserved(value) => write!(f, "reserved value {value}"),
        }
    }
}

/// A version of the SNP firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirmwareVersion {
    /// Major
    pub major: u8,
    /// Minor
    pub minor: u8,
    /// Build
    pub build: u8,
}

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// A report of a known version. Its fields are untrusted until the signature is verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    raw: Box<[u8; REPORT_BYTES]>,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("version", &self.version())
            .field("vmpl", &self.vmpl())
            .finish_non_exhaustive()
    }
}

impl Report {
    /// Parses the bytes that the firmware returned.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let raw: [u8; REPORT_BYTES] = bytes.try_into().map_err(|_| ReportError::Length(bytes.len()))?;
        let report = Self { raw: Box::new(raw) };
        if !VERSIONS.contains(&report.version()) {
            return Err(ReportError::Version(report.version()));
        }
        Ok(report)
    }

    /// VERSION, offset 0.
    pub fn version(&self) -> u32 {
        self.u32(0)
    }

    /// GUEST_SVN, offset 4: from the ID block.
    pub fn guest_svn(&self) -> u32 {
        self.u32(4)
    }

    /// POLICY, offset 8: guest policy bits (16 is SMT, 18 MIGRATE_MA, 19 DEBUG).
    pub fn policy(&self) -> u64 {
        self.u64(8)
    }

    /// FAMILY_ID, offset 0x10: from the ID block.
    pub fn family_id(&self) -> [u8; 16] {
        self.field(0x10)
    }

    /// IMAGE_ID, offset 0x20: from the ID block.
    pub fn image_id(&self) -> [u8; 16] {
        self.field(0x20)
    }

    /// VMPL, offset 0x30.
    pub fn vmpl(&self) -> u32 {
        self.u32(0x30)
    }

    /// SIGNATURE_ALGO, offset 0x34: 1 is ECDSA P-384 with SHA-384, the only one.
    pub fn signature_algorithm(&self) -> u32 {
        self.u32(0x34)
    }

    /// CURRENT_TCB, offset 0x38: what runs.
    pub fn current_tcb(&self) -> TcbVersion {
        TcbVersion(self.field(0x38))
    }

    /// PLATFORM_INFO, offset 0x40.
    pub fn platform_info(&self) -> u64 {
        self.u64(0x40)
    }

    /// AUTHOR_KEY_EN, offset 0x48, bit 0.
    pub fn author_key_enabled(&self) -> bool {
        self.key_info() & 1 != 0
    }

    /// MASK_CHIP_KEY, offset 0x48, bit 1: the firmware does not sign.
    pub fn chip_key_masked(&self) -> bool {
        self.key_info() & 2 != 0
    }

    /// SIGNING_KEY, offset 0x48, bits 4:2.
    pub fn signing_key(&self) -> SigningKey {
        match (self.key_info() >> 2) & 7 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => SigningKey::None,
            // Three bits always fit.
            other => SigningKey::Reserved(other as u8),
        }
    }

    /// REPORT_DATA, offset 0x50: chosen by the guest.
    pub fn report_data(&self) -> [u8; 64] {
        self.field(0x50)
    }

    /// MEASUREMENT, offset 0x90: SHA-384 launch digest.
    pub fn measurement(&self) -> [u8; 48] {
        self.field(0x90)
    }

    /// HOST_DATA, offset 0xC0: SHA-256 of the policy.
    pub fn host_data(&self) -> [u8; 32] {
        self.field(0xc0)
    }

    /// ID_KEY_DIGEST, offset 0xE0: SHA-384 of the key that signed the ID block.
    pub fn id_key_digest(&self) -> [u8; 48] {
        self.field(0xe0)
    }

    /// AUTHOR_KEY_DIGEST, offset 0x110: SHA-384 of the key that certified the ID key.
    pub fn author_key_digest(&self) -> [u8; 48] {
        self.field(0x110)
    }

    /// REPORT_ID, offset 0x140: identifies this guest for its life.
    pub fn report_id(&self) -> [u8; 32] {
        self.field(0x140)
    }

    /// REPORT_ID_MA, offset 0x160: identifies its migration agent.
    pub fn report_id_ma(&self) -> [u8; 32] {
        self.field(0x160)
    }

    /// REPORTED_TCB, offset 0x180: the VCEK is derived from it.
    pub fn reported_tcb(&self) -> TcbVersion {
        TcbVersion(self.field(0x180))
    }

    /// CPUID_FAM_ID, CPUID_MOD_ID and CPUID_STEP, offset 0x188: since version 3.
    pub fn cpuid(&self) -> Option<Cpuid> {
        let [family, model, stepping] = self.field(CPUID.start);
        let cpuid = Cpuid { family, model, stepping };
        (self.version() >= 3).then_some(cpuid)
    }

    /// The processor generation, by the report itself. A report of version 2 does not name it.
    pub fn product(&self) -> Option<Product> {
        self.cpuid().and_then(Product::of)
    }

    /// CHIP_ID, offset 0x1A0; zero if it is masked.
    pub fn chip_id(&self) -> [u8; 64] {
        self.field(0x1a0)
    }

    /// COMMITTED_TCB, offset 0x1E0: what the platform cannot go below any more.
    pub fn committed_tcb(&self) -> TcbVersion {
        TcbVersion(self.field(0x1e0))
    }

    /// CURRENT_BUILD, CURRENT_MINOR, CURRENT_MAJOR, offset 0x1E8.
    pub fn current_version(&self) -> FirmwareVersion {
        self.firmware(0x1e8)
    }

    /// COMMITTED_BUILD, COMMITTED_MINOR, COMMITTED_MAJOR, offset 0x1EC.
    pub fn committed_version(&self) -> FirmwareVersion {
        self.firmware(0x1ec)
    }

    /// LAUNCH_TCB, offset 0x1F0: what ran when the guest was launched or imported.
    pub fn launch_tcb(&self) -> TcbVersion {
        TcbVersion(self.field(0x1f0))
    }

    /// LAUNCH_MIT_VECTOR, offset 0x1F8: mitigations verified at launch, since version 5.
    pub fn launch_mitigations(&self) -> Option<u64> {
        (self.version() >= 5).then(|| self.u64(MITIGATIONS.start))
    }

    /// CURRENT_MIT_VECTOR, offset 0x200: mitigations verified now, since version 5.
    pub fn current_mitigations(&self) -> Option<u64> {
        (self.version() >= 5).then(|| self.u64(MITIGATIONS.start + 8))
    }

    /// R and S of the signature, offset 0x2A0, as big-endian numbers of 48 bytes: the report has them little-endian in 72 bytes, of
    /// which [`Self::reserved`] wants the rest to be zero.
    pub fn signature(&self) -> ([u8; 48], [u8; 48]) {
        let number = |at| {
            let mut number: [u8; 48] = self.field(at);
            number.reverse();
            number
        };
        (number(0x2a0), number(0x2e8))
    }

    /// Names of the fields in which a bit is set that must be zero (or clear, that must be one). Parsing does not refuse them: an agent
    /// that only reads must run on newer firmware of the same version.
    pub fn reserved(&self) -> Vec<&'static str> {
        let mut found = Vec::new();
        if self.policy() & !POLICY_BITS != 0 || self.policy() & POLICY_ONE == 0 {
            found.push("POLICY");
        }
        if self.key_info() & !KEY_INFO_BITS != 0 {
            found.push("KEY_INFO");
        }
        let of_version = [
            ("0x188", if self.version() < 3 { CPUID } else { 0..0 }),
            ("0x1F8", if self.version() < 5 { MITIGATIONS } else { 0..0 }),
            ("0x330", AFTER_SIGNATURE),
        ];
        for (name, range) in RESERVED.into_iter().chain(of_version) {
            if self.raw[range].iter().any(|byte| *byte != 0) {
                found.push(name);
            }
        }
        found
    }

    /// All bytes, signature included.
    pub fn as_bytes(&self) -> &[u8; REPORT_BYTES] {
        &self.raw
    }

    /// The raw bytes that the signature covers. Verify these and not a re-encoding, because they include reserved bytes.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.raw[..SIGNED_BYTES]
    }

    fn key_info(&self) -> u32 {
        self.u32(0x48)
    }

    fn firmware(&self, at: usize) -> FirmwareVersion {
        let [build, minor, major] = self.field(at);
        FirmwareVersion { major, minor, build }
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.field(at))
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.raw[at..at + N]);
        out
    }
}

#[cfg(test)]
mod tests;
