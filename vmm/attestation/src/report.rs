//! One report: its raw bytes, of which the first part is signed, and accessors for its fields.

use std::fmt;

/// Size of a report in bytes, signature included.
pub const REPORT_BYTES: usize = 1184;

/// Bytes of a report that the signature covers.
const SIGNED_BYTES: usize = 0x2a0;

const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;

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
        u32::from_le_bytes(self.field(0))
    }

    /// POLICY, offset 8: guest policy bits (19 is DEBUG, 18 MIGRATE_MA).
    pub fn policy(&self) -> u64 {
        u64::from_le_bytes(self.field(8))
    }

    /// VMPL, offset 0x30.
    pub fn vmpl(&self) -> u32 {
        u32::from_le_bytes(self.field(0x30))
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

    /// REPORTED_TCB, offset 0x180.
    pub fn reported_tcb(&self) -> u64 {
        u64::from_le_bytes(self.field(0x180))
    }

    /// The raw bytes that the signature covers. Verify these and not a re-encoding, because they include reserved bytes.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.raw[..SIGNED_BYTES]
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.raw[at..at + N]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(version: u32) -> Vec<u8> {
        let mut b: Vec<u8> = (0..REPORT_BYTES).map(|i| (i % 251) as u8).collect();
        b[..4].copy_from_slice(&version.to_le_bytes());
        b
    }

    #[test]
    fn fields_are_at_their_offsets() {
        let raw = bytes(3);
        let report = Report::parse(&raw).unwrap();
        assert_eq!(report.host_data(), raw[0xc0..0xe0]);
        assert_eq!(report.measurement(), raw[0x90..0xc0]);
        assert_eq!(report.report_data(), raw[0x50..0x90]);
        assert_eq!(report.policy().to_le_bytes(), raw[8..16]);
        assert_eq!(report.vmpl().to_le_bytes(), raw[0x30..0x34]);
        assert_eq!(report.reported_tcb().to_le_bytes(), raw[0x180..0x188]);
        assert_eq!(report.signed_bytes().len(), 672);
    }

    #[test]
    fn unknown_versions_and_lengths_are_refused() {
        for version in [0, 1, 6, 7, u32::MAX] {
            assert_eq!(Report::parse(&bytes(version)), Err(ReportError::Version(version)));
        }
        assert_eq!(Report::parse(&bytes(2)[1..]), Err(ReportError::Length(1183)));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2400)) {
            let _ = Report::parse(&bytes);
        }
    }
}
