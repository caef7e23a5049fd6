//! L1: a Debian machine with a /dev/kvm that works, for hosts whose own does not boot Linux (QEMU emulates AMD SVM).
//!
//! ```text
//!  image ──► machine ──► "containerd answers" ──saved──► base snapshot        (cached: image and QEMU build)
//!                          base ──► job unpacked, images imported ──saved──► prepared snapshot   (one per run)
//!                                     prepared ──► story    prepared ──► story    …  two at a time, 0.3 s each
//! ```
//! Where the host's own KVM runs Linux, L1 is an ordinary KVM guest, booted afresh each time.

pub mod accel;
pub mod build;
pub mod machine;
mod qmp;
pub mod snapshot;

/// Debian suites that an L1 can be made of, with the containerd that each brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Debian 12, containerd 1.6.
    Bookworm,
    /// Debian 13, containerd 1.7.
    Trixie,
}

impl Suite {
    /// As Debian writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}
