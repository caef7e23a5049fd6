//! The program: takes its job, gives up every privilege, converts, reports.
//!
//! It waits for the job before it reads the blob: by then the shim has put it into the pod's cgroup.

use crate::{filter, limits};
use confine::{
    allocator,
    descriptors::{DescriptorError, Inherited},
    privileges::{self, Identity, JailError},
    seccomp::{FilterError, Rule},
};
use converter_protocol::{Job, JobError, Report};
use layer::{ConvertError, Converted, Limits};
use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal},
    unistd::getppid,
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
};

/// Size of the input and output buffers in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Why a conversion could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command line.
    #[error("usage: casemate-converter --job-fd N, where N is an inherited descriptor; the shim runs this program")]
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
    /// The shim has ended.
    #[error("the shim has ended")]
    Orphan,
    /// A privilege cannot be dropped.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The converter would outlive its shim.
    #[error("cannot end with the shim")]
    DeathSignal(#[source] Errno),
    /// The filter of system calls is not there.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// Allocations from this size are given back when they are freed, in bytes.
const MAPPED: u32 = 4 << 20;

/// Blob and image.
struct Files {
    blob: File,
    image: File,
    /// Its lock counts this process.
    _slot: OwnedFd,
}

/// Converts one layer from `arguments` (without the program's name), with the system calls of `rules`.
///
/// Call it once, from the main thread, before the process opens a file or starts a thread: it closes descriptors and drops
/// privileges.
pub fn run<'a>(arguments: impl Iterator<Item = OsString>, rules: impl IntoIterator<Item = &'a Rule>) -> ExitCode {
    allocator::keep_freed_memory(MAPPED);
    let report = match confined(arguments, rules) {
        Err(error) => Report::Unable(with_causes(&error)),
        Ok(files) => match convert(files) {
            Ok(converted) => Report::Converted(converted),
            Err(error) => Report::Refused(with_causes(&error)),
        },
    };
    let said = io::stderr().write_all(report.to_line().as_bytes());
    match (report, said) {
        (Report::Converted(_), Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Waits for the job, and gives up everything but what the conversion needs.
fn confined<'a>(arguments: impl Iterator<Item = OsString>, rules: impl IntoIterator<Item = &'a Rule>) -> Result<Files, StartError> {
    let mut inherited = Inherited::default();
    let job = read_job(arguments, &mut inherited)?;
    let slot = inherited.take("slot", job.slot)?;
    inherited.close_others()?;
    let own = |stream: io::Result<OwnedFd>| stream.map(File::from).map_err(StartError::Read);
    let files = Files {
        blob: own(io::stdin().as_fd().try_clone_to_owned())?,
        image: own(io::stdout().as_fd().try_clone_to_owned())?,
        _slot: slot,
    };
    // Where the pod's memory ends, the converter ends and not the VM. Best effort: a host may have no /proc.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    limits::set(job.id.is_some())?;
    privileges::redirect_standard_streams()?;
    privileges::drop_all(job.id.map(|id| Identity { uid: id, gid: id }))?;
    // A change of user clears it, so it comes after that; a shim that ended before it is seen by its absence.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(StartError::DeathSignal)?;
    if u32::try_from(getppid().as_raw()) != Ok(job.parent) {
        return Err(StartError::Orphan);
    }
    filter::install(rules)?;
    Ok(files)
}

/// Reads the job to its end, which a shim that ends sends too.
fn read_job(mut arguments: impl Iterator<Item = OsString>, inherited: &mut Inherited) -> Result<Job, StartError> {
    let number = match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(option), Some(number), None) if option == "--job-fd" => number.to_str().and_then(|n| n.parse().ok()),
        _ => None,
    };
    let pipe = File::from(inherited.take("--job-fd", number.ok_or(StartError::Usage)?)?);
    let mut text = Vec::new();
    pipe.take(Job::READ_BYTES).read_to_end(&mut text).map_err(StartError::Read)?;
    Ok(Job::from_json(&text)?)
}

fn convert(files: Files) -> Result<Converted, ConvertError> {
    let input = BufReader::with_capacity(BUFFER_BYTES, files.blob);
    let mut output = BufWriter::with_capacity(BUFFER_BYTES, files.image);
    layer::convert(input, &mut output, &Limits::default())
}

/// An error with all its causes, separated by colons.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
