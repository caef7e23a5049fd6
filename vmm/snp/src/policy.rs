//! The guest policy: what the firmware holds the host to for the life of the guest.

/// Bits 7:0 and 15:8: the least ABI version, minor and major.
const ABI: u64 = 0xffff;
/// A host with SMT may run the guest. KVM of Linux 6.11 to 6.13 launches no guest without it.
const SMT: u64 = 1 << 16;
/// Reserved, must be one.
const ONE: u64 = 1 << 17;
/// What every KVM takes beside the ABI version.
const ALWAYS: u64 = SMT | ONE;
/// Taken since Linux 6.14, which does not say so; before, KVM refuses the launch.
const SINGLE_SOCKET: u64 = 1 << 20;
/// Bits that can be asked for: single socket, CXL, AES-256-XTS, RAPL off, ciphertext hiding, no page swap.
const OFFERED: u64 = 0x3f << 20;

/// GUEST_POLICY (SNP firmware ABI, 4.3). The bits that let the host debug (19) or migrate (18) a guest cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPolicy(u64);

/// Why a guest policy cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The host could read or move the guest.
    #[error("the guest policy {0:#x} lets the host debug or migrate the guest")]
    Open(u64),
    /// Bit 17 is clear, or a bit is set that the ABI does not define.
    #[error("the guest policy {0:#x} is malformed: bit 17 must be set, bits 26 and higher must not")]
    Malformed(u64),
    /// KVM does not take these bits.
    #[error("this host's KVM does not know the bits {0:#x} of the guest policy; a newer kernel may")]
    Unknown(u64),
}

impl Default for GuestPolicy {
    /// SMT allowed, nothing else asked for.
    fn default() -> Self {
        Self(ALWAYS)
    }
}

impl TryFrom<u64> for GuestPolicy {
    type Error = PolicyError;
    fn try_from(bits: u64) -> Result<Self, PolicyError> {
        if bits & (1 << 18 | 1 << 19) != 0 {
            Err(PolicyError::Open(bits))
        } else if bits & ONE == 0 || bits & !(ABI | ALWAYS | OFFERED) != 0 {
            Err(PolicyError::Malformed(bits))
        } else {
            Ok(Self(bits))
        }
    }
}

impl GuestPolicy {
    /// All bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether this host's KVM takes the policy. `known` is its `KVM_X86_SNP_POLICY_BITS` (Linux 6.19); older kernels do not say,
    /// and take the bits that have existed since 6.11.
    pub fn check(self, known: Option<u64>) -> Result<Self, PolicyError> {
        match self.0 & !(known.unwrap_or(SINGLE_SOCKET) | ABI | ALWAYS) {
            0 => Ok(self),
            unknown => Err(PolicyError::Unknown(unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_policy_opens_the_guest() {
        assert_eq!(GuestPolicy::default().bits(), 0x3_0000);
        for bit in 0..64 {
            let bits = 0x3_0000 ^ 1 << bit;
            let taken = GuestPolicy::try_from(bits).is_ok();
            assert_eq!(taken, matches!(bit, 0..=16 | 20..=25), "bit {bit}");
        }
    }

    #[test]
    fn an_old_kernel_is_not_asked_for_new_bits() {
        let hiding = GuestPolicy::try_from(0x103_0000).unwrap();
        let one_socket = GuestPolicy::try_from(0x13_0000).unwrap();
        assert_eq!(one_socket.check(None), Ok(one_socket));
        assert_eq!(hiding.check(None), Err(PolicyError::Unknown(0x100_0000)));
        assert_eq!(hiding.check(Some(0x103_ffff)), Ok(hiding));
        assert_eq!(hiding.check(Some(0x3_ffff)), Err(PolicyError::Unknown(0x100_0000)));
        assert!(GuestPolicy::try_from(0x3_0137).unwrap().check(None).is_ok());
    }
}
