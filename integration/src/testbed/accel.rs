//! How L1's processors are provided.

/// Virtualised or emulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the host's KVM, with nested virtualisation.
    Kvm,
    /// Emulated with AMD SVM, and why.
    Tcg(String),
    /// Emulated with an instruction clock: one processor; each instruction of L1 and of the VMs in it takes 2 ns, however
    /// busy the host is. For benchmarks with repeatable figures.
    Counted,
}

impl Accel {
    /// Number of processors of L1. One if they are emulated: processors kick each other's threads, and a kick at the wrong
    /// moment makes QEMU deliver an interrupt to a VM twice ([`super::machine`] explains how). With two, five of 47 rounds of
    /// `hostile-host` ended in a triple fault or a hung guest; with one, none of 59. Two machines on two cores are not slower for it.
    pub fn processors(&self) -> u32 {
        match self {
            Self::Kvm => 2,
            Self::Tcg(_) | Self::Counted => 1,
        }
    }

    /// Name for tables.
    pub fn describe(&self) -> String {
        match self {
            Self::Kvm => "the host's KVM, nested".to_owned(),
            Self::Tcg(why) => format!("emulation (TCG): {why}"),
            Self::Counted => "emulation with an instruction clock: 2 ns per instruction".to_owned(),
        }
    }
}
