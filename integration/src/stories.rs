//! The stories: each one tells what a user does and sees, through containerd's own `ctr`, inside L1.
//!
//! The plain ones also run on runc: what fails there is a fault of the story.

mod additions;
mod agent;
mod confinement;
mod damage;
mod denial;
mod escape;
mod faults;
mod growth;
mod hostile_host;
mod lifecycle;
mod output;
mod points;
pub mod sets;
mod streams;
mod task;

use crate::lab::{Lab, Runtime};
use anyhow::Result;
use serde::{Deserialize, Serialize};

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
    Story {
        name: "denied-points",
        about: "every call of the agent is denied by its enforcement point, by name, and the log stays inside",
        runtimes: OURS,
        tell: points::denied_everywhere,
    },
    Story {
        name: "denied-confinement",
        about: "a policy with a casemate_version judges paths, namespaces, limits and kernel parameters",
        runtimes: OURS,
        tell: points::confined,
    },
    Story {
        name: "fragment",
        about: "a signed fragment allows what the policy alone does not; forged or unexpected it is refused",
        runtimes: OURS,
        tell: additions::fragment,
    },
    Story {
        name: "security-context",
        about: "a container finds its policy, unless it is told not to",
        runtimes: OURS,
        tell: additions::security_context,
    },
    Story {
        name: "console",
        about: "an operator sees in the guest what the policy lets him see",
        runtimes: OURS,
        tell: additions::console,
    },
    Story {
        name: "task-codes",
        about: "every Task call in every state, against one table of codes",
        runtimes: BOTH,
        tell: task::codes,
    },
    Story {
        name: "terminal",
        about: "a terminal has the size that it was given, before and after the start",
        runtimes: BOTH,
        tell: task::terminal,
    },
    Story {
        name: "close-io",
        about: "the announced end of input comes after all that was typed",
        runtimes: BOTH,
        tell: task::close_io,
    },
    Story {
        name: "pause",
        about: "a paused container uses no time, goes on, and can be killed",
        runtimes: BOTH,
        tell: task::pause,
    },
    Story {
        name: "update",
        about: "new limits on memory and processes hold",
        runtimes: BOTH,
        tell: task::update,
    },
    Story {
        name: "stats",
        about: "counters tell what a container uses, also by ctr task metrics",
        runtimes: BOTH,
        tell: task::stats,
    },
    Story {
        name: "oom",
        about: "a process too large is ended, and one event tells it",
        runtimes: BOTH,
        tell: task::oom,
    },
    Story {
        name: "many-waiters",
        about: "all who wait are told the same exit, early and late",
        runtimes: BOTH,
        tell: task::many_waiters,
    },
    Story {
        name: "log-schemes",
        about: "outputs go to a file and to a logging program",
        runtimes: BOTH,
        tell: task::log_schemes,
    },
    Story {
        name: "containerd-restarted",
        about: "containerd is killed and comes back: output, exit status and events are whole",
        runtimes: BOTH,
        tell: task::containerd_restarted,
    },
    Story {
        name: "shim-killed",
        about: "the shim is killed: its VM and its files are gone soon",
        runtimes: OURS,
        tell: task::shim_killed,
    },
    Story {
        name: "flow-control",
        about: "a stream that nobody reads holds up no other",
        runtimes: BOTH,
        tell: streams::flow_control,
    },
    Story {
        name: "exit-before-end",
        about: "an exit is told before the end of a stream that somebody still writes",
        runtimes: BOTH,
        tell: streams::exit_before_end,
    },
    Story {
        name: "gigabyte",
        about: "a gigabyte goes to a slow reader in bounded memory",
        runtimes: BOTH,
        tell: streams::gigabyte,
    },
    Story {
        name: "vmm-killed-anywhere",
        about: "VMMs are killed at random moments: 137 where the container had started, an error before, nothing left",
        runtimes: OURS,
        tell: faults::vmms_killed,
    },
    Story {
        name: "shim-killed-anywhere",
        about: "shims are killed at random moments: containerd tells 137, and `delete` leaves nothing",
        runtimes: OURS,
        tell: faults::shims_killed,
    },
    Story {
        name: "containerd-killed",
        about: "containerd is killed at random moments: what runs goes on, what ended meanwhile is told, nothing is left",
        runtimes: OURS,
        tell: faults::containerd_killed,
    },
    Story {
        name: "exec-killed",
        about: "what starts a further process is killed inside the guest: 137 or an error, and the container goes on",
        runtimes: OURS,
        tell: faults::execs_killed,
    },
    Story {
        name: "start-starved",
        about: "what starts a container is killed by the guest's kernel for lack of memory: 137 or an error, and the pod goes on",
        runtimes: OURS,
        tell: faults::starved_starts,
    },
    Story {
        name: "scratch-full",
        about: "a full scratch disk is an error to who writes, and room again when something is removed",
        runtimes: OURS,
        tell: faults::scratch_full,
    },
    Story {
        name: "cache-full",
        about: "a full disk under the layer cache and the scratch disk is a clear error, and no half layer stays",
        runtimes: OURS,
        tell: faults::cache_full,
    },
    Story {
        name: "cache-read-only",
        about: "a read-only layer cache is a clear error",
        runtimes: OURS,
        tell: faults::cache_read_only,
    },
    Story {
        name: "run-full",
        about: "a full /run is a clear error to a new container, and one that runs can still be ended",
        runtimes: OURS,
        tell: faults::run_full,
    },
    Story {
        name: "clock-steps",
        about: "the host's clock jumps a day ahead and back under running and booting containers",
        runtimes: OURS,
        tell: faults::clock_steps,
    },
    Story {
        name: "slow-reader",
        about: "a slow reader gets every byte, also those written just before the exit",
        runtimes: BOTH,
        tell: faults::slow_reader,
    },
    Story {
        name: "stuck-reader",
        about: "a reader that never reads costs bounded memory; exec, kill and exit work beside it",
        runtimes: OURS,
        tell: faults::stuck_reader,
    },
    Story {
        name: "full-log",
        about: "a log file on a full disk loses what does not fit, and the container ends as it wants",
        runtimes: OURS,
        tell: faults::full_log,
    },
    Story {
        name: "growth-sequential",
        about: "200 containers one after another: no growth of processes, sockets, mounts, files or memory",
        runtimes: OURS,
        tell: growth::sequential,
    },
    Story {
        name: "growth-parallel",
        about: "10 containers at a time, three times: no growth",
        runtimes: OURS,
        tell: growth::parallel,
    },
    Story {
        name: "guest-programs",
        about: "a container that has the guest's launcher run inside cannot change it, nor see the guest's files",
        runtimes: OURS,
        tell: escape::guest_programs,
    },
    Story {
        name: "nested-virtualisation",
        about: "a guest is offered no nested virtualisation and no counters of the host",
        runtimes: OURS,
        tell: escape::nested_virtualisation,
    },
    Story {
        name: "no-vsock",
        about: "a container cannot open AF_VSOCK",
        runtimes: OURS,
        tell: hostile_host::no_vsock,
    },
    Story {
        name: "hostile-host",
        about: "of 5 000 random, mutated and re-ordered requests to the agent none has an effect that the policy denies",
        runtimes: OURS,
        tell: |lab| hostile_host::hostile_host(lab, 5_000),
    },
    Story {
        name: "hostile-host-full",
        about: "the same with 100 000 requests",
        runtimes: OURS,
        tell: |lab| hostile_host::hostile_host(lab, 100_000),
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
