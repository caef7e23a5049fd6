//! `VmSpec`: the configuration of a VM, as JSON; its files are descriptors that the VMM inherits.

mod snp;
mod volumes;

pub use snp::{SignedIdFiles, Snp};
pub use volumes::{VolumeSlots, Volumes};

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest spec in bytes.
pub const SPEC_MAX_BYTES: usize = 64 * 1024;

/// Everything `casemate-vmm` needs to build one VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Number of virtual CPUs.
    pub vcpus: Vcpus,
    /// Guest memory.
    pub memory: MemoryMib,
    /// How the guest boots.
    pub boot: Boot,
    /// TEE of the guest; its mode in the boot manifest.
    pub tee: Tee,
    /// Who signs the guest's reports, if and only if the TEE is simulated.
    #[serde(default)]
    pub reports: Option<SimulatedReports>,
    /// SHA-256 of the policy text.
    pub host_data: HostData,
    /// For the launch of a guest with tee `snp`.
    #[serde(default)]
    pub snp: Option<Snp>,
    /// Output of the guest's serial console, discarded if absent: a pipe, socket or terminal, or a file of 4 to 256 KiB, open for
    /// reading and writing, which keeps its length and the newest output.
    #[serde(default)]
    pub console: Option<Fd>,
    /// A listening `SOCK_SEQPACKET` unix socket for [`crate::control`].
    pub control: Fd,
    /// The vsock device.
    #[serde(default)]
    pub vsock: Option<Vsock>,
    /// Whether the growable read-only layer disk is present.
    #[serde(default)]
    pub layers: bool,
    /// The scratch disk.
    #[serde(default)]
    pub scratch: Option<Scratch>,
    /// The disk with the operator's configuration of registries: a file whose length is a multiple of 512, which the guest reads. It is not
    /// measured.
    #[serde(default)]
    pub registries: Option<Fd>,
    /// The network device; its TAP comes with [`crate::control::Request::AttachTap`].
    #[serde(default)]
    pub network: Option<Network>,
    /// Slots for disks that come while the VM runs.
    #[serde(default)]
    pub volumes: Volumes,
    /// Whether the entropy device is present.
    #[serde(default)]
    pub rng: bool,
    /// User and group that the VMM changes to once it has its files; unchanged if absent.
    #[serde(default)]
    pub identity: Option<Identity>,
}

/// User and group of one VMM, so that VMMs cannot signal or trace each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Real, effective and saved user id.
    pub uid: UnprivilegedId,
    /// Real, effective and saved group id; supplementary groups are dropped.
    pub gid: UnprivilegedId,
}

/// A user or group id other than root's and other than -1, which means "unchanged" to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct UnprivilegedId(u32);

impl TryFrom<u32> for UnprivilegedId {
    type Error = SpecError;
    fn try_from(n: u32) -> Result<Self, SpecError> {
        if n == 0 || n == u32::MAX {
            Err(SpecError::Privileged(n))
        } else {
            Ok(Self(n))
        }
    }
}

impl From<UnprivilegedId> for u32 {
    fn from(id: UnprivilegedId) -> u32 {
        id.0
    }
}

/// How the guest boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// The VMM loads an ELF kernel (64-bit boot protocol); nothing in the guest verifies it.
    Direct(Payload),
    /// stage0 loads kernel and initramfs in the guest, if they have the digests of the measured boot page.
    Verified(VerifiedBoot),
}

/// A guest that stage0 starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifiedBoot {
    /// stage0's program.
    pub stage0: Fd,
    /// What stage0 loads.
    pub payload: Payload,
}

/// Kernel, initramfs and command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// ELF `vmlinux`.
    pub kernel: Fd,
    /// SHA-256 of the kernel file, for the boot manifest.
    pub kernel_sha256: HostData,
    /// Initramfs (cpio).
    pub initrd: Option<Fd>,
    /// SHA-256 of the initramfs, for the boot manifest; zeros without one.
    pub initrd_sha256: HostData,
    /// Kernel command line; the VMM appends nothing.
    pub cmdline: String,
}

impl Boot {
    /// What is booted, whoever loads it.
    pub fn payload(&self) -> &Payload {
        match self {
            Self::Direct(payload) => payload,
            Self::Verified(verified) => &verified.payload,
        }
    }

    /// As [`Boot::payload`], to change it.
    pub fn payload_mut(&mut self) -> &mut Payload {
        match self {
            Self::Direct(payload) => payload,
            Self::Verified(verified) => &mut verified.payload,
        }
    }
}

/// Trusted execution environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// None: the guest trusts the host.
    Plain,
    /// None, but with simulated attestation reports, signed with a test key.
    Simulated,
    /// AMD SEV-SNP.
    Snp,
}

