//! The runtimes that stories run on.

/// The runtime that containerd uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// `io.containerd.runc.v2`, the baseline.
    Runc,
    /// `io.containerd.casemate.v2`.
    Casemate,
}

impl Runtime {
    /// Its name in containerd.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "io.containerd.runc.v2",
            Self::Casemate => "io.containerd.casemate.v2",
        }
    }

    /// Short name for tables and file names.
    pub fn short(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Casemate => "casemate",
        }
    }
}
