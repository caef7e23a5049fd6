//! Status codes of the secure processor, with what an operator can do.

use std::fmt;

/// A status other than success (SNP firmware ABI, chapter 6; Linux `include/uapi/linux/psp-sev.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// A page's or a parameter's contents are not accepted.
    pub const INVALID_PARAM: Self = Self(0x16);

    /// Its name in the specification.
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(code, ..)| *code == self.0)
            .map_or("unknown status", |(_, name, _)| name)
    }

    /// What it says of this host, or what to do, where that is known.
    pub fn advice(self) -> Option<&'static str> {
        let (.., advice) = NAMES.iter().find(|(code, ..)| *code == self.0)?;
        (!advice.is_empty()).then_some(advice)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#x})", self.name(), self.0)?;
        self.advice().map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

const NOT_READY: &str = "SNP is not initialised; enable it in the firmware setup, load ccp and kvm_amd, and see the kernel's log";
const NO_ROOM: &str = "stop other SNP guests, or give SNP more ASIDs in the firmware setup";
const UPDATE: &str = "update the host's firmware, or roll the last update of it back";
const RESET: &str = "the secure processor needs a reset of the host";

const NAMES: [(u32, &str, &str); 38] = [
    (0x01, "INVALID_PLATFORM_STATE", NOT_READY),
    (0x02, "INVALID_GUEST_STATE", ""),
    (0x03, "INVALID_CONFIG", NOT_READY),
    (0x04, "INVALID_LEN", ""),
    (0x05, "ALREADY_OWNED", ""),
    (0x06, "INVALID_CERTIFICATE", ""),
    (
        0x07,
        "POLICY_FAILURE",
        "this host does not satisfy the guest policy: its ABI version, SMT, or a feature that the policy asks for",
    ),
    (0x08, "INACTIVE", ""),
    (0x09, "INVALID_ADDRESS", ""),
    (
        0x0a,
        "BAD_SIGNATURE",
        "a signature of the ID block is wrong; sign the ID block again",
    ),
    (
        0x0b,
        "BAD_MEASUREMENT",
        "the guest is not the one that the ID block names; sign an ID block for this image and number of vCPUs",
    ),
    (0x0c, "ASID_OWNED", ""),
    (0x0d, "INVALID_ASID", ""),
    (0x0e, "WBINVD_REQUIRED", ""),
    (0x0f, "DF_FLUSH_REQUIRED", ""),
    (0x10, "INVALID_GUEST", ""),
    (0x11, "INVALID_COMMAND", UPDATE),
    (0x12, "ACTIVE", ""),
    (0x13, "HWERROR_PLATFORM", RESET),
    (0x14, "HWERROR_UNSAFE", RESET),
    (0x15, "UNSUPPORTED", UPDATE),
    (0x16, "INVALID_PARAM", ""),
    (0x17, "RESOURCE_LIMIT", NO_ROOM),
    (0x18, "SECURE_DATA_INVALID", ""),
    (0x19, "INVALID_PAGE_SIZE", ""),
    (
        0x1a,
        "INVALID_PAGE_STATE",
        "a page was launched twice, or not given to the guest before",
    ),
    (0x1b, "INVALID_MDATA_ENTRY", ""),
    (0x1c, "INVALID_PAGE_OWNER", ""),
    (0x1d, "AEAD_OFLOW", ""),
    (0x1f, "EXIT_RING_BUFFER", ""),
    (0x20, "RMP_INIT_REQUIRED", NOT_READY),
    (0x21, "BAD_SVN", UPDATE),
    (0x22, "BAD_VERSION", UPDATE),
    (0x23, "SHUTDOWN_REQUIRED", RESET),
    (0x24, "UPDATE_FAILED", UPDATE),
    (0x25, "RESTORE_REQUIRED", UPDATE),
    (0x26, "RMP_INITIALIZATION_FAILED", NOT_READY),
    (0x27, "INVALID_KEY", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_its_name_its_number_and_what_to_do() {
        assert_eq!(
            Status(0x17).to_string(),
            "RESOURCE_LIMIT (0x17): stop other SNP guests, or give SNP more ASIDs in the firmware setup"
        );
        assert_eq!(Status(0x16).to_string(), "INVALID_PARAM (0x16)");
        assert_eq!(Status(0xffff).to_string(), "unknown status (0xffff)");
    }

    #[test]
    fn codes_ascend() {
        assert!(NAMES.is_sorted_by_key(|(code, ..)| code));
    }
}