/// What a VMM needs to sign simulated reports.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedReports {
    /// The endorsement key's secret: 48 bytes in hexadecimal.
    pub key: String,
    /// A file with the table of certificates that goes with each report.
    pub certificates: Fd,
    /// Version of the reports, 2 to 5.
    pub version: u32,
}

/// Without the key.
impl fmt::Debug for SimulatedReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { certificates, version, .. } = self;
        write!(f, "SimulatedReports {{ certificates: {certificates:?}, version: {version} }}")
    }
}

/// A file descriptor number that the VMM inherits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fd(pub i32);

/// The vsock device; its host side is a listening unix stream socket with Firecracker's `CONNECT port\n` handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// The listening socket.
    pub listener: Fd,
}

/// The scratch disk: a host file that the guest reads and writes; the guest encrypts its contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scratch {
    /// The file, opened for reading and writing; its length, a multiple of 4096, is the disk's size.
    pub file: Fd,
}

/// The network device. Without a TAP it has no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Hardware address that the driver reads at boot.
    pub mac: [u8; 6],
}

/// Number of virtual CPUs, 1 to 64 (`CONFIG_NR_CPUS` of the guest kernel).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Vcpus(u8);

impl Vcpus {
    /// The count.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Vcpus {
    type Error = SpecError;
    fn try_from(n: u8) -> Result<Self, SpecError> {
        if (1..=64).contains(&n) {
            Ok(Self(n))
        } else {
            Err(SpecError::Vcpus(n))
        }
    }
}

impl From<Vcpus> for u8 {
    fn from(n: Vcpus) -> u8 {
        n.0
    }
}

/// Guest memory in MiB, 64 to 1 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct MemoryMib(u32);

impl MemoryMib {
    /// In MiB.
    pub fn get(self) -> u32 {
        self.0
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0) << 20
    }
}

impl TryFrom<u32> for MemoryMib {
    type Error = SpecError;
    fn try_from(n: u32) -> Result<Self, SpecError> {
        if (64..=1 << 20).contains(&n) {
            Ok(Self(n))
        } else {
            Err(SpecError::Memory(n))
        }
    }
}

impl From<MemoryMib> for u32 {
    fn from(n: MemoryMib) -> u32 {
        n.0
    }
}

/// 32 bytes, lower-case hex in JSON: HOST_DATA of an SNP guest (SNP ABI, `MSG_REPORT_RSP`), or any SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostData(pub [u8; 32]);

impl TryFrom<String> for HostData {
    type Error = SpecError;
    fn try_from(text: String) -> Result<Self, SpecError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(|_| SpecError::Hash)?;
        Ok(Self(bytes))
    }
}

impl From<HostData> for String {
    fn from(h: HostData) -> String {
        hex::encode(h.0)
    }
}

/// Why a spec is invalid.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Outside 1 to 64.
    #[error("{0} vCPUs requested; 1 to 64 are possible")]
    Vcpus(u8),
    /// Outside 64 MiB to 1 TiB.
    #[error("{0} MiB of memory requested; 64 to 1048576 are possible")]
    Memory(u32),
    /// More than [`VolumeSlots::MAX`].
    #[error("{0} volume slots requested; {max} are possible", max = VolumeSlots::MAX)]
    VolumeSlots(u8),
    /// Root's id, or -1.
    #[error("the VMM cannot run as user or group {0}; ids from 1 to 4294967294 are possible")]
    Privileged(u32),
    /// Not 64 hex digits.
    #[error("a digest must be 64 hex digits")]
    Hash,
    /// A simulated TEE without a key, or a key without a simulated TEE.
    #[error("`reports` is for guests with tee `simulated`, and they need it")]
    Reports,
    /// Nobody would verify what is measured.
    #[error("tee `simulated` needs boot `verified`: nothing else is measured")]
    Unmeasured,
    /// Nobody would ask.
    #[error("tee `simulated` needs `vsock`, on which the guest asks for reports")]
    Unreachable,
    /// SNP needs measured boot.
    #[error("a guest with tee `snp` cannot boot a kernel directly: nothing would verify the kernel in the guest")]
    DirectUnderSnp,
    /// Nothing would read it.
    #[error("the spec has what the launch of a guest with tee `snp` is given, for a guest with another tee")]
    SnpOfAnotherTee,
    /// Longer than [`SPEC_MAX_BYTES`].
    #[error("the spec is longer than {SPEC_MAX_BYTES} bytes")]
    TooLong,
    /// Not a spec in JSON.
    #[error("the spec is not valid")]
    Json(#[source] serde_json::Error),
}

