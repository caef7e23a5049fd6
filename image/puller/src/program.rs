//! The program: takes its job, gives up every privilege but the network, pulls, reports.
//!
//! It waits for the job before it reads anything else: by then the agent knows its process id.

use crate::{
    limits,
    pull::{self, Order, OrderError},
};
use confine::{
    descriptors::{DescriptorError, Inherited},
    privileges::{self, Identity, JailError},
    seccomp::{FilterError, Rule},
};
use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal},
    unistd::getppid,
};
use puller_protocol::{Job, JobError, PulledLayer, Report};
use std::{
    ffi::OsString,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read, Write as _},
    process::ExitCode,
    time::Duration,
};

/// Why a pull could not begin.
#[derive(Debug, thiserror::Error)]
enum StartError {
    /// The command line.
    #[error("usage: casemate-puller, without arguments; the agent in a guest runs this program")]
    Usage,
    /// An inherited descriptor cannot be used.
    #[error("cannot take what was inherited")]
    Descriptor(#[from] DescriptorError),
    /// The job cannot be read.
    #[error("cannot read the job")]
    Read(#[source] io::Error),
    /// The job is not valid.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The agent has ended.
    #[error("the agent has ended")]
    Orphan,
    /// A privilege cannot be dropped.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The puller would outlive the agent.
    #[error("cannot end with the agent")]
    DeathSignal(#[source] Errno),
    /// The filter of system calls is not there.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// Pulls one image, with the system calls of `rules`; `arguments` (without the program's name) must be none.
///
/// Call it once, from the main thread, before the process opens a file or starts a thread: it closes descriptors and drops
/// privileges.
pub fn run<'a>(arguments: impl Iterator<Item = OsString>, rules: impl IntoIterator<Item = &'a Rule>) -> ExitCode {
    let report = match confined(arguments, rules) {
        Err(error) => Report::Unable(with_causes(&error)),
        Ok(order) => of(pull::pull(order)),
    };
    let said = io::stderr().write_all(report.to_line().as_bytes());
    match (report, said) {
        (Report::Pulled(_), Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn of(pulled: Result<Vec<PulledLayer>, OrderError>) -> Report {
    match pulled {
        Ok(layers) => Report::Pulled(layers),
        Err(error) => Report::Refused(with_causes(&error)),
    }
}

/// Waits for the job, and gives up everything but what the pull needs.
fn confined<'a>(mut arguments: impl Iterator<Item = OsString>, rules: impl IntoIterator<Item = &'a Rule>) -> Result<Order, StartError> {
    if arguments.next().is_some() {
        return Err(StartError::Usage);
    }
    let mut text = Vec::new();
    let job = io::stdin().lock().take(Job::READ_BYTES).read_to_end(&mut text);
    job.map_err(StartError::Read)?;
    let job = Job::from_json(&text)?;
    let mut inherited = Inherited::default();
    let files = job.files.iter().map(|number| inherited.take("files", *number).map(File::from));
    let files = files.collect::<Result<Vec<_>, _>>()?;
    let configuration = job
        .configuration
        .map(|number| inherited.take("configuration", number))
        .transpose()?;
    inherited.close_others()?;
    // Where the guest's memory ends, the pull ends and nothing else. Best effort: it matters in a guest, which has /proc.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    limits::set(files.len(), job.id.is_some())?;
    privileges::redirect_standard_streams()?;
    let identity = job.id.map(|id| Identity { uid: id, gid: id });
    privileges::drop_all_but_network(identity, &resolv_conf(&job))?;
    // A change of user clears it, so it comes after that; an agent that ended before it is seen by its absence.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(StartError::DeathSignal)?;
    if u32::try_from(getppid().as_raw()) != Ok(job.parent) {
        return Err(StartError::Orphan);
    }
    crate::filter::install(rules)?;
    Ok(Order {
        image: job.image,
        configuration: configuration.map(File::from),
        files,
        known: job.known,
        free_bytes: job.free_bytes,
        nameservers: job.nameservers,
        wait: Duration::from_secs(job.wait_seconds.into()),
    })
}

fn resolv_conf(job: &Job) -> String {
    job.nameservers.iter().fold(String::new(), |mut text, server| {
        let _ = writeln!(text, "nameserver {server}");
        text
    })
}

/// An error with all its causes, separated by colons.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
