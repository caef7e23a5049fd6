//! What emulates or virtualises the processors of L1.

/// What L1's processors are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The host's, with nested virtualisation.
    Kvm,
    /// Emulated, AMD SVM included; and why.
    Tcg(String),
    /// Emulated by counting: one processor, and each instruction of L1 and of the VMs in it takes 2 ns of its clock, however
    /// busy the host is. For benchmarks that are to give the same figures again.
    Counted,
}

impl Accel {
    /// How many processors L1 has. One where they are emulated: processors kick each other's threads, and a kick at the wrong
    /// moment lets QEMU deliver an interrupt to a VM twice ([`super::machine`] explains how). With two, five of 47 rounds of `hostile-host` ended in
    /// a triple fault or a hung guest; with one, none of 59. Two machines on two cores are not slower for it.
    pub fn processors(&self) -> u32 {
        match self {
            Self::Kvm => 2,
            Self::Tcg(_) | Self::Counted => 1,
        }
    }

    /// For the tables that name it.
    pub fn describe(&self) -> String {
        match self {
            Self::Kvm => "the host's KVM, nested".to_owned(),
            Self::Tcg(why) => format!("emulation (TCG): {why}"),
            Self::Counted => "emulation by the instruction clock: 2 ns an instruction".to_owned(),
        }
    }
}