impl VmSpec {
    /// Parses JSON.
    pub fn from_json(bytes: &[u8]) -> Result<Self, SpecError> {
        if bytes.len() > SPEC_MAX_BYTES {
            return Err(SpecError::TooLong);
        }
        serde_json::from_slice::<Self>(bytes).map_err(SpecError::Json)?.consistent()
    }

    fn consistent(self) -> Result<Self, SpecError> {
        if self.snp.is_some() && self.tee != Tee::Snp {
            return Err(SpecError::SnpOfAnotherTee);
        }
        if (self.tee == Tee::Simulated) != self.reports.is_some() {
            return Err(SpecError::Reports);
        }
        if self.tee == Tee::Simulated {
            if matches!(self.boot, Boot::Direct(_)) {
                return Err(SpecError::Unmeasured);
            }
            if self.vsock.is_none() {
                return Err(SpecError::Unreachable);
            }
        }
        if self.tee == Tee::Snp && matches!(self.boot, Boot::Direct(_)) {
            return Err(SpecError::DirectUnderSnp);
        }
        Ok(self)
    }

    /// Serialises to JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, SpecError> {
        serde_json::to_vec(self).map_err(SpecError::Json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snp_needs_stage0_and_what_it_is_given_needs_snp() {
        let parse = |tee: &str, verified: bool, snp: &str| {
            let zeros = "00".repeat(32);
            let payload = format!(r#"{{"kernel":3,"kernel_sha256":"{zeros}","initrd":null,"initrd_sha256":"{zeros}","cmdline":""}}"#);
            let boot = match verified {
                true => format!(r#"{{"verified":{{"stage0":8,"payload":{payload}}}}}"#),
                false => format!(r#"{{"direct":{payload}}}"#),
            };
            let json = format!(r#"{{"vcpus":1,"memory":256,"boot":{boot},"tee":"{tee}","host_data":"{zeros}","control":4{snp}}}"#);
            VmSpec::from_json(json.as_bytes())
        };
        let given = r#","snp":{"policy":196608,"id":{"block":5,"authentication":6},"certificates":7}"#;
        assert_eq!(parse("plain", false, "").unwrap().snp, None);
        let snp = parse("snp", true, given).unwrap().snp.unwrap();
        assert_eq!(
            (snp.policy, snp.certificates, snp.without_vcek),
            (Some(0x3_0000), Some(Fd(7)), false)
        );
        assert!(parse("snp", true, "").is_ok());
        assert!(matches!(parse("snp", false, given), Err(SpecError::DirectUnderSnp)));
        assert!(matches!(parse("simulated", true, given), Err(SpecError::SnpOfAnotherTee)));
        assert!(matches!(parse("snp", true, r#","snp":{"polcy":1}"#), Err(SpecError::Json(_))));
    }

    #[test]
    fn an_identity_is_never_root() {
        let parse = |text| serde_json::from_str::<Identity>(text);
        assert!(parse(r#"{"uid":1,"gid":4294967294}"#).is_ok());
        for wrong in [
            r#"{"uid":0,"gid":1}"#,
            r#"{"uid":1,"gid":0}"#,
            r#"{"uid":4294967295,"gid":1}"#,
            r#"{"uid":1}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn simulated_reports_have_a_key_a_measured_guest_and_a_port() {
        let payload =
            r#"{"kernel":3,"kernel_sha256":"00","initrd":null,"initrd_sha256":"00","cmdline":""}"#.replace("00", &"00".repeat(32));
        let direct = format!(r#"{{"direct":{payload}}}"#);
        let verified = format!(r#"{{"verified":{{"stage0":4,"payload":{payload}}}}}"#);
        let reports = r#","reports":{"key":"12","certificates":5,"version":5}"#;
        let vsock = r#","vsock":{"listener":6}"#;
        let spec = |tee: &str, boot: &str, more: &[&str]| {
            let host_data = "00".repeat(32);
            let more = more.concat();
            let json = format!(r#"{{"vcpus":1,"memory":128,"boot":{boot},"tee":"{tee}","host_data":"{host_data}","control":7{more}}}"#);
            VmSpec::from_json(json.as_bytes())
        };
        let whole = spec("simulated", &verified, &[reports, vsock]).unwrap();
        assert!(!format!("{whole:?}").contains("key"), "the key is shown");
        assert!(spec("plain", &direct, &[vsock]).is_ok());
        assert!(matches!(spec("simulated", &verified, &[vsock]), Err(SpecError::Reports)));
        assert!(matches!(spec("plain", &verified, &[reports, vsock]), Err(SpecError::Reports)));
        assert!(matches!(spec("simulated", &direct, &[reports, vsock]), Err(SpecError::Unmeasured)));
        assert!(matches!(spec("simulated", &verified, &[reports]), Err(SpecError::Unreachable)));
    }
}
