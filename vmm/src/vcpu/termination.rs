//! Why an SNP guest terminated itself, from its last words: the GHCB MSR (GHCB specification, 2.3.1, "termination request").

use crate::exit_reason::ExitReason;
use boot_manifest::REFUSAL_CODE_SET;

/// GHCBData\[11:0\] of a termination request.
const TERMINATION: u64 = 0x100;
/// Reasons of the specification (table 6).
const GENERAL: (u64, [&str; 4]) = (
    0,
    [
        "for a reason that it does not give",
        "because this host speaks no version of the GHCB protocol that it knows",
        "because it has no GHCB",
        "because this host lacks a feature of SEV-SNP that it needs",
    ],
);
/// Reasons of Linux (`arch/x86/include/asm/sev-common.h`, `SEV_TERM_SET_LINUX`).
const LINUX: (u64, [&str; 12]) = (
    1,
    [
        "because this host did not register its GHCB page",
        "because this host did not convert its memory",
        "because a page could not be validated",
        "because it does not run at VMPL0",
        "because of its CPUID page",
        "because this host's CPUID leaves are invalid",
        "because of its secrets page",
        "because it has no SVSM",
        "because its SVSM does not run at VMPL0",
        "because of its SVSM's calling area",
        "because its secure TSC failed",
        "because its SVSM's calling area could not be moved",
    ],
);

/// Of `KVM_SYSTEM_EVENT_SEV_TERM`, whose first datum is the MSR.
pub fn reason(msr: u64) -> ExitReason {
    if msr & 0xfff == 0 {
        // The page's address: KVM read the reason from it, and logged it.
        return ExitReason::GuestFailed("the guest terminated itself; the reason is in this host's kernel log".to_owned());
    }
    if msr & 0xfff != TERMINATION {
        return ExitReason::GuestFailed(format!("the guest broke the GHCB protocol with request {msr:#x}"));
    }
    let (set, code) = (msr >> 12 & 0xf, msr >> 16 & 0xff);
    if set == u64::from(REFUSAL_CODE_SET) {
        return ExitReason::Refused(code as u8);
    }
    let words = [(GENERAL.0, &GENERAL.1[..]), (LINUX.0, &LINUX.1[..])];
    let known = words
        .iter()
        .find(|(known, _)| *known == set)
        .and_then(|(_, words)| words.get(code as usize));
    let why = known.copied().unwrap_or("for a reason unknown to this VMM");
    ExitReason::GuestFailed(format!("the guest terminated itself {why} (reason {code:#x} of set {set})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_the_specification_of_linux_and_of_stage0_have_words() {
        let words = |msr| match reason(msr) {
            ExitReason::GuestFailed(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(words(0x03_0100).contains("lacks a feature of SEV-SNP"));
        assert!(words(0x01_1100).contains("did not convert its memory"));
        assert!(words(0xff_1100).ends_with("unknown to this VMM (reason 0xff of set 1)"));
        assert!(words(0x2).contains("request 0x2"));
        assert!(words(0x7f_f000).ends_with("kernel log"));
        assert_eq!(reason(0x20_c100), ExitReason::Refused(0x20));
        for msr in 0..1 << 24 {
            reason(msr);
        }
    }
}
