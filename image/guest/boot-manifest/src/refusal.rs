//! Why stage0 does not start the kernel: one code per cause, from the guest to the VMM.

/// Port to which stage0 writes the code of a guest without SNP. Such a guest has no other way to its VMM that early.
pub const REFUSAL_PORT: u16 = 0x604;
/// Reason code set of the termination request of the GHCB protocol (GHCB specification, 2.3.1): sets from 1 on are the guest's.
pub const REFUSAL_CODE_SET: u8 = 0xc;

/// A cause, with its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// A fault of stage0 itself.
    Internal = 0x01,
    /// The boot page cannot be read.
    BootPage = 0x10,
    /// The boot page is one of SNP without encrypted page tables, or the other way round.
    Mode = 0x11,
    /// The staging page cannot be read.
    StagingPage = 0x12,
    /// The amount of RAM is not a multiple of 2 MiB, or out of bounds.
    Ram = 0x13,
    /// Kernel and initramfs do not fit in RAM.
    Room = 0x14,
    /// The kernel is not the measured one.
    Kernel = 0x20,
    /// The initramfs is not the measured one.
    Initrd = 0x21,
    /// A page had been validated before: the host has exchanged it.
    ValidatedTwice = 0x30,
    /// A page could not be validated.
    Validation = 0x31,
}

impl Refusal {
    /// Every cause.
    pub const ALL: [Self; 10] = [
        Self::Internal,
        Self::BootPage,
        Self::Mode,
        Self::StagingPage,
        Self::Ram,
        Self::Room,
        Self::Kernel,
        Self::Initrd,
        Self::ValidatedTwice,
        Self::Validation,
    ];

    /// The number in the guest's message.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The cause of a code.
    pub fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }

    /// The cause, and what to do.
    pub fn text(self) -> &'static str {
        match self {
            Self::Internal => "stage0 failed; report this",
            Self::BootPage => "the boot page is damaged or of another version; use VMM and guest image of one build",
            Self::Mode => "the boot page's mode is not the mode in which the guest was launched",
            Self::StagingPage => "the staging page is damaged or of another version; use VMM and guest image of one build",
            Self::Ram => "the guest's memory is not a multiple of 2 MiB, or too small or large",
            Self::Room => "kernel and initramfs do not fit in the guest's memory; give it more",
            Self::Kernel => "the kernel is not the one that the boot manifest names; rebuild or reinstall the guest image",
            Self::Initrd => "the initramfs is not the one that the boot manifest names; rebuild or reinstall the guest image",
            Self::ValidatedTwice => "the host has exchanged a page of memory",
            Self::Validation => "a page of memory cannot be validated",
        }
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_cause() {
        let found: Vec<Refusal> = (0..=u8::MAX).filter_map(Refusal::of_code).collect();
        assert_eq!(found, Refusal::ALL);
        let texts: std::collections::BTreeSet<&str> = found.iter().map(|refusal| refusal.text()).collect();
        assert_eq!(texts.len(), found.len());
    }
}
