//! The stories: each one tells what a user does and sees, through containerd's own `ctr`, inside L1.
//!
//! The plain ones also run on runc: what fails there is a fault of the story.

mod agent;
mod confinement;
mod damage;
mod denial;
mod lifecycle;
mod output;

use crate::lab::Lab;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The runtime that containerd is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// `io.containerd.runc.v2`, the known-good thing.
    Runc,
    /// `io.containerd.casemate.v2`.
    Casemate,
}

impl Runtime {
    /// Containerd's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "io.containerd.runc.v2",
            Self::Casemate => "io.containerd.casemate.v2",
        }
    }

    /// One word for tables and file names.
    pub fn short(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Casemate => "casemate",
        }
    }
}

const BOTH: &[Runtime] = &[Runtime::Runc, Runtime::Casemate];
const OURS: &[Runtime] = &[Runtime::Casemate];

/// A story.
pub struct Story {
    /// One word, as typed.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// Where it can be told.
    pub runtimes: &'static [Runtime],
    /// The story itself; what it returns as an error is what went wrong.
    pub tell: fn(&Lab) -> Result<()>,
}

/// A reason why a story cannot be told here; returned as an error it counts as skipped.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub String);

/// What came of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed,
    /// Could not be told here.
    Skipped,
}

/// A story's result, on its way from L1 to the harness.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Passed, failed or skipped.
    pub outcome: Outcome,
    /// Why, unless passed.
    pub message: String,
    /// Time in L1.
    pub seconds: f32,
}

impl Report {
    /// Its file in /job/out.
    pub const FILE: &str = "report.json";
}

/// Every story, in the order in which they are told.
pub const ALL: &[Story] = &[
    Story {
        name: "run",
        about: "a container says what it was told to say, and is gone",
        runtimes: BOTH,
        tell: lifecycle::run,
    },
    Story {
        name: "exit-code",
        about: "exit code 7 arrives as 7",
        runtimes: BOTH,
        tell: lifecycle::exit_code,
    },
    Story {
        name: "stdin-eof",
        about: "what is typed arrives, and so does its end",
        runtimes: BOTH,
        tell: output::stdin_with_eof,
    },
    Story {
        name: "ten-megabytes",
        about: "10 MB of output arrive whole",
        runtimes: BOTH,
        tell: output::ten_megabytes,
    },
    Story {
        name: "exec",
        about: "a second process runs beside the first, with its own exit code",
        runtimes: BOTH,
        tell: lifecycle::exec,
    },
    Story {
        name: "kill",
        about: "SIGTERM is handled by the process, SIGKILL ends it with 137",
        runtimes: BOTH,
        tell: lifecycle::kill,
    },
    Story {
        name: "layers",
        about: "a multi-layer image with whiteouts looks as it was built; redis answers",
        runtimes: BOTH,
        tell: lifecycle::layers,
    },
    Story {
        name: "guest-kernel",
        about: "the container sees the guest's kernel, not the host's",
        runtimes: OURS,
        tell: lifecycle::guest_kernel,
    },
    Story {
        name: "allowed",
        about: "what the policy lists runs under it",
        runtimes: OURS,
        tell: denial::allowed,
    },
    Story {
        name: "denied-command",
        about: "another command than the policy's is denied, with the reason",
        runtimes: OURS,
        tell: denial::command,
    },
    Story {
        name: "denied-layer",
        about: "a changed layer is denied, with the reason",
        runtimes: OURS,
        tell: denial::layer,
    },
    Story {
        name: "denied-exec",
        about: "an exec that the policy does not list is denied; the container goes on",
        runtimes: OURS,
        tell: denial::exec,
    },
    Story {
        name: "flipped-bit",
        about: "a flipped bit in a cached layer is an I/O error inside",
        runtimes: OURS,
        tell: damage::flipped_bit,
    },
    Story {
        name: "broken-layer",
        about: "a layer whose file system is damaged does not start, with a clear error",
        runtimes: OURS,
        tell: damage::broken_layer,
    },
    Story {
        name: "vmm-killed",
        about: "the VMM is killed: exit 137, nothing left",
        runtimes: OURS,
        tell: damage::vmm_killed,
    },
    Story {
        name: "vmm-confined",
        about: "the VMM of a running container has a user of its own, no privilege, no file, and a filter on every thread",
        runtimes: OURS,
        tell: confinement::vmm_confined,
    },
    Story {
        name: "wrong-policy",
        about: "a policy that does not hash to host data is refused",
        runtimes: OURS,
        tell: agent::wrong_policy,
    },
    Story {
        name: "policy-first",
        about: "the agent serves nothing before SetPolicy, and takes it once",
        runtimes: OURS,
        tell: agent::policy_first,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_typeable() {
        let mut names: Vec<_> = ALL.iter().map(|story| story.name).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
